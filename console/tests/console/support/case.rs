//! A recording on disk that a test changes and verifies in process.

use std::{
    fs,
    path::{Path, PathBuf},
};

use jiff::{Timestamp, tz::TimeZone};
use ssh_key::PrivateKey;
use tempfile::TempDir;
use weir_console::{
    store::SessionDir,
    verify::{
        Options,
        report::{Check, Report, Verdict},
        signers::AllowedSigners,
        verify,
    },
};

use super::{Sealed, allowed_signers, new_key};

/// A session's directory and the key that is trusted.
pub(crate) struct Case {
    root: TempDir,
    pub(crate) key: PrivateKey,
    pub(crate) dir: PathBuf,
    signers: AllowedSigners,
}

impl Case {
    /// Writes a recording and trusts a new key. `prepare` decides what is signed by which key.
    pub(crate) fn new(mut sealed: Sealed, prepare: impl FnOnce(&mut Sealed, &PrivateKey)) -> Self {
        let key = new_key();
        sealed.sign_segments(&key);
        sealed.write_manifest();
        sealed.write_sums();
        prepare(&mut sealed, &key);
        let root = tempfile::tempdir().expect("temporary directory");
        let dir = sealed.write(root.path());
        let signers = AllowedSigners::parse("FILE", &allowed_signers(&key), &TimeZone::UTC);
        Self { root, key, dir, signers }
    }

    /// Writes a recording that is signed as it is.
    pub(crate) fn signed(sealed: Sealed) -> Self {
        Self::new(sealed, Sealed::sign)
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    /// The objects' names.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.dir).expect("readable");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("readable").file_name().into_string().expect("UTF-8")).collect();
        names.sort_unstable();
        names
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.dir.join(name)).expect("readable")
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.dir.join(name), bytes).expect("writable");
    }

    pub(crate) fn verify(&self) -> Report {
        self.verify_at(&self.dir)
    }

    pub(crate) fn verify_at(&self, dir: &Path) -> Report {
        let now: Timestamp = "2026-06-01T00:00:00Z".parse().expect("a time");
        let options = Options { signers: Some(&self.signers), identity: "weir-agent", now };
        verify(&SessionDir::open(dir).expect("a directory"), &options).expect("readable")
    }

    /// Verifies and expects a finding of this check with these words, the verdict being what it has to be.
    #[track_caller]
    pub(crate) fn finds(&self, check: Check, words: &str) {
        let report = self.verify();
        assert_eq!(report.verdict, Verdict::NotIntact, "{words}");
        let said = |problem: &str| problem.contains(words);
        let found = report.findings.iter().any(|finding| finding.check == check && said(&finding.problem));
        assert!(found, "no {check:?} finding with {words:?} in {:#?}", report.findings);
    }

    /// The same, and nothing but this check finds anything.
    #[track_caller]
    pub(crate) fn only_finds(&self, check: Check, words: &str) {
        self.finds(check, words);
        let report = self.verify();
        let others: Vec<_> = report.findings.iter().filter(|finding| finding.check != check).collect();
        assert!(others.is_empty(), "{others:#?}");
    }
}
