//! Reports on the disk: one file for each session and status, until the receiver has it.
//!
//! A file appears whole, by a rename. That of a stored session is flushed, and its name too, before [`Queue::put`]
//! returns; that of a beginning is not, because the next agent writes it again. What the receiver will never take lies
//! in `rejected/` for people to look at.

use std::{
    collections::HashSet,
    fmt, fs, io,
    io::Write,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tempfile::NamedTempFile;
use tokio::sync::Notify;
use tracing::{error, warn};
use weir_common::{
    report::{MAX_REPORT, SessionReport, Status},
    session::SessionId,
};

use crate::metrics::{as_gauge, metrics};

/// The most reports that are set aside. Past it they stay in the queue.
pub(super) const REJECTED_MAX: usize = 1_000;

const REJECTED: &str = "rejected";
const TEMPORARY: &str = ".tmp";
const SUFFIX: &str = ".json";
const DIR_MODE: u32 = 0o700;

/// Which report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) session: SessionId,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    Open,
    Stored,
}

/// Why a report is not in the queue.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
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
    /// Nobody takes them.
    #[error("{reports_max} session reports wait to be delivered already (reports_max)")]
    Full {
        /// The bound.
        reports_max: usize,
    },
    /// A report that cannot be written as JSON.
    #[error("cannot write a session report: {source}")]
    Encode {
        /// Why.
        #[from]
        source: serde_json::Error,
    },
    /// The task was cancelled.
    #[error("writing a session report was interrupted")]
    Interrupted,
}

/// The queue.
#[derive(Debug)]
pub struct Queue {
    dir: PathBuf,
    reports_max: usize,
    state: Mutex<State>,
    /// There is something fresh.
    pub(super) news: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// What is on the disk, or about to be.
    keys: HashSet<Key>,
    /// What the delivery has not been told of; a part of `keys`, but for what is gone again.
    fresh: HashSet<Key>,
    rejected: usize,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Open => "open",
            Kind::Stored => "stored",
        };
        write!(f, "{}.{kind}", self.session)
    }
}

impl Key {
    pub(super) fn of(report: &SessionReport) -> Self {
        let kind = match report.status {
            Status::Open => Kind::Open,
            Status::Stored(_) => Kind::Stored,
        };
        Self { session: report.session.session_id, kind }
    }

    fn parse(name: &str) -> Option<Self> {
        let (session, kind) = name.strip_suffix(SUFFIX)?.split_once('.')?;
        let kind = match kind {
            "open" => Kind::Open,
            "stored" => Kind::Stored,
            _ => return None,
        };
        Some(Self { session: session.parse().ok()?, kind })
    }
}

impl Queue {
    /// Opens the queue, with what waits in it. What an interrupted write left is removed.
    ///
    /// # Errors
    /// [`QueueError::Io`].
    pub fn open(dir: &Path, reports_max: usize) -> Result<Self, QueueError> {
        let (rejected, temporary) = (dir.join(REJECTED), dir.join(TEMPORARY));
        match fs::remove_dir_all(&temporary) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(failed("clear", &temporary)(source));
            }
            _ => {}
        }
        for dir in [dir, &rejected, &temporary] {
            let made = fs::DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir);
            made.map_err(failed("make", dir))?;
        }
        let mut keys = HashSet::new();
        for name in names(dir)? {
            match Key::parse(&name) {
                Some(key) => drop(keys.insert(key)),
                None if [REJECTED, TEMPORARY].contains(&&*name) => {}
                None => warn!(name, "not a session report; it is left alone"),
            }
        }
        let state = State { fresh: keys.clone(), keys, rejected: names(&rejected)?.len() };
        let queue = Self { dir: dir.to_owned(), reports_max, state: Mutex::new(state), news: Notify::new() };
        metrics().reports.limit.set(as_gauge(reports_max as u64));
        show(&queue.state());
        queue.news.notify_one();
        Ok(queue)
    }

    /// Puts a report into the queue, in the place of one of the same session and status. Blocks.
    ///
    /// # Errors
    /// [`QueueError`]; then it is not in the queue.
    pub fn put(&self, report: &SessionReport) -> Result<(), QueueError> {
        let key = Key::of(report);
        let body = serde_json::to_vec(report)?;
        if body.len() > MAX_REPORT {
            error!(session = %key.session, bytes = body.len(), "a session report is larger than any receiver takes; it is set aside");
            return self.write(key, &body, &self.rejected_path(key), true).inspect(|()| {
                let mut state = self.state();
                state.rejected += 1;
                show(&state);
            });
        }
        let new = {
            let mut state = self.state();
            if !state.keys.contains(&key) && state.keys.len() >= self.reports_max {
                return Err(QueueError::Full { reports_max: self.reports_max });
            }
            state.keys.insert(key)
        };
        let written = self.write(key, &body, &self.path(key), key.kind == Kind::Stored);
        let mut state = self.state();
        match &written {
            Ok(()) => drop(state.fresh.insert(key)),
            Err(_) if new => drop(state.keys.remove(&key)),
            Err(_) => {}
        }
        show(&state);
        drop(state);
        self.news.notify_one();
        written
    }

    /// What is new since this was asked.
    pub(super) fn fresh(&self) -> HashSet<Key> {
        std::mem::take(&mut self.state().fresh)
    }

    /// A report's bytes; `None` if there is none to be delivered. Blocks.
    pub(super) fn read(&self, key: Key) -> Result<Option<Vec<u8>>, QueueError> {
        let path = self.path(key);
        let body = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.forget(key);
                return Ok(None);
            }
            body => body.map_err(failed("read", &path))?,
        };
        match serde_json::from_slice::<SessionReport>(&body) {
            Ok(report) if Key::of(&report) == key => Ok(Some(body)),
            // It was not flushed before the node lost its power.
            _ if key.kind == Kind::Open => {
                warn!(session = %key.session, "the report of a session's beginning is torn; removing it");
                self.remove(key).map(|()| None)
            }
            _ => {
                error!(session = %key.session, "the report of a session is damaged; it is set aside");
                self.reject(key).map(|_| None)
            }
        }
    }

    /// The receiver has it. Blocks.
    pub(super) fn remove(&self, key: Key) -> Result<(), QueueError> {
        let path = self.path(key);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(failed("remove", &path)(source)),
            _ => {
                self.forget(key);
                Ok(())
            }
        }
    }

    /// The receiver will never take it. Says whether it could be set aside: there is room for so many. Blocks.
    pub(super) fn reject(&self, key: Key) -> Result<bool, QueueError> {
        if self.state().rejected >= REJECTED_MAX {
            return Ok(false);
        }
        let (from, to) = (self.path(key), self.rejected_path(key));
        let again = to.exists();
        fs::rename(&from, &to).map_err(failed("set aside", &from))?;
        self.state().rejected += usize::from(!again);
        self.forget(key);
        Ok(true)
    }

    fn forget(&self, key: Key) {
        let mut state = self.state();
        state.keys.remove(&key);
        show(&state);
    }

    fn write(&self, key: Key, body: &[u8], path: &Path, durable: bool) -> Result<(), QueueError> {
        let temporary = self.dir.join(TEMPORARY);
        let mut file = NamedTempFile::with_prefix_in(format!("{key}."), &temporary)
            .map_err(failed("make a file in", &temporary))?;
        file.write_all(body).map_err(failed("write", path))?;
        if durable {
            file.as_file().sync_all().map_err(failed("flush", path))?;
        }
        file.persist(path).map_err(|error| failed("write", path)(error.error))?;
        match path.parent().filter(|_| durable) {
            Some(dir) => fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("flush", dir)),
            None => Ok(()),
        }
    }

    fn path(&self, key: Key) -> PathBuf {
        self.dir.join(format!("{key}{SUFFIX}"))
    }

    pub(super) fn rejected_path(&self, key: Key) -> PathBuf {
        self.dir.join(REJECTED).join(format!("{key}{SUFFIX}"))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn show(state: &State) {
    metrics().reports.queued.set(as_gauge(state.keys.len() as u64));
    metrics().reports.rejected.set(as_gauge(state.rejected as u64));
}

fn names(dir: &Path) -> Result<Vec<String>, QueueError> {
    let items = fs::read_dir(dir).map_err(failed("read", dir))?;
    items
        .map(|item| Ok(item.map_err(failed("read", dir))?.file_name().to_string_lossy().into_owned()))
        .collect()
}

fn failed(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> QueueError {
    move |source| QueueError::Io { op, path: path.to_owned(), source }
}
