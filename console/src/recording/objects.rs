//! The objects beside the segments: manifest and digests.

use std::collections::BTreeMap;

use weir_common::{
    digest::Sha256,
    recording::{MANIFEST, Manifest, SUMS, parse_sums},
};

use super::{has, warn};
use crate::{
    hashed::Hashed,
    manifest::{MANIFEST_MAX, SUMS_MAX, parse_manifest},
    segment::{Line, SegmentReader},
    store::{Object, SessionDir, StoreError},
};

pub(super) fn read_manifest(
    session: &SessionDir,
    names: &[String],
    warnings: &mut Vec<String>,
) -> Result<Option<Manifest>, StoreError> {
    if !has(names, MANIFEST) {
        return Ok(None);
    }
    let bytes = match session.read(MANIFEST, MANIFEST_MAX) {
        Ok(bytes) => bytes,
        Err(error @ StoreError::TooLong { .. }) => {
            warn(warnings, error.to_string());
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    match parse_manifest(&bytes) {
        Ok(manifest) => Ok(Some(manifest)),
        Err(error) => {
            warn(warnings, format!("{MANIFEST} {error}"));
            Ok(None)
        }
    }
}

/// The digests that are listed; none where there is no list.
pub(super) fn read_sums(
    session: &SessionDir,
    names: &[String],
    is_finished: bool,
    warnings: &mut Vec<String>,
) -> Result<BTreeMap<String, Sha256>, StoreError> {
    let none = BTreeMap::new();
    if !has(names, SUMS) {
        if is_finished {
            warn(warnings, format!("{SUMS} is missing"));
        }
        return Ok(none);
    }
    let bytes = match session.read(SUMS, SUMS_MAX) {
        Ok(bytes) => bytes,
        Err(error @ StoreError::TooLong { .. }) => {
            warn(warnings, error.to_string());
            return Ok(none);
        }
        Err(error) => return Err(error),
    };
    let Some(sums) = std::str::from_utf8(&bytes).ok().and_then(parse_sums) else {
        warn(warnings, format!("{SUMS} can't be read as a list of digests"));
        return Ok(none);
    };
    Ok(sums.into_iter().map(|(name, digest)| (name.to_owned(), digest)).collect())
}

pub(super) fn check_digests(
    session: &SessionDir,
    sums: &BTreeMap<String, Sha256>,
    warnings: &mut Vec<String>,
) {
    for (name, expected) in sums {
        match session.object(name).and_then(|object| digest(object, session, name)) {
            Ok(found) if found == *expected => {}
            Ok(_) => warn(warnings, format!("{name} does not have the digest that {SUMS} lists")),
            Err(StoreError::Io { op: "read", source, .. }) => {
                warn(warnings, format!("{name} can't be read: {source}"));
            }
            Err(error) => warn(warnings, error.to_string()),
        }
    }
}

fn digest(object: Object, session: &SessionDir, name: &str) -> Result<Sha256, StoreError> {
    let stored = Hashed::new(object).finish();
    let stored =
        stored.map_err(|source| StoreError::Io { op: "read", path: session.path().join(name), source })?;
    Ok(stored.sha256)
}

/// Kernel time of a segment's first event.
pub(super) fn first_t(session: &SessionDir, name: &str) -> Option<u64> {
    let mut reader = SegmentReader::new(session.object(name).ok()?).ok()?;
    loop {
        match reader.next_line() {
            Ok(Some((_, Line::Event(event)))) => return Some(event.t),
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return None,
        }
    }
}
