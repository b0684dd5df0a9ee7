use ssh_key::{PrivateKey, certificate::Builder};

use super::*;

const NOW: i64 = 1_800_000_000;

fn private(algorithm: Algorithm) -> PrivateKey {
    PrivateKey::random(&mut rand::rng(), algorithm).expect("a key")
}

fn ed25519() -> PrivateKey {
    private(Algorithm::Ed25519)
}

fn now() -> Timestamp {
    Timestamp::from_second(NOW).expect("a time")
}

fn expectation() -> Expectation {
    Expectation {
        host: "web-1".to_owned(),
        pinned: Vec::new(),
        known: Known::default(),
        authorities: Vec::new(),
        learned: None,
    }
}

fn plain(key: &PrivateKey) -> PublicKeyOrCertificate {
    key.public_key().clone().into()
}

/// A good host certificate; the change makes it something else.
fn certificate(
    key: &PrivateKey,
    authority: &PrivateKey,
    change: impl FnOnce(&mut Parts),
) -> PublicKeyOrCertificate {
    let mut parts = Parts {
        kind: CertType::Host,
        principal: "web-1",
        valid: (NOW - 60, NOW + 60),
        critical_option: None,
    };
    change(&mut parts);
    let seconds = |at: i64| u64::try_from(at).expect("after 1970");
    let mut builder = Builder::new_with_random_nonce(
        &mut rand::rng(),
        key.public_key(),
        seconds(parts.valid.0),
        seconds(parts.valid.1),
    )
    .expect("a builder");
    builder.cert_type(parts.kind).expect("set once").key_id("host").expect("set once");
    builder.valid_principal(parts.principal).expect("set");
    if let Some(name) = parts.critical_option {
        builder.critical_option(name, "").expect("set once");
    }
    builder.sign(authority).expect("signed").into()
}

struct Parts {
    kind: CertType,
    principal: &'static str,
    valid: (i64, i64),
    critical_option: Option<&'static str>,
}

#[test]
fn a_key_is_trusted_for_the_reason_that_the_configuration_gives() {
    let (key, other) = (ed25519(), ed25519());
    let mut pinned = expectation();
    pinned.pinned = vec![other.public_key().clone(), key.public_key().clone()];
    assert_eq!(pinned.judge(&plain(&key), now()).expect("pinned"), HostKeyTrust::Pinned);

    let mut known = expectation();
    known.known.keys = vec![key.public_key().clone()];
    assert_eq!(known.judge(&plain(&key), now()).expect("known"), HostKeyTrust::KnownHosts);
    known.learned = Some(("learned".into(), 22));
    assert_eq!(known.judge(&plain(&key), now()).expect("learned"), HostKeyTrust::Learned);
}

#[test]
fn a_changed_key_is_refused_with_both_fingerprints() {
    let (key, other) = (ed25519(), ed25519());
    let mut expected = expectation();
    expected.pinned = vec![key.public_key().clone()];
    let refusal = expected.judge(&plain(&other), now()).expect_err("another key");
    assert!(matches!(refusal, Refusal::Changed { .. }));
    for key in [key, other] {
        assert!(refusal.to_string().contains(&key.fingerprint(HashAlg::Sha256).to_string()), "{refusal}");
    }
}

#[test]
fn a_host_that_nothing_is_known_of_is_refused_as_such() {
    assert!(matches!(expectation().judge(&plain(&ed25519()), now()), Err(Refusal::Unknown { .. })));
}

#[test]
fn what_is_revoked_is_refused_whatever_else_speaks_for_it() {
    let (key, authority) = (ed25519(), ed25519());
    let mut expected = expectation();
    expected.pinned = vec![key.public_key().clone()];
    expected.authorities = vec![authority.public_key().clone()];
    expected.known.revoked = vec![key.public_key().clone()];
    let certified = certificate(&key, &authority, |_| {});
    assert!(matches!(expected.judge(&plain(&key), now()), Err(Refusal::Revoked { .. })));
    assert!(matches!(expected.judge(&certified, now()), Err(Refusal::Revoked { .. })));
    expected.known.revoked = vec![authority.public_key().clone()];
    assert!(matches!(expected.judge(&certified, now()), Err(Refusal::Revoked { .. })));
    assert_eq!(
        expected.judge(&plain(&key), now()).expect("only its authority is revoked"),
        HostKeyTrust::Pinned
    );
}

#[test]
fn a_host_certificate_convinces_only_if_everything_about_it_is_right() {
    let (key, authority) = (ed25519(), ed25519());
    let mut expected = expectation();
    expected.authorities = vec![authority.public_key().clone()];
    let judge = |certificate| expected.judge(&certificate, now());
    assert_eq!(judge(certificate(&key, &authority, |_| {})).expect("good"), HostKeyTrust::CertAuthority);
    assert_eq!(
        judge(certificate(&key, &authority, |parts| parts.principal = "WEB-1")).expect("good"),
        HostKeyTrust::CertAuthority
    );

    type Change = fn(&mut Parts);
    let table: [(Change, &str); 6] = [
        (|parts| parts.kind = CertType::User, "not a host's"),
        (|parts| parts.principal = "web-2", "not for this host name"),
        (|parts| parts.principal = "", "not for this host name"),
        (|parts| parts.valid = (NOW + 1, NOW + 60), "not valid yet"),
        (|parts| parts.valid = (NOW - 60, NOW), "has expired"),
        (|parts| parts.critical_option = Some("verify-required"), "critical options"),
    ];
    for (change, reason) in table {
        let refusal = judge(certificate(&key, &authority, change)).expect_err(reason);
        assert!(matches!(refusal, Refusal::Certificate { .. }), "{refusal}");
        assert!(refusal.to_string().contains(reason), "{refusal} should say {reason}");
    }
    let stranger = judge(certificate(&key, &ed25519(), |_| {})).expect_err("an authority nobody trusts");
    assert!(matches!(stranger, Refusal::Changed { .. }), "{stranger}");
    let bare = judge(plain(&key)).expect_err("no certificate");
    assert!(matches!(bare, Refusal::Changed { .. }), "{bare}");
}

#[test]
fn a_certificate_that_does_not_convince_still_shows_a_key_that_may_be_pinned() {
    let (key, authority) = (ed25519(), ed25519());
    let mut expected = expectation();
    expected.pinned = vec![key.public_key().clone()];
    let stranger = certificate(&key, &ed25519(), |_| {});
    assert_eq!(expected.judge(&stranger, now()).expect("its key is pinned"), HostKeyTrust::Pinned);
    expected.authorities = vec![authority.public_key().clone()];
    let expired = certificate(&key, &authority, |parts| parts.valid = (NOW - 60, NOW - 1));
    assert_eq!(expected.judge(&expired, now()).expect("its key is pinned"), HostKeyTrust::Pinned);
}

#[test]
fn a_certificate_with_a_forged_signature_convinces_nobody() {
    let (key, authority) = (ed25519(), ed25519());
    let mut expected = expectation();
    expected.authorities = vec![authority.public_key().clone()];
    let good = certificate(&key, &authority, |_| {});
    let bytes = good.certificate().expect("a certificate").to_bytes().expect("encoded");
    // The signature is at the end; the principal is somewhere before the authority's key.
    let at = bytes.windows(5).position(|window| window == b"web-1").expect("its principal");
    for index in [at + 10, bytes.len() - 1] {
        let mut forged = bytes.clone();
        forged[index] ^= 1;
        if let Ok(forged) = Certificate::from_bytes(&forged) {
            assert!(expected.judge(&forged.into(), now()).is_err(), "byte {index} was changed");
        }
    }
}

#[tokio::test]
async fn a_learned_key_is_kept_and_another_is_refused_as_changed() {
    let dir = tempfile::tempdir().expect("a directory");
    let host_keys = HostKeys {
        host: "web-1".to_owned(),
        port: 22,
        pinned: Vec::new(),
        authorities: Vec::new(),
        known_hosts: None,
        learned: Some(dir.path().join("learned")),
    };
    let check = || HostKeyCheck::new(Expectation::gather(&host_keys).expect("readable"));
    let (key, other) = (ed25519(), ed25519());
    let meanwhile = check();
    for _ in 0..2 {
        let check = check();
        assert!(check.accepts(&plain(&key)).await);
        let accepted = check.verdict().expect("asked").expect("accepted");
        assert_eq!(accepted.trust, HostKeyTrust::Learned);
        assert_eq!(accepted.fingerprint, key.fingerprint(HashAlg::Sha256));
    }
    // Whether the other is met before or after the file was read.
    for check in [meanwhile, check()] {
        assert!(!check.accepts(&plain(&other)).await);
        assert!(matches!(check.verdict(), Some(Err(Refusal::Changed { .. }))));
    }
}

#[test]
fn a_known_hosts_file_that_is_gone_trusts_nobody() {
    let host_keys = HostKeys {
        host: "web-1".to_owned(),
        port: 22,
        pinned: vec![ed25519().public_key().clone()],
        authorities: Vec::new(),
        known_hosts: Some("/nowhere/known_hosts".into()),
        learned: None,
    };
    assert!(Expectation::gather(&host_keys).is_err());
}
