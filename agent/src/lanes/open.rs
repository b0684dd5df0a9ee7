//! Opening lanes, running them, and removing those that are needed no more.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};
use weir_common::recording::Recorder;

use super::plan::{self, LanePlan};
use crate::{
    breaker::Outage,
    config::{Config, CpuGroup},
    core::{Core, CoreError, CoreHandle, CoreOptions, Ended, LaneNo, Roster},
    journal::{Journal, JournalError},
    report::{QueueError, Reports},
    spool::{self, Space},
    storing::Job,
    tap::{ProgramLog, RingPlace, Rings, TapError},
};

/// The most jobs of a lane that wait for the worker to take them.
const JOBS_MAX: usize = 64;

/// Why a lane cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    /// The file system said no.
    #[error("cannot {op} {}: {source}", path.display())]
    Io {
        /// What was tried.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It would be left behind without a word.
    #[error(
        "{} holds the spool of an agent from before there were lanes; have that agent store what is in it, or move its \
         .log files elsewhere",
        dir.display()
    )]
    EarlierSpool {
        /// Where.
        dir: PathBuf,
    },
    /// The kernel side.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// The spool.
    #[error("{}: {source}", spool.display())]
    Journal {
        /// Its directory.
        spool: PathBuf,
        /// Why not.
        source: JournalError,
    },
    /// The core.
    #[error(transparent)]
    Core(#[from] CoreError),
    /// The session reports.
    #[error(transparent)]
    Report(#[from] QueueError),
}

/// What all lanes have in common.
pub(crate) struct Common {
    pub(crate) rings: Rings,
    pub(crate) roster: Arc<Roster>,
    space: Arc<Space>,
    recorder: Recorder,
    config: Config,
    reports: Option<Reports>,
    outage: watch::Receiver<Option<Outage>>,
}

/// A lane that does not run yet.
pub(crate) struct OpenLane {
    pub(crate) core: Core,
    pub(crate) handle: CoreHandle,
    pub(crate) takes_new: bool,
    pub(crate) jobs: mpsc::Receiver<Job>,
    pub(crate) log: Option<ProgramLog>,
    pub(crate) running: Running,
}

/// What is known of a lane while its core runs.
pub(crate) struct Running {
    pub(crate) place: RingPlace,
    spool: PathBuf,
    cpus: CpuGroup,
}

impl Common {
    pub(crate) fn new(
        config: Config,
        spools: &Path,
        recorder: Recorder,
        reports: Option<Reports>,
        outage: watch::Receiver<Option<Outage>>,
    ) -> Result<Self, LaneError> {
        Ok(Self {
            rings: Rings::open(&config.tap)?,
            roster: Arc::new(Roster::new(config.sessions)),
            space: Space::held_in(spools, config.space.limits),
            recorder,
            config,
            reports,
            outage,
        })
    }

    /// Opens the lanes that are configured and those that something was left in, all at the same time: sessions
    /// may be waiting in each.
    pub(crate) fn open_lanes(&self, spools: &Path) -> Result<Vec<OpenLane>, LaneError> {
        // The configuration has fewer than that.
        let groups = u16::try_from(self.config.cpu_groups.len()).unwrap_or(u16::MAX);
        let plans = plan::lanes(groups, &self.rings.pinned()?, &spool_places(spools)?);
        thread::scope(|scope| {
            let open = |(no, plan): (usize, LanePlan)| {
                scope.spawn(move || self.open_lane(LaneNo(no), &plan, spools))
            };
            let opening: Vec<_> = plans.into_iter().enumerate().map(open).collect();
            let joined = |thread: thread::ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            opening.into_iter().map(joined).collect()
        })
    }

    fn open_lane(&self, no: LaneNo, plan: &LanePlan, spools: &Path) -> Result<OpenLane, LaneError> {
        let LanePlan { place, spool, group } = *plan;
        let spool = spools.join(spool.to_string());
        let journal = Journal::open_in(&spool, self.config.spool, Arc::clone(&self.space));
        let journal = journal.map_err(|source| LaneError::Journal { spool: spool.clone(), source })?;
        if let Some(reports) = &self.reports {
            let running = journal.ledger().sessions().filter(|session| session.end().is_none());
            reports.running(running)?;
        }
        let (mut taps, ring) = self.rings.open_ring(place)?;
        let log = taps.take_log()?;
        let (sender, jobs) = mpsc::channel(JOBS_MAX);
        let options = CoreOptions {
            lane: no,
            stays: group.is_some(),
            roster: Arc::clone(&self.roster),
            session_max_bytes: self.config.space.session_max_bytes,
            seal: self.config.seal,
            reattach_timeout: self.config.reattach_timeout,
            recorder: self.recorder.clone(),
            reports: self.reports.clone(),
            outage: self.outage.clone(),
        };
        let (core, handle) = Core::new(ring, taps, journal, sender, options)?;
        if group.is_none() {
            info!(ring = %place, spool = %spool.display(), "draining what was left here; no session begins in it");
        }
        let cpus = group.and_then(|group| self.config.cpu_groups.get(group)).cloned().unwrap_or_default();
        let running = Running { place, spool, cpus };
        Ok(OpenLane { core, handle, takes_new: group.is_some(), jobs, log, running })
    }
}

impl Running {
    /// Runs the lane's core in this thread, on the lane's CPUs.
    pub(crate) fn run(self, core: Core, rings: &Rings) -> Result<(), CoreError> {
        self.pin_thread();
        if core.run()? == Ended::Done {
            self.remove(rings);
        }
        Ok(())
    }

    fn pin_thread(&self) {
        if self.cpus.cpus.is_empty() {
            return;
        }
        let mut set = CpuSet::new();
        let pinned = self.cpus.cpus.iter().try_for_each(|&cpu| set.set(cpu));
        let pinned = pinned.and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
        match pinned {
            Ok(()) => info!(ring = %self.place, cpus = %self.cpus, "this ring is drained on these CPUs"),
            Err(errno) => {
                error!(ring = %self.place, cpus = %self.cpus, %errno, "this ring is drained on any CPU: these cannot be used");
            }
        }
    }

    /// The spool first: a ring without one is removed by the next agent, too.
    fn remove(&self, rings: &Rings) {
        // The oldest file first, as always: what is left after a crash is the end of the story, not the beginning.
        let oldest_first = || -> io::Result<()> {
            let files = spool::list(&self.spool).map_err(io::Error::other)?;
            files.into_iter().try_for_each(|no| fs::remove_file(spool::path(&self.spool, no)))?;
            match fs::remove_dir(&self.spool) {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                    warn!(spool = %self.spool.display(), "what is left of a spool, damaged files as a rule, stays");
                    Ok(())
                }
                removed => removed,
            }
        };
        let removed = oldest_first();
        if let Err(error) = removed {
            warn!(spool = %self.spool.display(), %error, "cannot remove a spool of which everything is stored");
            return;
        }
        match rings.remove(self.place) {
            Ok(()) => {
                info!(ring = %self.place, "everything that was left here is stored; the ring is removed");
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                warn!(ring = %self.place, error, "cannot remove a ring that is needed no more");
            }
        }
    }
}

/// The spools that there are, by the rings that they belong to.
fn spool_places(spools: &Path) -> Result<Vec<RingPlace>, LaneError> {
    let failed = |source| LaneError::Io { op: "read", path: spools.to_owned(), source };
    let items = match fs::read_dir(spools) {
        Ok(items) => items,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut places = Vec::new();
    for item in items {
        let path = item.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            return Err(LaneError::EarlierSpool { dir: spools.to_owned() });
        }
        places.extend(plan::spool_place(&path));
    }
    Ok(places)
}
