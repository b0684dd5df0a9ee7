//! The SSH algorithms that the legs offer.
//!
//! Users' clients are offered what `ssh-audit` has no objection to that OpenSSH 8.0 can do without. Targets are whatever
//! the customer has: there the connector also speaks to servers that know nothing newer, but never SHA-1, CBC or
//! compression.

use russh::{
    Preferred, cipher, compression, kex,
    keys::{Algorithm, HashAlg, ssh_key::EcdsaCurve},
    mac,
};

/// What users' clients are offered.
pub(crate) fn for_clients() -> Preferred {
    Preferred { kex: CLIENT_KEX.into(), mac: CLIENT_MACS.into(), ..for_targets() }
}

/// What targets are offered: russh's choice, with three changes: AES-GCM first, no compression, no `ssh-rsa`.
///
/// AES-GCM costs half of ChaCha20 where the processor has AES. On the target leg this order decides, on the client
/// leg the client's does (RFC 4253 section 7.1). `ssh-rsa` signs with SHA-1 (RFC 8332).
pub(crate) fn for_targets() -> Preferred {
    Preferred {
        cipher: CIPHERS.into(),
        key: KEYS.into(),
        compression: COMPRESSION.into(),
        ..Preferred::DEFAULT
    }
}

/// The same for a target of which something is known: the algorithms of its known keys first, and those of
/// certificates before all others if one is wanted, so that it presents what can be verified.
pub(crate) fn for_target(known: &[Algorithm], certificate: bool) -> Preferred {
    let same = |algorithm: &Algorithm| known.iter().any(|known| is_same(algorithm, known));
    let (mut keys, others): (Vec<_>, Vec<_>) = KEYS.iter().cloned().partition(same);
    keys.extend(others);
    let host_key_certificates = if certificate { KEYS } else { &[] };
    Preferred { key: keys.into(), host_key_certificates: host_key_certificates.into(), ..for_targets() }
}

/// Whether a key of this kind is any use here.
pub(crate) fn is_offered(algorithm: &Algorithm) -> bool {
    KEYS.iter().any(|offered| is_same(offered, algorithm))
}

/// An RSA key is the same whatever it signs with.
fn is_same(one: &Algorithm, other: &Algorithm) -> bool {
    one == other || (is_rsa(one) && is_rsa(other))
}

fn is_rsa(algorithm: &Algorithm) -> bool {
    matches!(algorithm, Algorithm::Rsa { .. })
}

/// Hybrid first; then what every OpenSSH since 6.5 knows; then one group for clients in FIPS mode, which know neither.
/// Not the NIST curves, nor groups that the server would have to make up or that have 2048 bits. The markers switch on
/// strict key exchange, without which ChaCha20 would be open to CVE-2023-48795.
const CLIENT_KEX: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::DH_G16_SHA512,
    kex::EXTENSION_SUPPORT_AS_CLIENT,
    kex::EXTENSION_SUPPORT_AS_SERVER,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
];

/// Encrypt-then-MAC only; ciphers that authenticate by themselves need none.
const CLIENT_MACS: &[mac::Name] = &[mac::HMAC_SHA512_ETM, mac::HMAC_SHA256_ETM];

const CIPHERS: &[cipher::Name] = &[
    cipher::AES_128_GCM,
    cipher::AES_256_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_256_CTR,
    cipher::AES_192_CTR,
    cipher::AES_128_CTR,
];

const KEYS: &[Algorithm] = &[
    Algorithm::Ed25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
    Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
    Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
];

const COMPRESSION: &[compression::Name] = &[compression::NONE];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_asked_for_the_keys_that_are_known_first_and_none_is_left_out() {
        let rsa = Algorithm::Rsa { hash: None };
        let preferred = for_target(std::slice::from_ref(&rsa), false);
        assert!(preferred.key[..2].iter().all(is_rsa), "{:?}", preferred.key);
        assert_eq!(preferred.key.len(), KEYS.len());
        assert!(preferred.host_key_certificates.is_empty());
        assert_eq!(for_target(&[], true).host_key_certificates.len(), KEYS.len());
        assert!(is_offered(&rsa) && !is_offered(&Algorithm::Dsa));
    }
}
