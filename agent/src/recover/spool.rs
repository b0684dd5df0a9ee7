//! Recovering one spool: take it, end what had not ended, store everything, empty it.

use std::{
    collections::{BTreeMap, HashSet},
    fs, io,
    path::Path,
    time::Duration,
};

use tokio::{sync::watch, task::JoinSet};
use tracing::warn;
use weir_common::{
    recording::Count,
    session::{Outcome, SessionId},
};

use super::{
    RecoverError, Tools, place,
    report::{SessionReport, SpoolReport, State},
    work,
};
use crate::{
    breaker::Outage,
    journal::{Inspected, Journal, JournalError},
    ledger::{Ledger, StateEntry},
    session::{ChannelKernel, End, Session},
    spool::{self, RESERVE, SpoolError},
    storing::{Done, Job, PAUSES, Stored, StoringError, Work, Worker},
};

/// How far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) sessions: usize,
    pub(super) sessions_done: usize,
    pub(super) bytes: u64,
    pub(super) bytes_done: u64,
}

/// What would be recovered; nothing is changed.
pub(super) fn look(dir: &Path) -> Result<SpoolReport, RecoverError> {
    let _locks = place::lock_around(dir)?;
    inspect(dir)
}

fn inspect(dir: &Path) -> Result<SpoolReport, RecoverError> {
    let Inspected { ledger, files, damage } = Journal::inspect(dir).map_err(journal_error(dir))?;
    let sessions = ledger.sessions().map(SessionReport::of).collect();
    Ok(SpoolReport::new(dir, files.into_values(), damage, ledger.orphans(), sessions))
}

/// Stores everything in a spool, and empties it.
pub(super) async fn recover(
    dir: &Path,
    tools: &mut Tools,
    progress: &dyn Fn(Progress),
) -> Result<SpoolReport, RecoverError> {
    let _locks = place::lock_around(dir)?;
    let mut report = inspect(dir)?;
    let in_place = tools.work.is_none();
    let (_lock, own) = match &tools.work {
        None => (None, dir.to_owned()),
        Some(work) => {
            let lock = spool::lock(dir).map_err(|error| journal_error(dir)(error.into()))?;
            (Some(lock), work::directory(dir, work)?)
        }
    };
    let unwritable = |error| match is_unwritable(&error) && in_place {
        true => RecoverError::Unwritable { path: dir.to_owned(), source: error },
        false => journal_error(&own)(error),
    };
    let journal = Journal::open(&own, tools.spool).map_err(unwritable)?;
    refuse_what_may_be_under_way(dir, journal.ledger(), tools.give_up_ring)?;
    if in_place && let Some(spools) = dir.parent() {
        // What the lost agent held is for this. If there is none, or it stays, so be it.
        let _ = fs::remove_file(spools.join(RESERVE));
    }
    let mut recovering = Recovering::new(journal, &report);
    recovering.end_all().map_err(unwritable)?;
    let outcome = recovering.run(tools, progress).await;
    for session in &mut report.sessions {
        session.state = match recovering.left.get(&session.session) {
            Some(reason) => State::Left { reason: reason.clone() },
            None if recovering.journal.ledger().session(session.session).is_none() => State::Stored,
            None => State::Left { reason: "it was not its turn any more".to_owned() },
        };
    }
    report.left = match outcome {
        Ok(()) if recovering.journal.ledger().sessions().len() > 0 => None,
        Ok(()) => recovering.journal.retire().err().map(|error| unwritable(error).to_string()),
        Err(error) => Some(unwritable(error).to_string()),
    };
    let stored = report.sessions.iter().all(|session| session.state == State::Stored);
    if stored && report.left.is_none() && !in_place {
        // Links to damaged files may be left in it; these are where they were.
        report.left =
            fs::remove_dir_all(&own).err().map(|error| format!("cannot remove {}: {error}", own.display()));
        report.kept = report.left.is_none();
    } else if stored && report.left.is_none() {
        // What was damaged stays, under another name: it may be read better by somebody else.
        let is_other = |item: &io::Result<fs::DirEntry>| {
            item.as_ref().map_or(true, |item| item.path().extension().is_none_or(|name| name != "damaged"))
        };
        let others = fs::read_dir(dir).map_or(0, |items| items.filter(is_other).count());
        report.emptied = others == 0;
        report.left = (others > 0).then(|| format!("{others} other files are in the directory"));
    }
    Ok(report)
}

/// Sessions of this node since its start may go on as soon as an agent runs, and the ring may hold more of them.
fn refuse_what_may_be_under_way(dir: &Path, ledger: &Ledger, give_up: bool) -> Result<(), RecoverError> {
    let sessions = ledger.sessions().filter(|session| session.end().is_none()).count();
    let here = place::boot_id();
    let of_this_boot = ledger.ring().is_some_and(|ring| Some(&ring.boot_id) == here.as_ref());
    if sessions == 0 || !of_this_boot || give_up {
        return Ok(());
    }
    Err(RecoverError::UnderWay { path: dir.to_owned(), sessions })
}

struct Recovering {
    journal: Journal,
    /// Sessions that stay, and why.
    left: BTreeMap<SessionId, String>,
    under_way: HashSet<SessionId>,
    progress: Progress,
}

type Try = (Job, Result<Stored, StoringError>);

impl Recovering {
    fn new(journal: Journal, report: &SpoolReport) -> Self {
        let bytes =
            report.sessions.iter().fold(Count::default(), |sum, session| sum + session.to_store).bytes;
        let progress = Progress { sessions: report.sessions.len(), bytes, ..Progress::default() };
        Self { journal, left: BTreeMap::new(), under_way: HashSet::new(), progress }
    }

    async fn run(&mut self, tools: &mut Tools, progress: &dyn Fn(Progress)) -> Result<(), JournalError> {
        let mut tries: JoinSet<Try> = JoinSet::new();
        let outage = tools.worker.outage();
        loop {
            for job in self.next_jobs(tools, tools.parallel.saturating_sub(tries.len()))? {
                self.under_way.insert(job.session);
                tries.spawn(try_once(tools.worker.clone(), job));
            }
            progress(self.progress);
            tokio::select! {
                tried = tries.join_next() => match tried {
                    None => return Ok(()),
                    Some(Ok((job, outcome))) => self.take(&job, outcome, tools)?,
                    // It panicked; its session is not stored, and is not tried again.
                    Some(Err(_)) => {}
                },
                error = lasting(outage.clone(), tools.patience) => {
                    let sessions = self.journal.ledger().sessions().map(Session::id);
                    for id in sessions.collect::<Vec<_>>() {
                        self.left.entry(id).or_insert_with(|| format!("the store does not answer: {error}"));
                    }
                    return Ok(());
                }
            }
        }
    }

    /// Nobody comes back for these: what is known of them is all there will be.
    fn end_all(&mut self) -> Result<(), JournalError> {
        let open = self.journal.ledger().sessions().filter(|session| session.end().is_none());
        let ends: Vec<_> = open
            .map(|session| {
                let unknown = |(channel, _)| ChannelKernel { channel, c2t: None, t2c: None };
                let kernel = session.taps().map(unknown).collect();
                // Not the present: however often, and from whichever copy, it is the same end.
                let end = End { outcome: Outcome::ConnectorLost, closed_at: session.last_heard_of() };
                StateEntry::Closed { session: session.id(), end, kernel }
            })
            .collect();
        ends.into_iter().try_for_each(|end| self.journal.append(end))
    }

    /// At most so many jobs. What they follow from is on the disk, unless that takes nothing more: then what is in it had
    /// better be stored.
    fn next_jobs(&mut self, tools: &Tools, most: usize) -> Result<Vec<Job>, JournalError> {
        let free = |session: &&Session| {
            !self.under_way.contains(&session.id()) && !self.left.contains_key(&session.id())
        };
        let due = |session: &Session| Some((session.next_index(), session.due_records(tools.seal, 0)?));
        let free = self.journal.ledger().sessions().filter(free).take(most);
        let free: Vec<_> = free.map(|session| (session.id(), due(session))).collect();
        for &(session, due) in &free {
            if let Some((index, records)) = due {
                self.journal.append(StateEntry::SealStarted { session, index, records })?;
            }
        }
        if let Err(error) = self.journal.flush() {
            warn!(%error, "what is recovered is stored all the same");
        }
        let session = |(id, _)| self.journal.ledger().session(id);
        let job = |session| Job::next(session, self.journal.spool_dir());
        Ok(free.into_iter().filter_map(session).filter_map(job).collect())
    }

    fn take(
        &mut self,
        job: &Job,
        outcome: Result<Stored, StoringError>,
        tools: &mut Tools,
    ) -> Result<(), JournalError> {
        let session = job.session;
        self.under_way.remove(&session);
        let stored = match outcome {
            Ok(stored) => stored,
            Err(error) => {
                self.left.insert(session, error.to_string());
                return Ok(());
            }
        };
        match (&stored, &job.work) {
            (Stored::Segment { entry, carried: _ }, _) => {
                self.progress.bytes_done = self.progress.bytes_done.saturating_add(entry.events.bytes);
            }
            (Stored::Manifest, Work::Manifest(ending)) => {
                if let Err(reason) = (tools.on_stored)(&ending.manifest) {
                    self.left.insert(session, reason);
                    return Ok(());
                }
                self.progress.sessions_done += 1;
            }
            (Stored::Manifest, Work::Segment(_)) => {}
        }
        self.journal.append(Done { session, stored }.change())?;
        self.journal.give_back()
    }
}

async fn try_once(worker: Worker, job: Job) -> Try {
    let mut pause = PAUSES.first;
    loop {
        let outcome = worker.in_turn(&job).await;
        // So many times, then the session is stored without findings.
        let Err(StoringError::ReadBack(_)) = outcome else { return (job, outcome) };
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.longest);
    }
}

/// Waits until the store has failed for this long, and says how.
async fn lasting(mut outage: watch::Receiver<Option<Outage>>, patience: Duration) -> String {
    loop {
        if outage.wait_for(Option::is_some).await.is_err() {
            return std::future::pending().await;
        }
        let ended = tokio::time::timeout(patience, outage.wait_for(Option::is_none)).await.is_ok();
        if let (false, Some(outage)) = (ended, &*outage.borrow()) {
            return outage.error.clone();
        }
    }
}

/// Whether nothing can be written there at the moment, whatever it is.
fn is_unwritable(error: &JournalError) -> bool {
    let read_only = |source: &io::Error| source.kind() == io::ErrorKind::ReadOnlyFilesystem;
    match error {
        JournalError::Spool(error @ SpoolError::Io { source, .. }) => error.is_no_room() || read_only(source),
        _ => false,
    }
}

fn journal_error(dir: &Path) -> impl Fn(JournalError) -> RecoverError {
    let path = dir.to_owned();
    move |source| match source {
        JournalError::Spool(SpoolError::InUse { dir }) => RecoverError::InUse { path: dir },
        source => RecoverError::Journal { path: path.clone(), source },
    }
}
