//! File content that is left out: told where the grant says so, found where it does not or where it does not add up.

use weir_common::{
    digest::Sha256,
    frame::{ChannelType, Message},
    recording::{Content, Part, What},
};
use weir_console::{
    look::Look,
    recording::{Item, Recording},
    show,
    store::SessionDir,
    verify::{
        print::{self, ByHand},
        report::{Check, FileContent, Report, Verdict},
    },
};

use crate::support::{C2T, COPY, Draft, T2C, case::Case};

const FILE: &[u8] = b"what the grant does not want kept";

/// A file that went up through sftp in two frames, with some protocol around it.
fn upload() -> Draft {
    let mut draft = Draft::new();
    draft.meta.record_file_content = false;
    draft.segment(false);
    draft.frame(0, COPY, C2T, Message::Open(ChannelType::Session));
    draft.frame(1, COPY, T2C, Message::OpenConfirm);
    draft.frame(1, COPY, C2T, Message::Subsystem("sftp".into()));
    draft.frame(1, COPY, T2C, Message::Success);
    draft.frame(1, COPY, T2C, Message::Stdout((&b"\x02"[..]).into()));
    for (head, range) in [(&b"\x00\x01head"[..], 0..20), (&b""[..], 20..FILE.len())] {
        draft.frame(1, COPY, C2T, Message::Stdin([head, &FILE[range.clone()]].concat().into()));
        let bytes = u32::try_from(range.len()).expect("short");
        let withheld = Part::Withheld { bytes, sha256: Sha256::of(&FILE[..range.end]) };
        let kept = (!head.is_empty()).then(|| Part::Kept(head.to_vec()));
        let event = draft.segments[0].events.last_mut().expect("just made");
        event.what = What::Stdin(Content::Withheld(kept.into_iter().chain([withheld]).collect()));
    }
    draft.frame(1, COPY, T2C, Message::Close);
    draft.frame(1, COPY, C2T, Message::Close);
    draft
}

fn said(report: &Report) -> String {
    let mut out = Vec::new();
    let by_hand = ByHand { signers: None, identity: "weir-agent" };
    print::text(report, &by_hand, Look::default(), &mut out).expect("in memory");
    String::from_utf8(out).expect("text")
}

/// The upload after a change to its first event with content.
fn with(change: impl Fn(&mut Draft, &mut Vec<Part>)) -> Case {
    let mut draft = upload();
    let at = draft.segments[0].events.iter().position(|event| matches!(event.what, What::Stdin(_)));
    let at = at.expect("there are two");
    let mut event = draft.segments[0].events[at].clone();
    let What::Stdin(Content::Withheld(parts)) = &mut event.what else { unreachable!("it is one of these") };
    change(&mut draft, parts);
    draft.segments[0].events[at] = event;
    Case::signed(draft.seal())
}

#[test]
fn a_recording_without_file_content_is_intact_where_the_grant_says_so_and_that_is_told() {
    let report = Case::signed(upload().seal()).verify();
    assert_eq!((report.verdict, report.complete), (Verdict::Intact, false), "{:#?}", report.findings);
    assert_eq!(report.withheld, FileContent { events: 2, bytes: FILE.len() as u64 });
    let text = said(&report);
    let verdict = text.lines().last().expect("a verdict");
    assert!(verdict.starts_with("INTACT, file content not recorded (by grant) "), "{verdict}");
    assert!(verdict.contains("33 bytes of file content are not recorded"), "{verdict}");
    let mut json = Vec::new();
    print::json(&report, &mut json).expect("in memory");
    let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    assert_eq!((&json["complete"], &json["verdict"]), (&false.into(), &"intact".into()));
    assert_eq!(json["withheld"], serde_json::json!({ "events": 2, "bytes": 33 }));
}

#[test]
fn where_nothing_was_left_out_the_grant_changes_nothing_about_the_verdict() {
    let mut draft = crate::support::sample();
    draft.meta.record_file_content = false;
    let report = Case::signed(draft.seal()).verify();
    assert_eq!((report.verdict, report.complete), (Verdict::Intact, true));
    assert!(!said(&report).contains("not recorded"));
}

#[test]
fn content_that_is_left_out_although_the_grant_wants_it_is_found() {
    let case = with(|draft, _| draft.meta.record_file_content = true);
    case.only_finds(Check::Segments, "the grant says that it is kept (record_file_content = true)");
    assert_eq!(case.verify().findings.len(), 2);
    assert!(said(&case.verify()).lines().last().is_some_and(|line| line.starts_with("NOT INTACT")));
}

#[test]
fn content_that_is_left_out_of_a_shell_is_found() {
    let case = with(|draft, _| {
        for event in &mut draft.segments[0].events {
            if matches!(event.what, What::Subsystem { .. }) {
                (event.what, event.len) = (What::Shell, 0);
            }
        }
    });
    case.only_finds(Check::Segments, "no command or subsystem was asked for on this channel");
}

/// The upload with this in the place of what asks for the subsystem.
fn asked_by(what: &What) -> Case {
    with(|draft, _| {
        for event in &mut draft.segments[0].events {
            if matches!(event.what, What::Subsystem { .. }) {
                event.len = what.content().map_or(0, |content| u32::try_from(content.len()).expect("short"));
                event.what = what.clone();
            }
        }
    })
}

#[test]
fn content_that_is_left_out_of_a_command_that_may_do_anything_is_found() {
    let exec = |command: &str| asked_by(&What::Exec(Content::Text(command.to_owned())));
    assert_eq!(exec("scp -t x").verify().verdict, Verdict::Intact);
    for command in ["bash", "scp -t x; bash", "/tmp/scp -t x"] {
        exec(command).only_finds(Check::Segments, "no command or subsystem was asked for on this channel");
    }
}

#[test]
fn content_that_is_left_out_of_a_transfer_that_was_refused_or_to_which_nobody_spoke_is_found() {
    let refused = with(|draft, _| {
        let events = &mut draft.segments[0].events;
        events
            .iter_mut()
            .filter(|event| event.what == What::Success)
            .for_each(|event| event.what = What::Failure);
    });
    refused.only_finds(Check::Segments, "was not refused");
    let unanswered = with(|draft, _| {
        let events = &mut draft.segments[0].events;
        events.iter_mut().filter(|event| event.what == What::Success).for_each(|event| {
            event.what = What::Eof;
        });
    });
    unanswered.only_finds(Check::Segments, "the target has not accepted the transfer");
    let silent = with(|draft, _| {
        let events = &mut draft.segments[0].events;
        events.iter_mut().filter(|event| matches!(event.what, What::Stdout(_))).for_each(|event| {
            (event.what, event.len) = (What::Eof, 0);
        });
    });
    silent.only_finds(Check::Segments, "before both sides of the transfer have said anything");
}

#[test]
fn parts_that_do_not_add_up_to_the_frame_are_found() {
    let resized = with(|_, parts| {
        if let Some(Part::Withheld { bytes, .. }) = parts.last_mut() {
            *bytes += 1;
        }
    });
    resized.only_finds(Check::Segments, "says its body had 26 bytes, and it has 27");
    with(|_, parts| drop(parts.remove(0))).only_finds(Check::Segments, "says its body had 26 bytes");
    with(|_, parts| parts.push(Part::Withheld { bytes: u32::MAX, sha256: Sha256::of(b"") }))
        .finds(Check::Segments, "has a longer body");
}

#[test]
fn readers_say_where_bytes_are_withheld() {
    let case = Case::signed(upload().seal());
    let recording = Recording::open(SessionDir::open(&case.dir).expect("a directory")).expect("readable");
    let read: Vec<u8> = recording
        .events()
        .filter_map(|item| match item {
            Item::Event(_, bytes) => bytes,
            Item::Warning(warning) => panic!("{warning}"),
        })
        .flatten()
        .collect();
    let words = "\0\x01head‹20 bytes withheld›‹13 bytes withheld›";
    assert_eq!(String::from_utf8_lossy(&read), words);
    let mut out = Vec::new();
    show::print::text(&show::gather(&recording), Look::default(), &mut out).expect("in memory");
    let text = String::from_utf8(out).expect("text");
    assert!(text.contains("keeps file content out of the recording"), "{text}");
    let channel: Vec<_> =
        text.lines().filter(|line| line.contains("subsystem sftp") && line.contains(" 39 ")).collect();
    assert!(!channel.is_empty(), "the bytes that went are counted, recorded or not: {text}");
}
