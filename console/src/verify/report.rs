//! What verification found: the findings, the notes and the verdict they amount to.
//!
//! Texts in here may hold anything a recording holds; they are escaped where they are printed. Their number and
//! length are bounded.

use jiff::Timestamp;
use serde::Serialize;
use weir_common::{
    frame::Direction,
    recording::{Gap, Manifest, Opened},
    session::{ChannelNo, Outcome, SessionId, SessionMeta},
};

pub use super::withheld::FileContent;
use crate::table::grouped;

/// The most findings of one check that are kept; further ones are counted.
pub const FINDINGS_MAX: usize = 100;
/// The most notes that are kept.
pub const NOTES_MAX: usize = 100;
/// The most characters of a finding.
const PROBLEM_MAX: usize = 1000;

/// What is checked, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// The directory holds exactly the objects that it should.
    Objects,
    /// Every object has the digest that is listed for it.
    Digests,
    /// The list of digests is signed by a signer who is allowed to.
    Signature,
    /// The manifest is consistent and agrees with the objects.
    Manifest,
    /// The segments are a chain, and hold every frame in sequence.
    Segments,
    /// What the kernel counted is what is there.
    Arithmetic,
}

impl Check {
    /// Every check, in order.
    pub const ALL: [Self; 6] =
        [Self::Objects, Self::Digests, Self::Signature, Self::Manifest, Self::Segments, Self::Arithmetic];

    /// Its name in the output.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Objects => "objects",
            Self::Digests => "digests",
            Self::Signature => "signature",
            Self::Manifest => "manifest",
            Self::Segments => "segments",
            Self::Arithmetic => "arithmetic",
        }
    }
}

/// Where something is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Place {
    /// In which object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// In which of its lines, uncompressed and counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// On which channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<ChannelNo>,
    /// In which direction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// At which frame.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
}

impl Place {
    /// An object as a whole.
    #[must_use]
    pub fn object(name: &str) -> Self {
        Self { object: Some(name.to_owned()), ..Self::default() }
    }

    /// A line of an object.
    #[must_use]
    pub fn line(name: &str, line: u64) -> Self {
        Self { line: Some(line), ..Self::object(name) }
    }
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which check found it.
    pub check: Check,
    /// Where.
    #[serde(flatten)]
    pub place: Place,
    /// What.
    pub problem: String,
}

/// Who signed a recording.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Signer {
    /// The key's fingerprint.
    pub fingerprint: String,
    /// The line that would allow this signer.
    pub allowed_signers_line: String,
    /// Where this signer is allowed; `None` if it is not known who is.
    pub allowed_by: Option<String>,
}

/// The session in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The access context.
    pub session: SessionMeta,
    /// When it began.
    pub opened_at: Timestamp,
    /// When it ended; none while that is not in the store.
    pub closed_at: Option<Timestamp>,
    /// How.
    pub outcome: Option<Outcome>,
}

/// How far a session without an end is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Unfinished {
    /// The last segment that is signed.
    pub segments: u32,
    /// When its last event was, by the kernel's clock; none if that can't be told.
    pub until: Option<Timestamp>,
}

impl Summary {
    pub(super) fn of(manifest: &Manifest) -> Self {
        Self {
            session: manifest.session.clone(),
            opened_at: manifest.opened_at,
            closed_at: Some(manifest.closed_at),
            outcome: Some(manifest.outcome.clone()),
        }
    }

    pub(super) fn of_opened(opened: &Opened) -> Self {
        let Opened { session, opened_at, .. } = opened;
        Self { session: session.clone(), opened_at: *opened_at, closed_at: None, outcome: None }
    }

    /// The session's id.
    #[must_use]
    pub fn session_id(&self) -> SessionId {
        self.session.session_id
    }
}

/// What it all amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing is wrong and the signer is allowed.
    Intact,
    /// Nothing is wrong with what is there and its signer is allowed, but the session's end is not in the store.
    Unfinished,
    /// Nothing is wrong, but it is not known who may sign.
    SignerUnknown,
    /// Something is wrong.
    NotIntact,
}

/// How one check came out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckResult {
    /// Which.
    pub check: Check,
    /// What was checked, if nothing was wrong; why not, if it was not checked in full.
    pub detail: String,
    /// Whether all of it could be checked.
    pub complete: bool,
    /// How much is wrong.
    pub findings: u64,
}

/// What passed unrecorded, over all channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Gaps {
    /// How many gaps.
    pub gaps: u64,
    /// How many frames passed in them.
    pub records: u64,
    /// Bytes of those, frame headers included.
    pub bytes: u64,
}

impl Gaps {
    pub(super) fn add(&mut self, gap: &Gap) {
        self.gaps += 1;
        self.records = self.records.saturating_add(gap.records);
        self.bytes = self.bytes.saturating_add(gap.bytes);
    }
}

impl std::fmt::Display for Gaps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { gaps, records, bytes } = *self;
        let plural = if gaps == 1 { "" } else { "s" };
        write!(f, "{} gap{plural}: {} records, {} bytes", grouped(gaps), grouped(records), grouped(bytes))
    }
}

/// Everything that verification has to say about a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The directory as it was given.
    pub directory: String,
    /// What it amounts to.
    pub verdict: Verdict,
    /// Whether it holds everything that was delivered in the session: nothing is wrong, all of it could be checked, there
    /// are no gaps, and no file content is left out.
    pub complete: bool,
    /// What passed unrecorded.
    pub gaps: Gaps,
    /// What was recorded by size and digest only, as the grant says.
    pub withheld: FileContent,
    /// The session, if its manifest can be read, or its first segment.
    pub session: Option<Summary>,
    /// How far it is verified, if its end is not in the store.
    pub unfinished: Option<Unfinished>,
    /// Who signed, if that can be read.
    pub signer: Option<Signer>,
    /// Every check.
    pub checks: Vec<CheckResult>,
    /// Everything that is wrong, in the order of the checks; at most [`FINDINGS_MAX`] of each.
    pub findings: Vec<Finding>,
    /// What is not wrong but worth knowing.
    pub notes: Vec<String>,
}

impl Report {
    pub(super) fn new(
        directory: String,
        session: Option<Summary>,
        signer: Option<Signer>,
        unfinished: Option<Unfinished>,
        gaps: Gaps,
        withheld: FileContent,
        log: Log,
    ) -> Self {
        let Log { mut findings, counts, notes, mut details, incomplete } = log;
        findings.sort_by_key(|finding| finding.check);
        let allowed = signer.as_ref().is_some_and(|signer| signer.allowed_by.is_some());
        let verdict = match (counts.iter().sum::<u64>(), allowed) {
            (0, true) if unfinished.is_some() => Verdict::Unfinished,
            (0, true) => Verdict::Intact,
            (0, false) => Verdict::SignerUnknown,
            _ => Verdict::NotIntact,
        };
        let checks = Check::ALL.map(|check| CheckResult {
            check,
            detail: std::mem::take(&mut details[check as usize]),
            complete: !incomplete[check as usize],
            findings: counts[check as usize],
        });
        let complete = unfinished.is_none()
            && verdict != Verdict::NotIntact
            && gaps.gaps == 0
            && withheld.events == 0
            && !incomplete.contains(&true);
        Self {
            directory,
            verdict,
            complete,
            gaps,
            withheld,
            session,
            signer,
            unfinished,
            checks: checks.into(),
            findings,
            notes,
        }
    }
}

/// Collects findings and notes while verification goes on.
#[derive(Default)]
pub(super) struct Log {
    findings: Vec<Finding>,
    counts: [u64; Check::ALL.len()],
    notes: Vec<String>,
    details: [String; Check::ALL.len()],
    incomplete: [bool; Check::ALL.len()],
}

impl Log {
    pub(super) fn finding(&mut self, check: Check, place: Place, problem: impl Into<String>) {
        let count = &mut self.counts[check as usize];
        *count += 1;
        if *count <= FINDINGS_MAX as u64 {
            self.findings.push(Finding { check, place, problem: cut(problem.into()) });
        }
    }

    pub(super) fn note(&mut self, text: impl Into<String>) {
        if self.notes.len() < NOTES_MAX {
            self.notes.push(cut(text.into()));
        }
    }

    /// Says why a check could not be made in full. There is a finding of another check that led to it.
    pub(super) fn incomplete(&mut self, check: Check, why: &str) {
        self.incomplete[check as usize] = true;
        self.detail(check, why);
    }

    /// Says what a check looked at, for the case that nothing was wrong.
    pub(super) fn detail(&mut self, check: Check, text: impl Into<String>) {
        self.details[check as usize] = cut(text.into());
    }
}

fn cut(text: String) -> String {
    match text.char_indices().nth(PROBLEM_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
