//! Sessions whose findings are made, or cannot be.

mod lab;

use std::{fs, time::Duration};

use weir_common::{
    recording::findings::{COMMANDS, Command, FILES, FindingCounts, Line, TRANSCRIPT},
    session::ChannelNo,
};
use weir_console::verify::report::Verdict;

use super::*;
use crate::storing::Work;
use lab::{Answer, Lab, names};

fn unavailable(path: &str) -> StoreError {
    StoreError::Unavailable { op: "read", path: path.to_owned(), details: "it is away".to_owned() }
}

fn denied(path: &str) -> StoreError {
    StoreError::Denied { action: "s3:GetObject", resource: path.to_owned(), details: "no".to_owned() }
}

fn words() -> Vec<Vec<u8>> {
    vec![b"all of it\n".to_vec()]
}

fn commands(text: &str) -> Vec<Command> {
    let lines = text.lines().map(|line| match serde_json::from_str(line).expect("a line") {
        Line::Finding(command) => command,
        Line::Cut(_) => panic!("nothing was left out"),
    });
    lines.collect()
}

fn counts(commands: u64) -> Option<FindingCounts> {
    Some(FindingCounts { commands, files: 0, forwards: 0 })
}

/// No text, and not a few bytes: it goes into the bulk.
fn bulk(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| u8::try_from(at * at % 251).expect("small") | 0x80).collect()
}

#[tokio::test]
async fn a_session_is_stored_with_what_it_amounts_to_and_verifies() {
    let mut lab = Lab::new();
    let worker = lab.worker();
    let job = lab.session(1, &worker, &words()).await;
    worker.once(&job).await.expect("stored");
    let text = lab.read(&job, COMMANDS);
    let found = commands(&text);
    assert_eq!(found.len(), 1);
    let Command { n, ch, text: command, exit_code, evidence, span, .. } = &found[0];
    assert_eq!((*n, *ch, command.as_str(), *exit_code), (1, ChannelNo(0), "show --all", Some(3)));
    assert_eq!((evidence.from, evidence.to), (0, 10));
    assert_eq!(span.started_at.expect("the clock is known").as_nanosecond(), 1000);
    assert_eq!(lab.read(&job, TRANSCRIPT), "[1970-01-01 00:00:00Z #0] show --all\n");
    let findings = lab.findings(&job).expect("they are named");
    assert_eq!((findings.counts, findings.superseded.len()), (counts(1), 0));
    assert_eq!(findings.object(COMMANDS).expect("named").sha256, Sha256::of(text.as_bytes()));
    assert!(lab.read(&job, SUMS).contains("  commands.ndjson\n"));
    lab.assert_intact(&job);
    assert_eq!(lab.asked(), Vec::<String>::new(), "a small session's segment is at hand");
}

#[tokio::test]
async fn any_byte_that_is_changed_in_findings_is_found_and_so_is_an_object_that_nobody_listed() {
    let mut lab = Lab::new();
    let worker = lab.worker();
    let job = lab.session(1, &worker, &words()).await;
    worker.once(&job).await.expect("stored");
    let good = lab.read(&job, COMMANDS).into_bytes();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        lab.write(&job, COMMANDS, bad);
        assert_eq!(lab.verify(&job).verdict, Verdict::NotIntact, "byte {at}");
    }
    lab.write(&job, COMMANDS, [&good[..], b"\n"].concat());
    assert_eq!(lab.verify(&job).verdict, Verdict::NotIntact, "it is longer");
    fs::remove_file(lab.path(&job, COMMANDS)).expect("is there");
    assert_eq!(lab.verify(&job).verdict, Verdict::NotIntact, "it is gone");
    lab.write(&job, COMMANDS, &good);
    lab.assert_intact(&job);
    lab.write(&job, FILES, "{}\n");
    assert_eq!(lab.verify(&job).verdict, Verdict::NotIntact, "nobody listed it");
}

#[tokio::test]
async fn the_next_agent_reads_the_segments_back_but_not_the_bulk_that_nobody_looks_at() {
    let mut lab = Lab::new();
    let said = [bulk(100_000), b"and text\n".repeat(20_000), bulk(200_000)];
    let worker = lab.worker();
    let job = lab.session(1, &worker, &said).await;
    lab.worker().once(&job).await.expect("stored");
    let found = commands(&lab.read(&job, COMMANDS));
    assert_eq!((found.len(), found[0].evidence.to), (1, 480_000));
    let asked = lab.asked();
    let segments: Vec<_> = asked.iter().filter(|name| name.starts_with("00")).collect();
    assert_eq!(segments, ["000001.ndjson.zst", "000002.ndjson.zst", "000003.ndjson.zst"]);
    lab.assert_intact(&job);
}

#[tokio::test]
async fn without_findings_wanted_there_are_none() {
    let mut lab = Lab::new();
    let worker = lab.worker().finding(None);
    let job = lab.session(1, &worker, &words()).await;
    worker.once(&job).await.expect("stored");
    assert_eq!(lab.findings(&job), None);
    assert!(!lab.path(&job, COMMANDS).exists());
    lab.assert_intact(&job);
}

#[tokio::test]
async fn a_segment_that_is_damaged_in_the_store_costs_the_findings_and_not_the_manifest() {
    let mut lab = Lab::new();
    let worker = lab.worker();
    for number in 1..=3 {
        let job = lab.session(number, &worker, &[b"all of it\n".to_vec(), b"and more\n".to_vec()]).await;
        let path = lab.path(&job, "000002.ndjson.zst");
        let mut bytes = fs::read(&path).expect("is there");
        match number {
            1 => bytes[20] ^= 1,
            2 => bytes.push(0),
            _ => bytes.clear(),
        }
        fs::write(&path, bytes).expect("writable");
        lab.worker().once(&job).await.expect("stored");
        assert_eq!(lab.findings(&job), None, "they were not made");
        let report = lab.verify(&job);
        assert_eq!(report.verdict, Verdict::NotIntact);
        let found =
            report.findings.iter().find(|finding| finding.place.object.is_some()).expect("it is said");
        assert_eq!(found.place.object.as_deref(), Some("000002.ndjson.zst"));
    }
}

#[tokio::test]
async fn a_store_that_takes_objects_and_gives_none_back_gets_the_manifest_after_a_few_tries() {
    let mut lab = Lab::new();
    let worker = lab.worker();
    let job = lab.session(1, &worker, &words()).await;
    lab.answer([("/", unavailable as _)]);
    let next = lab.worker();
    for _ in 0..READ_TRIES {
        let error = next.once(&job).await.expect_err("the store may answer later");
        assert!(matches!(error, StoringError::ReadBack(StoreError::Unavailable { .. })), "{error}");
    }
    assert!(!lab.path(&job, MANIFEST).exists());
    next.once(&job).await.expect("stored");
    assert_eq!(lab.findings(&job), None);
    lab.assert_intact(&job);
}

#[tokio::test]
async fn a_store_that_may_not_be_read_is_not_waited_for() {
    let mut lab = Lab::new();
    let worker = lab.worker();
    let job = lab.session(1, &worker, &words()).await;
    lab.answer([("/", denied as _)]);
    lab.worker().once(&job).await.expect("stored");
    assert_eq!(lab.findings(&job), None);
    lab.assert_intact(&job);
}

#[tokio::test]
async fn findings_of_a_store_that_was_away_are_made_when_it_is_back() {
    let mut lab = Lab::new();
    let worker = lab.worker();
    let job = lab.session(1, &worker, &words()).await;
    let next = lab.worker();
    let away: [Answer; 2] = [("000001.ndjson", unavailable), (MANIFEST, unavailable)];
    for away in away {
        lab.answer([away]);
        for _ in 0..3 {
            assert!(next.once(&job).await.is_err());
        }
    }
    lab.answer([]);
    next.once(&job).await.expect("stored");
    assert_eq!(lab.findings(&job).and_then(|findings| findings.counts), counts(1));
}

#[tokio::test]
async fn an_agent_that_is_killed_anywhere_in_between_is_followed_by_one_that_puts_the_same_bytes() {
    let mut lab = Lab::new();
    let worker = lab.worker();
    let job = lab.session(1, &worker, &words()).await;
    worker.once(&job).await.expect("stored");
    let whole = lab.read(&job, SUMS);
    let order = [COMMANDS, TRANSCRIPT, MANIFEST, SUMS, SIGNATURE];
    for stored in 0..=order.len() {
        for name in &order[stored..] {
            fs::remove_file(lab.path(&job, name)).expect("is there");
        }
        lab.worker().once(&job).await.expect("stored");
        assert_eq!(lab.read(&job, SUMS), whole, "killed after {stored} objects");
        assert_eq!(lab.findings(&job).expect("named").superseded, []);
        lab.assert_intact(&job);
    }
}

#[tokio::test]
async fn findings_of_another_version_that_no_manifest_names_are_superseded_and_stay() {
    let mut lab = Lab::new();
    let worker = lab.worker();
    let job = lab.session(1, &worker, &words()).await;
    for (name, text) in [(COMMANDS, "{\"other\":1}\n"), (FILES, "{}\n")] {
        lab.write(&job, name, text);
    }
    lab.worker().once(&job).await.expect("stored");
    let findings = lab.findings(&job).expect("named");
    assert_eq!(names(&findings.objects), ["commands-2.ndjson", TRANSCRIPT]);
    assert_eq!(names(&findings.superseded), [COMMANDS, FILES]);
    assert_eq!(findings.object(COMMANDS).expect("named").name, "commands-2.ndjson");
    assert_eq!(commands(&lab.read(&job, "commands-2.ndjson")).len(), 1);
    assert_eq!(lab.read(&job, COMMANDS), "{\"other\":1}\n", "it was not touched");
    lab.assert_intact(&job);
}

#[tokio::test]
async fn findings_that_come_from_elsewhere_meanwhile_are_superseded_too() {
    let mut lab = Lab::new();
    let worker = lab.worker();
    let job = lab.session(1, &worker, &words()).await;
    lab.write(&job, TRANSCRIPT, "other\n");
    // The agent that stored the last segment does not look before it puts.
    worker.once(&job).await.expect("stored");
    let findings = lab.findings(&job).expect("named");
    assert_eq!(names(&findings.objects), [COMMANDS, "transcript-2.txt"]);
    assert_eq!(names(&findings.superseded), [TRANSCRIPT]);
    lab.assert_intact(&job);
}

#[tokio::test]
async fn a_manifest_of_another_version_is_kept_with_the_findings_that_it_names() {
    let mut lab = Lab::new();
    let worker = lab.worker();
    let job = lab.session(1, &worker, &words()).await;
    let Work::Manifest(ending) = &job.work else { panic!("the session is over") };
    let mut theirs = ending.manifest.clone();
    let other = Bytes::from_static(b"{\"other\":1}\n");
    lab.write(&job, COMMANDS, &other);
    let objects = vec![described(COMMANDS.to_owned(), &other)];
    theirs.findings = Some(StoredFindings { counts: counts(7), objects, superseded: Vec::new() });
    let text = serde_json::to_string(&theirs).expect("JSON");
    lab.write(&job, MANIFEST, &text);
    for next in [lab.worker(), lab.worker().finding(None), worker] {
        next.once(&job).await.expect("stored");
        assert_eq!(lab.read(&job, MANIFEST), text);
        lab.assert_intact(&job);
        assert!(!lab.path(&job, TRANSCRIPT).exists(), "what it does not name is not put");
    }
    // One that says something else of the evidence is a conflict, as it ever was.
    theirs.recorder.node.push('x');
    lab.write(&job, MANIFEST, serde_json::to_string(&theirs).expect("JSON"));
    let error = lab.worker().once(&job).await.expect_err("it says something else");
    assert!(matches!(error, StoringError::Store(StoreError::Conflict { .. })), "{error}");
}

#[tokio::test]
async fn a_session_that_takes_too_long_is_stored_without_findings() {
    let mut lab = Lab::new();
    let options = FindingsOptions { time_max: Duration::ZERO, ..FindingsOptions::default() };
    let worker = lab.worker().finding(Some(options));
    let job = lab.session(1, &worker, &[b"word ".repeat(500_000)]).await;
    worker.once(&job).await.expect("stored");
    assert_eq!(lab.findings(&job), None);
    lab.assert_intact(&job);
}

#[tokio::test]
async fn findings_that_take_long_keep_no_segment_from_the_store_and_no_small_session_from_its_end() {
    let mut lab = Lab::new();
    let worker = lab.worker();
    let mut long = Vec::new();
    for number in 1..=6 {
        long.push(lab.session(number, &worker, &words()).await);
    }
    // Their segments are at hand no more, and the store takes its time to give them back.
    let (next, hold) = (lab.worker(), lab.hold("000001.ndjson"));
    let ends = long.into_iter().map(|job| {
        let worker = next.clone();
        tokio::spawn(async move { worker.in_turn(&job).await.is_ok() })
    });
    let ends: Vec<_> = ends.collect();
    lab.until_held(6).await;
    assert_eq!((next.uploads.available_permits(), next.slots.available_permits()), (4, 1));
    let job = lab.session(7, &next, &words()).await;
    next.in_turn(&job).await.expect("stored, with findings");
    assert_eq!(lab.findings(&job).and_then(|findings| findings.counts), counts(1));
    assert!(ends.iter().all(|end| !end.is_finished()));
    drop(hold);
    for end in ends {
        assert!(end.await.expect("no panic"));
    }
}

#[tokio::test]
async fn sessions_that_may_have_many_findings_are_read_back_one_at_a_time() {
    let mut lab = Lab::new();
    let worker = lab.worker();
    let mut jobs = Vec::new();
    for number in 1..=3 {
        jobs.push(lab.session(number, &worker, &words()).await);
    }
    // As many as one session may have, though the session is small.
    let bounds = Bounds { commands: 256, files: 1, forwards: 1, transcript: 256 };
    let next = lab.worker().finding(Some(FindingsOptions { bounds, ..FindingsOptions::default() }));
    let hold = lab.hold("000001.ndjson");
    let ends = jobs.into_iter().map(|job| {
        let worker = next.clone();
        tokio::spawn(async move { worker.in_turn(&job).await.is_ok() })
    });
    let ends: Vec<_> = ends.collect();
    lab.until_held(1).await;
    assert_eq!(next.making.places.available_permits(), 0);
    drop(hold);
    for end in ends {
        assert!(end.await.expect("no panic"));
    }
    assert_eq!(lab.most_held(), 1);
    assert_eq!(next.making.places.available_permits(), PLACES as usize);
}

#[test]
fn a_session_takes_as_many_places_as_its_findings_may_come_to() {
    let manifest = |bytes| {
        let (mut manifest, _) = weir_common::fuzz::manifest();
        manifest.segments.truncate(1);
        manifest.segments[0].events.bytes = bytes;
        manifest
    };
    let bounds = FindingsOptions::default().bounds;
    for (bytes, expected) in
        [(0, 1), (1000, 1), (200 << 10, 1), (1 << 20, 6), (4 << 20, PLACES), (u64::MAX, PLACES)]
    {
        assert_eq!(places(&manifest(bytes), &bounds), expected, "{bytes}");
    }
    let none = Bounds { commands: 0, files: 0, forwards: 0, transcript: 0 };
    assert_eq!(places(&manifest(1000), &none), PLACES);
}

#[tokio::test]
async fn a_store_that_gives_nothing_back_is_no_store_that_takes_nothing() {
    let mut lab = Lab::new();
    let worker = lab.worker();
    let job = lab.session(1, &worker, &words()).await;
    let next = lab.worker();
    for part in [MANIFEST, "000001.ndjson", COMMANDS] {
        lab.answer([(part, unavailable as _)]);
        let error = next.in_turn(&job).await.expect_err("the store may answer later");
        assert!(matches!(error, StoringError::ReadBack(_)), "{error}");
        assert_eq!(*next.outage().borrow(), None);
        assert_eq!(next.uploads.available_permits(), 4);
    }
}

#[tokio::test]
async fn findings_that_are_larger_than_they_may_be_today_are_listed_as_superseded() {
    let mut lab = Lab::new();
    let worker = lab.worker();
    let job = lab.session(1, &worker, &words()).await;
    lab.write(&job, TRANSCRIPT, "another version's\n".repeat(1000));
    let bounds = Bounds { transcript: 1024, ..FindingsOptions::default().bounds };
    let options = FindingsOptions { bounds, ..FindingsOptions::default() };
    lab.worker().finding(Some(options)).once(&job).await.expect("stored");
    assert_eq!(names(&lab.findings(&job).expect("named").superseded), [TRANSCRIPT]);
    lab.assert_intact(&job);
}

#[tokio::test]
async fn findings_that_found_no_place_are_not_reported_as_none() {
    let mut lab = Lab::new();
    let worker = lab.worker();
    // It cannot be looked at, so that it is in the way.
    let job = lab.session(1, &worker, &words()).await;
    lab.write(&job, COMMANDS, "{\"other\":1}\n");
    lab.answer([(COMMANDS, denied as _)]);
    lab.worker().once(&job).await.expect("stored");
    lab.answer([]);
    let findings = lab.findings(&job).expect("the transcript is there");
    assert_eq!((findings.counts, names(&findings.objects)), (None, vec![TRANSCRIPT]));
    // No name is left.
    let job = lab.session(2, &worker, &words()).await;
    for number in 1..=OBJECTS_MAX {
        lab.write(&job, &object_name(COMMANDS, number), format!("{{\"other\":{number}}}\n"));
    }
    lab.worker().once(&job).await.expect("stored");
    let findings = lab.findings(&job).expect("the transcript is there");
    assert_eq!((findings.counts, names(&findings.objects)), (None, vec![TRANSCRIPT]));
    lab.assert_intact(&job);
}
