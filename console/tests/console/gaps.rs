//! Gaps: told where the grant permits them, found where it does not or where they do not add up.

use bytes::Bytes;
use weir_common::{
    frame::{ChannelType, Message},
    recording::{Gap, MANIFEST, What},
    session::CapturePolicy,
};
use weir_console::{
    look::Look,
    verify::{
        print::{self, ByHand},
        report::{Check, Gaps, Report, Verdict},
    },
};

use crate::support::{C2T, Draft, SHELL, Sealed, T2C, case::Case};

/// A session of best effort that misses 5 frames, 3 of them at its end.
fn with_gaps() -> Draft {
    let text = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let mut draft = Draft::new();
    draft.meta.capture_policy = CapturePolicy::BestEffort;
    draft.segment(false);
    draft.frame(0, SHELL, C2T, Message::Open(ChannelType::Session));
    draft.frame(1, SHELL, T2C, Message::OpenConfirm);
    draft.frame(1, SHELL, T2C, Message::Stdout(text("recorded\r\n")));
    draft.gap(2500, SHELL, T2C, 2, 90);
    draft.frame(1, SHELL, T2C, Message::Stdout(text("recorded again\r\n")));
    draft.segment(false);
    draft.frame(1, SHELL, C2T, Message::Shell);
    draft.gap(1000, SHELL, C2T, 3, 3000);
    draft
}

fn said(report: &Report) -> String {
    let mut out = Vec::new();
    let by_hand = ByHand { signers: None, identity: "weir-agent" };
    print::text(report, &by_hand, Look::default(), &mut out).expect("in memory");
    String::from_utf8(out).expect("text")
}

#[test]
fn gaps_that_the_grant_permits_are_no_findings_and_are_told_with_their_size() {
    let report = Case::signed(with_gaps().seal()).verify();
    assert_eq!((report.verdict, report.complete), (Verdict::Intact, false), "{:#?}", report.findings);
    assert_eq!(report.gaps, Gaps { gaps: 2, records: 5, bytes: 3090 });
    let text = said(&report);
    let told = "2 gaps: 5 records, 3,090 bytes passed unrecorded, as the grant's capture policy permits";
    assert!(text.lines().filter(|line| line.contains(told)).count() == 2, "{text}");
    let verdict = text.lines().last().expect("a verdict");
    assert!(
        verdict.starts_with("INTACT, WITH GAPS ") && verdict.contains("verified, but 2 gaps"),
        "{verdict}"
    );
    let mut json = Vec::new();
    print::json(&report, &mut json).expect("in memory");
    let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    assert_eq!((&json["complete"], &json["verdict"]), (&false.into(), &"intact".into()));
    assert_eq!(json["gaps"], serde_json::json!({ "gaps": 2, "records": 5, "bytes": 3090 }));
}

#[test]
fn a_recording_without_gaps_is_complete() {
    let report = Case::signed(crate::support::sample().seal()).verify();
    assert_eq!((report.complete, report.gaps), (true, Gaps::default()));
    assert!(!said(&report).contains("gap"));
}

#[test]
fn any_gap_of_a_session_that_fails_closed_is_found() {
    let mut draft = with_gaps();
    draft.meta.capture_policy = CapturePolicy::FailClosed;
    let case = Case::signed(draft.seal());
    case.only_finds(Check::Segments, "5 frames passed unrecorded".replace('5', "2").as_str());
    case.only_finds(Check::Segments, "the capture policy is fail_closed");
    assert_eq!(case.verify().findings.len(), 2);
    assert!(!case.verify().complete);
}

#[test]
fn a_gap_that_was_made_smaller_or_larger_left_out_or_put_in_is_found() {
    let change = |change: &dyn Fn(&mut Draft)| {
        let good = with_gaps();
        let mut bad = with_gaps();
        bad.meta = good.meta.clone();
        change(&mut bad);
        // What the kernel counted stays as it was.
        let mut sealed = bad.seal();
        sealed.manifest.channels = good.seal().manifest.channels;
        Case::new(sealed, Sealed::reseal)
    };
    let resize = |draft: &mut Draft, segment: usize, records: u64| {
        let events = &mut draft.segments[segment].events;
        for event in events {
            if let What::Gap(Gap { records: said, .. }) = &mut event.what {
                *said = records;
            }
        }
    };
    change(&|draft| resize(draft, 0, 1)).finds(Check::Segments, "frames are missing");
    change(&|draft| resize(draft, 0, 3)).finds(Check::Segments, "repetition or out of order");
    let last = change(&|draft| resize(draft, 1, 4));
    last.only_finds(Check::Arithmetic, "the gaps add up to 4 records");
    let left_out = change(&|draft| drop(draft.segments[1].events.pop()));
    left_out.only_finds(Check::Arithmetic, "the manifest says 3 records of 3000 bytes passed unrecorded");
    change(&|draft| draft.gap(5, SHELL, T2C, 1, 20))
        .only_finds(Check::Arithmetic, "the gaps add up to 3 records");
}

#[test]
fn a_manifest_that_says_less_passed_than_the_kernel_counted_is_found() {
    let mut sealed = with_gaps().seal();
    let kernel = sealed.manifest.channels[0].t2c.kernel.as_mut().expect("it was read");
    kernel.passed.records += 1;
    assert!(sealed.objects.contains_key(MANIFEST));
    let case = Case::new(sealed, Sealed::reseal);
    case.only_finds(Check::Arithmetic, "the kernel let 3 records of 90 bytes pass unrecorded, and 2 records");
}
