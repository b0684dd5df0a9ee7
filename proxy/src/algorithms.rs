//! The SSH algorithms that both legs offer.

use russh::{
    Preferred, cipher, compression,
    keys::{Algorithm, HashAlg, ssh_key::EcdsaCurve},
};

/// russh's choice, with three changes: AES-GCM first, no compression, no `ssh-rsa`.
///
/// AES-GCM costs half of ChaCha20 where the processor has AES. On the target leg this order decides, on the client
/// leg the client's does (RFC 4253 section 7.1). `ssh-rsa` signs with SHA-1 (RFC 8332).
pub(crate) fn preferred() -> Preferred {
    Preferred {
        cipher: CIPHERS.into(),
        key: KEYS.into(),
        compression: COMPRESSION.into(),
        ..Preferred::DEFAULT
    }
}

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
