//! Who may connect: the checks behind a login, without SSH and without a clock.
//!
//! Each kind of proof has its module: [`certificate`], [`secret`], and for listed keys [`usable`] here.
//! [`revocation`] is what takes keys and certificates back, [`sources`] what bounds how often somebody may try.
//! What a check finds wrong is for the log; a stranger learns nothing of it.

pub mod certificate;
pub mod revocation;
pub mod secret;
pub mod sources;

use ssh_key::{HashAlg, public::KeyData};

/// The least bits of an RSA key, as NIST SP 800-131A has it.
pub const RSA_BITS_MIN: u32 = 2048;

/// Why a key is no proof of anything.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not an algorithm for logging in.
    #[error(
        "{algorithm} is not supported: ed25519, ECDSA, RSA, sk-ssh-ed25519 and sk-ecdsa-sha2-nistp256 keys are"
    )]
    Algorithm {
        /// The key's algorithm.
        algorithm: String,
    },
    /// Too small.
    #[error("an RSA key of {bits} bits is too small: {RSA_BITS_MIN} at least")]
    Size {
        /// Its size.
        bits: u32,
    },
}

/// Checks that a key is of a kind that is good for logging in, or for certifying.
///
/// # Errors
/// [`KeyError`] names what is wrong.
pub fn usable(key: &KeyData) -> Result<(), KeyError> {
    match key {
        KeyData::Ed25519(_) | KeyData::Ecdsa(_) | KeyData::SkEd25519(_) | KeyData::SkEcdsaSha2NistP256(_) => {
            Ok(())
        }
        KeyData::Rsa(rsa) if rsa.key_size() >= RSA_BITS_MIN => Ok(()),
        KeyData::Rsa(rsa) => Err(KeyError::Size { bits: rsa.key_size() }),
        KeyData::Certificate(_) => Err(KeyError::Algorithm { algorithm: "a certificate".to_owned() }),
        _ => Err(KeyError::Algorithm { algorithm: key.algorithm().to_string() }),
    }
}

/// Whether the key is on a FIDO authenticator, which says in each signature whether it was touched.
#[must_use]
pub fn on_authenticator(key: &KeyData) -> bool {
    matches!(key, KeyData::SkEd25519(_) | KeyData::SkEcdsaSha2NistP256(_))
}

/// The key's fingerprint, as `ssh-keygen -l` prints it.
#[must_use]
pub fn fingerprint(key: &KeyData) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}
