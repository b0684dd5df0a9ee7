//! Reports on the disk: one file for each session and status, until the receiver has it.
//!
//! A file appears whole, by a rename. That of a stored session is flushed, and its name too, before [`Queue::put`]
//! returns; that of a beginning is not, because the next agent writes it again. What the receiver will never take lies
//! in `rejected/` for people to look at.
//!
//! Several processes may have the queue open: `recover` on a node with an agent. Each writes in a locked directory of its own
//! below `.tmp`, and removes only what nobody has locked. Each delivers what was there when it opened the queue, and what
//! it put there itself; twice is allowed.
//!
//! On a disk that is full the queue is opened all the same, with what waits in it: whatever makes room again comes after
//! that. Only what is put there needs some.

use std::{
    collections::HashSet,
    fmt, fs, io,
    io::Write,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tempfile::{NamedTempFile, TempDir};
use tokio::sync::{Notify, watch};
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
    /// None until there was room for it.
    temporary: Mutex<Option<Temporary>>,
    state: Mutex<State>,
    /// There is something fresh.
    pub(super) news: Notify,
    /// There is less to deliver.
    gone: watch::Sender<()>,
}

/// Where this process writes what is not whole yet.
#[derive(Debug)]
struct Temporary {
    dir: TempDir,
    /// Tells others that the directory is in use; the kernel lets go of it whatever ends this process.
    _lock: fs::File,
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

impl QueueError {
    /// Whether there is no room for it at the moment.
    pub(super) fn is_no_room(&self) -> bool {
        match self {
            Self::Full { .. } => true,
            Self::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            Self::Encode { .. } | Self::Interrupted => false,
        }
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

    /// The report's file in a queue's directory.
    pub(super) fn file_in(self, dir: &Path) -> PathBuf {
        dir.join(format!("{self}{SUFFIX}"))
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        let (session, kind) = name.strip_suffix(SUFFIX)?.split_once('.')?;
        let kind = match kind {
            "open" => Kind::Open,
            "stored" => Kind::Stored,
            _ => return None,
        };
        let key = Self { session: session.parse().ok()?, kind };
        // An id has other spellings too, and the file would not be found again.
        (format!("{key}{SUFFIX}") == name).then_some(key)
    }
}

impl Queue {
    /// Opens the queue, with what waits in it. What an interrupted write left is removed.
    ///
    /// # Errors
    /// [`QueueError::Io`]. That there is no room on the disk is none.
    pub fn open(dir: &Path, reports_max: usize) -> Result<Self, QueueError> {
        let rejected = dir.join(REJECTED);
        let temporary = match Temporary::of_queue(dir) {
            Err(error) if error.is_no_room() => {
                warn!(%error, "session reports cannot be written until there is room on the disk");
                None
            }
            made => Some(made?),
        };
        let mut keys = HashSet::new();
        for name in names_if_any(dir)? {
            match Key::parse(&name) {
                Some(key) => drop(keys.insert(key)),
                None if [REJECTED, TEMPORARY].contains(&&*name) => {}
                None => warn!(name, "not a session report; it is left alone"),
            }
        }
        let state = State { fresh: keys.clone(), keys, rejected: names_if_any(&rejected)?.len() };
        let (state, news, gone) = (Mutex::new(state), Notify::new(), watch::Sender::new(()));
        let temporary = Mutex::new(temporary);
        let queue = Self { dir: dir.to_owned(), reports_max, temporary, state, news, gone };
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

    /// Whether this is its directory, in the spelling without links.
    pub(super) fn is_in(&self, dir: &Path) -> bool {
        self.dir.canonicalize().is_ok_and(|own| own == dir)
    }

    /// Waits until none of these are to be delivered.
    pub(super) async fn until_gone(&self, keys: &[Key]) {
        let gone = |_: &()| keys.iter().all(|&key| !self.has(key));
        // The sender is `self`'s, so it is there.
        let _ = self.gone.subscribe().wait_for(gone).await;
    }

    /// Whether it is to be delivered.
    pub(super) fn has(&self, key: Key) -> bool {
        self.state().keys.contains(&key)
    }

    fn forget(&self, key: Key) {
        let mut state = self.state();
        state.keys.remove(&key);
        show(&state);
        drop(state);
        self.gone.send_replace(());
    }

    fn write(&self, key: Key, body: &[u8], path: &Path, durable: bool) -> Result<(), QueueError> {
        let temporary = self.temporary()?;
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

    /// Where this process writes; made now, if there was no room for it before.
    fn temporary(&self) -> Result<PathBuf, QueueError> {
        let mut temporary = self.temporary.lock().unwrap_or_else(PoisonError::into_inner);
        let made = match temporary.take() {
            Some(made) => made,
            None => Temporary::of_queue(&self.dir)?,
        };
        Ok(temporary.insert(made).dir.path().to_owned())
    }

    fn path(&self, key: Key) -> PathBuf {
        key.file_in(&self.dir)
    }

    pub(super) fn rejected_path(&self, key: Key) -> PathBuf {
        key.file_in(&self.dir.join(REJECTED))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Temporary {
    /// Makes one, with the queue's directories where they are missing, and removes what interrupted writes left.
    fn of_queue(queue: &Path) -> Result<Self, QueueError> {
        let root = &queue.join(TEMPORARY);
        for dir in [queue, &queue.join(REJECTED), root] {
            let made = fs::DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir);
            made.map_err(failed("make", dir))?;
        }
        // Until this is dropped nobody else looks for what is left: one without its lock yet would seem to be.
        let turn = fs::File::open(root).map_err(failed("open", root))?;
        turn.lock().map_err(failed("lock", root))?;
        for name in names(root)? {
            remove_unused(&root.join(name));
        }
        let dir = tempfile::tempdir_in(root).map_err(failed("make a directory in", root))?;
        let lock = fs::File::open(dir.path()).map_err(failed("open", dir.path()))?;
        lock.lock().map_err(failed("lock", dir.path()))?;
        Ok(Self { dir, _lock: lock })
    }
}

fn remove_unused(path: &Path) {
    let removed = match path.is_dir() {
        true => fs::File::open(path).and_then(|dir| match dir.try_lock() {
            Ok(()) => fs::remove_dir_all(path),
            Err(fs::TryLockError::WouldBlock) => Ok(()),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }),
        false => fs::remove_file(path),
    };
    match removed {
        // Its process has ended meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        // Another user's, say. It takes room, and is no reason to deliver nothing.
        Err(error) => {
            warn!(path = %path.display(), %error, "what an interrupted write left stays: remove it");
        }
        Ok(()) => {}
    }
}

fn show(state: &State) {
    metrics().reports.queued.set(as_gauge(state.keys.len() as u64));
    metrics().reports.rejected.set(as_gauge(state.rejected as u64));
}

pub(super) fn names(dir: &Path) -> Result<Vec<String>, QueueError> {
    let items = fs::read_dir(dir).map_err(failed("read", dir))?;
    items
        .map(|item| Ok(item.map_err(failed("read", dir))?.file_name().to_string_lossy().into_owned()))
        .collect()
}

/// The same, of a directory that need not be there.
fn names_if_any(dir: &Path) -> Result<Vec<String>, QueueError> {
    if dir.is_dir() { names(dir) } else { Ok(Vec::new()) }
}

pub(super) fn failed(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> QueueError {
    move |source| QueueError::Io { op, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;
    use weir_common::{
        recording::Recorder,
        report::{Location, REPORT_VERSION},
    };

    use super::*;
    use crate::testing;

    fn report(number: u8) -> SessionReport {
        SessionReport {
            weir: REPORT_VERSION,
            session: testing::meta(number),
            target: None,
            recorder: Recorder { agent: "0".into(), abi: 2, node: "n".into(), kernel: "k".into() },
            opened_at: Timestamp::UNIX_EPOCH,
            location: Location { store: "file:///x".into(), path: "v1/x".into() },
            status: Status::Open,
        }
    }

    proptest! {
        #[test]
        fn a_file_name_is_a_key_only_as_it_would_be_written(name in ".*", number: u8, stored: bool) {
            prop_assert_eq!(Key::parse(&name), None);
            let kind = if stored { Kind::Stored } else { Kind::Open };
            let key = Key { session: testing::session_id(number), kind };
            let name = format!("{key}{SUFFIX}");
            prop_assert_eq!(Key::parse(&name), Some(key));
            prop_assert_eq!(Key::parse(&name.to_uppercase()), None);
            prop_assert_eq!(Key::parse(&name.replace('-', "")), None);
        }
    }

    fn open(dir: &Path) -> Queue {
        Queue::open(dir, 2).expect("a queue")
    }

    #[test]
    fn a_report_waits_across_restarts_until_it_is_removed() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let report = report(1);
        let (queue, key) = (open(dir.path()), Key::of(&report));
        queue.put(&report).expect("there is room");
        assert_eq!(queue.fresh(), HashSet::from([key]));
        assert_eq!(queue.fresh(), HashSet::new(), "told once");
        drop(queue);
        let queue = open(dir.path());
        assert_eq!(queue.fresh(), HashSet::from([key]));
        let body = queue.read(key).expect("readable").expect("is there");
        assert_eq!(serde_json::from_slice::<SessionReport>(&body).expect("a report"), report);
        queue.remove(key).expect("removable");
        queue.remove(key).expect("it is gone");
        assert_eq!(queue.read(key).expect("no error"), None);
        assert_eq!(open(dir.path()).fresh(), HashSet::new());
    }

    #[test]
    fn a_full_queue_takes_nothing_but_what_it_has_until_there_is_room() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let queue = open(dir.path());
        let [first, second, third] = [1, 2, 3].map(report);
        queue.put(&first).expect("there is room");
        queue.put(&second).expect("there is room");
        assert!(matches!(queue.put(&third), Err(QueueError::Full { reports_max: 2 })));
        queue.put(&first).expect("the same once more");
        assert!(matches!(open(dir.path()).put(&third), Err(QueueError::Full { .. })), "after a restart too");
        queue.remove(Key::of(&first)).expect("removable");
        queue.put(&third).expect("there is room");
    }

    #[test]
    fn what_is_torn_or_damaged_or_too_large_is_not_delivered_and_evidence_is_set_aside() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let queue = open(dir.path());
        let session = SessionId::generate();
        for kind in [Kind::Open, Kind::Stored] {
            let key = Key { session, kind };
            fs::write(queue.path(key), b"{\"weir\":1").expect("writable");
            assert_eq!(queue.read(key).expect("no error"), None);
            assert!(!queue.path(key).exists());
            assert_eq!(queue.rejected_path(key).exists(), kind == Kind::Stored);
        }
        let mut large = report(1);
        large.session.client_version = "x".repeat(MAX_REPORT);
        queue.put(&large).expect("it is set aside");
        assert!(queue.rejected_path(Key::of(&large)).exists());
        assert_eq!(queue.fresh(), HashSet::new());
    }

    #[test]
    fn no_more_are_set_aside_than_people_can_look_at() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(dir.path().join(REJECTED)).expect("a fresh directory");
        for number in 1..REJECTED_MAX {
            fs::write(dir.path().join(REJECTED).join(format!("{number}.json")), b"").expect("writable");
        }
        let queue = open(dir.path());
        let [one, other] = [1, 2].map(report);
        for report in [&one, &other] {
            queue.put(report).expect("there is room");
        }
        assert!(queue.reject(Key::of(&one)).expect("no error"));
        assert!(!queue.reject(Key::of(&other)).expect("no error"));
        assert!(queue.read(Key::of(&other)).expect("readable").is_some(), "it stays");
    }

    #[test]
    fn what_an_interrupted_write_left_is_removed_and_strange_files_are_left_alone() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        drop(open(dir.path()));
        fs::write(dir.path().join(".tmp/left"), b"half").expect("writable");
        fs::create_dir(dir.path().join(".tmp/killed")).expect("not there yet");
        fs::write(dir.path().join(".tmp/killed/left"), b"half").expect("writable");
        for name in ["README", "x.open.json", "note.json"] {
            fs::write(dir.path().join(name), b"").expect("writable");
        }
        let queue = open(dir.path());
        assert_eq!(queue.fresh(), HashSet::new());
        assert_eq!(names(&dir.path().join(".tmp")).expect("readable").len(), 1, "this one's own");
        assert!(dir.path().join("README").exists());
    }

    #[tokio::test]
    async fn two_processes_have_it_open_and_each_goes_on_writing() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (agent, recover) = (open(dir.path()), open(dir.path()));
        let [one, other] = [1, 2].map(report);
        agent.put(&one).expect("there is room");
        recover.put(&other).expect("there is room");
        drop(recover);
        agent.put(&one).expect("its directory is there still");
        let next = open(dir.path());
        let keys = [&one, &other].map(Key::of);
        assert_eq!(next.fresh(), HashSet::from(keys), "whoever opens it next has what was left");
        agent.remove(keys[0]).expect("removable");
        assert_eq!(next.read(keys[0]).expect("no error"), None);
        next.remove(keys[1]).expect("removable");
        next.until_gone(&keys).await;
    }
}
