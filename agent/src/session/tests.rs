//! A session's state through its life, without anything around it.

use std::collections::HashMap;

use bytes::Bytes;
use proptest::prelude::*;
use weir_common::{
    frame::{Message, WINDOW},
    recording::{Count, DirectionTotals},
    session::CapturePolicy,
};

use super::*;
use crate::{
    ledger::StateEntry,
    spool::{FileNo, entry::PAYLOAD_MAX},
    testing::{closed, frame, opened},
    withholding::Carried,
};

const LIMITS: SealLimits = SealLimits { max_bytes: 100, max_records: 4, max_age_ns: 1000 };
const COOKIES: TapCookies = TapCookies { c2t: SocketCookie(1), t2c: SocketCookie(2) };

fn session() -> Session {
    let StateEntry::Opened { meta, clock, recorder, opened_at } = opened(1) else { unreachable!("it is") };
    let mut session = Session::new(meta, clock, recorder, opened_at);
    session.arm(ChannelNo(0), COOKIES).expect("the first");
    session
}

fn kernel(channel: u32) -> ChannelKernel {
    let count = KernelCount { tossed_full: u64::from(channel), ..KernelCount::default() };
    ChannelKernel { channel: ChannelNo(channel), c2t: Some(count), t2c: None }
}

fn end() -> End {
    let StateEntry::Closed { end, .. } = closed(1) else { unreachable!("it is") };
    end
}

fn output(text: &str, seq: u64) -> Vec<u8> {
    frame(Message::Stdout(Bytes::copy_from_slice(text.as_bytes())), seq)
}

/// Captures a message of the target at this kernel time; places do not matter here.
fn capture(session: &mut Session, message: &[u8], boot_ns: u64) -> Result<(), RecordError> {
    let place = Place { file: FileNo(1), offset: boot_ns * 1_000_000 };
    let captured = Captured { boot_ns, message, entry_len: 100 };
    session.record(ChannelNo(0), Direction::TargetToClient, captured, place)
}

fn segment(index: u32, records: u64) -> SegmentEntry {
    let object = |name: &str| weir_common::recording::StoredObject {
        name: name.into(),
        sha256: weir_common::digest::Sha256::of(name.as_bytes()),
        bytes: 1,
    };
    SegmentEntry {
        index,
        events: Count { records, bytes: 0 },
        segment: object("s"),
        bulk: None,
        signature: None,
    }
}

proptest! {
    #[test]
    fn however_frames_are_tossed_and_sent_again_all_captured_ones_are_accounted_for(
        tossed in prop::collection::vec(any::<bool>(), 0..200), frames in 1_u64..40,
    ) {
        let mut session = session();
        let (mut fate, mut captured) = (tossed.into_iter(), Count::default());
        while session.accepted_records() < frames {
            let first = session.accepted_records();
            for seq in first.saturating_sub(1)..frames.min(first + WINDOW as u64) {
                if fate.next().unwrap_or(false) {
                    continue;
                }
                let message = output(&"x".repeat(usize::try_from(seq).expect("small")), seq);
                captured.add(message.len() as u64);
                prop_assert_eq!(capture(&mut session, &message, 1), Ok(()));
            }
        }
        let totals = session.totals()[0].t2c;
        prop_assert_eq!(totals.drained(), captured);
        prop_assert_eq!(totals.accepted.records, frames);
        prop_assert_eq!(session.sealed_records(), 0);
        let text = serde_json::to_string(&session).expect("serializes");
        let checkpoint: Session = serde_json::from_str(&text).expect("just written");
        prop_assert_eq!(checkpoint.totals(), session.totals());
        prop_assert_eq!(checkpoint.gone_records(), frames);
    }
}

/// Nothing is tossed for want of room under best effort: a frame is captured, or it is part of a gap.
fn best_effort() -> Session {
    let StateEntry::Opened { mut meta, clock, recorder, opened_at } = opened(1) else {
        unreachable!("it is")
    };
    meta.capture_policy = CapturePolicy::BestEffort;
    let mut session = Session::new(meta, clock, recorder, opened_at);
    session.arm(ChannelNo(0), COOKIES).expect("the first");
    session
}

fn pass(session: &mut Session, count: Count) -> Result<(), RecordError> {
    let gap = Unrecorded { seq: 0, count, boot_ns: 5, entry_len: 100 };
    session.gap(ChannelNo(0), Direction::TargetToClient, gap, Place { file: FileNo(1), offset: 5_000_000 })
}

proptest! {
    #[test]
    fn however_captures_and_gaps_interleave_every_frame_is_accounted_for(
        fates in prop::collection::vec((any::<bool>(), 0_usize..50), 1..200),
    ) {
        let mut session = best_effort();
        let (mut open, mut passed, mut captured, mut gaps) = (Count::default(), Count::default(), Count::default(), 0);
        for (seq, &(recorded, len)) in (0..).zip(&fates) {
            let message = output(&"x".repeat(len), seq);
            if recorded {
                if open.records > 0 {
                    prop_assert_eq!(pass(&mut session, std::mem::take(&mut open)), Ok(()));
                    gaps += 1;
                }
                captured.add(message.len() as u64);
                prop_assert_eq!(capture(&mut session, &message, 1), Ok(()));
            } else {
                open.add(message.len() as u64);
                passed.add(message.len() as u64);
            }
        }
        if open.records > 0 {
            prop_assert_eq!(pass(&mut session, open), Ok(()));
            gaps += 1;
        }
        let totals = session.totals()[0].t2c;
        prop_assert_eq!((totals.accepted, totals.passed), (captured, passed));
        prop_assert_eq!(totals.drained(), captured);
        prop_assert_eq!(session.next_seq(ChannelNo(0), Direction::TargetToClient), Some(fates.len() as u64));
        prop_assert_eq!(session.accepted_records(), captured.records + gaps);
        let text = serde_json::to_string(&session).expect("serializes");
        let checkpoint: Session = serde_json::from_str(&text).expect("just written");
        prop_assert_eq!(checkpoint.gone_records(), captured.records + gaps);
        prop_assert_eq!(checkpoint.totals(), session.totals());
    }
}

#[test]
fn a_gap_of_a_session_that_fails_closed_is_told_and_recorded_all_the_same() {
    let mut session = session();
    assert_eq!(pass(&mut session, Count { records: 2, bytes: 40 }), Err(RecordError::Gap));
    assert_eq!(capture(&mut session, &output("a", 2), 1), Ok(()));
    let totals = session.totals()[0].t2c;
    assert_eq!((totals.passed.records, totals.accepted.records), (2, 1));
    assert_eq!(session.may_take_back(ChannelNo(0)), Err(StepError::ChannelUsed { channel: ChannelNo(0) }));
}

#[test]
fn what_is_no_frame_ends_its_stream_once_and_is_counted_with_everything_behind_it() {
    let mut session = session();
    assert_eq!(capture(&mut session, &output("a", 0), 1), Ok(()));
    assert!(capture(&mut session, b"no frame", 2).is_err());
    assert_eq!(capture(&mut session, &output("b", 1), 3), Ok(()));
    let totals = session.totals()[0].t2c;
    assert_eq!((totals.accepted.records, totals.malformed.records), (1, 2));
}

#[test]
fn a_segment_is_due_by_bytes_by_records_by_age_and_at_the_end() {
    let due = |messages: &[&str], now, ended: bool| {
        let mut session = session();
        for (seq, text) in messages.iter().enumerate() {
            capture(&mut session, &output(text, seq as u64), 10).expect("a frame");
        }
        if ended {
            session.close(end(), &[]).expect("the first time");
        }
        session.due_records(LIMITS, now)
    };
    let long = "x".repeat(90);
    assert_eq!(due(&["a"], 500, false), None);
    assert_eq!(due(&[&long, "b"], 500, false), Some(1));
    assert_eq!(due(&["a", "b", "c", "d"], 500, false), Some(4));
    assert_eq!(due(&["a", "b"], 1010, false), Some(2));
    assert_eq!(due(&["a"], 5, true), Some(1));
    assert_eq!(due(&[], 5000, true), None);
}

#[test]
fn steps_out_of_order_are_errors_that_change_nothing() {
    let mut session = session();
    capture(&mut session, &output("a", 0), 1).expect("a frame");
    let before = session.clone();
    let channel = ChannelNo(0);
    assert_eq!(session.arm(channel, COOKIES), Err(StepError::ChannelUsed { channel }));
    assert_eq!(session.take_back(channel), Err(StepError::ChannelUsed { channel }));
    assert_eq!(session.take_back(ChannelNo(7)), Err(StepError::NoChannel { channel: ChannelNo(7) }));
    assert_eq!(session.disarm(kernel(7)), Err(StepError::NoChannel { channel: ChannelNo(7) }));
    assert_eq!(session.begin_seal(2, 1), Err(StepError::Sealing { index: 2 }));
    assert_eq!(session.begin_seal(1, 0), Err(StepError::Records { records: 0 }));
    assert_eq!(session.begin_seal(1, 2), Err(StepError::Records { records: 2 }));
    assert_eq!(session.sealed(segment(1, 1), Carried::default()), Err(StepError::Sealing { index: 1 }));
    assert_eq!(session.may_finish(), Err(StepError::Unfinished));
    assert_eq!(session, before);
    session.begin_seal(1, 1).expect("in order");
    assert_eq!(session.begin_seal(1, 1), Err(StepError::Sealing { index: 1 }));
    assert_eq!(session.sealed(segment(2, 1), Carried::default()), Err(StepError::Sealing { index: 2 }));
    session.close(end(), &[]).expect("in order");
    assert_eq!(session.close(end(), &[]), Err(StepError::Ended));
    assert_eq!(session.arm(ChannelNo(1), COOKIES), Err(StepError::Ended));
    assert_eq!(session.disarm(kernel(0)), Err(StepError::Ended));
    assert_eq!(session.may_finish(), Err(StepError::Unfinished));
    session.sealed(segment(1, 1), Carried::default()).expect("in order");
    assert_eq!(session.may_finish(), Ok(()));
}

#[test]
fn channels_are_bounded_and_one_that_was_not_used_may_be_armed_with_other_sockets() {
    let mut session = session();
    let other = TapCookies { c2t: SocketCookie(8), t2c: SocketCookie(9) };
    session.arm(ChannelNo(0), other).expect("nothing passed");
    let sockets: HashMap<_, _> = session.sockets().map(|(cookie, _, way)| (cookie, way)).collect();
    assert_eq!(sockets[&SocketCookie(8)], Direction::ClientToTarget);
    assert_eq!(sockets.len(), 2);
    for channel in 1..ARMED_MAX {
        session.arm(ChannelNo(u32::try_from(channel).expect("small")), COOKIES).expect("below the bound");
    }
    let past = ChannelNo(u32::try_from(ARMED_MAX).expect("small"));
    assert_eq!(session.arm(past, COOKIES), Err(StepError::TooManyArmed));
}

#[test]
fn a_disarmed_channel_keeps_its_counts_and_neither_its_number_nor_its_sockets_come_again() {
    let mut session = session();
    capture(&mut session, &output("a", 0), 1).expect("a frame");
    session.disarm(kernel(0)).expect("armed");
    assert!(session.is_disarmed(ChannelNo(0)) && !session.is_disarmed(ChannelNo(1)));
    assert_eq!((session.taps().count(), session.armed_sockets().count()), (0, 0));
    assert_eq!(session.sockets().count(), 2, "its unsealed record can still be encoded");
    assert_eq!(session.totals()[0].c2t.kernel, kernel(0).c2t);
    assert_eq!(session.accepted_records(), 1);
    let before = session.clone();
    let channel = ChannelNo(0);
    let other = TapCookies { c2t: SocketCookie(8), t2c: SocketCookie(9) };
    assert_eq!(session.disarm(kernel(0)), Err(StepError::NoChannel { channel }));
    assert_eq!(session.arm(channel, other), Err(StepError::ChannelUsed { channel }));
    let swapped = TapCookies { c2t: COOKIES.t2c, t2c: SocketCookie(9) };
    assert_eq!(session.arm(ChannelNo(1), swapped), Err(StepError::SocketUsed { channel }));
    assert_eq!(capture(&mut session, &output("b", 1), 2), Err(RecordError::NoTap));
    assert_eq!(session, before);
    session.arm(ChannelNo(1), other).expect("another one");
    session.close(end(), &[kernel(1)]).expect("in order");
    let kernels: Vec<_> = session.totals().iter().map(|totals| totals.c2t.kernel).collect();
    assert_eq!(kernels, [kernel(0).c2t, kernel(1).c2t]);
}

#[test]
fn what_is_frozen_stays_so_through_a_checkpoint_and_gets_no_channel() {
    let mut session = session();
    session.freeze().expect("it goes on");
    session.freeze().expect("whoever heard no answer says it again");
    let text = serde_json::to_string(&session).expect("serializes");
    let mut session: Session = serde_json::from_str(&text).expect("just written");
    assert!(session.is_frozen());
    let other = TapCookies { c2t: SocketCookie(8), t2c: SocketCookie(9) };
    for channel in [0, 1] {
        assert_eq!(session.arm(ChannelNo(channel), other), Err(StepError::Frozen));
    }
    capture(&mut session, &output("a", 0), 1).expect("what passed before may be in the ring still");
    session.disarm(kernel(0)).expect("in order");
    session.close(end(), &[]).expect("in order");
    assert_eq!(session.freeze(), Err(StepError::Ended));
}

#[test]
fn what_notes_of_its_segments_may_take_is_known_while_there_is_something_to_store() {
    let mut session = session();
    capture(&mut session, &output("a", 0), 1).expect("a frame");
    assert_eq!(session.notes_bytes_max(100), 0, "its notes are small");
    session.meta.record_file_content = false;
    let one = session.notes_bytes_max(100);
    assert!(one > 64 << 10, "{one}");
    for seq in 1..20 {
        capture(&mut session, &output("a", seq), 1).expect("a frame");
    }
    let bytes = session.unsealed().bytes;
    assert_eq!(session.notes_bytes_max(100), one * (bytes / 100 + 1));
    assert_eq!(session.notes_bytes_max(0), one * (bytes + 1), "whatever the configuration says");
    session.begin_seal(1, 20).expect("in order");
    assert_eq!(session.notes_bytes_max(1000), one, "it is not noted yet");
    session.sealed(segment(1, 20), Carried::default()).expect("in order");
    assert_eq!(session.notes_bytes_max(100), 0);
}

#[test]
fn a_session_has_as_many_channels_in_its_life_as_a_spool_entry_has_room_for() {
    let mut session = session();
    let large = Count { records: u64::from(u32::MAX), bytes: 1 << 40 };
    for channel in 0..u32::try_from(CHANNELS_MAX).expect("small") {
        let way = |cookie| DirectionTotals {
            cookie: SocketCookie(cookie),
            accepted: large,
            duplicate: large,
            out_of_sequence: large,
            malformed: Count::default(),
            passed: Count::default(),
            kernel: Some(KernelCount {
                captured: large,
                tossed_full: large.records,
                ..KernelCount::default()
            }),
        };
        let cookie = 1 << 32 | u64::from(channel) << 1;
        let totals = ChannelTotals { channel: ChannelNo(channel), c2t: way(cookie), t2c: way(cookie + 1) };
        session.disarmed.insert(totals.channel, totals);
    }
    let other = TapCookies { c2t: SocketCookie(8), t2c: SocketCookie(9) };
    let past = ChannelNo(u32::MAX);
    assert_eq!(session.arm(past, other), Err(StepError::TooManyChannels));
    let bytes = serde_json::to_vec(&session).expect("serializes");
    assert!(bytes.len() < PAYLOAD_MAX / 2, "{} bytes", bytes.len());
    let back: Session = serde_json::from_slice(&bytes).expect("just written");
    assert!(back.disarmed == session.disarmed);
}

#[test]
fn a_record_behind_the_end_is_not_the_sessions_any_more() {
    let mut session = session();
    session.close(end(), &[]).expect("the first time");
    assert_eq!(capture(&mut session, &output("a", 0), 1), Err(RecordError::NoTap));
    assert_eq!(session.due_records(LIMITS, 5000), None);
    assert_eq!(session.may_finish(), Ok(()), "it would never be finished otherwise");
}

#[test]
fn behind_a_gap_the_records_found_before_it_are_kept_and_the_others_gone() {
    let mut whole = session();
    for seq in 0..10 {
        capture(&mut whole, &output("x", seq), seq).expect("a frame");
    }
    whole.begin_seal(1, 3).expect("in order");
    let checkpoint = |session: &Session| -> Session {
        serde_json::from_str(&serde_json::to_string(session).expect("serializes")).expect("just written")
    };
    let known_until = |records: u64| {
        let mut session = session();
        for seq in 0..records {
            capture(&mut session, &output("x", seq), seq).expect("a frame");
        }
        session
    };
    for known in 0..=10 {
        let mut found = known_until(known);
        found.reconcile(checkpoint(&whole));
        assert_eq!(found.gone_records(), 10 - known, "{known} were found");
        assert_eq!(found.accepted_records(), 10);
    }
    whole.sealed(segment(1, 3), Carried::default()).expect("in order");
    for known in 0..=10 {
        let mut found = known_until(known);
        found.reconcile(checkpoint(&whole));
        assert_eq!(found.gone_records(), 10 - known.max(3), "{known} were found, 3 are stored");
    }
}

/// The same session, with every count and number as large as it can be read from a disk.
fn boundless(session: &Session) -> Session {
    fn swell(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Object(fields) => {
                for (name, field) in fields {
                    match (&**name, field.is_u64()) {
                        ("records" | "bytes" | "gaps" | "next_seq" | "last_boot_ns", true) => {
                            *field = u64::MAX.into();
                        }
                        ("index", true) => *field = u32::MAX.into(),
                        _ => swell(field),
                    }
                }
            }
            serde_json::Value::Array(items) => items.iter_mut().for_each(swell),
            _ => {}
        }
    }
    let mut value = serde_json::to_value(session).expect("serializes");
    swell(&mut value);
    serde_json::from_value(value).expect("numbers that fit")
}

#[test]
fn a_checkpoint_that_says_more_than_can_be_added_up_is_taken_for_what_it_says() {
    let mut session = session();
    session.arm(ChannelNo(1), TapCookies { c2t: SocketCookie(3), t2c: SocketCookie(4) }).expect("another");
    for seq in 0..6 {
        capture(&mut session, &output("x", seq), seq).expect("a frame");
    }
    for index in 1..=2 {
        session.begin_seal(index, 2).expect("in order");
        session.sealed(segment(index, 2), Carried::default()).expect("in order");
    }
    session.begin_seal(3, 1).expect("in order");
    let mut hostile = boundless(&session);
    let all = |session: &Session| {
        let sums = [session.accepted_records(), session.sealed_records(), session.gone_records()];
        (sums, session.unsealed(), session.unsealed_bytes())
    };
    let most = Count { records: u64::MAX, bytes: u64::MAX };
    assert_eq!(all(&hostile), ([u64::MAX; 3], most, u64::MAX));
    assert_eq!(hostile.next_index(), u32::MAX);
    assert!(hostile.last_heard_of() >= hostile.opened_at());
    for (mut before, checkpoint) in [(boundless(&session), &session), (session.clone(), &hostile)] {
        before.reconcile(boundless(checkpoint));
        before.reconcile(checkpoint.clone());
        assert_eq!(before.accepted_records(), checkpoint.accepted_records());
    }
    // It goes on to its end.
    capture(&mut hostile, &output("x", u64::MAX), 7).expect("a frame");
    let gap = Unrecorded { seq: u64::MAX, count: most, boot_ns: u64::MAX, entry_len: 60 };
    let place = Place { file: FileNo(1), offset: 1000 };
    assert_eq!(hostile.gap(ChannelNo(0), Direction::TargetToClient, gap, place), Err(RecordError::Gap));
    hostile.sealed(segment(u32::MAX, 1), Carried::default()).expect("it was begun");
    hostile.close(end(), &[]).expect("the first time");
    let records = hostile.due_records(LIMITS, u64::MAX).expect("it has ended");
    hostile.begin_seal(u32::MAX, records).expect("in order");
    hostile.sealed(segment(u32::MAX, 1), Carried::default()).expect("it was begun");
    let manifest = hostile.manifest().expect("it has ended");
    assert_eq!(crate::report::totals(&manifest, &[], "SHA256:x").t2c, most);
}

#[test]
fn what_the_version_before_left_in_a_spool_is_read() {
    let without = |text: &str, fields: &[&str]| {
        let mut value: serde_json::Value = serde_json::from_str(text).expect("just written");
        for field in fields {
            let (object, field) = match field.split_once('/') {
                Some((object, field)) => (&mut value[object], field),
                None => (&mut value, *field),
            };
            assert!(object.as_object_mut().expect("an object").remove(field).is_some(), "{field}");
        }
        value.to_string()
    };
    let text = serde_json::to_string(&session()).expect("serializes");
    let before = without(&text, &["meta/record_file_content"]);
    assert!(!before.contains("carried"), "there is nothing to carry: {before}");
    assert_eq!(serde_json::from_str::<Session>(&before).expect("readable"), session());
    assert!(!before.contains("frozen"), "and nothing to forget: {before}");
    let sealed =
        StateEntry::Sealed { session: session().id(), segment: segment(1, 1), carried: Carried::default() };
    let text = serde_json::to_string(&sealed).expect("serializes");
    assert!(!text.contains("carried"), "{text}");
    assert_eq!(serde_json::from_str::<StateEntry>(&text).expect("readable"), sealed);
}

/// The numbers of the frames that the kernel captured, where these of what the sender sent were tossed.
fn captured(tossed: Vec<bool>, frames: u64) -> Vec<u64> {
    let (mut fate, mut captured, mut next) = (tossed.into_iter(), Vec::new(), 0);
    while next < frames {
        let window = next..frames.min(next + WINDOW as u64);
        for seq in window {
            if fate.next() != Some(true) {
                captured.push(seq);
                next += u64::from(seq == next);
            }
        }
    }
    captured
}

/// A session whose target was heard with these numbers, of which some records were lost, to its end.
fn heard(captured: &[u64], lost: std::ops::Range<usize>, policy: CapturePolicy) -> Session {
    let mut session = session();
    session.meta.capture_policy = policy;
    for (number, &seq) in captured.iter().enumerate() {
        if number == lost.start {
            session.lose();
            let text = serde_json::to_string(&session.channels).expect("serializes");
            session.channels = serde_json::from_str(&text).expect("a checkpoint keeps it");
        }
        if !lost.contains(&number) {
            capture(&mut session, &output("x", seq), number as u64).expect("a frame");
        }
    }
    let count = Count { records: captured.len() as u64, bytes: 17 * captured.len() as u64 };
    let t2c = Some(KernelCount { captured: count, ..KernelCount::default() });
    session.close(end(), &[ChannelKernel { channel: ChannelNo(0), c2t: None, t2c }]).expect("open");
    session
}

proptest! {
    #[test]
    fn whatever_is_tossed_meanwhile_a_loss_is_told_by_the_stream_that_it_hit_and_by_no_other(
        tossed in prop::collection::vec(any::<bool>(), 0..100), frames in 1_u64..60,
        begin in any::<prop::sample::Index>(), len in 0_usize..12,
    ) {
        let all = captured(tossed, frames);
        let begin = begin.index(all.len());
        let end = all.len().min(begin + len);
        let whole = heard(&all, usize::MAX..usize::MAX, CapturePolicy::FailClosed);
        let session = heard(&all, begin..end, CapturePolicy::FailClosed);
        let totals = session.totals()[0].t2c;
        if begin == end {
            prop_assert_eq!(totals, whole.totals()[0].t2c, "nothing was lost");
            prop_assert_eq!(session.gone_records(), 0);
        } else {
            prop_assert_ne!(totals.drained(), totals.kernel.expect("asked").captured);
        }
        prop_assert!(session.accepted_records() <= frames, "nothing is made up");
        let events = session.unsealed().records - session.gone_records();
        let taken = |range: std::ops::Range<usize>| {
            let before = heard(&all[..range.start], usize::MAX..usize::MAX, CapturePolicy::FailClosed);
            let until = heard(&all[..range.end], usize::MAX..usize::MAX, CapturePolicy::FailClosed);
            until.accepted_records() - before.accepted_records()
        };
        let lost = taken(begin..end);
        // What was tossed and came again in the very window of the loss may be taken for lost.
        let also = if all.len() as u64 == frames { 0 } else { WINDOW as u64 };
        prop_assert!(events + lost + also >= frames, "{} of {} are there, {} were lost", events, frames, lost);
    }

    #[test]
    fn where_nothing_is_tossed_exactly_what_was_lost_is_missing_however_little_comes_behind_it(
        frames in 1_u64..40, begin in any::<prop::sample::Index>(), len in 1_usize..20, best_effort: bool,
    ) {
        let all: Vec<_> = (0..frames).collect();
        let begin = begin.index(all.len());
        let end = all.len().min(begin + len);
        let policy = if best_effort { CapturePolicy::BestEffort } else { CapturePolicy::FailClosed };
        let session = heard(&all, begin..end, policy);
        let lost = (end - begin) as u64;
        let is_last = end == all.len();
        let accepted = if is_last { frames - lost } else { frames };
        prop_assert_eq!(session.accepted_records(), accepted);
        prop_assert_eq!(session.gone_records(), if is_last { 0 } else { lost });
        prop_assert_eq!(session.unsealed().records, accepted);
        prop_assert_eq!(session.totals()[0].t2c.out_of_sequence, Count::default());
    }
}

#[test]
fn a_gap_behind_a_loss_says_itself_how_much_was_lost_before_it() {
    let mut session = session();
    session.meta.capture_policy = CapturePolicy::BestEffort;
    capture(&mut session, &output("x", 0), 0).expect("a frame");
    session.lose();
    let gap = Unrecorded { seq: 3, count: Count { records: 4, bytes: 40 }, boot_ns: 5, entry_len: 100 };
    let place = Place { file: FileNo(1), offset: 900 };
    session.gap(ChannelNo(0), Direction::TargetToClient, gap, place).expect("permitted");
    capture(&mut session, &output("x", 7), 7).expect("a frame");
    assert_eq!((session.gone_records(), session.totals()[0].t2c.accepted.records), (2, 4));
}

#[test]
fn a_segment_that_took_lost_records_before_they_were_missed_counts_them_once() {
    let mut session = session();
    (0..4).for_each(|seq| capture(&mut session, &output("x", seq), seq).expect("a frame"));
    session.lose();
    // Of six, two were lost.
    session.begin_seal(1, 6).expect("it was begun");
    session.sealed(segment(1, 6), Carried::default()).expect("in order");
    (6..16).for_each(|seq| capture(&mut session, &output("x", seq), seq).expect("a frame"));
    assert_eq!((session.accepted_records(), session.gone_records()), (16, 0), "what was lost is stored");
    assert_eq!(session.unsealed().records, 10);
}

#[test]
fn what_is_held_behind_a_loss_is_in_the_segment_that_was_begun_behind_it_and_in_no_other() {
    let mut session = session();
    (0..5).for_each(|seq| capture(&mut session, &output("x", seq), seq).expect("a frame"));
    session.lose();
    // Two were lost, and less than a window came before the segment.
    (7..10).for_each(|seq| {
        let _ = capture(&mut session, &output("x", seq), seq);
    });
    session.begin_seal(1, 10).expect("it was begun");
    assert_eq!(session.unsealed().records, 10);
    session.sealed(segment(1, 10), Carried::default()).expect("in order");
    (10..20).for_each(|seq| capture(&mut session, &output("x", seq), seq).expect("a frame"));
    assert_eq!((session.accepted_records(), session.unsealed().records), (20, 10));
}

#[test]
fn frames_that_were_tossed_behind_a_loss_are_taken_when_they_come_again() {
    let mut session = session();
    (0..13).for_each(|seq| capture(&mut session, &output("x", seq), seq).expect("a frame"));
    session.lose();
    // Three were lost; seven behind them were tossed while this one found room.
    let _ = capture(&mut session, &output("x", 23), 23);
    (16..24).for_each(|seq| {
        let _ = capture(&mut session, &output("x", seq), seq);
    });
    assert_eq!((session.accepted_records(), session.gone_records()), (24, 3));
}
