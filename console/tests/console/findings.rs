//! What the manifest lists as findings: by the names and in the numbers that findings have, and nothing else.

use weir_common::recording::{
    StoredFindings,
    findings::{COMMANDS, FILES, FindingCounts, object_name},
};
use weir_console::verify::report::{Check, Verdict};

use crate::support::{case::Case, sample, stored};

/// The sample with objects that the manifest lists as findings and as superseded ones.
fn listing(counts: Option<FindingCounts>, objects: &[&str], superseded: &[&str]) -> Case {
    let mut sealed = sample().seal();
    let objects_of = |names: &[&str]| names.iter().map(|name| stored(name, name.as_bytes())).collect();
    sealed.manifest.findings =
        Some(StoredFindings { counts, objects: objects_of(objects), superseded: objects_of(superseded) });
    for name in objects.iter().chain(superseded) {
        sealed.objects.insert((*name).to_owned(), name.as_bytes().to_vec());
    }
    Case::signed(sealed)
}

#[test]
fn findings_are_listed_by_their_names_once_of_each_kind() {
    let counts = Some(FindingCounts::default());
    let second = object_name(COMMANDS, 2);
    for (counts, objects, superseded) in [
        (counts, &[COMMANDS, FILES][..], &[][..]),
        (counts, &[&second], &[COMMANDS]),
        (None, &[], &[COMMANDS, &second]),
        // Not all of them could be stored.
        (None, &[COMMANDS], &[]),
    ] {
        let report = listing(counts, objects, superseded).verify();
        assert_eq!(report.verdict, Verdict::Intact, "{:#?}", report.findings);
    }
    for (case, problem) in [
        (listing(counts, &["notes.txt"], &[]), "lists notes.txt as findings"),
        (listing(counts, &[COMMANDS], &["commands-10.ndjson"]), "lists commands-10.ndjson as findings"),
        (listing(counts, &[COMMANDS, &second], &[]), "lists 2 objects of findings of the kind of commands"),
    ] {
        case.only_finds(Check::Manifest, problem);
        assert_eq!(case.verify().findings.len(), 1);
    }
}
