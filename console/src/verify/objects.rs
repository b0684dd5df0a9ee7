//! Checks that the directory holds exactly the objects that `SHA256SUMS` lists, with the digests it lists.
//!
//! Objects are digested streaming. What `SHA256SUMS` says is not trusted here: the signature is checked apart.

use std::collections::{BTreeMap, BTreeSet};

use weir_common::{
    digest::Sha256,
    recording::{MANIFEST, SIGNATURE, SUMS, parse_sums},
};

use super::report::{Check, Log, Place};
use crate::{
    hashed::{Hashed, Stored},
    manifest::{SUMS_MAX, segment_index},
    store::{EntryKind, SessionDir, StoreError},
};

/// What lies in the directory.
pub(super) struct Objects {
    /// Names of the regular files.
    files: BTreeSet<String>,
    /// The bytes of `SHA256SUMS`, if it is there.
    pub(super) sums: Option<Vec<u8>>,
    /// What it lists; `None` if it can't be read as a list.
    pub(super) listed: Option<BTreeMap<String, Sha256>>,
    /// What the objects really are.
    pub(super) stored: BTreeMap<String, Stored>,
}

impl Objects {
    /// Whether there is a regular file of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.files.contains(name)
    }

    /// Whether nothing is there of what ends a session, and something of what comes before: it is under way, or its end
    /// never came into the store.
    pub(super) fn is_unfinished(&self) -> bool {
        ![MANIFEST, SUMS, SIGNATURE].iter().any(|name| self.has(name)) && self.segments().next().is_some()
    }

    /// The numbers of the segments that are there.
    pub(super) fn segments(&self) -> impl Iterator<Item = u32> {
        self.names().filter_map(segment_index)
    }

    /// The regular files' names.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(String::as_str)
    }
}

pub(super) fn check(session: &SessionDir, log: &mut Log) -> Result<Objects, StoreError> {
    let files = list_files(session, log)?;
    let sums = read_sums(session, &files, log)?;
    let listed = sums.as_deref().and_then(|bytes| parse(bytes, log));
    if let Some(listed) = &listed {
        compare_names(&files, listed, log);
    }
    let stored = digest(session, &files, listed.as_ref(), log)?;
    let objects = Objects { files, sums, listed, stored };
    if objects.is_unfinished() {
        log.detail(Check::Objects, format!("{} objects, and not the session's end", objects.files.len()));
        log.incomplete(
            Check::Digests,
            "no SHA256SUMS yet; each segment has the digests of its bulk and of the one before",
        );
        return Ok(objects);
    }
    for name in [SUMS, SIGNATURE, MANIFEST].into_iter().filter(|&name| !objects.has(name)) {
        log.finding(Check::Objects, Place::object(name), "is missing");
    }
    log.detail(Check::Objects, format!("{} objects, none missing and none extra", objects.files.len()));
    let digests = format!("{} objects have the digest that SHA256SUMS lists", objects.stored.len());
    log.detail(Check::Digests, digests);
    Ok(objects)
}

fn list_files(session: &SessionDir, log: &mut Log) -> Result<BTreeSet<String>, StoreError> {
    let mut files = BTreeSet::new();
    for entry in session.list()? {
        let what = match entry.kind {
            EntryKind::File => {
                files.insert(entry.name);
                continue;
            }
            EntryKind::Link => "is a symbolic link; a recording holds regular files only",
            EntryKind::Directory => "is a directory; a recording holds regular files only",
            EntryKind::Other => "is not a regular file",
        };
        log.finding(Check::Objects, Place::object(&entry.name), what);
    }
    Ok(files)
}

fn read_sums(
    session: &SessionDir,
    files: &BTreeSet<String>,
    log: &mut Log,
) -> Result<Option<Vec<u8>>, StoreError> {
    if !files.contains(SUMS) {
        return Ok(None);
    }
    match session.read(SUMS, SUMS_MAX) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error @ StoreError::TooLong { .. }) => {
            log.finding(Check::Digests, Place::object(SUMS), error.to_string());
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn parse(bytes: &[u8], log: &mut Log) -> Option<BTreeMap<String, Sha256>> {
    let Ok(text) = std::str::from_utf8(bytes) else {
        log.finding(Check::Digests, Place::object(SUMS), "is not UTF-8 text");
        return None;
    };
    let Some(sums) = parse_sums(text) else {
        let bad = text.split_inclusive('\n').position(|line| parse_sums(line).is_none());
        let place = bad.map_or(Place::object(SUMS), |bad| Place::line(SUMS, bad as u64 + 1));
        log.finding(
            Check::Digests,
            place,
            "is not of the form `<64 hexadecimal digits>  <object name>` and a line feed",
        );
        return None;
    };
    let mut listed = BTreeMap::new();
    for (number, (name, sha256)) in (1..).zip(sums) {
        let place = || Place::line(SUMS, number);
        if [SUMS, SIGNATURE].contains(&name) {
            log.finding(Check::Digests, place(), format!("lists {name}, which it can't vouch for"));
        } else if listed.insert(name.to_owned(), sha256).is_some() {
            log.finding(Check::Digests, place(), format!("lists {name} again"));
        }
    }
    Some(listed)
}

fn compare_names(files: &BTreeSet<String>, listed: &BTreeMap<String, Sha256>, log: &mut Log) {
    for name in listed.keys().filter(|name| !files.contains(*name) && *name != MANIFEST) {
        log.finding(Check::Objects, Place::object(name), "is missing, SHA256SUMS lists it");
    }
    for name in files.iter().filter(|name| ![SUMS, SIGNATURE].contains(&name.as_str())) {
        if !listed.contains_key(name) {
            log.finding(Check::Objects, Place::object(name), "is extra, SHA256SUMS does not list it");
        }
    }
}

/// Digests what is listed, or everything if it is not known what is listed.
fn digest(
    session: &SessionDir,
    files: &BTreeSet<String>,
    listed: Option<&BTreeMap<String, Sha256>>,
    log: &mut Log,
) -> Result<BTreeMap<String, Stored>, StoreError> {
    let mut all = BTreeMap::new();
    let wanted = |name: &&String| match listed {
        Some(listed) => listed.contains_key(*name),
        None => ![SUMS, SIGNATURE].contains(&name.as_str()),
    };
    for name in files.iter().filter(wanted) {
        let stored = Hashed::new(session.object(name)?).finish().map_err(|source| StoreError::Io {
            op: "read",
            path: session.path().join(name),
            source,
        })?;
        if let Some(expected) = listed.and_then(|listed| listed.get(name))
            && *expected != stored.sha256
        {
            log.finding(
                Check::Digests,
                Place::object(name),
                format!("has SHA-256 {} and should have {expected}", stored.sha256),
            );
        }
        all.insert(name.clone(), stored);
    }
    Ok(all)
}
