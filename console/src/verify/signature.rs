//! Checks the signature over `SHA256SUMS`: that it is one, that it is valid, and that its signer is allowed to. What is a
//! valid signature, and who is allowed to make it, is the same for the segments (`chain`).
//!
//! The armored text must be byte for byte what a signer writes: base64 has bits that decoders ignore, and a
//! change of those is a change of the evidence too.

use std::io::{self, Read};

use sha2::Digest;
use ssh_key::{HashAlg, LineEnding, PublicKey, SshSig};
use weir_common::recording::{SIGNATURE, SIGNATURE_NAMESPACE, SUMS};

use super::{
    Options,
    objects::Objects,
    report::{Check, Log, Place, Signer},
};
use crate::{
    hashed::READ_BYTES,
    store::{SessionDir, StoreError},
};

/// The most bytes of a signature.
pub(super) const SIGNATURE_MAX: u64 = 64 << 10;

/// Why a signature does not hold.
#[derive(Debug, thiserror::Error)]
pub(super) enum SignatureError {
    #[error("is not an SSH signature: {source}")]
    NotASignature { source: ssh_key::Error },
    #[error("has SSHSIG version {version}, and only version {} is known", SshSig::VERSION)]
    Version { version: u32 },
    #[error("is for the namespace {found}, and should be for {SIGNATURE_NAMESPACE}")]
    Namespace { found: String },
    #[error("is not the signature of this {object} by the key it names: {source}")]
    Invalid { object: String, source: ssh_key::Error },
    #[error("is a signature of {object}, which can't be read: {source}")]
    Digest { object: String, source: io::Error },
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
    if objects.is_unfinished() {
        return Ok(None);
    }
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
    let signature = match verify(&armored, SUMS, |alg| digest(alg, &mut &sums[..])) {
        Ok(signature) => signature,
        Err(error) => {
            log.finding(Check::Signature, place(), error.to_string());
            return Ok(None);
        }
    };
    let key = PublicKey::from(signature.public_key().clone());
    Ok(Some(allowed(&key, options, log)))
}

/// A signature that is valid for the object with this digest, whoever made it.
pub(super) fn verify(
    armored: &[u8],
    object: &str,
    digest: impl FnOnce(HashAlg) -> io::Result<Vec<u8>>,
) -> Result<SshSig, SignatureError> {
    let signature = SshSig::from_pem(armored).map_err(|source| SignatureError::NotASignature { source })?;
    // Neither the version nor the armor is covered by the signature itself.
    if signature.version() != SshSig::VERSION {
        return Err(SignatureError::Version { version: signature.version() });
    }
    if signature.namespace() != SIGNATURE_NAMESPACE {
        return Err(SignatureError::Namespace { found: signature.namespace().to_owned() });
    }
    let digest = digest(signature.hash_alg())
        .map_err(|source| SignatureError::Digest { object: object.to_owned(), source })?;
    PublicKey::from(signature.public_key().clone())
        .verify_prehash(SIGNATURE_NAMESPACE, &digest, &signature)
        .map_err(|source| SignatureError::Invalid { object: object.to_owned(), source })?;
    let canonical =
        signature.to_pem(LineEnding::LF).map_err(|source| SignatureError::NotASignature { source })?;
    if canonical.as_bytes() != armored {
        return Err(SignatureError::NotCanonical);
    }
    Ok(signature)
}

/// What is to be read, digested.
pub(super) fn digest(alg: HashAlg, object: &mut impl Read) -> io::Result<Vec<u8>> {
    fn whole<D: Digest>(object: &mut impl Read) -> io::Result<Vec<u8>> {
        let (mut digest, mut buffer) = (D::new(), vec![0; READ_BYTES]);
        loop {
            match object.read(&mut buffer) {
                Ok(0) => return Ok(digest.finalize().to_vec()),
                Ok(n) => digest.update(&buffer[..n]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
    match alg {
        HashAlg::Sha256 => whole::<sha2::Sha256>(object),
        HashAlg::Sha512 => whole::<sha2::Sha512>(object),
        _ => Err(io::Error::other("it is digested in a way that is not known")),
    }
}

/// The key's owner as a report names it.
pub(super) fn signer(key: &PublicKey, options: &Options<'_>) -> Signer {
    let key_text = key.to_openssh().unwrap_or_default();
    Signer {
        allowed_signers_line: format!("{} namespaces=\"{SIGNATURE_NAMESPACE}\" {key_text}", options.identity),
        fingerprint: key.fingerprint(HashAlg::Sha256).to_string(),
        allowed_by: None,
    }
}

/// By which line the key may sign, or why not; `None` if it is not known who may.
pub(super) fn is_allowed(key: &PublicKey, options: &Options<'_>) -> Option<Result<String, String>> {
    let signers = options.signers?;
    let line = signers.check(options.identity, key.key_data(), SIGNATURE_NAMESPACE, options.now);
    let by = line.map(|line| format!("{} line {line}", signers.source()));
    Some(by.map_err(|refused| refused.to_string()))
}

fn allowed(key: &PublicKey, options: &Options<'_>, log: &mut Log) -> Signer {
    let mut signer = signer(key, options);
    match is_allowed(key, options) {
        None => log.detail(
            Check::Signature,
            format!("valid, by the key {}, and who may sign is not known", signer.fingerprint),
        ),
        Some(Ok(by)) => {
            let (identity, fingerprint) = (options.identity, &signer.fingerprint);
            log.detail(
                Check::Signature,
                format!("valid, by {identity} with the key {fingerprint}, allowed by {by}"),
            );
            signer.allowed_by = Some(by);
        }
        Some(Err(refused)) => {
            let problem = format!("is valid, but its key {} {refused}", signer.fingerprint);
            log.finding(Check::Signature, Place::object(SIGNATURE), problem);
            for (line, reason) in options.signers.iter().flat_map(|signers| signers.unused()) {
                let source = options.signers.map_or("", |signers| signers.source());
                log.note(format!("{source} line {line} was not used: {reason}"));
            }
        }
    }
    signer
}
