//! States in which messages pass unrecorded or are held back, and the records of gaps.

use std::os::fd::{AsFd, OwnedFd};

use proptest::prelude::*;
use weir_agent::tap::{MIN_RING_BYTES, Ring, TapError, TapOptions, TapState, Taps};
use weir_common::{
    abi::{GapRecord, MAX_MESSAGE, RECORD_GAP, RECORD_MESSAGE, RecordHeader, TapGap},
    recording::Count,
    session::SocketCookie,
};

use crate::support::{Bpffs, armed_pair, counts, message, open, pair, put, take};

/// What a record is.
#[derive(Debug, PartialEq)]
enum Told {
    Message(Vec<u8>),
    Gap(Count),
}

fn tapped(taps: &mut Taps, state: TapState) -> (OwnedFd, OwnedFd, SocketCookie) {
    let (from, to) = pair();
    let cookie = taps.arm(to.as_fd(), state).expect("arming");
    (from, to, cookie)
}

fn told(ring: &mut Ring) -> Vec<Told> {
    let mut records = ring.records();
    let mut last_ns = 0;
    let all = records
        .by_ref()
        .map(|record| {
            let (header, message) = RecordHeader::split(record.bytes).expect("as the program writes it");
            assert!(header.boot_ns > last_ns, "kernel time goes on");
            last_ns = header.boot_ns;
            match header.kind {
                RECORD_MESSAGE => Told::Message(message.to_owned()),
                RECORD_GAP => {
                    let gap = GapRecord::from_bytes(message).expect("a gap record");
                    assert!(gap.since_ns > 0 && gap.since_ns < header.boot_ns);
                    assert_eq!((gap.cause, gap.reserved), (0, 0));
                    Told::Gap(Count { records: gap.records, bytes: gap.bytes })
                }
                kind => panic!("a record of kind {kind}"),
            }
        })
        .collect();
    let position = records.position();
    ring.release(position);
    all
}

fn gap(taps: &Taps, cookie: SocketCookie) -> TapGap {
    taps.gap(cookie).expect("reading").expect("the tap has a gap entry")
}

#[test]
fn a_best_effort_tap_goes_on_when_the_ring_is_full_and_tells_the_gap_before_the_next_message() {
    let bpffs = Bpffs::mount();
    let (mut taps, mut ring) = bpffs.open();
    let (from, to, cookie) = tapped(&mut taps, TapState::BestEffort);
    let (closed_from, closed_to, closed) = armed_pair(&mut taps);
    for number in 0..200 {
        let sent = message(number, 1000);
        put(&from, &sent);
        assert_eq!(take(&to), Some(sent), "message {number} is delivered, recorded or not");
    }
    let captured = counts(&taps, cookie);
    let passed = Count { records: 200 - captured.captured.records, bytes: 200_000 - captured.captured.bytes };
    assert_eq!((captured.passed, captured.tossed_full), (passed, 0));
    put(&closed_from, &message(0, 1000));
    assert_eq!(take(&closed_to), None, "the tap beside it fails closed");
    assert_eq!(counts(&taps, closed).tossed_full, 1);

    let first: Vec<_> = told(&mut ring);
    let expected: Vec<_> =
        (0..captured.captured.records).map(|number| Told::Message(message(number, 1000))).collect();
    assert!(first == expected, "up to the gap everything is recorded, and nothing behind it");
    assert_eq!(gap(&taps, cookie).open_records, passed.records);
    put(&from, b"room again");
    assert_eq!(told(&mut ring), [Told::Gap(passed), Told::Message(b"room again".to_vec())]);
    let after = gap(&taps, cookie);
    assert_eq!((after.open_records, after.open_bytes, after.passed_records), (0, 0, passed.records));
    put(&from, b"no gap before this one");
    assert_eq!(told(&mut ring), [Told::Message(b"no gap before this one".to_vec())]);
}

#[test]
fn a_message_joins_the_gap_where_there_is_room_for_one_record_only() {
    let bpffs = Bpffs::mount();
    let (mut taps, mut ring) = bpffs.open();
    let (from, to, cookie) = tapped(&mut taps, TapState::BestEffort);
    let largest = message(1, MAX_MESSAGE);
    put(&from, &largest);
    let taken = ring.producer_position();
    put(&from, &largest);
    assert_eq!(counts(&taps, cookie).passed.records, 1, "a ring of 64 KiB has room for one");
    for number in 0..50 {
        put(&from, &largest);
        take(&to);
        assert_eq!(gap(&taps, cookie).open_records, 2 + number);
    }
    assert_eq!(ring.producer_position(), taken, "what finds no room wastes none");
    put(&from, b"little");
    let passed = Count { records: 51, bytes: 51 * MAX_MESSAGE as u64 };
    assert_eq!(
        told(&mut ring),
        [Told::Message(largest), Told::Gap(passed), Told::Message(b"little".to_vec())]
    );
}

#[test]
fn a_paused_tap_tosses_until_it_is_armed_again_and_a_skipping_one_passes_and_counts() {
    let bpffs = Bpffs::mount();
    let (mut taps, mut ring) = bpffs.open();
    let (from, to, cookie) = armed_pair(&mut taps);
    taps.set_state(cookie, TapState::Paused).expect("pausing");
    put(&from, b"held back");
    assert_eq!((take(&to), counts(&taps, cookie).tossed_full), (None, 1));
    taps.set_state(cookie, TapState::Armed).expect("arming again");
    put(&from, b"sent again");
    assert!(take(&to).is_some());
    assert_eq!(told(&mut ring), [Told::Message(b"sent again".to_vec())]);

    let (from, to, cookie) = tapped(&mut taps, TapState::Skipping);
    put(&from, b"passes");
    assert!(take(&to).is_some());
    assert_eq!(told(&mut ring), []);
    taps.set_state(cookie, TapState::BestEffort).expect("recording");
    put(&from, b"recorded");
    let passed = Count { records: 1, bytes: 6 };
    assert_eq!(told(&mut ring), [Told::Gap(passed), Told::Message(b"recorded".to_vec())]);
    assert_eq!(counts(&taps, cookie).passed, passed);
}

#[test]
fn a_frozen_tap_passes_nothing_and_nothing_but_a_freeze_freezes_it() {
    let bpffs = Bpffs::mount();
    let (mut taps, mut ring) = bpffs.open();
    for state in [TapState::BestEffort, TapState::Skipping, TapState::Paused] {
        let (from, to, cookie) = tapped(&mut taps, state);
        taps.freeze(cookie).expect("freezing");
        taps.set_state(cookie, state).expect("it stays frozen");
        put(&from, b"too late");
        assert_eq!((take(&to), counts(&taps, cookie).tossed_frozen), (None, 1));
        taps.remove(cookie).expect("removing");
        assert_eq!(taps.gap(cookie).expect("reading"), None);
        assert!(matches!(taps.set_state(cookie, state), Err(TapError::UnknownTap { .. })));
    }
    assert_eq!(told(&mut ring), []);
}

#[test]
fn empty_and_too_long_messages_pass_a_best_effort_tap_neither() {
    let bpffs = Bpffs::mount();
    let (mut taps, mut ring) = bpffs.open();
    for state in [TapState::BestEffort, TapState::Skipping, TapState::Paused] {
        let (from, to, cookie) = tapped(&mut taps, state);
        for len in [0, MAX_MESSAGE + 1] {
            put(&from, &message(0, len));
        }
        assert_eq!(take(&to), None);
        let counts = counts(&taps, cookie);
        assert_eq!((counts.tossed_size, counts.tossed_full, counts.passed.records), (2, 0, 0));
    }
    assert_eq!(told(&mut ring), []);
}

#[test]
fn a_tap_that_was_armed_to_fail_closed_lets_nothing_pass_unrecorded_in_any_state() {
    let bpffs = Bpffs::mount();
    let (mut taps, mut ring) = bpffs.open();
    let (from, to, cookie) = armed_pair(&mut taps);
    taps.set_state(cookie, TapState::Skipping).expect("a state");
    put(&from, b"there is nothing to count it with");
    assert_eq!((take(&to), told(&mut ring)), (None, vec![]));
}

#[test]
fn an_open_gap_outlives_the_agent() {
    let bpffs = Bpffs::mount();
    let (mut taps, ring) = bpffs.open();
    let (from, to, cookie) = tapped(&mut taps, TapState::Skipping);
    put(&from, b"one");
    drop((taps, ring));
    put(&from, b"two");
    assert!(take(&to).is_some());
    let (mut taps, mut ring) = bpffs.open();
    assert_eq!((gap(&taps, cookie).open_records, gap(&taps, cookie).open_bytes), (2, 6));
    taps.set_state(cookie, TapState::BestEffort).expect("recording");
    put(&from, b"three");
    assert_eq!(told(&mut ring)[0], Told::Gap(Count { records: 2, bytes: 6 }));
}

#[derive(Clone, Debug)]
enum Step {
    Send(usize),
    Drain,
    State(TapState),
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn however_captures_gaps_and_states_interleave_each_message_is_accounted_for_in_its_place(
        steps in prop::collection::vec(
            prop_oneof![
                8 => prop_oneof![8_usize..200, 8_usize..5000, 8..=MAX_MESSAGE].prop_map(Step::Send),
                1 => Just(Step::Drain),
                1 => prop::sample::select(vec![TapState::BestEffort, TapState::Skipping]).prop_map(Step::State),
            ],
            20..300,
        ),
    ) {
        let bpffs = Bpffs::mount();
        let options = TapOptions { ring_bytes: MIN_RING_BYTES, ..bpffs.options() };
        let (mut taps, mut ring) = open(&options)?;
        let (from, to, cookie) = tapped(&mut taps, TapState::BestEffort);
        let (mut sent, mut records) = (Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::Send(len) => {
                    let message = message(sent.len() as u64, len);
                    put(&from, &message);
                    prop_assert_eq!(take(&to), Some(message.clone()), "it is delivered");
                    sent.push(message);
                }
                Step::Drain => records.extend(told(&mut ring)),
                Step::State(state) => taps.set_state(cookie, state)?,
            }
        }
        records.extend(told(&mut ring));
        let open = gap(&taps, cookie);
        records.push(Told::Gap(Count { records: open.open_records, bytes: open.open_bytes }));
        let (mut next, mut passed) = (sent.iter(), Count::default());
        for record in records {
            match record {
                Told::Message(message) => prop_assert!(next.next() == Some(&message), "in its place"),
                Told::Gap(count) => {
                    let bytes: usize = next.by_ref().take(usize::try_from(count.records)?).map(Vec::len).sum();
                    prop_assert_eq!(bytes as u64, count.bytes);
                    passed = passed + count;
                }
            }
        }
        prop_assert!(next.next().is_none(), "everything is told");
        prop_assert_eq!(counts(&taps, cookie).passed, passed);
        prop_assert_eq!(Count { records: open.passed_records, bytes: open.passed_bytes }, passed);
    }
}
