use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use super::*;
use crate::{
    journal::{Journal, RingRecord},
    ledger::Ledger,
    store::{GetFuture, Put, PutFuture},
    testing::{armed, closed, opened, session_id, spool_options, stdout_record},
};

const PARALLEL: Parallelism = Parallelism { encoding: 1, uploading: 4 };

/// A store whose disk is full at first, and where one session's directory is broken for good.
#[derive(Default)]
struct Troubled {
    full_for: AtomicU32,
    at_once: AtomicU32,
    most_at_once: AtomicU32,
    stored: Mutex<BTreeSet<String>>,
    /// Sessions whose puts never end, and how many of these have begun.
    hanging: BTreeSet<SessionId>,
    hangs: watch::Sender<usize>,
    /// A session whose puts are denied, and how many of these were.
    denied: Mutex<Option<SessionId>>,
    denials: AtomicU32,
    /// A session whose next puts panic, and how many do.
    panicking: Option<SessionId>,
    panics: AtomicU32,
}

impl Store for Troubled {
    fn put<'a>(&'a self, path: &'a str, _: Bytes, _: Sha256) -> PutFuture<'a> {
        let failed =
            |kind: io::ErrorKind| StoreError::Io { op: "write", path: path.into(), source: kind.into() };
        Box::pin(async move {
            if self.hanging.iter().any(|session| path.contains(&session.to_string())) {
                self.hangs.send_modify(|hangs| *hangs += 1);
                std::future::pending::<()>().await;
            }
            let is_of = |session: SessionId| path.contains(&session.to_string());
            let one_less = |left: u32| left.checked_sub(1);
            if self.panicking.is_some_and(is_of)
                && self.panics.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok()
            {
                panic!("as the test wants it");
            }
            let denied = *self.denied.lock().expect("no panic");
            if denied.is_some_and(is_of) {
                self.denials.fetch_add(1, Ordering::SeqCst);
                return Err(StoreError::Unavailable {
                    op: "write",
                    path: path.into(),
                    details: "503".into(),
                });
            }
            if is_of(session_id(9)) {
                return Err(failed(io::ErrorKind::NotADirectory));
            }
            if self.full_for.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok() {
                let at_once = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
                self.most_at_once.fetch_max(at_once, Ordering::SeqCst);
                tokio::task::yield_now().await;
                self.at_once.fetch_sub(1, Ordering::SeqCst);
                return Err(failed(io::ErrorKind::StorageFull));
            }
            self.stored.lock().expect("no panic").insert(path.to_owned());
            Ok(Put::Stored)
        })
    }

    fn get<'a>(&'a self, path: &'a str, _: u64) -> GetFuture<'a> {
        Box::pin(async move { Err(StoreError::Interrupted { path: path.to_owned() }) })
    }
}

fn job(number: u8) -> Job {
    let mut ledger = Ledger::default();
    for change in [opened(number), closed(number)] {
        ledger.apply(change).expect("in order");
    }
    let session = ledger.session(session_id(number)).expect("is there");
    Job::next(session, Path::new("/nowhere")).expect("its manifest")
}

/// A segment of two records of each of these sessions.
fn segments(dir: &Path, numbers: impl Iterator<Item = u8>) -> Vec<Job> {
    let mut journal = Journal::open(dir, spool_options()).expect("opens");
    let mut begin = |number| {
        journal.append(opened(number)).expect("in order");
        journal.append(armed(number)).expect("in order");
        for seq in 0..2 {
            let bytes = stdout_record(number, seq, b"to be stored");
            let end = journal.position() + 1;
            journal.append_records(&[RingRecord { bytes: &bytes, end }], |_| {}).expect("room");
        }
        let session = session_id(number);
        journal.append(StateEntry::SealStarted { session, index: 1, records: 2 }).expect("in order");
        let session = journal.ledger().session(session).expect("is there");
        Job::next(session, dir).expect("its segment")
    };
    numbers.map(&mut begin).collect()
}

fn worker(store: &Arc<Troubled>) -> Worker {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let key = SigningKey::load_or_make(&dir.path().join("key")).expect("a key");
    let short = Pauses { first: Duration::from_millis(1), longest: Duration::from_millis(4) };
    worker_with(store, Arc::new(key), short)
}

fn worker_with(store: &Arc<Troubled>, key: Arc<SigningKey>, pauses: Pauses) -> Worker {
    let breaker = Arc::new(Breaker::new(pauses));
    Worker { breaker, pauses, ..Worker::new(Arc::clone(store) as _, key, PARALLEL) }
}

#[tokio::test]
async fn in_an_outage_one_job_at_a_time_tries_and_when_it_is_over_all_are_done() {
    let store = Arc::new(Troubled { full_for: AtomicU32::new(20), ..Troubled::default() });
    let worker = worker(&store);
    let outage = worker.outage();
    let job_one = job(1);
    let mut first = Box::pin(worker.in_turn(&job_one));
    let mut seen = outage.clone();
    tokio::select! {
        _ = &mut first => panic!("the store fails"),
        known = seen.wait_for(Option::is_some) => {
            let error = known.expect("the worker lives").as_ref().map(|outage| outage.error.clone());
            assert!(error.is_some_and(|error| error.contains("cannot write")));
        }
    }
    let others: Vec<_> = (2..=8)
        .map(|number| {
            let worker = worker.clone();
            tokio::spawn(async move { worker.in_turn(&job(number)).await.is_ok() })
        })
        .collect();
    assert!(first.await.is_ok());
    for other in others {
        assert!(other.await.expect("no panic"));
    }
    assert_eq!(*outage.borrow(), None);
    assert_eq!(store.most_at_once.load(Ordering::SeqCst), 1);
    assert_eq!(store.stored.lock().expect("no panic").len(), 8 * 3);
}

#[tokio::test]
async fn a_session_with_a_trouble_of_its_own_is_no_outage_and_holds_up_nobody() {
    let store = Arc::new(Troubled::default());
    let worker = worker(&store);
    assert!(worker.in_turn(&job(9)).await.is_err());
    assert_eq!(*worker.outage().borrow(), None);
    assert!(worker.in_turn(&job(1)).await.is_ok());
}

#[tokio::test]
async fn a_directory_that_is_denied_while_others_are_not_is_tried_ever_less_and_is_no_outage() {
    let poisoned = session_id(1);
    let store = Arc::new(Troubled { denied: Mutex::new(Some(poisoned)), ..Troubled::default() });
    let key = Arc::clone(&worker(&store).key);
    let pauses = Pauses { first: Duration::from_millis(1), longest: Duration::from_secs(60) };
    let worker = worker_with(&store, key, pauses);
    let stuck = until_stored(&worker, job(1));
    let (others, begun, mut last) = (job(2), Instant::now(), 0);
    // Until it has been denied for the ninth time: by then the pauses are 64 ms and more.
    while last < 9 {
        assert!(begun.elapsed() < Duration::from_secs(20), "denied {last} times only");
        assert!(worker.in_turn(&others).await.is_ok());
        last = store.denials.load(Ordering::SeqCst);
        assert!(last < 3 || worker.outage().borrow().is_none(), "others are answered");
    }
    assert!(begun.elapsed() >= Duration::from_millis(1 + 2 + 4 + 8 + 16 + 32), "in {:?}", begun.elapsed());
    *store.denied.lock().expect("no panic") = None;
    assert!(stuck.await.expect("no panic"));
    assert!(store.stored.lock().expect("no panic").iter().any(|path| path.contains(&poisoned.to_string())));
}

#[tokio::test]
async fn a_try_that_panics_is_told_and_tried_again_and_others_go_on() {
    let (panicking, panics) = (Some(session_id(1)), AtomicU32::new(3));
    let store = Arc::new(Troubled { panicking, panics, ..Troubled::default() });
    let worker = worker(&store);
    let (jobs, receiver) = mpsc::channel(4);
    let (report, mut reported) = mpsc::channel(4);
    let running = tokio::spawn(worker.clone().run(receiver, move |done: Done| {
        report.try_send(done.session).expect("room for all");
        std::future::ready(())
    }));
    for number in 1..=3 {
        jobs.send(job(number)).await.expect("it runs");
    }
    let mut done = BTreeSet::new();
    for _ in 1..=3 {
        done.insert(reported.recv().await.expect("it runs"));
    }
    assert_eq!(done, (1..=3).map(session_id).collect());
    assert_eq!(store.panics.load(Ordering::SeqCst), 0);
    assert_eq!(store.stored.lock().expect("no panic").len(), 3 * 3);
    assert_eq!(worker.uploads.available_permits(), PARALLEL.uploading);
    drop(jobs);
    running.await.expect("it ends when there will be no more jobs");
}

#[tokio::test]
async fn in_an_outage_a_backlog_waits_outside_and_is_all_done_when_it_is_over() {
    const JOBS: usize = 600;
    let store = Arc::new(Troubled { full_for: AtomicU32::new(u32::MAX), ..Troubled::default() });
    let worker = worker(&store);
    let mut outage = worker.outage();
    let (jobs, receiver) = mpsc::channel(4);
    let (report, mut reported) = mpsc::channel(JOBS);
    let running = tokio::spawn(worker.run(receiver, move |done: Done| {
        report.try_send(done.session).expect("room for all");
        std::future::ready(())
    }));
    jobs.send(job(1)).await.expect("it runs");
    outage.wait_for(Option::is_some).await.expect("it runs");
    let (sent, mut seen) = watch::channel(1);
    let sending = tokio::spawn(async move {
        for number in (10..110).cycle().take(JOBS - 1) {
            jobs.send(job(number)).await.expect("it runs");
            sent.send_modify(|sent| *sent += 1);
        }
        jobs
    });
    seen.wait_for(|&sent| sent >= WAITING_MAX).await.expect("some may try");
    let tried = |outage: &Option<Outage>| outage.as_ref().is_some_and(|outage| outage.failures >= 20);
    outage.wait_for(tried).await.expect("it runs");
    let sent = *seen.borrow();
    let failures = outage.borrow().as_ref().map_or(0, |outage| outage.failures);
    assert!(sent <= WAITING_MAX + failures + 5, "{sent} jobs after {failures} failures");
    store.full_for.store(0, Ordering::SeqCst);
    for _ in 0..JOBS {
        reported.recv().await.expect("it runs");
    }
    drop(sending.await.expect("no panic"));
    running.await.expect("it ends when there will be no more jobs");
}

#[tokio::test]
async fn puts_that_never_end_hold_up_nobody_while_there_is_a_place_on_the_way() {
    let hanging = (1..=3).map(session_id).collect();
    let store = Arc::new(Troubled { hanging, ..Troubled::default() });
    let (worker, dir) = (worker(&store), tempfile::tempdir().expect("a temporary directory"));
    let mut jobs = segments(dir.path(), (1..=3).chain(20..30));
    let stuck: Vec<_> = jobs.drain(..3).map(|job| until_stored(&worker, job)).collect();
    // Three times as many as there are slots.
    let hangs = store.hangs.subscribe().wait_for(|&hangs| hangs == 3).await.map(|hangs| *hangs);
    assert_eq!(hangs.ok(), Some(3));
    for other in jobs.into_iter().map(|job| until_stored(&worker, job)).collect::<Vec<_>>() {
        assert!(other.await.expect("no panic"));
    }
    assert_eq!(store.stored.lock().expect("no panic").len(), 10 * 2);
    assert!(stuck.iter().all(|stuck| !stuck.is_finished()));
    assert_eq!((worker.slots.available_permits(), worker.uploads.available_permits()), (1, 1));
    for stuck in stuck {
        stuck.abort();
        assert!(stuck.await.is_err_and(|error| error.is_cancelled()));
    }
    assert_eq!(worker.uploads.available_permits(), PARALLEL.uploading);
}

fn until_stored(worker: &Worker, job: Job) -> tokio::task::JoinHandle<bool> {
    let worker = worker.clone();
    tokio::spawn(async move { worker.in_turn(&job).await.is_ok() })
}
