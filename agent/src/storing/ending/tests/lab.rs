//! Sessions to complete, in a store that does what it is told to, and a reviewer.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use jiff::{Timestamp, tz::TimeZone};
use tempfile::TempDir;
use tokio::sync::watch;
use weir_common::{
    digest::Sha256,
    frame::{ChannelType, Message},
    recording::{MANIFEST, Manifest, StoredFindings, StoredObject},
    session::Outcome,
};
use weir_console::{
    store::SessionDir,
    verify::{
        Options,
        report::{Report, Verdict},
        signers::AllowedSigners,
        verify,
    },
};

use crate::{
    journal::{Journal, RingRecord},
    ledger::StateEntry,
    session::End,
    signing::SigningKey,
    store::{FileStore, GetFuture, PutFuture, Store, StoreError},
    storing::{Done, Job, Parallelism, Stored, Worker},
    testing::{armed, cookies, frame, opened, record, session_id, spool_options},
};

const PARALLEL: Parallelism = Parallelism { encoding: 1, uploading: 4 };

/// What a get of an object answers, by a part of its path.
pub(super) type Answer = (&'static str, Refusal);
type Refusal = fn(&str) -> StoreError;

/// A store in a directory that does not give everything back.
struct Reluctant {
    store: FileStore,
    gets: Mutex<BTreeMap<&'static str, Refusal>>,
    /// The paths of what was asked for.
    asked: Mutex<Vec<String>>,
    /// Gets of paths with this part wait for as long as it is there.
    hold: watch::Sender<Option<&'static str>>,
    /// How many wait, and the most at a time.
    held: watch::Sender<usize>,
    most_held: AtomicUsize,
}

impl Store for Reluctant {
    fn put<'a>(&'a self, path: &'a str, body: Bytes, sha256: Sha256) -> PutFuture<'a> {
        self.store.put(path, body, sha256)
    }

    fn get<'a>(&'a self, path: &'a str, max_bytes: u64) -> GetFuture<'a> {
        self.asked.lock().expect("no panic").push(path.to_owned());
        let gets = self.gets.lock().expect("no panic");
        if let Some((_, error)) = gets.iter().find(|(part, _)| path.contains(**part)) {
            let error = error(path);
            return Box::pin(async move { Err(error) });
        }
        drop(gets);
        let mut hold = self.hold.subscribe();
        Box::pin(async move {
            if hold.borrow().is_some_and(|part| path.contains(part)) {
                self.held.send_modify(|held| {
                    *held += 1;
                    self.most_held.fetch_max(*held, Ordering::Relaxed);
                });
                hold.wait_for(Option::is_none).await.expect("the store lives");
                self.held.send_modify(|held| *held -= 1);
            }
            self.store.get(path, max_bytes).await
        })
    }
}

/// While this lives, some gets wait.
pub(super) struct Hold(Arc<Reluctant>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.hold.send_replace(None);
    }
}

pub(super) struct Lab {
    dir: TempDir,
    journal: Journal,
    store: Arc<Reluctant>,
}

impl Lab {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let journal = Journal::open(&dir.path().join("spool"), spool_options()).expect("opens");
        let store = FileStore::open(&dir.path().join("store")).expect("opens");
        let store = Reluctant {
            store,
            gets: Mutex::default(),
            asked: Mutex::default(),
            hold: watch::Sender::new(None),
            held: watch::Sender::new(0),
            most_held: AtomicUsize::new(0),
        };
        Self { dir, journal, store: Arc::new(store) }
    }

    fn key(&self) -> SigningKey {
        SigningKey::load_or_make(&self.dir.path().join("key")).expect("a key")
    }

    /// A worker that has stored nothing yet, as after a restart.
    pub(super) fn worker(&self) -> Worker {
        Worker::new(Arc::clone(&self.store) as _, Arc::new(self.key()), PARALLEL)
    }

    /// From now on gets are answered like this.
    pub(super) fn answer(&self, gets: impl IntoIterator<Item = Answer>) {
        *self.store.gets.lock().expect("no panic") = gets.into_iter().collect();
    }

    /// Gets of paths with this part wait until it is dropped.
    pub(super) fn hold(&self, part: &'static str) -> Hold {
        self.store.hold.send_replace(Some(part));
        Hold(Arc::clone(&self.store))
    }

    /// Waits until so many gets wait.
    pub(super) async fn until_held(&self, gets: usize) {
        self.store.held.subscribe().wait_for(|&held| held >= gets).await.expect("the store lives");
    }

    /// The most gets that have waited at a time.
    pub(super) fn most_held(&self) -> usize {
        self.store.most_held.load(Ordering::Relaxed)
    }

    /// The names of what was asked for since the last time.
    pub(super) fn asked(&self) -> Vec<String> {
        let asked = std::mem::take(&mut *self.store.asked.lock().expect("no panic"));
        asked.iter().map(|path| path.rsplit('/').next().unwrap_or_default().to_owned()).collect()
    }

    /// A session that ran a command, stored up to its end, with these words of its target in a segment each.
    pub(super) async fn session(&mut self, number: u8, worker: &Worker, said: &[Vec<u8>]) -> Job {
        self.append(opened(number));
        self.append(armed(number));
        let mut seqs = [0, 0];
        for (index, words) in (1..).zip(said) {
            let mut messages = Vec::new();
            if index == 1 {
                messages.push((0, Message::Open(ChannelType::Session)));
                messages.push((0, Message::Exec(b"show --all"[..].into())));
            }
            for words in words.chunks(30_000) {
                messages.push((1, Message::Stdout(Bytes::copy_from_slice(words))));
            }
            if index as usize == said.len() {
                messages.push((1, Message::ExitStatus(3)));
            }
            let records = messages.len() as u64;
            for (way, message) in messages {
                let bytes = record(cookies(number)[way], &frame(message, seqs[way]));
                seqs[way] += 1;
                let end = self.journal.position() + 1;
                self.journal.append_records(&[RingRecord { bytes: &bytes, end }], |_| {}).expect("room");
            }
            let session = session_id(number);
            self.append(StateEntry::SealStarted { session, index, records });
            let stored = worker.once(&self.job(number)).await.expect("stored");
            assert!(matches!(stored, Stored::Segment { .. }));
            self.append(Done { session, stored }.change());
        }
        let end = End { outcome: Outcome::Completed, closed_at: Timestamp::UNIX_EPOCH };
        self.append(StateEntry::Closed { session: session_id(number), end, kernel: Vec::new() });
        self.job(number)
    }

    fn append(&mut self, change: StateEntry) {
        self.journal.append(change).expect("in order");
    }

    fn job(&self, number: u8) -> Job {
        let session = self.journal.ledger().session(session_id(number)).expect("is there");
        Job::next(session, self.journal.spool_dir()).expect("something to store")
    }

    /// An object of the session.
    pub(super) fn path(&self, job: &Job, name: &str) -> PathBuf {
        self.dir.path().join("store").join(&job.dir).join(name)
    }

    pub(super) fn read(&self, job: &Job, name: &str) -> String {
        fs::read_to_string(self.path(job, name)).expect("is there")
    }

    pub(super) fn write(&self, job: &Job, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(job, name), content).expect("writable");
    }

    pub(super) fn findings(&self, job: &Job) -> Option<StoredFindings> {
        serde_json::from_str::<Manifest>(&self.read(job, MANIFEST)).expect("a manifest").findings
    }

    /// As a reviewer does.
    pub(super) fn verify(&self, job: &Job) -> Report {
        let signers = self.key().allowed_signer().expect("a line");
        let signers = AllowedSigners::parse("FILE", &signers, &TimeZone::UTC);
        let now = Timestamp::UNIX_EPOCH;
        let options = Options { signers: Some(&signers), identity: "weir-agent", now };
        verify(&SessionDir::open(&self.path(job, "")).expect("a session"), &options).expect("readable")
    }

    pub(super) fn assert_intact(&self, job: &Job) {
        let report = self.verify(job);
        assert_eq!(report.verdict, Verdict::Intact, "{:?}", report.findings);
    }
}

pub(super) fn names(objects: &[StoredObject]) -> Vec<&str> {
    objects.iter().map(|object| object.name.as_str()).collect()
}
