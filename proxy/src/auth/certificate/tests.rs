//! Certificates made for each case, and broken.

use proptest::prelude::*;
use ssh_key::{EcdsaCurve, PrivateKey, certificate::Builder};

use super::*;
use crate::policy::{ALL, Permissions};

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 2, 3));

fn key(algorithm: Algorithm) -> PrivateKey {
    PrivateKey::random(&mut rand::rng(), algorithm).expect("a key")
}

fn now() -> Timestamp {
    Timestamp::from_second(1_000).expect("a time")
}

struct Case {
    ca: PrivateKey,
    subject: PrivateKey,
}

impl Case {
    fn new() -> Self {
        let ca = key(Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 });
        Self { ca, subject: key(Algorithm::Ed25519) }
    }

    fn certificate(&self, change: impl FnOnce(&mut Builder)) -> Certificate {
        let mut builder = Builder::new_with_random_nonce(
            &mut rand::rng(),
            self.subject.public_key().key_data().clone(),
            500,
            1_500,
        )
        .expect("a builder");
        builder.serial(7).expect("serial").key_id("ada-1").expect("id");
        change(&mut builder);
        // Unless it has one already.
        let _ = builder.cert_type(CertType::User);
        builder.sign(&self.ca).expect("a certificate")
    }

    fn good(&self, change: impl FnOnce(&mut Builder)) -> Certificate {
        self.certificate(|builder| {
            builder.valid_principal("ada@example.com").expect("principal");
            change(builder);
        })
    }

    fn check(&self, certificate: &Certificate) -> Result<Restrictions, CertificateError> {
        self.check_at(certificate, now())
    }

    fn check_at(&self, certificate: &Certificate, now: Timestamp) -> Result<Restrictions, CertificateError> {
        let authorities = [self.ca.public_key().key_data().clone()];
        check(certificate, &authorities, &["ada@example.com".to_owned(), "g-1".to_owned()], HERE, now)
    }
}

#[test]
fn a_good_certificate_gives_what_its_extensions_say() {
    let case = Case::new();
    let bare = case.check(&case.good(|_| {})).expect("good");
    let nothing = Restrictions {
        pty: false,
        port_forwarding: false,
        agent_forwarding: false,
        x11_forwarding: false,
        force_command: None,
    };
    assert_eq!(bare, nothing);
    let all = case.good(|builder| {
        for name in [
            "permit-X11-forwarding",
            "permit-agent-forwarding",
            "permit-port-forwarding",
            "permit-pty",
            "permit-user-rc",
        ] {
            builder.extension(name, "").expect("extension");
        }
    });
    assert_eq!(case.check(&all).expect("good"), Restrictions::none());
    let rights = nothing.apply(Rights::new(ALL.into_iter().collect()));
    assert!(!rights.pty);
    assert_eq!(rights.permissions, Permissions::usual());
}

#[test]
fn either_the_user_or_the_grant_may_be_the_principal_and_nobody_else() {
    let case = Case::new();
    for (principals, accepted) in [
        (&["ada@example.com"][..], true),
        (&["g-1"], true),
        (&["someone", "g-1"], true),
        (&["eve@example.com"], false),
        (&["ADA@example.com"], false),
    ] {
        let certificate = case.certificate(|builder| {
            for &principal in principals {
                builder.valid_principal(principal).expect("principal");
            }
        });
        assert_eq!(case.check(&certificate).is_ok(), accepted, "{principals:?}");
    }
    let nobody = case.certificate(|builder| {
        builder.all_principals_valid().expect("possible");
    });
    assert!(matches!(case.check(&nobody), Err(CertificateError::Principal { .. })));
}

#[test]
fn time_type_authority_and_signature_are_checked() {
    let case = Case::new();
    let good = case.good(|_| {});
    let at = |second| case.check_at(&good, Timestamp::from_second(second).expect("a time"));
    assert_eq!(at(499), Err(CertificateError::NotYetValid));
    assert!(at(500).is_ok() && at(1_499).is_ok());
    assert_eq!(at(1_500), Err(CertificateError::Expired));
    assert_eq!(at(-5), Err(CertificateError::NotYetValid));

    let other = Case { ca: key(Algorithm::Ed25519), subject: case.subject.clone() };
    assert!(matches!(case.check(&other.good(|_| {})), Err(CertificateError::Authority { .. })));

    let host = case.good(|builder| {
        builder.cert_type(CertType::Host).expect("type");
    });
    assert_eq!(case.check(&host), Err(CertificateError::Type));

    // The last byte of a certificate belongs to the authority's signature.
    let mut bytes = good.to_bytes().expect("bytes");
    *bytes.last_mut().expect("not empty") ^= 1;
    let forged = Certificate::from_bytes(&bytes).expect("still a certificate");
    assert_eq!(case.check(&forged), Err(CertificateError::Signature));
}

#[test]
fn critical_options_are_honoured_or_refused() {
    let case = Case::new();
    let with = |name: &str, value: &str| {
        case.check(&case.good(|builder| {
            builder.critical_option(name, value).expect("option");
        }))
    };
    let forced = with("force-command", "/usr/bin/true").expect("good");
    assert_eq!(forced.force_command.as_deref(), Some("/usr/bin/true"));
    for (list, allowed) in [
        ("10.0.0.0/8", true),
        ("10.1.2.3", true),
        ("192.168.0.0/16,10.1.2.0/24", true),
        ("192.168.0.0/16", false),
        ("::/0", false),
        ("", false),
        ("10.0.0.0/8,nonsense", false),
        ("10.1.2.3/8", false),
        ("10.*", false),
    ] {
        assert_eq!(with("source-address", list).is_ok(), allowed, "{list}");
    }
    for name in ["verify-required", "from-the-future", "Force-Command"] {
        assert_eq!(with(name, "x"), Err(CertificateError::CriticalOption { name: name.to_owned() }));
    }
}

#[test]
fn a_forced_command_takes_the_place_of_whatever_is_asked_for() {
    let command = Some("/usr/bin/audit".to_owned());
    let forced = Restrictions { force_command: command, ..Restrictions::none() };
    let table = [
        (Message::Shell, None),
        (Message::Exec(b"rm -r x".to_vec()), Some("rm -r x")),
        (Message::Subsystem("sftp".into()), Some("sftp")),
        (Message::Exec(b"a\nb".to_vec()), None),
        (Message::Exec(vec![0xff]), None),
        (Message::Exec(vec![b'x'; 5_000]), None),
    ];
    for (request, expected) in table {
        let (original, command) = forced.forced(request);
        assert!(command == Message::Exec(b"/usr/bin/audit".to_vec()));
        let expected = expected
            .map(|value| Message::Env(Env { name: "SSH_ORIGINAL_COMMAND".into(), value: value.into() }));
        assert!(original == expected);
    }
    assert!(forced.forced(Message::AgentForward) == (None, Message::AgentForward));
    assert!(Restrictions::none().forced(Message::Shell) == (None, Message::Shell));
}

#[test]
fn an_authority_that_signs_with_sha1_is_refused() {
    let ca = key(Algorithm::Rsa { hash: None });
    let case = Case { ca, subject: key(Algorithm::Ed25519) };
    // ssh-key signs with SHA-512; the check is by the signature's name, before the signature itself.
    let good = case.good(|_| {});
    assert!(case.check(&good).is_ok());
    let bytes = good.to_bytes().expect("bytes");
    let name = b"rsa-sha2-512";
    let at = bytes.windows(name.len()).rposition(|window| window == name).expect("there");
    // The lengths of the name and of the signature that holds it shrink with the name.
    let mut weak = bytes[..at - 8].to_vec();
    let length = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    weak.extend((length(at - 8) - 5).to_be_bytes());
    weak.extend(7_u32.to_be_bytes());
    weak.extend(b"ssh-rsa");
    weak.extend(&bytes[at + name.len()..]);
    let weak = Certificate::from_bytes(&weak).expect("still a certificate");
    assert!(matches!(case.check(&weak), Err(CertificateError::SignatureAlgorithm { .. })));
}

#[test]
fn an_address_of_ipv4_in_ipv6_is_that_of_ipv4() {
    let mapped: IpAddr = "::ffff:10.1.2.3".parse().expect("an address");
    assert!(covers("10.0.0.0/8", mapped));
    assert!(!covers("::/0", mapped));
}

proptest! {
    #[test]
    fn no_list_of_addresses_panics(list in ".*") {
        let _ = covers(&list, HERE);
    }

    #[test]
    fn a_certificate_with_a_bit_flipped_is_refused_or_not_one(at in 0_usize..400, bit in 0_u8..8) {
        let case = Case::new();
        let mut bytes = case.good(|_| {}).to_bytes().expect("bytes");
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        if let Ok(certificate) = Certificate::from_bytes(&bytes) {
            prop_assert!(case.check(&certificate).is_err(), "bit {bit} of byte {at}");
        }
    }
}
