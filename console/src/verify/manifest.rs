//! Checks the manifest against itself, the directory's place and the objects.

use weir_common::{
    digest::Sha256,
    recording::{
        MANIFEST, Manifest, SUMS, StoredFindings, StoredObject, bulk_name,
        findings::{KINDS, kind_of},
        segment_name, signature_name,
    },
};

use super::{
    objects::Objects,
    report::{Check, Log, Place},
};
use crate::{
    manifest::{MANIFEST_MAX, parse_manifest},
    store::{SessionDir, StoreError},
};

/// The manifest, if it is one; how it came to be there is not judged here.
pub(super) fn check(
    session: &SessionDir,
    objects: &Objects,
    log: &mut Log,
) -> Result<Option<Manifest>, StoreError> {
    if objects.is_unfinished() {
        log.incomplete(Check::Manifest, "none yet");
        return Ok(None);
    }
    let Some(manifest) = read(session, objects, log)? else { return Ok(None) };
    check_place(session, &manifest, log);
    for (index, entry) in (1..).zip(&manifest.segments) {
        if entry.index != index {
            finding(log, format!("segment {index} of the list has the number {}", entry.index));
        }
        if entry.segment.name != segment_name(entry.index) {
            finding(log, format!("segment {} is named {}", entry.index, entry.segment.name));
        }
        if let Some(bulk) = &entry.bulk
            && ![true, false].map(|compressed| bulk_name(entry.index, compressed)).contains(&bulk.name)
        {
            finding(log, format!("the bulk of segment {} is named {}", entry.index, bulk.name));
        }
        match &entry.signature {
            None => finding(log, format!("names no signature of segment {}", entry.index)),
            Some(signature) if signature.name != signature_name(entry.index) => {
                finding(log, format!("the signature of segment {} is named {}", entry.index, signature.name));
            }
            Some(_) => {}
        }
    }
    manifest.findings.iter().for_each(|findings| check_findings(findings, log));
    manifest.objects().for_each(|object| check_object(object, objects, log));
    check_unnamed(&manifest, objects, log);
    log.detail(
        Check::Manifest,
        format!("names {} segments and agrees with SHA256SUMS", manifest.segments.len()),
    );
    Ok(Some(manifest))
}

fn read(session: &SessionDir, objects: &Objects, log: &mut Log) -> Result<Option<Manifest>, StoreError> {
    if !objects.has(MANIFEST) {
        finding(log, "can't be checked, it is missing");
        return Ok(None);
    }
    let bytes = match session.read(MANIFEST, MANIFEST_MAX) {
        Ok(bytes) => bytes,
        Err(error @ StoreError::TooLong { .. }) => {
            finding(log, error.to_string());
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    if objects.stored.get(MANIFEST).is_some_and(|stored| stored.sha256 != Sha256::of(&bytes)) {
        finding(log, "changed while it was being verified");
    }
    match parse_manifest(&bytes) {
        Ok(manifest) => Ok(Some(manifest)),
        Err(error) => {
            finding(log, error.to_string());
            Ok(None)
        }
    }
}

fn check_place(session: &SessionDir, manifest: &Manifest, log: &mut Log) {
    let (id, name) = (manifest.session.session_id.to_string(), session.name());
    if id != name {
        finding(log, format!("is about session {id}, and the directory is named {name}"));
    }
    let date = manifest.opened_at.strftime("%Y-%m-%d").to_string();
    if let Some(partition) = session.partition().filter(|partition| *partition != date) {
        finding(log, format!("says the session was opened on {date} UTC, and it lies in dt={partition}"));
    }
}

/// What is listed as findings goes by no other name, or an object that is none would pass for one.
fn check_findings(findings: &StoredFindings, log: &mut Log) {
    let StoredFindings { counts: _, objects, superseded } = findings;
    for StoredObject { name, .. } in objects.iter().chain(superseded) {
        if kind_of(name).is_none() {
            finding(log, format!("lists {name} as findings, and none have that name"));
        }
    }
    for kind in KINDS {
        let of_kind = objects.iter().filter(|object| kind_of(&object.name) == Some(kind)).count();
        if of_kind > 1 {
            finding(log, format!("lists {of_kind} objects of findings of the kind of {kind}"));
        }
    }
}

fn check_object(object: &StoredObject, objects: &Objects, log: &mut Log) {
    let StoredObject { name, sha256, bytes } = object;
    match objects.listed.as_ref().map(|listed| listed.get(name)) {
        Some(Some(listed)) if listed != sha256 => {
            finding(log, format!("gives {name} the SHA-256 {sha256}, and {SUMS} gives it {listed}"));
        }
        Some(None) => finding(log, format!("names {name}, which {SUMS} does not list")),
        _ => {}
    }
    match objects.stored.get(name) {
        Some(stored) if stored.bytes != *bytes => {
            finding(log, format!("gives {name} {bytes} bytes, and it has {}", stored.bytes));
        }
        // Where there is a list, it has been compared with the object already.
        Some(stored) if objects.listed.is_none() && stored.sha256 != *sha256 => {
            finding(log, format!("gives {name} the SHA-256 {sha256}, and it has {}", stored.sha256));
        }
        None if !objects.has(name) => finding(log, format!("names {name}, which is not there")),
        _ => {}
    }
}

fn check_unnamed(manifest: &Manifest, objects: &Objects, log: &mut Log) {
    let mut named: Vec<&str> = manifest.objects().map(|object| object.name.as_str()).collect();
    named.sort_unstable();
    let twice: Vec<_> = named.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
    for name in twice {
        finding(log, format!("names {name} twice"));
    }
    for name in objects.listed.iter().flatten().map(|(name, _)| name.as_str()) {
        if name != MANIFEST && named.binary_search(&name).is_err() {
            finding(log, format!("does not name {name}, which {SUMS} lists"));
        }
    }
}

fn finding(log: &mut Log, problem: impl Into<String>) {
    log.finding(Check::Manifest, Place::object(MANIFEST), problem);
}
