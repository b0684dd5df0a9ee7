//! What a recovery found and did, for people and as JSON.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::Serialize;
use weir_common::{
    recording::Count,
    session::{Outcome, SessionId},
};

use crate::{journal::Damage, report::Settled, session::Session};

/// Everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Recovery {
    /// Nothing was changed: this is what would be done.
    pub dry_run: bool,
    /// Each spool.
    pub spools: Vec<SpoolReport>,
    /// The reports of the sessions that were stored, where any are sent.
    pub reports: Option<Settled>,
    /// The lost node's own reports that wait where they were, if any do.
    pub lost_reports: Option<LostReports>,
}

/// Reports that the lost node did not deliver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LostReports {
    /// Where.
    pub directory: PathBuf,
    /// How many.
    pub left: usize,
    /// Why, if they were to be delivered.
    pub why: Option<String>,
}

/// A spool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SpoolReport {
    /// Where.
    pub directory: PathBuf,
    /// How many files it had.
    pub files: usize,
    /// How many bytes.
    pub bytes: u64,
    /// What could not be read of it.
    pub damage: Vec<Damage>,
    /// Records that belong to no session.
    pub orphans: Count,
    /// Its sessions.
    pub sessions: Vec<SessionReport>,
    /// Whether nothing is left of it.
    pub emptied: bool,
    /// Whether everything in it is stored, and it was left as it was (`--work`).
    pub kept: bool,
    /// Why something is, besides what the sessions say.
    pub left: Option<String>,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SessionReport {
    /// Its id.
    pub session: SessionId,
    /// Whose it was.
    pub user: String,
    /// On what.
    pub resource: String,
    /// When it began.
    pub opened_at: Timestamp,
    /// Its directory in the store.
    pub path: String,
    /// How it ended; it had not if none.
    pub ended: Option<Outcome>,
    /// What was not in the store, and its bytes.
    pub to_store: Count,
    /// How many records the spool has lost.
    pub lost_records: u64,
    /// What became of it.
    #[serde(flatten)]
    pub state: State,
}

/// What became of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum State {
    /// Everything is in the spool still.
    Found,
    /// Everything is in the store.
    Stored,
    /// It stays in the spool.
    Left {
        /// Why.
        reason: String,
    },
}

impl SpoolReport {
    pub(super) fn new(
        directory: &Path,
        files: impl ExactSizeIterator<Item = u64>,
        damage: Vec<Damage>,
        orphans: Count,
        sessions: Vec<SessionReport>,
    ) -> Self {
        let (number, bytes) = (files.len(), files.sum());
        Self {
            directory: directory.to_owned(),
            files: number,
            bytes,
            damage,
            orphans,
            sessions,
            emptied: false,
            kept: false,
            left: None,
        }
    }

    /// Whether records that were in it can't be read any more.
    #[must_use]
    pub fn has_losses(&self) -> bool {
        let damaged = |damage: &Damage| !matches!(damage, Damage::TornTail { .. });
        self.damage.iter().any(damaged)
            || self.orphans.records > 0
            || self.sessions.iter().any(|session| session.lost_records > 0)
    }
}

impl SessionReport {
    pub(super) fn of(session: &Session) -> Self {
        let meta = session.meta();
        Self {
            session: session.id(),
            user: meta.user.clone(),
            resource: meta.resource.name.clone(),
            opened_at: session.opened_at(),
            path: session.path(),
            ended: session.end().map(|end| end.outcome.clone()),
            to_store: session.unsealed(),
            lost_records: session.gone_records(),
            state: State::Found,
        }
    }
}

impl Recovery {
    /// Whether every spool is empty, or need not be.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let reported = |reports: &Settled| reports.waiting.is_empty() && reports.set_aside.is_empty();
        let emptied = self.spools.iter().all(|spool| spool.emptied || spool.kept);
        emptied && self.reports.as_ref().is_none_or(reported) && self.lost_reports.is_none()
    }

    /// The sessions that are stored now.
    pub(super) fn stored(&self) -> impl Iterator<Item = SessionId> {
        let sessions = self.spools.iter().flat_map(|spool| &spool.sessions);
        sessions.filter(|session| session.state == State::Stored).map(|session| session.session)
    }

    /// Whether records were lost before the recovery began.
    #[must_use]
    pub fn has_losses(&self) -> bool {
        self.spools.iter().any(SpoolReport::has_losses)
    }

    /// For people. What users chose (names) is quoted.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for spool in &self.spools {
            // A string takes everything.
            let _ = spool.write(self.dry_run, &mut text);
        }
        if let Some(reports) = &self.reports {
            let _ = write_reports(reports, &mut text);
        }
        if let Some(LostReports { directory, left, why }) = &self.lost_reports {
            let _ = match why {
                None => writeln!(text, "{}: {left} session reports wait", directory.display()),
                Some(why) => {
                    writeln!(text, "{}: {left} session reports are LEFT: {why}", directory.display())
                }
            };
        }
        text
    }
}

fn write_reports(reports: &Settled, text: &mut String) -> std::fmt::Result {
    let Settled { delivered, waiting, set_aside } = reports;
    writeln!(text, "{delivered} session reports delivered")?;
    for session in waiting {
        writeln!(
            text,
            "  {session}: its report WAITS below state_dir; the next agent or recovery with that state_dir delivers it"
        )?;
    }
    for session in set_aside {
        writeln!(
            text,
            "  {session}: the receiver will never take its REPORT; it is in reports/rejected below state_dir"
        )?;
    }
    Ok(())
}

impl SpoolReport {
    fn write(&self, dry_run: bool, text: &mut String) -> std::fmt::Result {
        let Self { directory, files, bytes, damage, orphans, sessions, emptied, kept, left } = self;
        writeln!(
            text,
            "{}: {files} files of {bytes} bytes, {} sessions",
            directory.display(),
            sessions.len()
        )?;
        for damage in damage {
            writeln!(text, "  {damage}")?;
        }
        if orphans.records > 0 {
            writeln!(text, "  {} records belong to no session and are in no recording", orphans.records)?;
        }
        for session in sessions {
            session.write(text)?;
        }
        match (emptied, left) {
            (true, _) => writeln!(text, "  everything is stored, and the spool is empty"),
            (false, _) if *kept => {
                writeln!(text, "  everything is stored, and the spool is left as it was (--work)")
            }
            (false, _) if dry_run => writeln!(text, "  nothing was changed (--dry-run)"),
            (false, Some(left)) => writeln!(text, "  not emptied: {left}"),
            (false, None) => writeln!(text, "  not emptied: sessions are left; run this again"),
        }
    }
}

impl SessionReport {
    fn write(&self, text: &mut String) -> std::fmt::Result {
        let Self { session, user, resource, opened_at, path: _, ended, to_store, lost_records, state } = self;
        write!(text, "  {session}: {user:?} on {resource:?}, {}, ", opened_at.strftime("%Y-%m-%d %H:%M:%S"))?;
        match ended {
            Some(outcome) => write!(text, "{outcome}")?,
            None => write!(text, "had not ended")?,
        }
        write!(text, ", {} records of {} bytes to store", to_store.records, to_store.bytes)?;
        if *lost_records > 0 {
            write!(text, ", {lost_records} RECORDS LOST")?;
        }
        match state {
            State::Found => writeln!(text),
            State::Stored => writeln!(text, ": stored"),
            State::Left { reason } => writeln!(text, ": LEFT: {reason}"),
        }
    }
}
