//! Crashes and power cuts at every step, torn tails at every byte, damage in the middle.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use weir_common::{
    digest::Sha256,
    frame::WINDOW,
    recording::{Count, KernelCount, Manifest},
    session::{ChannelNo, Outcome},
};

use super::*;
use crate::{
    session::{ChannelKernel, End, SealLimits, Session},
    signing::SigningKey,
    spool,
    store::{GetFuture, Put, PutFuture, Store, StoreError},
    storing::{Done, Job, Parallelism, Worker},
    testing::{armed, closed, disarmed, opened, session_id, stdout_record},
};

const LIMITS: SealLimits = SealLimits { max_bytes: 3000, max_records: 1000, max_age_ns: u64::MAX };

/// Of each session: three segments and a rest.
const FRAMES: u64 = 32;

fn options() -> SpoolOptions {
    SpoolOptions { file_bytes: 4000, max_bytes: 1 << 30, flush_interval: Duration::from_millis(1) }
}

fn open(dir: &Path) -> Journal {
    open_with(dir, options())
}

fn open_with(dir: &Path, options: SpoolOptions) -> Journal {
    Journal::open(&dir.join("spool"), options).expect("the spool opens")
}

type Objects = Arc<Mutex<BTreeMap<String, Bytes>>>;

/// A store in memory that stops working after so many puts, as if the agent were killed then.
struct Dying {
    objects: Objects,
    puts: Arc<AtomicU32>,
}

impl Store for Dying {
    fn put<'a>(&'a self, path: &'a str, body: Bytes, expected: Sha256) -> PutFuture<'a> {
        let left = self.puts.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        let mut objects = self.objects.lock().expect("no panic in between");
        let put = match objects.get(path).map(|found| Sha256::of(found)) {
            _ if left.is_err() => Err(StoreError::Interrupted { path: path.to_owned() }),
            Some(found) if found == expected => Ok(Put::AlreadyThere),
            Some(found) => Err(StoreError::Conflict { path: path.to_owned(), expected, found }),
            None => {
                objects.insert(path.to_owned(), body);
                Ok(Put::Stored)
            }
        };
        Box::pin(async { put })
    }

    fn get<'a>(&'a self, path: &'a str, max_bytes: u64) -> GetFuture<'a> {
        let found = self.objects.lock().expect("no panic in between").get(path).cloned();
        assert!(found.as_ref().is_none_or(|found| found.len() as u64 <= max_bytes));
        Box::pin(async move { found.ok_or_else(|| StoreError::Missing { path: path.to_owned() }) })
    }
}

/// An agent's life up to a step at which it is killed.
struct Life {
    journal: Journal,
    worker: Worker,
    steps: Arc<AtomicU32>,
    runtime: tokio::runtime::Runtime,
    /// Where what is on the disk is kept, if its end is one of the power's.
    disk: Option<PathBuf>,
}

/// The steps are used up.
struct Killed;

impl Life {
    fn begin(dir: &Path, objects: &Objects, steps: u32) -> Self {
        Self::begin_on(dir, objects, steps, open(dir))
    }

    /// One that ends with the node: nothing is on the disk that was not flushed, and nothing is flushed unless a job waits
    /// for it.
    fn begin_until_power_cut(dir: &Path, objects: &Objects, steps: u32) -> Self {
        let options = SpoolOptions { flush_interval: Duration::from_secs(3600), ..options() };
        let disk = Some(dir.join("disk"));
        let life = Self { disk, ..Self::begin_on(dir, objects, steps, open_with(dir, options)) };
        // As the disk was when the power came back.
        life.keep_what_is_on_the_disk();
        life
    }

    fn begin_on(dir: &Path, objects: &Objects, steps: u32, journal: Journal) -> Self {
        let steps = Arc::new(AtomicU32::new(steps));
        let key = SigningKey::load_or_make(&dir.join("key")).expect("a key");
        let dying = Dying { objects: Arc::clone(objects), puts: Arc::clone(&steps) };
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        Self {
            journal,
            worker: Worker::new(Arc::new(dying), Arc::new(key), Parallelism { encoding: 1, uploading: 1 }),
            steps,
            runtime,
            disk: None,
        }
    }

    fn flush(&self) {
        self.journal.flush().expect("the disk takes it");
        self.keep_what_is_on_the_disk();
    }

    fn keep_what_is_on_the_disk(&self) {
        let Some(disk) = &self.disk else { return };
        copy(self.journal.spool_dir(), disk);
    }

    /// The node loses its power, and has it again.
    fn cut_power(self) {
        let (disk, spool) =
            (self.disk.clone().expect("a life until then"), self.journal.spool_dir().to_owned());
        drop(self);
        copy(&disk, &spool);
    }

    fn step(&mut self) -> Result<(), Killed> {
        let left = self.steps.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        left.map(drop).map_err(|_| Killed)
    }

    fn append(&mut self, change: StateEntry) -> Result<(), Killed> {
        self.step()?;
        self.journal.append(change).expect("a step in order");
        Ok(())
    }

    fn record(&mut self, number: u8, seq: u64, data: &[u8]) -> Result<(), Killed> {
        self.step()?;
        let end = self.journal.position() + 1;
        let record = stdout_record(number, seq, data);
        self.journal.append_records(&[RingRecord { bytes: &record, end }], |_| {}).expect("room");
        Ok(())
    }

    /// Stores whatever is due.
    fn store(&mut self) -> Result<(), Killed> {
        loop {
            let due = self.journal.ledger().sessions().find_map(|session| {
                let records = session.due_records(LIMITS, 0)?;
                Some(StateEntry::SealStarted { session: session.id(), index: session.next_index(), records })
            });
            if let Some(started) = due {
                self.append(started)?;
            }
            let dir = self.journal.spool_dir().to_owned();
            let jobs = self.journal.ledger().sessions().filter_map(|session| Job::next(session, &dir));
            let jobs: Vec<_> = jobs.collect();
            if jobs.is_empty() {
                return Ok(());
            }
            let may_leave = |job: &Job| self.disk.is_none() || self.journal.may_leave(job.session);
            let Some(job) = jobs.into_iter().find(may_leave) else {
                self.flush();
                continue;
            };
            let stored = self.runtime.block_on(self.worker.once(&job)).map_err(|_| Killed)?;
            self.append(Done { session: job.session, stored }.change())?;
            self.journal.give_back().expect("deletable");
        }
    }

    /// What an agent does on a node that has lost its power, and with it its ring.
    fn live_after_power_cut(&mut self) -> Result<(), Killed> {
        let open = self.journal.ledger().sessions().filter(|session| session.end().is_none());
        let lost = |session: &Session| {
            let end = End { outcome: Outcome::ConnectorLost, closed_at: session.last_heard_of() };
            StateEntry::Closed { session: session.id(), end, kernel: Vec::new() }
        };
        for lost in open.map(lost).collect::<Vec<_>>() {
            self.append(lost)?;
        }
        self.store()
    }

    /// What happens to two sessions, from wherever the life before got to.
    fn live(&mut self) -> Result<(), Killed> {
        for number in [1, 2] {
            if self.journal.ledger().session(session_id(number)).is_none() {
                self.append(opened(number))?;
            }
            if self
                .journal
                .ledger()
                .session(session_id(number))
                .is_some_and(|session| session.totals().is_empty())
            {
                self.append(armed(number))?;
            }
        }
        for seq in 0..FRAMES {
            for number in [1, 2] {
                let Some(session) = self.journal.ledger().session(session_id(number)) else { continue };
                if session.end().is_none() && session.accepted_records() == seq {
                    self.record(number, seq, &content(number, seq))?;
                }
            }
            self.store()?;
        }
        // Some of its records are not sealed yet.
        if self.journal.ledger().session(session_id(2)).is_some_and(|session| session.taps().count() > 0) {
            self.append(disarmed(2))?;
        }
        for number in [1, 2] {
            if self
                .journal
                .ledger()
                .session(session_id(number))
                .is_some_and(|session| session.end().is_none())
            {
                self.append(closed(number))?;
            }
        }
        self.store()
    }
}

/// Text, and for the second session binary that goes into the bulk.
fn content(number: u8, seq: u64) -> Vec<u8> {
    let byte = if number == 1 { b'a' } else { 0x80 };
    vec![byte + u8::try_from(seq % 20).expect("small"); 300]
}

/// Both sessions from the beginning to the end, killed after these steps and begun again.
fn run(key: &Path, kills: &[u32]) -> (BTreeMap<String, Bytes>, bool) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::copy(key, dir.path().join("key")).expect("a key");
    let objects = Objects::default();
    // What a life finished, the next one does once more: to the same bytes, or there is a conflict.
    let mut killed = false;
    for &steps in kills {
        killed |= Life::begin(dir.path(), &objects, steps).live().is_err();
    }
    if killed || kills.is_empty() {
        assert!(Life::begin(dir.path(), &objects, u32::MAX).live().is_ok(), "nothing kills it");
    }
    let objects = std::mem::take(&mut *objects.lock().expect("no panic in between"));
    (objects, killed)
}

#[test]
fn killed_at_any_step_and_begun_again_the_same_bytes_are_stored() {
    let keys = tempfile::tempdir().expect("a temporary directory");
    let key = keys.path().join("key");
    SigningKey::load_or_make(&key).expect("a key");
    let (expected, _) = run(&key, &[]);
    assert!(expected.len() > 16, "several segments, some with bulk: {:?}", expected.keys());
    let mut steps = 0;
    loop {
        let (found, killed) = run(&key, &[steps]);
        if !killed {
            break;
        }
        assert!(found.keys().eq(expected.keys()), "killed after {steps} steps: {:?}", found.keys());
        assert!(found == expected, "killed after {steps} steps: other bytes");
        steps += 1;
    }
    assert!(steps > 100, "there are many steps to be killed at, not {steps}");
    let (found, _) = run(&key, &[40, 3, 0, 7, 30, 1, 1, 1, 50]);
    assert!(found == expected, "killed again and again");
}

/// Makes the one directory of files what the other is.
fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).expect("a fresh directory");
    for item in fs::read_dir(from).expect("readable") {
        let path = item.expect("readable").path();
        fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("room");
    }
}

/// Both sessions from the beginning on, on a node that loses its power after these steps, and again after these.
fn run_with_power_cuts(key: &Path, cuts: &[u32]) -> (BTreeMap<String, Bytes>, bool) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::copy(key, dir.path().join("key")).expect("a key");
    let objects = Objects::default();
    let mut cut = false;
    for (at, &steps) in cuts.iter().enumerate() {
        let mut life = Life::begin_until_power_cut(dir.path(), &objects, steps);
        let lived = if at == 0 { life.live() } else { life.live_after_power_cut() };
        cut |= lived.is_err();
        life.cut_power();
    }
    let mut life = Life::begin(dir.path(), &objects, u32::MAX);
    assert!(life.live_after_power_cut().is_ok(), "cut after {cuts:?} steps: what is left cannot be stored");
    assert_eq!(life.journal.ledger().sessions().len(), 0);
    let objects = std::mem::take(&mut *objects.lock().expect("no panic in between"));
    (objects, cut)
}

/// Every session in the store is complete: what its digests list is there as they say, and nothing else is.
fn check_complete(objects: &BTreeMap<String, Bytes>) {
    let mut sessions: BTreeMap<&str, BTreeMap<&str, &Bytes>> = BTreeMap::new();
    for (path, bytes) in objects {
        let (session, name) = path.rsplit_once('/').expect("a path");
        sessions.entry(session).or_default().insert(name, bytes);
    }
    for (session, mut found) in sessions {
        let sums =
            found.remove("SHA256SUMS").unwrap_or_else(|| panic!("{session} has no end: {:?}", found.keys()));
        let signature = found.remove("SHA256SUMS.sig").expect("the digests are signed");
        assert!(crate::signing::signed_by(signature, sums).is_some());
        let text = |(name, bytes): (&str, &Bytes)| format!("{}  {name}\n", Sha256::of(bytes));
        let mut listed: Vec<_> = std::str::from_utf8(sums).expect("text").split_inclusive('\n').collect();
        listed.sort_unstable();
        let mut there: Vec<_> = found.into_iter().map(text).collect();
        there.sort_unstable();
        assert_eq!(there, listed, "{session}");
    }
}

#[test]
fn with_power_cut_at_any_step_what_was_stored_is_what_the_disk_still_tells_and_every_session_is_completed() {
    let keys = tempfile::tempdir().expect("a temporary directory");
    let key = keys.path().join("key");
    SigningKey::load_or_make(&key).expect("a key");
    let (mut steps, mut partly) = (0, 0);
    loop {
        let (objects, cut) = run_with_power_cuts(&key, &[steps]);
        check_complete(&objects);
        if !cut {
            break;
        }
        partly += u32::from(!objects.is_empty());
        steps += 1;
    }
    assert!(steps > 100 && partly > 80, "there are many steps to be cut at, not {steps} and {partly}");
    for again in 0..12 {
        let (objects, _) = run_with_power_cuts(&key, &[70, again, 2 * again]);
        check_complete(&objects);
    }
}

#[test]
fn a_segment_that_another_version_compressed_is_taken_as_it_is_in_the_store() {
    let keys = tempfile::tempdir().expect("a temporary directory");
    let key = keys.path().join("key");
    SigningKey::load_or_make(&key).expect("a key");
    let (stored, _) = run(&key, &[]);
    let dir = tempfile::tempdir().expect("a temporary directory");
    fs::copy(&key, dir.path().join("key")).expect("a key");
    let again = |plain: &[u8]| Bytes::from(zstd::encode_all(plain, 19).expect("compresses"));
    let plain = |bytes: &Bytes| zstd::decode_all(&bytes[..]).expect("zstd");
    let mut of_before = BTreeMap::new();
    for (path, bytes) in stored.iter().filter(|(path, _)| path.ends_with("/000001.ndjson.zst")) {
        let mut text = String::from_utf8(plain(bytes)).expect("text");
        let bulk = path.replace(".ndjson.zst", ".bin.zst");
        if let Some(ours) = stored.get(&bulk) {
            // The version before compressed the bulk, too, and its segment names it as it stored it.
            let theirs = again(&plain(ours));
            let named =
                |bytes: &Bytes| format!("\"sha256\":\"{}\",\"bytes\":{}", Sha256::of(bytes), bytes.len());
            assert!(text.contains(&named(ours)), "{}", text.lines().next().unwrap_or_default());
            text = text.replace(&named(ours), &named(&theirs));
            of_before.insert(bulk, theirs);
        }
        of_before.insert(path.clone(), again(text.as_bytes()));
    }
    assert_eq!(of_before.len(), 3, "two segments and a bulk");
    assert!(of_before.iter().all(|(path, bytes)| stored[path] != bytes));
    let objects: Objects = Arc::new(Mutex::new(of_before.clone()));
    assert!(Life::begin(dir.path(), &objects, u32::MAX).live().is_ok());
    let objects = objects.lock().expect("no panic in between");
    assert!(objects.keys().eq(stored.keys()));
    for (path, bytes) in &of_before {
        assert!(objects[path] == bytes, "never overwritten");
        let (session, name) = path.rsplit_once('/').expect("a path");
        let sums = std::str::from_utf8(&objects[&format!("{session}/SHA256SUMS")]).expect("text");
        assert!(sums.contains(&format!("{}  {name}\n", Sha256::of(bytes))), "{sums}");
        if let Some(path) = path.strip_suffix(".ndjson.zst") {
            let signature = &objects[&format!("{path}.sig")];
            assert!(crate::signing::signed_by(signature, bytes).is_some(), "signed as it is in the store");
        }
    }
}

#[test]
fn what_another_key_signed_before_is_taken_as_it_is_and_what_nobody_signed_is_not() {
    let keys = tempfile::tempdir().expect("a temporary directory");
    let [before, after] = ["before", "after"].map(|name| keys.path().join(name));
    for key in [&before, &after] {
        SigningKey::load_or_make(key).expect("a key");
    }
    let (stored, _) = run(&before, &[]);
    let is_signature = |path: &str| path.ends_with("/000001.sig") || path.ends_with("/SHA256SUMS.sig");
    let live = |start: BTreeMap<String, Bytes>| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::copy(&after, dir.path().join("key")).expect("a key");
        let objects: Objects = Arc::new(Mutex::new(start));
        let done = Life::begin(dir.path(), &objects, u32::MAX).live().is_ok();
        let objects = std::mem::take(&mut *objects.lock().expect("no panic in between"));
        (objects, done)
    };
    // All but the last signature was stored when the key was changed.
    let mut most = stored.clone();
    most.retain(|path, _| !path.ends_with("/SHA256SUMS.sig"));
    let (objects, done) = live(most.clone());
    assert!(done);
    assert!(most.iter().all(|(path, bytes)| objects[path] == bytes), "nothing is overwritten");
    let (objects, done) = live(stored.clone());
    assert!(done && objects == stored, "complete already");
    for (path, _) in stored.iter().filter(|(path, _)| is_signature(path)) {
        let (session, _) = path.rsplit_once('/').expect("a path");
        let mut forged = stored.clone();
        forged.insert(path.clone(), stored[&format!("{session}/000002.sig")].clone());
        let (_, done) = live(forged);
        assert!(!done, "{path} is valid, but of other bytes");
    }
}

#[test]
fn a_target_that_becomes_known_while_the_first_segment_is_stored_does_not_change_its_bytes() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut journal = open(dir.path());
    for change in [opened(1), armed(1)] {
        journal.append(change).expect("in order");
    }
    let record = stdout_record(1, 0, b"said");
    journal.append_records(&[RingRecord { bytes: &record, end: 1 }], |_| {}).expect("room");
    let session = session_id(1);
    journal.append(StateEntry::SealStarted { session, index: 1, records: 1 }).expect("in order");
    let header = |journal: &Journal| {
        let session = journal.ledger().session(session).expect("is there");
        serde_json::to_string(&session.segment_header()).expect("serializes")
    };
    let before = header(&journal);
    assert!(before.contains(r#""opened":{"session":{"#) && before.contains(r#""target":null"#), "{before}");
    journal.append(StateEntry::Connected { session, target: crate::testing::target() }).expect("in order");
    assert_eq!(header(&journal), before);
    drop(journal);
    assert_eq!(header(&open(dir.path())), before, "nor does a restart");
}

/// Two sessions with these many records each, in as many files as it takes.
fn recorded(dir: &Path, records: u64) {
    let mut life = Life::begin(dir, &Objects::default(), u32::MAX);
    for change in [opened(1), armed(1), opened(2), armed(2)] {
        life.journal.append(change).expect("in order");
    }
    for seq in 0..records {
        for number in [1, 2] {
            assert!(life.record(number, seq, &content(number, seq)).is_ok(), "nothing kills it");
        }
    }
}

fn accepted(journal: &Journal) -> Vec<u64> {
    journal.ledger().sessions().map(Session::accepted_records).collect()
}

#[test]
fn a_torn_tail_is_cut_to_the_whole_entries_before_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    recorded(dir.path(), 3);
    let file = spool::path(&dir.path().join("spool"), FileNo(1));
    let whole = fs::read(&file).expect("one file");
    let ends: Vec<_> =
        spool::entry::Entries::new(&whole).map(|(offset, entry)| offset + entry.len()).collect();
    let head = usize::try_from(ends[0]).expect("small");
    for cut in (head..whole.len()).rev() {
        fs::write(&file, &whole[..cut]).expect("writable");
        let journal = open(dir.path());
        let entries = ends.iter().filter(|&&end| end <= cut as u64).count();
        // Behind the checkpoint come four changes of state, then records of the one and the other session.
        let records = entries.saturating_sub(5);
        assert_eq!(accepted(&journal).iter().sum::<u64>(), records as u64, "cut at {cut}");
        assert_eq!(journal.position(), records as u64, "cut at {cut}");
        drop(journal);
        assert_eq!(fs::metadata(&file).expect("is there").len(), ends[entries - 1], "cut at {cut}");
    }
}

#[test]
fn a_file_whose_checkpoint_is_torn_or_was_not_begun_goes_and_the_one_before_is_appended_to() {
    for left in [0, 1, 60] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        recorded(dir.path(), 12);
        let spool_dir = dir.path().join("spool");
        let files = spool::list(&spool_dir).expect("readable");
        let last = *files.last().expect("several");
        assert!(files.len() > 1);
        let path = spool::path(&spool_dir, last);
        let bytes = fs::read(&path).expect("readable");
        fs::write(&path, &bytes[..left]).expect("writable");
        let mut journal = open(dir.path());
        assert!(!path.exists(), "{left} bytes");
        assert_eq!(journal.spool.active_file(), Some(FileNo(last.0 - 1)));
        let records = accepted(&journal);
        assert!(records.iter().all(|&records| records > 0) && records.iter().sum::<u64>() < 2 * 12);
        journal.append(disarmed(1)).expect("in order");
        drop(journal);
        let again = open(dir.path());
        assert_eq!(accepted(&again), records, "{left} bytes");
        let session = again.ledger().sessions().find(|session| session.id() == session_id(1));
        assert!(
            session.is_some_and(|session| session.armed().count() == 0),
            "{left} bytes: what was appended is read"
        );
    }
}

#[test]
fn damage_in_an_earlier_file_is_reported_by_the_sessions_that_lost_records_and_by_no_other() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    {
        let mut life = Life::begin(dir.path(), &Objects::default(), u32::MAX);
        for change in [opened(1), armed(1), opened(2), armed(2)] {
            life.journal.append(change).expect("in order");
        }
        for seq in 0..30 {
            assert!(life.record(1, seq, &content(1, seq)).is_ok());
            if seq < 3 {
                assert!(life.record(2, seq, &content(2, seq)).is_ok());
            }
        }
    }
    let file = spool::path(&dir.path().join("spool"), FileNo(1));
    let mut bytes = fs::read(&file).expect("readable");
    let (offset, last) = spool::entry::Entries::new(&bytes).last().expect("entries");
    let inside = usize::try_from(offset + last.len() - 1).expect("small");
    bytes[inside] ^= 1;
    fs::write(&file, &bytes).expect("writable");
    let journal = open(dir.path());
    assert_eq!(accepted(&journal), [30, 3], "the checkpoint behind the damage knows");
    let gone: Vec<_> = journal.ledger().sessions().map(Session::gone_records).collect();
    assert_eq!(gone, [1, 0]);
}

/// Flips a bit in the payload of this entry of the file.
fn damage_entry(dir: &Path, no: FileNo, entry: usize) {
    let file = spool::path(&dir.join("spool"), no);
    let mut bytes = fs::read(&file).expect("readable");
    let (offset, _) = spool::entry::Entries::new(&bytes).nth(entry).expect("as many entries");
    bytes[usize::try_from(offset).expect("small") + HEADER_LEN + 5] ^= 1;
    fs::write(&file, &bytes).expect("writable");
}

fn sums(journal: &Journal) -> Vec<(u64, u64)> {
    journal.ledger().sessions().map(|session| (session.accepted_records(), session.gone_records())).collect()
}

/// Behind the checkpoint of the only file come four changes of state, then records of the one and the other session in turn.
const FIRST_RECORD: usize = 5;

#[test]
fn a_damaged_record_costs_its_own_session_that_record_and_the_others_nothing() {
    for damaged in [0, 7, 20, 24, 35, 37, 38] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut journal = Journal::open(&dir.path().join("spool"), roomy()).expect("opens");
        for change in [opened(1), armed(1), opened(2), armed(2)] {
            journal.append(change).expect("in order");
        }
        let append = |journal: &mut Journal, number: u8, seq: u64| {
            let end = journal.position() + 1;
            let record = stdout_record(number, seq, &content(number, seq));
            journal.append_records(&[RingRecord { bytes: &record, end }], |_| {}).expect("room");
        };
        for seq in 0..20 {
            (1..=2).for_each(|number| append(&mut journal, number, seq));
        }
        drop(journal);
        damage_entry(dir.path(), FileNo(1), FIRST_RECORD + damaged);
        let hit = damaged % 2;
        let mut journal = Journal::open(&dir.path().join("spool"), roomy()).expect("opens");
        // What is behind the damage shows soon which session it hit; where nothing is, what comes next does.
        for seq in 20..20 + WINDOW as u64 {
            (1..=2).for_each(|number| append(&mut journal, number, seq));
        }
        let all = 20 + WINDOW as u64;
        let mut expected = vec![(all, 0), (all, 0)];
        expected[hit] = (all, 1);
        assert_eq!(sums(&journal), expected, "{damaged}");
        drop(journal);
        let again = Journal::open(&dir.path().join("spool"), roomy()).expect("opens");
        assert_eq!(sums(&again), expected, "{damaged}: after another restart");
    }
}

/// How many frames of each session the spool in `dir` has.
fn known(dir: &Path) -> [u64; 2] {
    let journal = open(dir);
    [1, 2].map(|number| journal.ledger().session(session_id(number)).map_or(0, Session::accepted_records))
}

/// What is stored of both sessions when they go on from these frames to their end.
fn go_on(dir: &Path, objects: BTreeMap<String, Bytes>, known: [u64; 2]) -> BTreeMap<String, Bytes> {
    let objects: Objects = Arc::new(Mutex::new(objects));
    let mut life = Life::begin(dir, &objects, u32::MAX);
    // A position for each record: the core sees that the ring gave out more than the spool has.
    let consumed = known.iter().sum();
    if life.journal.position() < consumed {
        life.journal.note_loss(consumed).expect("room");
    }
    for seq in 0..FRAMES {
        for (number, known) in (1..).zip(known) {
            assert!(seq < known || life.record(number, seq, &content(number, seq)).is_ok());
        }
        assert!(seq < known[0].min(known[1]) || life.store().is_ok());
    }
    // The kernel has counted every one of them.
    let captured = Count { records: FRAMES, bytes: FRAMES * 316 };
    let t2c = Some(KernelCount { captured, ..KernelCount::default() });
    let kernel = ChannelKernel { channel: ChannelNo(0), c2t: None, t2c };
    let disarmed = StateEntry::Disarmed { session: session_id(2), kernel };
    for change in [disarmed, closed(1), closed(2)] {
        life.journal.append(change).expect("in order");
    }
    assert!(life.store().is_ok(), "what is stored is nobody else's");
    assert_eq!(life.journal.ledger().sessions().len(), 0, "everything is stored");
    drop(life);
    std::mem::take(&mut *objects.lock().expect("no panic in between"))
}

#[test]
fn whichever_entry_is_damaged_the_other_session_is_stored_as_ever_and_its_own_lacks_a_record_at_most() {
    let of = |objects: &BTreeMap<String, Bytes>, number: u8| -> BTreeMap<String, Bytes> {
        let is_its = |path: &String| path.contains(&session_id(number).to_string());
        objects
            .iter()
            .filter(|(path, _)| is_its(path))
            .map(|(path, bytes)| (path.clone(), bytes.clone()))
            .collect()
    };
    let events = |objects: &BTreeMap<String, Bytes>| -> usize {
        let segments = objects.iter().filter(|(path, _)| path.ends_with(".ndjson.zst"));
        let lines = segments.map(|(_, packed)| {
            let text = zstd::decode_all(&packed[..]).expect("zstd");
            text.iter().filter(|&&byte| byte == b'\n').count() - 1
        });
        lines.sum()
    };
    let (mut damaged, mut states) = (0, 0);
    for steps in [24, 50, 75] {
        let (dir, objects) = (tempfile::tempdir().expect("a temporary directory"), Objects::default());
        assert!(Life::begin(dir.path(), &objects, steps).live().is_err(), "killed");
        let stored = objects.lock().expect("no panic in between").clone();
        let copy = || {
            let to = tempfile::tempdir().expect("a temporary directory");
            fs::create_dir(to.path().join("spool")).expect("writable");
            fs::copy(dir.path().join("key"), to.path().join("key")).expect("readable");
            for no in spool::list(&dir.path().join("spool")).expect("readable") {
                let at = |dir: &Path| spool::path(&dir.join("spool"), no);
                fs::copy(at(dir.path()), at(to.path())).expect("readable");
            }
            to
        };
        let known = known(copy().path());
        let expected = go_on(copy().path(), stored.clone(), known);
        for no in spool::list(&dir.path().join("spool")).expect("readable") {
            let bytes = fs::read(spool::path(&dir.path().join("spool"), no)).expect("readable");
            for (entry, (_, Entry { kind, payload, .. })) in spool::entry::Entries::new(&bytes).enumerate() {
                let is_last = spool::list(&dir.path().join("spool")).expect("readable").last() == Some(&no);
                // What of the state is damaged in the last file is left unread, and in a checkpoint, too.
                if !matches!((kind, is_last), (Kind::Record, _) | (Kind::State, false)) {
                    continue;
                }
                damaged += 1;
                states += u32::from(kind == Kind::State);
                let text = String::from_utf8_lossy(payload);
                let is_first = match kind {
                    Kind::State => text.contains(&session_id(1).to_string()),
                    _ => u64::from_ne_bytes(*payload.first_chunk().expect("a header")) < 4,
                };
                let (own, other) = if is_first { (1, 2) } else { (2, 1) };
                let dir = copy();
                damage_entry(dir.path(), no, entry);
                let found = go_on(dir.path(), stored.clone(), known);
                let place = format!("killed after {steps} steps, file {no}, entry {entry}");
                assert!(of(&found, other) == of(&expected, other), "{place}: the other session");
                let missing = events(&of(&expected, own)) - events(&of(&found, own));
                // Whose the records behind a damaged beginning are is known at the next checkpoint only.
                let is_beginning =
                    [r#""entry":"opened""#, r#""entry":"armed""#].iter().any(|it| text.contains(it));
                assert!(missing <= 1 || is_beginning, "{place}: {missing} are missing");
                let manifest = of(&found, own).into_iter().find(|(path, _)| path.ends_with("manifest.json"));
                let manifest: Manifest =
                    serde_json::from_slice(&manifest.expect("stored").1).expect("a manifest");
                let accepted = manifest.channels[0].t2c.accepted.records;
                assert_eq!(accepted, FRAMES, "{place}: what is missing is told");
            }
        }
    }
    assert!(damaged > 20 && states > 5, "{damaged}, {states} of them of state");
}

#[test]
fn nothing_is_appended_behind_damage_where_no_replay_would_find_it() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    recorded(dir.path(), 12);
    let spool_dir = dir.path().join("spool");
    let files = spool::list(&spool_dir).expect("readable");
    let [.., before, last] = files[..] else { unreachable!("there are several") };
    let path = spool::path(&spool_dir, before);
    let mut bytes = fs::read(&path).expect("readable");
    let (offset, entry) = spool::entry::Entries::new(&bytes).last().expect("entries");
    let inside = usize::try_from(offset + entry.len() - 1).expect("small");
    bytes[inside] ^= 1;
    fs::write(&path, bytes).expect("writable");
    let torn = spool::path(&spool_dir, last);
    let bytes = fs::read(&torn).expect("readable");
    fs::write(&torn, &bytes[..60]).expect("writable");
    let mut journal = open(dir.path());
    let state = |journal: &Journal| {
        let sessions = journal.ledger().sessions();
        sessions.map(|session| (session.accepted_records(), session.end().is_some())).collect::<Vec<_>>()
    };
    journal.append(closed(1)).expect("in order");
    let known = state(&journal);
    assert!(known[0].1);
    drop(journal);
    assert_eq!(state(&open(dir.path())), known);
}

#[test]
fn files_go_only_when_everything_in_them_is_stored_and_a_restart_still_completes_the_sessions() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (spool_dir, objects) = (dir.path().join("spool"), Objects::default());
    recorded(dir.path(), 30);
    let before = spool::list(&spool_dir).expect("readable").len();
    assert!(before > 4);
    let mut life = Life::begin(dir.path(), &objects, 0);
    life.journal.give_back().expect("nothing to delete");
    assert!(life.store().is_err(), "the store takes nothing");
    assert_eq!(spool::list(&spool_dir).expect("readable").len(), before);
    drop(life);
    let mut life = Life::begin(dir.path(), &objects, u32::MAX);
    assert!(life.store().is_ok());
    let deadline = Instant::now() + Duration::from_secs(10);
    while spool::list(&spool_dir).expect("readable").len() >= before {
        life.journal.give_back().expect("deletable");
        assert!(Instant::now() < deadline, "no space was given back");
        std::thread::yield_now();
    }
    drop(life);
    let mut life = Life::begin(dir.path(), &objects, u32::MAX);
    assert!(life.journal.ledger().sessions().all(|session| session.gone_records() == 0), "gone, and stored");
    for change in [closed(1), closed(2)] {
        life.journal.append(change).expect("in order");
    }
    assert!(life.store().is_ok());
    assert_eq!(life.journal.ledger().sessions().len(), 0);
    let objects = objects.lock().expect("no panic in between");
    assert_eq!(objects.keys().filter(|path| path.ends_with("manifest.json")).count(), 2);
}

#[test]
fn a_record_behind_the_end_of_its_channel_or_session_is_an_orphan_in_a_replay_too() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let spool_dir = dir.path().join("spool");
    let mut journal = Journal::open(&spool_dir, roomy()).expect("opens");
    for change in [opened(1), armed(1), opened(2), armed(2), disarmed(1), closed(2)] {
        journal.append(change).expect("in order");
    }
    let records = [stdout_record(1, 0, b"x"), stdout_record(2, 0, b"x")];
    let records: Vec<_> =
        records.iter().zip(1..).map(|(bytes, end)| RingRecord { bytes: &bytes[..], end }).collect();
    let mut accounted = Vec::new();
    journal.append_records(&records, |what| accounted.push(what)).expect("room");
    assert_eq!(accounted, [Accounted::Orphan, Accounted::Orphan]);
    let check = |journal: &Journal| {
        assert_eq!(journal.ledger().orphans().records, 2);
        let session = |number| journal.ledger().session(session_id(number)).expect("is there");
        assert_eq!((session(1).accepted_records(), session(2).accepted_records()), (0, 0));
        assert!(session(1).is_disarmed(ChannelNo(0)));
        assert_eq!(session(2).due_records(LIMITS, u64::MAX), None);
        assert_eq!(session(2).may_finish(), Ok(()));
    };
    check(&journal);
    drop(journal);
    check(&Journal::open(&spool_dir, roomy()).expect("opens"));
}

fn roomy() -> SpoolOptions {
    SpoolOptions { file_bytes: 1 << 20, ..options() }
}

#[test]
fn a_checkpoint_larger_than_a_file_should_be_is_not_written_with_every_append() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let spool_dir = dir.path().join("spool");
    let mut journal = open(dir.path());
    for number in 1..=20 {
        journal.append(opened(number)).expect("in order");
        journal.append(armed(number)).expect("in order");
    }
    let mut seq = 0;
    let mut append = |journal: &mut Journal| {
        let end = journal.position() + 1;
        let record = stdout_record(1, seq, &content(1, seq));
        journal.append_records(&[RingRecord { bytes: &record, end }], |_| {}).expect("room");
        seq += 1;
    };
    let checkpoint = |journal: &Journal| {
        assert!(journal.checkpoint_bytes > 2 * options().file_bytes, "{}", journal.checkpoint_bytes);
        journal.checkpoint_bytes
    };
    let before = journal.spool.active_file();
    while journal.spool.active_file() == before {
        append(&mut journal);
    }
    for _ in 0..3 {
        let (file, bytes) = (journal.spool.active_file(), checkpoint(&journal));
        append(&mut journal);
        drop(journal);
        journal = open(dir.path());
        assert_eq!(checkpoint(&journal), bytes, "known after a restart");
        while journal.spool.active_file() == file {
            append(&mut journal);
        }
        let size = fs::metadata(spool::path(&spool_dir, file.expect("one"))).expect("is there").len();
        assert!(size >= 2 * bytes, "{size} bytes with a checkpoint of {bytes}");
    }
}

#[test]
fn a_session_that_is_not_stored_keeps_the_files_with_its_records_and_a_replay_reads_them_over_the_gap() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let objects = Objects::default();
    let mut life = Life::begin(dir.path(), &objects, u32::MAX);
    for change in [opened(1), armed(1), opened(2), armed(2)] {
        life.journal.append(change).expect("in order");
    }
    // The first session has a record at the beginning and one at the end; whatever the second has is stored.
    assert!(life.record(1, 0, &content(1, 0)).is_ok());
    let kept = life.journal.spool.active_file().expect("one");
    for seq in 0..FRAMES {
        assert!(life.record(2, seq, &content(2, seq)).is_ok() && life.store().is_ok());
    }
    assert!(life.record(1, 1, &content(1, 1)).is_ok());
    let last = life.journal.spool.active_file().expect("one");
    assert!(last.0 > kept.0 + 2, "there are files in between");
    let deadline = Instant::now() + Duration::from_secs(10);
    while life.journal.spool.files().count() > 3 {
        life.journal.give_back().expect("deletable");
        assert!(Instant::now() < deadline, "no space was given back");
        std::thread::yield_now();
    }
    let needed = life.journal.ledger().needed_files();
    assert!(needed.contains(&kept) && !needed.contains(&FileNo(kept.0 + 1)), "{needed:?}");
    drop(life);
    let mut life = Life::begin(dir.path(), &objects, u32::MAX);
    assert_eq!(life.journal.ledger().needed_files(), needed);
    assert!(life.journal.ledger().sessions().all(|session| session.gone_records() == 0));
    for change in [closed(1), closed(2)] {
        life.journal.append(change).expect("in order");
    }
    assert!(life.store().is_ok());
    assert_eq!(life.journal.ledger().sessions().len(), 0);
}
