//! What `weir show` tells about a session.

use std::fs;

use weir_common::{
    frame::{ChannelType, Env, Message},
    recording::{MANIFEST, SIGNATURE, SUMS},
    session::ChannelNo,
};
use weir_console::{look::Look, recording::Recording, show, store::SessionDir};

use crate::support::{C2T, Draft, SHELL, T2C, case::Case, sample};

fn shown(case: &Case) -> show::Shown {
    let session = SessionDir::open(&case.dir).expect("a directory");
    show::gather(&Recording::open(session).expect("readable"))
}

fn text(case: &Case) -> String {
    let mut out = Vec::new();
    show::print::text(&shown(case), Look::default(), &mut out).expect("in memory");
    String::from_utf8(out).expect("text")
}

#[track_caller]
fn has_line(text: &str, words: &[&str]) {
    let spaced = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let wanted = words.join(" ");
    assert!(text.lines().any(|line| spaced(line).starts_with(&wanted)), "no line {wanted:?} in\n{text}");
}

#[test]
fn the_access_context_the_channels_and_the_timeline_are_shown() {
    let text = text(&Case::signed(sample().seal()));
    has_line(&text, &["User", "alice@example.com"]);
    has_line(&text, &["Resource", "db-1 at 10.20.0.5:22"]);
    has_line(
        &text,
        &["Access request REQ-1042, flow production-databases, approved by bob@example.com, carol"],
    );
    has_line(&text, &["Time", "2026-01-02 03:04:05 to 2026-01-02 03:04:11 UTC, 6.449 s"]);
    has_line(&text, &["Outcome", "completed"]);
    has_line(&text, &["Segments", "3, 35 events of"]);
    has_line(&text, &["0", "shell", "xterm-256color 80x24", "status 0", "4", "97", "0"]);
    has_line(&text, &["1", "exec cat backup.tar", "-", "status 0", "0", "990", "10"]);
    has_line(&text, &["0", "client", "13", "10", "1", "2", "0", "0", "3"]);
    has_line(&text, &["2026-01-02 03:04:05.276", "0", "client", "env LANG=C.UTF-8"]);
    has_line(&text, &["2026-01-02 03:04:10.951", "0", "client", "window is now 120x24"]);
    assert!(!text.contains("warning"), "{text}");
    assert!(!text.contains("notes.txt"), "the timeline holds no data: {text}");
}

#[test]
fn secrets_in_what_was_asked_for_are_masked_as_in_the_commands() {
    let mut draft = sample();
    let message = Message::Env(Env { name: "PGPASSWORD".into(), value: "hunter2 hunter3".into() });
    draft.frame(1, ChannelNo(2), C2T, Message::Open(ChannelType::Session));
    draft.frame(1, ChannelNo(2), C2T, message);
    draft.frame(1, ChannelNo(2), C2T, Message::Exec(b"mysql -u root -phunter2 db".to_vec()));
    draft.frame(1, ChannelNo(2), T2C, Message::Success);
    let case = Case::signed(draft.seal());
    let mut json = Vec::new();
    show::print::json(&shown(&case), &mut json).expect("in memory");
    let text = text(&case);
    has_line(&text, &["2", "exec mysql -u root -p‹masked› db"]);
    has_line(&text, &["2", "env PGPASSWORD=‹masked›"]);
    assert!(!text.contains("hunter") && !String::from_utf8_lossy(&json).contains("hunter"), "{text}");
}

#[test]
fn a_gap_is_shown_with_its_time_its_size_and_its_cause() {
    let mut draft = sample();
    draft.meta.capture_policy = weir_common::session::CapturePolicy::BestEffort;
    draft.gap(2001, SHELL, T2C, 70, 4000);
    let text = text(&Case::signed(draft.seal()));
    has_line(&text, &["Grant g-77, expires 2026-01-02 05:00:00 UTC, permits traffic to go on unrecorded"]);
    let said = "target GAP: 70 messages of 4,000 bytes passed unrecorded, no agent was running, for 2.000 s";
    has_line(&text, &["2026-01-02 03:04:13.660", "0", said]);
}

#[test]
fn json_is_one_object_with_the_manifest_in_it() {
    let case = Case::signed(sample().seal());
    let mut out = Vec::new();
    show::print::json(&shown(&case), &mut out).expect("in memory");
    let value: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
    assert_eq!(value["manifest"]["session"]["user"], "alice@example.com");
    assert_eq!(value["channels"][1]["programs"][0], "exec cat backup.tar");
    assert_eq!(value["timeline"][0]["at"], "2026-01-02T03:04:05.25Z");
    assert_eq!(value["timeline"].as_array().map(Vec::len), Some(19));
}

#[test]
fn a_session_under_way_is_shown_as_far_as_it_is_stored() {
    let case = Case::signed(sample().seal());
    for name in [MANIFEST, SUMS, SIGNATURE, "000003.ndjson.zst", "000003.bin.zst"] {
        fs::remove_file(case.dir.join(name)).expect("it is there");
    }
    let text = text(&case);
    has_line(&text, &["State", "not finished"]);
    has_line(&text, &["User", "alice@example.com"]);
    has_line(&text, &["Access request REQ-1042"]);
    has_line(&text, &["Time", "since 2026-01-02 03:04:05 UTC"]);
    has_line(&text, &["Segments", "2 so far"]);
    has_line(&text, &["2026-01-02 03:04:10.027", "1", "client", "exec cat backup.tar"]);
    assert!(!text.contains("warning"), "{text}");
}

#[test]
fn a_damaged_recording_is_shown_with_warnings() {
    let case = Case::signed(sample().seal());
    case.write("000002.ndjson.zst", b"damaged");
    let text = text(&case);
    has_line(&text, &["warning: 000002.ndjson.zst does not have the digest that SHA256SUMS lists"]);
    has_line(&text, &["warning: 000002.ndjson.zst can't be unpacked"]);
    has_line(&text, &["2026-01-02 03:04:10.951", "0", "client", "window is now 120x24"]);
}

#[test]
fn a_timeline_over_the_limit_is_cut_and_says_so() {
    let mut draft = Draft::new();
    draft.segment(false);
    for _ in 0..show::TIMELINE_MAX + 7 {
        draft.frame(1, SHELL, C2T, Message::Eof);
    }
    let case = Case::signed(draft.seal());
    assert!(text(&case).ends_with("… and 7 more\n"));
}
