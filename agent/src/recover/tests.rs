//! Spools of nodes that never came back, recovered on another one with another key, and verified as a reviewer would.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use jiff::{Timestamp, tz::TimeZone};
use tempfile::TempDir;
use weir_common::{
    digest::Sha256,
    frame::{Direction, Message},
    recording::{Content, Event, MANIFEST, Part},
};
use weir_console::{
    store::SessionDir,
    verify::{Options, report::Verdict, signers::AllowedSigners, verify},
};

use super::*;
use crate::{
    journal::{Damage, Journal, RingRecord},
    ledger::StateEntry,
    session::Session,
    spool::{
        self, FileNo,
        entry::{Entries, Kind},
    },
    storing::{Done, Job, Parallelism},
    tap::RingId,
    testing::{armed, closed, cookies, frame, opened, opening, session_id, sftp, stdout_record, upload_of},
};

const SEAL: SealLimits = SealLimits { max_bytes: 3000, max_records: 1000, max_age_ns: u64::MAX };
const SPOOL: SpoolOptions =
    SpoolOptions { file_bytes: 4000, max_bytes: 1 << 30, flush_interval: Duration::from_millis(1) };

/// A lost node's spool, another node's directories, and the store of both.
struct Lab {
    dir: TempDir,
}

impl Lab {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary directory") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn worker(&self, key: &str) -> Worker {
        let key = SigningKey::load_or_make(&self.path(key)).expect("a key");
        let store = FileStore::join(&self.path("store")).expect("writable");
        Worker::new(Arc::new(store), Arc::new(key), Parallelism { encoding: 2, uploading: 2 })
    }

    fn tools(&self) -> Tools {
        Tools {
            worker: self.worker("other-key"),
            spool: SPOOL,
            seal: SEAL,
            parallel: 2,
            patience: Duration::from_millis(50),
            give_up_ring: false,
            work: None,
            on_stored: Box::new(|_| Ok(())),
        }
    }

    /// Two sessions under way, and a third that has ended; so many records each.
    fn lose_a_node(&self, records: u64) -> PathBuf {
        let dir = self.path("lost");
        let mut journal = Journal::open(&dir, SPOOL).expect("opens");
        for number in [1, 2, 3] {
            journal.append(opened(number)).expect("in order");
            journal.append(armed(number)).expect("in order");
        }
        for seq in 0..records {
            for number in [1, 2, 3] {
                record(&mut journal, number, seq);
            }
        }
        journal.append(closed(3)).expect("in order");
        dir
    }

    /// What the lost node had stored of a session: its first segment, which its own key signed.
    fn store_a_segment(&self, dir: &Path, number: u8) {
        let mut journal = Journal::open(dir, SPOOL).expect("opens");
        let session = session_id(number);
        journal.append(StateEntry::SealStarted { session, index: 1, records: 5 }).expect("in order");
        let job =
            journal.ledger().session(session).and_then(|session| Job::next(session, dir)).expect("a job");
        let stored = block_on(self.worker("lost-key").once(&job)).expect("stored");
        journal.append(Done { session, stored }.change()).expect("in order");
    }

    fn recover(&self, dir: &Path) -> SpoolReport {
        block_on(super::spool::recover(dir, &mut self.tools(), &|_| ())).expect("recovers")
    }

    fn refused(&self, dir: &Path) -> RecoverError {
        block_on(super::spool::recover(dir, &mut self.tools(), &|_| ())).expect_err("refused")
    }

    fn session_dir(&self, number: u8) -> PathBuf {
        self.path("store/v1/dt=1970-01-01").join(session_id(number).to_string())
    }

    /// What the target said, as it lies in the store.
    fn stored(&self, number: u8) -> Vec<u8> {
        let dir = self.session_dir(number);
        let mut said = Vec::new();
        for index in 1.. {
            let Ok(packed) = fs::read(dir.join(format!("{index:06}.ndjson.zst"))) else { return said };
            let bulk = fs::read(dir.join(format!("{index:06}.bin.zst")));
            let bulk = bulk.map_or_else(|_| Vec::new(), |bulk| zstd::decode_all(&bulk[..]).expect("zstd"));
            let text = String::from_utf8(zstd::decode_all(&packed[..]).expect("zstd")).expect("text");
            for line in text.lines().skip(1) {
                let event: Event = serde_json::from_str(line).expect("an event");
                let content = event.what.content().map(Content::len);
                let bytes = event.what.content().and_then(|content| content.bytes(&bulk)).expect("content");
                assert_eq!(content, Some(bytes.len() as u64));
                said.extend_from_slice(bytes);
            }
        }
        said
    }

    /// What a reviewer is told who trusts both nodes' keys.
    fn verdict(&self, number: u8) -> Verdict {
        let mut text = String::new();
        for key in ["other-key", "lost-key"] {
            let key = SigningKey::load_or_make(&self.path(key)).expect("a key");
            text.push_str(&key.allowed_signer().expect("a line"));
        }
        let signers = AllowedSigners::parse("FILE", &text, &TimeZone::UTC);
        let options = Options { signers: Some(&signers), identity: "weir-agent", now: Timestamp::UNIX_EPOCH };
        let dir = SessionDir::open(&self.session_dir(number)).expect("a directory");
        verify(&dir, &options).expect("readable").verdict
    }
}

fn block_on<T>(what: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(what)
}

fn record(journal: &mut Journal, number: u8, seq: u64) {
    let (end, bytes) = (journal.position() + 1, stdout_record(number, seq, &content(number, seq)));
    journal.append_records(&[RingRecord { bytes: &bytes, end }], |_| {}).expect("room");
}

/// Text, and for the second session binary that goes into the bulk.
fn content(number: u8, seq: u64) -> Vec<u8> {
    let byte = if number == 2 { 0x80 } else { b'a' };
    vec![byte + u8::try_from(seq % 20).expect("small"); 300]
}

fn said(number: u8, records: u64) -> Vec<u8> {
    (0..records).flat_map(|seq| content(number, seq)).collect()
}

/// As a disk that is attached elsewhere: other paths, the same bytes.
fn moved(lab: &Lab, from: &Path) -> PathBuf {
    let to = lab.path("attached/spool");
    fs::create_dir_all(&to).expect("writable");
    for item in fs::read_dir(from).expect("readable") {
        let item = item.expect("readable");
        fs::copy(item.path(), to.join(item.file_name())).expect("writable");
    }
    to
}

fn last_file(dir: &Path) -> PathBuf {
    spool::path(dir, *spool::list(dir).expect("readable").last().expect("files"))
}

fn states(report: &SpoolReport) -> Vec<&State> {
    report.sessions.iter().map(|session| &session.state).collect()
}

#[test]
fn a_lost_nodes_sessions_are_stored_with_another_key_and_nothing_is_left() {
    let lab = Lab::new();
    let lost = lab.lose_a_node(30);
    lab.store_a_segment(&lost, 2);
    let dir = moved(&lab, &lost);
    let looked = super::spool::look(&dir).expect("readable");
    assert_eq!(states(&looked), [&State::Found; 3]);
    assert_eq!(looked.sessions[0].to_store.records, 30);
    assert_eq!(looked.sessions[1].to_store.records, 25, "five are stored already");
    assert_eq!(looked.sessions[0].ended, None);
    assert!(!lab.session_dir(1).exists(), "looking changes nothing");
    let report = lab.recover(&dir);
    assert_eq!(states(&report), [&State::Stored; 3]);
    assert!(report.emptied && !report.has_losses(), "{report:#?}");
    assert_eq!(fs::read_dir(&dir).expect("is there").count(), 0);
    for number in [1, 2, 3] {
        assert!(lab.stored(number) == said(number, 30), "session {number}");
    }
    for number in [1, 2] {
        assert_eq!(lab.verdict(number), Verdict::Intact, "session {number}");
    }
    let manifest = fs::read_to_string(lab.session_dir(1).join(MANIFEST)).expect("is there");
    assert!(manifest.contains("connector_lost") && manifest.contains("\"kernel\": null"), "{manifest}");
    // Another copy of the same spool comes to the same end.
    let again = moved(&lab, &lost);
    assert_eq!(states(&lab.recover(&again)), [&State::Stored; 3]);
}

#[test]
fn a_torn_tail_takes_what_was_torn_and_nothing_else() {
    let lab = Lab::new();
    let lost = lab.lose_a_node(10);
    let (mut journal, mut total) = (Journal::open(&lost, SPOOL).expect("opens"), 30);
    let ends_with_records = |bytes: &[u8]| {
        let kinds: Vec<_> = Entries::new(bytes).map(|(_, entry)| entry.kind).collect();
        kinds.ends_with(&[Kind::Record; 3])
    };
    while !ends_with_records(&fs::read(last_file(&lost)).expect("readable")) {
        record(&mut journal, 1, total - 20);
        total += 1;
    }
    drop(journal);
    let whole = fs::read(last_file(&lost)).expect("readable");
    let ends: Vec<_> = Entries::new(&whole).map(|(offset, entry)| offset + entry.len()).collect();
    for back in [1, 2, 3] {
        let lab = Lab::new();
        let dir = moved(&lab, &lost);
        let end = usize::try_from(ends[ends.len() - back]).expect("small");
        fs::write(last_file(&dir), &whole[..end - 1]).expect("writable");
        let looked = super::spool::look(&dir).expect("readable");
        let records: u64 = looked.sessions.iter().map(|session| session.to_store.records).sum();
        assert_eq!(records, total - back as u64);
        assert!(matches!(looked.damage[..], [Damage::TornTail { .. }]), "{looked:?}");
        let counts: Vec<_> = looked.sessions.iter().map(|session| session.to_store.records).collect();
        let report = lab.recover(&dir);
        assert!(report.emptied && !report.has_losses());
        for (number, count) in (1..).zip(counts) {
            assert!(
                lab.stored(number) == said(number, count),
                "session {number} cut {back} entries before its end"
            );
            // The third has kernel counters of the test's invention.
            if number < 3 {
                assert_eq!(lab.verdict(number), Verdict::Intact);
            }
        }
    }
}

#[test]
fn damage_in_the_middle_is_reported_and_verified_as_a_loss_of_the_sessions_it_hit() {
    let lab = Lab::new();
    let lost = lab.lose_a_node(2);
    {
        let mut journal = Journal::open(&lost, SPOOL).expect("opens");
        (2..30).for_each(|seq| record(&mut journal, 1, seq));
    }
    let file = spool::path(&lost, FileNo(2));
    let mut bytes = fs::read(&file).expect("several files");
    let (offset, _) = Entries::new(&bytes).last().expect("entries");
    bytes[usize::try_from(offset).expect("small") + 40] ^= 1;
    fs::write(&file, bytes).expect("writable");
    let dir = moved(&lab, &lost);
    let report = lab.recover(&dir);
    let lost: Vec<_> = report.sessions.iter().map(|session| session.lost_records).collect();
    assert_eq!(lost, [1, 0, 0]);
    assert!(report.emptied && report.has_losses());
    assert!(matches!(report.damage[..], [Damage::Unreadable { file: FileNo(2), .. }]));
    assert_eq!([1, 2].map(|number| lab.verdict(number)), [Verdict::NotIntact, Verdict::Intact]);
    let without_one = said(1, 30).len() - 300;
    assert_eq!(lab.stored(1).len(), without_one);
    assert!(lab.stored(2) == said(2, 2));
}

#[test]
fn after_a_power_cut_everything_that_was_flushed_is_stored() {
    let lab = Lab::new();
    let lost = lab.lose_a_node(8);
    let mut journal = Journal::open(&lost, SPOOL).expect("opens");
    (8..20).for_each(|seq| record(&mut journal, 2, seq));
    // A journal that is closed has flushed everything: here is what a cut leaves.
    drop(journal);
    let sizes = |dir: &Path| -> BTreeMap<FileNo, u64> {
        let files = spool::list(dir).expect("readable");
        files.into_iter().map(|no| (no, fs::metadata(spool::path(dir, no)).expect("there").len())).collect()
    };
    let flushed = sizes(&lost);
    let mut journal = Journal::open(&lost, SPOOL).expect("opens");
    (20..50).for_each(|seq| record(&mut journal, 2, seq));
    drop(journal);
    let dir = moved(&lab, &lost);
    for no in sizes(&dir).into_keys() {
        let path = spool::path(&dir, no);
        match flushed.get(&no) {
            Some(&len) => fs::File::options().write(true).open(path).and_then(|file| file.set_len(len)),
            None => fs::remove_file(path),
        }
        .expect("writable");
    }
    let report = lab.recover(&dir);
    assert!(report.emptied && !report.has_losses(), "{report:#?}");
    assert!(lab.stored(2) == said(2, 20));
    assert!(lab.stored(1) == said(1, 8));
    assert_eq!([1, 2].map(|number| lab.verdict(number)), [Verdict::Intact; 2]);
}

#[test]
fn a_session_that_cannot_be_stored_stays_and_the_others_do_not() {
    let lab = Lab::new();
    let lost = lab.lose_a_node(30);
    fs::create_dir_all(lab.session_dir(2)).expect("writable");
    fs::write(lab.session_dir(2).join("000001.ndjson.zst"), "something else").expect("writable");
    let report = lab.recover(&lost);
    let reasons: Vec<_> = states(&report);
    assert!(matches!(reasons[1], State::Left { reason } if reason.contains("other content")), "{reasons:?}");
    assert_eq!((reasons[0], reasons[2]), (&State::Stored, &State::Stored));
    assert!(!report.emptied);
    let text = Recovery { spools: vec![report], ..Recovery::default() }.text();
    assert!(text.contains("LEFT: ") && text.contains("not emptied: sessions are left"), "{text}");
    fs::remove_file(lab.session_dir(2).join("000001.ndjson.zst")).expect("is there");
    let report = lab.recover(&lost);
    assert!(report.emptied, "{report:#?}");
    assert!(lab.stored(2) == said(2, 30));
}

#[test]
fn what_reports_cannot_take_keeps_the_session_in_the_spool() {
    let lab = Lab::new();
    let lost = lab.lose_a_node(3);
    let mut tools = lab.tools();
    tools.on_stored = Box::new(|manifest| match manifest.session.session_id == session_id(1) {
        true => Err("the queue is full".to_owned()),
        false => Ok(()),
    });
    let report = block_on(super::spool::recover(&lost, &mut tools, &|_| ())).expect("recovers");
    assert_eq!(states(&report)[0], &State::Left { reason: "the queue is full".to_owned() });
    assert!(!report.emptied);
    assert!(lab.recover(&lost).emptied);
}

/// Every file in a directory.
fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let paths = fs::read_dir(dir).expect("readable").map(|item| item.expect("readable").path());
    paths.map(|path| (path.clone(), fs::read(path).expect("readable"))).collect()
}

#[test]
fn a_spool_that_is_to_be_left_as_it_is_is_recovered_from_where_its_copy_was_interrupted() {
    let lab = Lab::new();
    let lost = lab.lose_a_node(30);
    lab.store_a_segment(&lost, 2);
    // A torn tail, which is none of a file in the middle when the recovery has gone on behind it.
    let torn = fs::read(last_file(&lost)).expect("readable");
    fs::write(last_file(&lost), [&torn[..], &[0x57, 1, 2]].concat()).expect("writable");
    let before = contents(&lost);
    let work = lab.path("work");
    let recover = |interrupted: bool| {
        let on_stored = move |manifest: &Manifest| match manifest.session.session_id == session_id(1) {
            true if interrupted => Err("interrupted".to_owned()),
            _ => Ok(()),
        };
        let mut tools = Tools { work: Some(work.clone()), on_stored: Box::new(on_stored), ..lab.tools() };
        block_on(super::spool::recover(&lost, &mut tools, &|_| ())).expect("recovers")
    };
    for interrupted in [true, true, false] {
        let report = recover(interrupted);
        assert_eq!((report.kept, report.emptied), (!interrupted, false), "{report:#?}");
        assert!(!report.has_losses(), "{report:#?}");
        assert_eq!(contents(&lost), before, "nothing of it is changed");
        assert_eq!(fs::read_dir(&work).expect("is there").count(), usize::from(interrupted));
    }
    for number in [1, 2, 3] {
        assert!(lab.stored(number) == said(number, 30), "session {number}");
    }
    for number in [1, 2] {
        assert_eq!(lab.verdict(number), Verdict::Intact, "session {number}");
    }
    let report = recover(false);
    assert!(report.kept, "a second time everything is there already: {report:#?}");
    let mut tools = Tools { work: Some(lost.join("work")), ..lab.tools() };
    let refused = block_on(super::spool::recover(&lost, &mut tools, &|_| ())).expect_err("refused");
    assert!(matches!(refused, RecoverError::Work { .. }), "{refused}");
}

#[test]
fn a_spool_in_use_is_refused_by_either_lock() {
    let lab = Lab::new();
    let lost = lab.lose_a_node(3);
    let journal = Journal::open(&lost, SPOOL).expect("opens");
    assert!(matches!(lab.refused(&lost), RecoverError::InUse { path } if path == lost));
    assert!(Journal::open(&lost, SPOOL).is_err(), "nor can two agents have it");
    drop(journal);
    let state = fs::File::create(lab.path("lock")).expect("writable");
    state.try_lock().expect("nobody has it");
    assert!(matches!(lab.refused(&lost), RecoverError::InUse { path } if path == lab.path("")
        .components().as_path()));
    drop(state);
    assert!(lab.recover(&lost).emptied);
}

#[test]
fn sessions_of_this_very_boot_are_not_ended_unless_asked_for() {
    let lab = Lab::new();
    let lost = lab.lose_a_node(3);
    let here = place::boot_id().expect("it has one");
    let mut journal = Journal::open(&lost, SPOOL).expect("opens");
    journal.adopt_ring(RingId { boot_id: here, map_id: 1 }, 0).expect("in order");
    drop(journal);
    let before = fs::read(last_file(&lost)).expect("readable");
    assert!(matches!(lab.refused(&lost), RecoverError::UnderWay { sessions: 2, .. }));
    assert_eq!(fs::read(last_file(&lost)).expect("readable"), before, "nothing was changed");
    let mut tools = Tools { give_up_ring: true, ..lab.tools() };
    let report = block_on(super::spool::recover(&lost, &mut tools, &|_| ())).expect("recovers");
    assert!(report.emptied);
}

#[test]
fn a_directory_of_spools_is_recovered_and_another_directory_is_refused() {
    let lab = Lab::new();
    let lost = lab.lose_a_node(3);
    let root = lab.path("spools");
    fs::create_dir_all(root.join("2-1")).expect("writable");
    fs::create_dir_all(root.join("empty")).expect("writable");
    fs::rename(&lost, root.join("2-0")).expect("writable");
    assert_eq!(place::spools(&root).expect("one"), [root.canonicalize().expect("there").join("2-0")]);
    assert!(matches!(place::spools(&root.join("empty")), Err(RecoverError::NoSpool { .. })));
    assert!(matches!(place::spools(&lab.path("nowhere")), Err(RecoverError::Io { .. })));
    assert!(!lab.path("nowhere").exists());
}

#[test]
fn a_session_ends_when_it_was_last_heard_of() {
    let lab = Lab::new();
    let lost = lab.lose_a_node(3);
    let journal = Journal::open(&lost, SPOOL).expect("opens");
    let ends: Vec<_> = journal.ledger().sessions().map(Session::last_heard_of).collect();
    // The test's clock says 1000 ns after the boot was the epoch, and the records are of 2000.
    assert!(ends.iter().all(|end| end.as_nanosecond() == 1000), "{ends:?}");
}

/// Bytes that occur nowhere by chance.
fn noise(len: usize) -> Vec<u8> {
    (0_u64..).flat_map(|block| *Sha256::of(&block.to_le_bytes()).as_bytes()).take(len).collect()
}

/// Begins a file transfer in the session with this number, whose grant does not want its content kept.
fn begin_transfer(journal: &mut Journal, number: u8) {
    let StateEntry::Opened { mut meta, clock, recorder, opened_at } = opened(number) else {
        unreachable!("it is")
    };
    meta.record_file_content = false;
    journal.append(StateEntry::Opened { meta, clock, recorder, opened_at }).expect("in order");
    journal.append(armed(number)).expect("in order");
    let mut seqs = [0, 0];
    for (direction, message) in beginning() {
        let side = usize::from(direction == Direction::TargetToClient);
        append(journal, &crate::testing::record(cookies(number)[side], &frame(message, seqs[side])));
        seqs[side] += 1;
    }
}

/// Everything up to where 12,000 bytes of content follow.
fn beginning() -> Vec<(Direction, Message)> {
    [opening(), sftp(), upload_of(12_000)].concat()
}

fn append(journal: &mut Journal, bytes: &[u8]) {
    let end = journal.position() + 1;
    journal.append_records(&[RingRecord { bytes, end }], |_| {}).expect("room");
}

/// Everything that the session's segments hold of what the client sent, and the parts that are left out.
fn sent(lab: &Lab, number: u8) -> (Vec<u8>, Vec<(u32, Sha256)>) {
    let dir = lab.session_dir(number);
    let (mut kept, mut withheld) = (Vec::new(), Vec::new());
    for index in 1.. {
        let Ok(packed) = fs::read(dir.join(format!("{index:06}.ndjson.zst"))) else {
            return (kept, withheld);
        };
        assert!(
            !dir.join(format!("{index:06}.bin")).exists()
                && !dir.join(format!("{index:06}.bin.zst")).exists()
        );
        let text = String::from_utf8(zstd::decode_all(&packed[..]).expect("zstd")).expect("text");
        for line in text.lines().skip(1) {
            let event: Event = serde_json::from_str(line).expect("an event");
            match event.what.content().filter(|_| event.dir == Direction::ClientToTarget) {
                Some(Content::Withheld(parts)) => {
                    for part in parts {
                        match part {
                            Part::Kept(bytes) => kept.extend_from_slice(bytes),
                            Part::Withheld { bytes, sha256 } => withheld.push((*bytes, *sha256)),
                        }
                    }
                }
                Some(content) => kept.extend_from_slice(content.bytes(&[]).expect("no bulk")),
                None => {}
            }
        }
    }
    unreachable!("a segment is missing at the end")
}

#[test]
fn the_content_of_a_transfer_stays_out_however_many_agents_and_segments_it_goes_through() {
    let lab = Lab::new();
    let (dir, file) = (lab.path("lost"), noise(40 * 300));
    begin_transfer(&mut Journal::open(&dir, SPOOL).expect("opens"), 4);
    for (seq, piece) in (5..).zip(file.chunks(300)) {
        // An agent of its own for each record, and a segment for every third.
        let mut journal = Journal::open(&dir, SPOOL).expect("opens");
        append(
            &mut journal,
            &crate::testing::record(cookies(4)[0], &frame(Message::Stdin(piece.to_vec().into()), seq)),
        );
        if seq % 3 == 0 && seq < 40 {
            let index = u32::try_from(seq / 3).expect("few") - 1;
            let session = session_id(4);
            let records = if index == 1 { 7 } else { 3 };
            journal.append(StateEntry::SealStarted { session, index, records }).expect("in order");
            drop(journal);
            // Killed right behind the put, and once more: the next one puts the same bytes.
            for killed in [true, true, false] {
                let mut journal = Journal::open(&dir, SPOOL).expect("opens");
                let job = journal
                    .ledger()
                    .session(session)
                    .and_then(|session| Job::next(session, &dir))
                    .expect("a job");
                let stored = block_on(lab.worker("lost-key").once(&job)).expect("stored");
                if !killed {
                    journal.append(Done { session, stored }.change()).expect("in order");
                    journal.give_back().expect("possible");
                }
            }
        }
    }
    assert!(Journal::open(&dir, SPOOL).is_ok());
    let report = lab.recover(&dir);
    assert_eq!(states(&report), [&State::Stored], "{report:#?}");
    assert_eq!(lab.verdict(4), Verdict::Intact);
    let (kept, withheld) = sent(&lab, 4);
    let protocol = beginning().into_iter().filter_map(|(_, message)| match message {
        Message::Stdin(bytes) => Some(bytes),
        _ => None,
    });
    assert_eq!(kept, protocol.flatten().collect::<Vec<_>>());
    let lens: Vec<_> = withheld.iter().map(|&(bytes, _)| bytes).collect();
    assert_eq!(lens, [300; 40]);
    for (number, &(_, sha256)) in (1..).zip(&withheld) {
        assert_eq!(sha256, Sha256::of(&file[..number * 300]), "after {number} pieces");
    }
}
