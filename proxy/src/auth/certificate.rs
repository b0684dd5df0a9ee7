//! OpenSSH user certificates (OpenSSH's PROTOCOL.certkeys): whether one is good for a login now, and what it takes away.
//!
//! Pure: the time and the client's address are arguments. That the client has the certified key is proved before,
//! by its signature; whether the certificate was revoked is [`super::revocation`]'s business.

use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use ssh_key::{Algorithm, Certificate, certificate::CertType, public::KeyData};
use weir_common::{
    frame::{Env, Message},
    session::Permission,
};

use super::{KeyError, fingerprint, on_authenticator, usable};
use crate::policy::Rights;

/// What a certificate leaves of a grant's rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restrictions {
    /// Extension `permit-pty`.
    pub pty: bool,
    /// Extension `permit-port-forwarding`.
    pub port_forwarding: bool,
    /// Extension `permit-agent-forwarding`.
    pub agent_forwarding: bool,
    /// Extension `permit-X11-forwarding`.
    pub x11_forwarding: bool,
    /// Critical option `force-command`: what runs instead of any shell, command or subsystem.
    pub force_command: Option<String>,
}

impl Restrictions {
    /// Of a proof that is no certificate.
    #[must_use]
    pub fn none() -> Self {
        Self {
            pty: true,
            port_forwarding: true,
            agent_forwarding: true,
            x11_forwarding: true,
            force_command: None,
        }
    }

    /// What is left of these rights.
    #[must_use]
    pub fn apply(&self, mut rights: Rights) -> Rights {
        let Self { pty, port_forwarding, agent_forwarding, x11_forwarding, force_command: _ } = self;
        let taken = [
            (*port_forwarding, Permission::LocalForward),
            (*port_forwarding, Permission::RemoteForward),
            (*agent_forwarding, Permission::AgentForward),
            (*x11_forwarding, Permission::X11Forward),
        ];
        for (kept, permission) in taken {
            if !kept {
                rights.permissions = rights.permissions.without(permission);
            }
        }
        rights.pty &= pty;
        rights
    }

    /// What becomes of a request: a forced command runs instead of any shell, command or subsystem. What was asked for
    /// goes before it as `SSH_ORIGINAL_COMMAND`, as with sshd, if it is plain text; the target may not accept it.
    #[must_use]
    pub fn forced(&self, request: Message) -> (Option<Message>, Message) {
        let Some(command) = &self.force_command else { return (None, request) };
        let original = match &request {
            Message::Shell => None,
            Message::Exec(original) => std::str::from_utf8(original).ok().map(str::to_owned),
            Message::Subsystem(name) => Some(name.clone()),
            _ => return (None, request),
        };
        let plain = |text: &String| text.len() <= ORIGINAL_BYTES && !text.contains(char::is_control);
        let original = original
            .filter(plain)
            .map(|value| Message::Env(Env { name: "SSH_ORIGINAL_COMMAND".to_owned(), value }));
        (original, Message::Exec(command.clone().into_bytes()))
    }
}

/// Of a command that is told to the forced one.
const ORIGINAL_BYTES: usize = 4096;

/// Why a certificate is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Signed by nobody we know.
    #[error("the certificate's authority {fingerprint} is not in user_ca")]
    Authority {
        /// The authority's key.
        fingerprint: String,
    },
    /// The authority's signature is wrong.
    #[error("the authority's signature on the certificate is wrong")]
    Signature,
    /// The authority signed with an algorithm that is not good any more.
    #[error("the authority signed the certificate with {algorithm}, which is not accepted")]
    SignatureAlgorithm {
        /// The algorithm.
        algorithm: String,
    },
    /// The certified key is of no use.
    #[error("the certified key can't be used: {0}")]
    Key(#[from] KeyError),
    /// It is a host's.
    #[error("the certificate is a host certificate")]
    Type,
    /// Too early.
    #[error("the certificate is not valid yet")]
    NotYetValid,
    /// Too late.
    #[error("the certificate has expired")]
    Expired,
    /// Not for this grant.
    #[error("the certificate's principals are {listed:?}; the grant accepts {accepted:?}")]
    Principal {
        /// In the certificate.
        listed: Vec<String>,
        /// By the grant.
        accepted: Vec<String>,
    },
    /// Not from there.
    #[error("the certificate's source-address {allowed:?} does not cover {source_ip}")]
    SourceAddress {
        /// As the certificate says it.
        allowed: String,
        /// Where the client is.
        source_ip: IpAddr,
    },
    /// Something we must understand, and don't.
    #[error("the certificate has the critical option {name:?}, which is not supported")]
    CriticalOption {
        /// Its name.
        name: String,
    },
    /// A touch that can't be checked.
    #[error(
        "the certificate is for a FIDO key and lacks the extension no-touch-required; \
         that the key was touched can't be checked"
    )]
    Touch,
}

/// Checks a certificate for a login now, from there, under a grant that accepts these principals.
///
/// # Errors
/// [`CertificateError`] names the first thing that is wrong.
pub fn check(
    certificate: &Certificate,
    authorities: &[KeyData],
    principals: &[String],
    source: IpAddr,
    now: Timestamp,
) -> Result<Restrictions, CertificateError> {
    let authority = certificate.signature_key();
    if !authorities.contains(authority) {
        return Err(CertificateError::Authority { fingerprint: fingerprint(authority) });
    }
    let algorithm = certificate.signature().algorithm();
    if matches!(algorithm, Algorithm::Rsa { hash: None } | Algorithm::Dsa) {
        return Err(CertificateError::SignatureAlgorithm { algorithm: algorithm.to_string() });
    }
    certificate.verify_signature().map_err(|_| CertificateError::Signature)?;
    if certificate.cert_type() != CertType::User {
        return Err(CertificateError::Type);
    }
    usable(certificate.public_key())?;
    // Before 1970 nothing is valid.
    let now = u64::try_from(now.as_second()).unwrap_or(0);
    if now < certificate.valid_after() {
        return Err(CertificateError::NotYetValid);
    }
    if now >= certificate.valid_before() {
        return Err(CertificateError::Expired);
    }
    principal(certificate, principals)?;
    let force_command = critical_options(certificate, source)?;
    let has = |name: &str| certificate.extensions().contains_key(name);
    if on_authenticator(certificate.public_key()) && !has("no-touch-required") {
        return Err(CertificateError::Touch);
    }
    Ok(Restrictions {
        pty: has("permit-pty"),
        port_forwarding: has("permit-port-forwarding"),
        agent_forwarding: has("permit-agent-forwarding"),
        x11_forwarding: has("permit-X11-forwarding"),
        force_command,
    })
}

/// Checks that one of the certificate's principals is among the accepted ones. A certificate without principals is
/// good for everybody to who made it, and so for nobody here, as with sshd.
///
/// # Errors
/// [`CertificateError::Principal`].
pub fn principal(certificate: &Certificate, accepted: &[String]) -> Result<(), CertificateError> {
    let listed = certificate.valid_principals();
    if listed.iter().any(|principal| accepted.contains(principal)) {
        return Ok(());
    }
    Err(CertificateError::Principal { listed: listed.to_vec(), accepted: accepted.to_vec() })
}

/// The forced command, if there is one.
fn critical_options(certificate: &Certificate, source: IpAddr) -> Result<Option<String>, CertificateError> {
    let mut force_command = None;
    for (name, value) in certificate.critical_options().iter() {
        match name.as_str() {
            "force-command" => force_command = Some(value.clone()),
            "source-address" if covers(value, source) => {}
            "source-address" => {
                return Err(CertificateError::SourceAddress { allowed: value.clone(), source_ip: source });
            }
            _ => return Err(CertificateError::CriticalOption { name: name.clone() }),
        }
    }
    Ok(force_command)
}

/// Whether a list of addresses and networks, separated by commas, covers the address. One that can't be read covers
/// nothing at all, and neither does a network whose host bits are set: as with sshd.
fn covers(list: &str, source: IpAddr) -> bool {
    let networks: Option<Vec<_>> = list.split(',').map(network).collect();
    networks.is_some_and(|networks| networks.iter().any(|network| network.contains(&source.to_canonical())))
}

/// A network as `address/bits`, or an address.
#[must_use]
pub fn network(text: &str) -> Option<IpNet> {
    let text = text.trim();
    let network = text.parse::<IpNet>().ok().or_else(|| Some(text.parse::<IpAddr>().ok()?.into()))?;
    (network.trunc() == network).then_some(network)
}

#[cfg(test)]
mod tests {
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

        fn check_at(
            &self,
            certificate: &Certificate,
            now: Timestamp,
        ) -> Result<Restrictions, CertificateError> {
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
}
