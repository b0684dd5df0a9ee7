//! Segments that are there already, as a version stored them that follows transfers otherwise.

use std::{fs, path::PathBuf, sync::Arc};

use serde_json::Value;
use tempfile::TempDir;
use weir_common::frame::{Direction, Message};

use super::*;
use crate::{
    journal::{Journal, RingRecord},
    ledger::StateEntry,
    signing::SigningKey,
    store::FileStore,
    storing::{Done, Job, Parallelism, Stored, Work},
    testing::{armed, cookies, frame, opened, opening, record, session_id, sftp, spool_options, upload_of},
};

/// A session whose grant keeps file content out, and whose second segment is to be stored.
struct Lab {
    dir: TempDir,
    journal: Journal,
    /// The sequence numbers of the next frames.
    next: [u64; 2],
}

impl Lab {
    async fn new() -> (Self, Job) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let journal = Journal::open(&dir.path().join("spool"), spool_options()).expect("opens");
        let mut lab = Self { dir, journal, next: [0; 2] };
        let mut beginning = opened(1);
        if let StateEntry::Opened { meta, .. } = &mut beginning {
            meta.record_file_content = false;
        }
        for change in [beginning, armed(1)] {
            lab.journal.append(change).expect("in order");
        }
        let first = lab.seal(1, [opening(), sftp(), upload_of(4000)].concat());
        let stored = lab.worker("key").once(&first).await.expect("stored");
        lab.journal.append(Done { session: session_id(1), stored }.change()).expect("in order");
        let content = |at: u8| (Direction::ClientToTarget, Message::Stdin(vec![0x80 + at; 2000].into()));
        let second = lab.seal(2, vec![content(0), content(1), (Direction::ClientToTarget, Message::Eof)]);
        (lab, second)
    }

    /// Has these messages recorded, and begins a segment of them.
    fn seal(&mut self, index: u32, messages: Vec<(Direction, Message)>) -> Job {
        let (session, records) = (session_id(1), messages.len() as u64);
        for (direction, message) in messages {
            let way = direction as usize;
            let bytes = record(cookies(1)[way], &frame(message, self.next[way]));
            self.next[way] += 1;
            let end = self.journal.position() + 1;
            self.journal.append_records(&[RingRecord { bytes: &bytes, end }], |_| {}).expect("room");
        }
        self.journal.append(StateEntry::SealStarted { session, index, records }).expect("in order");
        let known = self.journal.ledger().session(session).expect("is there");
        Job::next(known, self.journal.spool_dir()).expect("a segment")
    }

    /// A worker that has stored nothing yet, with this key.
    fn worker(&self, key: &str) -> Worker {
        let store = FileStore::join(&self.dir.path().join("store")).expect("a directory");
        let key = SigningKey::load_or_make(&self.dir.path().join(key)).expect("a key");
        Worker::new(Arc::new(store), Arc::new(key), Parallelism { encoding: 1, uploading: 1 })
    }

    fn path(&self, job: &Job, name: &str) -> PathBuf {
        self.dir.path().join("store").join(&job.dir).join(name)
    }

    /// Everything that is stored of the second segment.
    fn stored(&self, job: &Job) -> Vec<(String, Vec<u8>)> {
        let mut objects: Vec<_> = fs::read_dir(self.path(job, ""))
            .expect("a directory")
            .map(|item| item.expect("readable"))
            .map(|item| {
                (item.file_name().into_string().expect("text"), fs::read(item.path()).expect("readable"))
            })
            .filter(|(name, _)| name.starts_with("000002"))
            .collect();
        objects.sort();
        objects
    }

    /// Changes the lines of the second segment in the store.
    fn forge(&self, job: &Job, change: impl FnOnce(String) -> String) {
        let path = self.path(job, "000002.ndjson.zst");
        let text = zstd::decode_all(&*fs::read(&path).expect("is there")).expect("zstd");
        let forged = change(String::from_utf8(text).expect("text"));
        fs::write(path, zstd::encode_all(forged.as_bytes(), 3).expect("compresses")).expect("writable");
    }
}

/// Changes a segment's lines.
type Forgery = Box<dyn Fn(String) -> String>;

fn source(job: &Job) -> &SegmentSource {
    match &job.work {
        Work::Segment(source) => source,
        Work::Manifest(_) => panic!("it is a segment"),
    }
}

/// The same job for a version that follows the session's only channel like this.
fn following(job: &Job, change: impl FnOnce(&mut Value)) -> Job {
    let mut carried = serde_json::to_value(&source(job).withhold).expect("writable");
    change(&mut carried[0]);
    with(job, serde_json::from_value(carried).expect("readable"))
}

fn with(job: &Job, withhold: Option<Carried>) -> Job {
    let work = Work::Segment(Box::new(SegmentSource { withhold, ..source(job).clone() }));
    Job { session: job.session, dir: job.dir.clone(), work }
}

/// It has lost the track, so that each digest is of its part by itself.
fn lost(job: &Job) -> Job {
    following(job, |channel| {
        channel["state"]["used_for"] = "lost".into();
        channel.as_object_mut().expect("an object").remove("transfer");
    })
}

fn assert_taken(lab: &Lab, job: &Job, stored: Stored, before: &[(String, Vec<u8>)]) {
    let Stored::Segment { entry, carried } = stored else { panic!("it is a segment") };
    assert!(lab.stored(job) == before, "nothing is overwritten, and nothing comes beside it");
    for object in [Some(&entry.segment), entry.bulk.as_ref(), entry.signature.as_ref()].into_iter().flatten()
    {
        let body = fs::read(lab.path(job, &object.name)).expect("is there");
        assert_eq!(described(object.name.clone(), &body.into()), *object);
    }
    assert_eq!(entry.bulk.is_some(), before.iter().any(|(name, _)| name.contains(".bin")));
    assert_eq!((entry.index, entry.events.records), (2, 3));
    let ours = segment::encode(source(job)).expect("encodes");
    assert_eq!(carried, ours.carried, "the next one goes on from what this version knows");
}

fn assert_conflict(outcome: Result<Stored, StoringError>, what: &str) {
    let is_conflict = matches!(outcome, Err(StoringError::Store(StoreError::Conflict { .. })));
    assert!(is_conflict, "{what}: {:?}", outcome.err());
}

#[tokio::test]
async fn what_a_version_stored_that_had_lost_the_track_is_taken() {
    let (lab, job) = Lab::new().await;
    lab.worker("key").once(&lost(&job)).await.expect("stored");
    let before = lab.stored(&job);
    assert_taken(&lab, &job, lab.worker("key").once(&job).await.expect("taken"), &before);
    // Whoever signed it: it tells of nothing that was not recorded.
    assert_taken(&lab, &job, lab.worker("another").once(&job).await.expect("taken"), &before);
    // Of what was stored before it was signed the signature is made.
    fs::remove_file(lab.path(&job, "000002.sig")).expect("is there");
    assert_taken(&lab, &job, lab.worker("key").once(&job).await.expect("taken"), &before);
}

#[tokio::test]
async fn what_a_version_stored_that_kept_the_content_is_taken_with_its_bulk() {
    let (lab, job) = Lab::new().await;
    lab.worker("key").once(&with(&job, None)).await.expect("stored");
    let before = lab.stored(&job);
    assert_eq!(before.len(), 3, "a bulk, too");
    assert_taken(&lab, &job, lab.worker("key").once(&job).await.expect("taken"), &before);
    let (name, bulk) = &before[0];
    for forged in [&bulk[..bulk.len() - 1], b""] {
        fs::write(lab.path(&job, name), forged).expect("writable");
        assert_conflict(lab.worker("key").once(&job).await, "another bulk");
    }
    fs::remove_file(lab.path(&job, name)).expect("is there");
    assert_conflict(lab.worker("key").once(&job).await, "no bulk");
}

#[tokio::test]
async fn digests_that_nobody_can_tell_to_be_right_are_taken_from_this_nodes_agent_only() {
    let (lab, job) = Lab::new().await;
    // The one that is there followed the transfer; this one does not read how far it had got.
    lab.worker("key").once(&job).await.expect("stored");
    let before = lab.stored(&job);
    let job = following(&job, |channel| channel["transfer"] = "{\"another\":\"version\"}".into());
    assert_taken(&lab, &job, lab.worker("key").once(&job).await.expect("taken"), &before);
    assert_conflict(lab.worker("another").once(&job).await, "another's key");
    fs::remove_file(lab.path(&job, "000002.sig")).expect("is there");
    assert_conflict(lab.worker("key").once(&job).await, "nobody's key");
}

#[tokio::test]
async fn other_evidence_is_a_conflict_whoever_signed_it() {
    let (lab, job) = Lab::new().await;
    lab.worker("key").once(&lost(&job)).await.expect("stored");
    let good = fs::read(lab.path(&job, "000002.ndjson.zst")).expect("is there");
    let last_line = |text: String| text.trim_end().rsplit_once('\n').expect("lines").0.to_owned() + "\n";
    let forgeries: [(&str, Forgery); 9] = [
        ("the time", Box::new(|text| text.replacen("\"t\":2000", "\"t\":2001", 1))),
        ("the direction", Box::new(|text| text.replacen("c2t", "t2c", 1))),
        ("the kind", Box::new(|text| text.replacen("\"kind\":\"stdin\"", "\"kind\":\"stdout\"", 1))),
        ("the length", Box::new(|text| text.replacen("\"bytes\":2000", "\"bytes\":1999", 1))),
        ("more than there was", Box::new(|text| text.replacen("\"bytes\":2000", "\"bytes\":2001", 1))),
        ("an event less", Box::new(last_line)),
        ("an event more", Box::new(|text| text.clone() + text.lines().last().expect("lines") + "\n")),
        ("the segment before", Box::new(|text| text.replacen("\"previous\":\"", "\"previous\":\"0", 1))),
        ("a bulk of another name", {
            let bulk = "\"bulk\":{\"name\":\"manifest.json\",\"sha256\":\"X\",\"bytes\":1}";
            let bulk = bulk.replace('X', &Sha256::of(b"x").to_string());
            Box::new(move |text| text.replacen("\"bulk\":null", &bulk, 1))
        }),
    ];
    for (what, forgery) in forgeries {
        fs::write(lab.path(&job, "000002.ndjson.zst"), &good).expect("writable");
        lab.forge(&job, |text| {
            let forged = forgery(text.clone());
            assert_ne!(forged, text, "{what}");
            forged
        });
        fs::remove_file(lab.path(&job, "000002.sig")).expect("is there");
        let key = SigningKey::load_or_make(&lab.dir.path().join("key")).expect("a key");
        let forged = fs::read(lab.path(&job, "000002.ndjson.zst")).expect("is there");
        fs::write(lab.path(&job, "000002.sig"), key.sign(&forged).expect("signs")).expect("writable");
        assert_conflict(lab.worker("key").once(&job).await, what);
        assert!(fs::read(lab.path(&job, "000002.ndjson.zst")).expect("is there") == forged, "{what}");
    }
    fs::write(lab.path(&job, "000002.ndjson.zst"), b"no segment").expect("writable");
    assert_conflict(lab.worker("key").once(&job).await, "no segment");
}

#[tokio::test]
async fn what_was_kept_in_other_words_than_were_recorded_is_a_conflict() {
    let (lab, job) = Lab::new().await;
    lab.worker("key").once(&with(&job, None)).await.expect("stored");
    let bulk = lab.stored(&job).swap_remove(0).0;
    let mut body = zstd::decode_all(&*fs::read(lab.path(&job, &bulk)).expect("is there")).expect("zstd");
    body[2500] ^= 1;
    let body = Bytes::from(zstd::encode_all(&*body, 3).expect("compresses"));
    fs::write(lab.path(&job, &bulk), &body).expect("writable");
    lab.forge(&job, |text| {
        let (header, events) = text.split_once('\n').expect("lines");
        let mut header: SegmentHeader = serde_json::from_str(header).expect("a header");
        header.bulk = Some(described(bulk.clone(), &body));
        format!("{}\n{events}", serde_json::to_string(&header).expect("writable"))
    });
    assert_conflict(lab.worker("key").once(&job).await, "other bytes");
}
