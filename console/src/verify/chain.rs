//! Checks the segments' own signatures, by which also a recording without an end can be verified: each vouches for its
//! segment, and through the digests in that for its bulk and for every segment before.
//!
//! What a session that is under way may lack is decided here: a bulk, or a segment, that is not signed yet is the next
//! one on its way into the store, and counts for nothing.

use std::collections::BTreeSet;

use ssh_key::{HashAlg, PublicKey};
use weir_common::recording::{Manifest, bulk_name, segment_name, signature_name};

use super::{
    Options,
    objects::Objects,
    report::{Check, Log, Place, Signer},
    signature::{self, SIGNATURE_MAX, SignatureError},
};
use crate::{
    hashed::Hashed,
    store::{SessionDir, StoreError},
};

/// What the segments' signatures amount to.
pub(super) struct Chain {
    /// Of a session without an end: the segments that are signed, in order, and there should be no others.
    pub(super) signed: BTreeSet<u32>,
    /// Who signed the last one.
    pub(super) signer: Option<Signer>,
}

/// Checks every signature, and of a session without an end also which objects there are.
pub(super) fn check(
    session: &SessionDir,
    objects: &Objects,
    manifest: Option<&Manifest>,
    options: &Options<'_>,
    log: &mut Log,
) -> Result<Chain, StoreError> {
    let mut chain = Chain { signed: BTreeSet::new(), signer: None };
    let indices: BTreeSet<u32> = match manifest {
        Some(manifest) => manifest.segments.iter().map(|entry| entry.index).collect(),
        None => objects.segments().collect(),
    };
    let last = indices.last().copied().unwrap_or_default();
    for &index in &indices {
        let (name, segment) = (signature_name(index), segment_name(index));
        if !objects.has(&name) {
            if objects.is_unfinished() && index == last {
                log.note(format!("{segment} is not signed yet, and nothing is said about it"));
                continue;
            }
            log.finding(
                Check::Signature,
                Place::object(&name),
                format!("is missing: {segment} is not signed"),
            );
        } else if objects.has(&segment) {
            let signer = check_one(session, objects, index, options, log)?;
            if let (Some(before), Some(signer)) = (&chain.signer, &signer)
                && before.fingerprint != signer.fingerprint
            {
                log.note(format!("from {segment} on another key signed: {}", signer.fingerprint));
            }
            chain.signer = signer.or(chain.signer);
        }
        chain.signed.insert(index);
    }
    if objects.is_unfinished() {
        check_names(objects, &chain, last, log);
    }
    Ok(chain)
}

fn check_one(
    session: &SessionDir,
    objects: &Objects,
    index: u32,
    options: &Options<'_>,
    log: &mut Log,
) -> Result<Option<Signer>, StoreError> {
    let (name, segment) = (signature_name(index), segment_name(index));
    let place = || Place::object(&name);
    let armored = match session.read(&name, SIGNATURE_MAX) {
        Ok(armored) => armored,
        Err(error @ StoreError::TooLong { .. }) => {
            log.finding(Check::Signature, place(), error.to_string());
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let object = session.object(&segment)?;
    let digest = |alg| {
        let mut hashed = Hashed::new(object);
        let prehash = signature::digest(alg, &mut hashed)?;
        let stored = hashed.finish()?;
        let changed = objects.stored.get(&segment).is_some_and(|before| *before != stored);
        if changed {
            Err(std::io::Error::other("it changed while it was being verified"))
        } else {
            Ok(prehash)
        }
    };
    match signature::verify(&armored, &segment, digest) {
        Ok(signature) => {
            let key = PublicKey::from(signature.public_key().clone());
            Ok(Some(allowed(&name, &key, options, log)))
        }
        Err(SignatureError::Digest { object, source }) => {
            log.finding(Check::Signature, place(), format!("can't be checked: {object}: {source}"));
            Ok(None)
        }
        Err(error) => {
            log.finding(Check::Signature, place(), error.to_string());
            Ok(None)
        }
    }
}

fn allowed(name: &str, key: &PublicKey, options: &Options<'_>, log: &mut Log) -> Signer {
    let mut signer = signature::signer(key, options);
    match signature::is_allowed(key, options) {
        Some(Ok(by)) => signer.allowed_by = Some(by),
        Some(Err(refused)) => {
            let fingerprint = key.fingerprint(HashAlg::Sha256);
            let problem = format!("is valid, but its key {fingerprint} {refused}");
            log.finding(Check::Signature, Place::object(name), problem);
        }
        None => {}
    }
    signer
}

/// Whether there is nothing but segments, what belongs to them, and the bulk of the next one.
fn check_names(objects: &Objects, chain: &Chain, last: u32, log: &mut Log) {
    let next = chain.signed.last().map_or(1, |index| index.saturating_add(1));
    let mut known = BTreeSet::new();
    for index in chain.signed.iter().copied().chain([last, next]) {
        known.extend([segment_name(index), bulk_name(index, false), bulk_name(index, true)]);
        if chain.signed.contains(&index) {
            known.insert(signature_name(index));
        }
    }
    for name in objects.names().filter(|name| !known.contains(*name)) {
        let problem = "is extra, it belongs to no segment that is there";
        log.finding(Check::Objects, Place::object(name), problem);
    }
}
