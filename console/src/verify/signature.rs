//! Checks the signature over `SHA256SUMS`: that it is one, that it is valid, and that its signer is allowed to.
//!
//! The armored text must be byte for byte what a signer writes: base64 has bits that decoders ignore, and a
//! change of those is a change of the evidence too.

use ssh_key::{HashAlg, LineEnding, PublicKey, SshSig};
use weir_common::recording::{SIGNATURE, SIGNATURE_NAMESPACE, SUMS};

use super::{
    Options,
    objects::Objects,
    report::{Check, Log, Place, Signer},
};
use crate::store::{SessionDir, StoreError};

/// The most bytes of a signature.
pub(super) const SIGNATURE_MAX: u64 = 64 << 10;

/// Why a signature does not hold.
#[derive(Debug, thiserror::Error)]
enum SignatureError {
    #[error("is not an SSH signature: {source}")]
    NotASignature { source: ssh_key::Error },
    #[error("has SSHSIG version {version}, and only version {} is known", SshSig::VERSION)]
    Version { version: u32 },
    #[error("is for the namespace {found}, and should be for {SIGNATURE_NAMESPACE}")]
    Namespace { found: String },
    #[error("is not the signature of this {SUMS} by the key it names: {source}")]
    Invalid { source: ssh_key::Error },
    #[error("says what a valid signature says, but not in the bytes a signer writes")]
    NotCanonical,
}

/// Who signed, if the signature says so; whether it holds is in the log.
pub(super) fn check(
    session: &SessionDir,
    objects: &Objects,
    options: &Options<'_>,
    log: &mut Log,
) -> Result<Option<Signer>, StoreError> {
    let place = || Place::object(SIGNATURE);
    if !objects.has(SIGNATURE) {
        log.finding(Check::Signature, place(), "is missing: nobody vouches for this recording");
        return Ok(None);
    }
    let armored = match session.read(SIGNATURE, SIGNATURE_MAX) {
        Ok(armored) => armored,
        Err(error @ StoreError::TooLong { .. }) => {
            log.finding(Check::Signature, place(), error.to_string());
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let Some(sums) = &objects.sums else {
        log.finding(Check::Signature, place(), format!("has nothing to be checked against: no {SUMS}"));
        return Ok(None);
    };
    let signature = match verify(&armored, sums) {
        Ok(signature) => signature,
        Err(error) => {
            log.finding(Check::Signature, place(), error.to_string());
            return Ok(None);
        }
    };
    let key = PublicKey::from(signature.public_key().clone());
    Ok(Some(allowed(&key, options, log)))
}

fn verify(armored: &[u8], sums: &[u8]) -> Result<SshSig, SignatureError> {
    let signature = SshSig::from_pem(armored).map_err(|source| SignatureError::NotASignature { source })?;
    // Neither the version nor the armor is covered by the signature itself.
    if signature.version() != SshSig::VERSION {
        return Err(SignatureError::Version { version: signature.version() });
    }
    if signature.namespace() != SIGNATURE_NAMESPACE {
        return Err(SignatureError::Namespace { found: signature.namespace().to_owned() });
    }
    PublicKey::from(signature.public_key().clone())
        .verify(SIGNATURE_NAMESPACE, sums, &signature)
        .map_err(|source| SignatureError::Invalid { source })?;
    let canonical =
        signature.to_pem(LineEnding::LF).map_err(|source| SignatureError::NotASignature { source })?;
    if canonical.as_bytes() != armored {
        return Err(SignatureError::NotCanonical);
    }
    Ok(signature)
}

fn allowed(key: &PublicKey, options: &Options<'_>, log: &mut Log) -> Signer {
    let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
    let identity = options.identity;
    let mut signer = Signer {
        allowed_signers_line: format!(
            "{identity} namespaces=\"{SIGNATURE_NAMESPACE}\" {}",
            key.to_openssh().unwrap_or_default()
        ),
        fingerprint,
        allowed_by: None,
    };
    let Some(signers) = options.signers else {
        log.detail(
            Check::Signature,
            format!("valid, by the key {}, and who may sign is not known", signer.fingerprint),
        );
        return signer;
    };
    match signers.check(identity, key.key_data(), SIGNATURE_NAMESPACE, options.now) {
        Ok(line) => {
            let by = format!("{} line {line}", signers.source());
            log.detail(
                Check::Signature,
                format!("valid, by {identity} with the key {}, allowed by {by}", signer.fingerprint),
            );
            signer.allowed_by = Some(by);
        }
        Err(refused) => {
            let problem = format!("is valid, but its key {} {refused}", signer.fingerprint);
            log.finding(Check::Signature, Place::object(SIGNATURE), problem);
            for (line, reason) in signers.unused() {
                log.note(format!("{} line {line} was not used: {reason}", signers.source()));
            }
        }
    }
    signer
}
