//! What is delivered is in the ring, and nothing else is delivered.

use std::{
    os::fd::AsFd,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use proptest::prelude::*;
use weir_agent::tap::TapOptions;
use weir_common::{
    abi::{FRAME_HEADER_LEN, MAX_MESSAGE},
    recording::Count,
};

use crate::support::{Bpffs, armed_pair, counts, drain, message, open, put, split, take};

#[test]
fn a_message_of_every_size_is_captured_as_it_is_delivered_and_little_room_is_wasted() {
    let bpffs = Bpffs::mount();
    let (mut taps, mut ring) = bpffs.open();
    let (from, to, cookie) = armed_pair(&mut taps);
    let mut bytes = 0;
    let mut boot_ns = 0;
    for len in 1..=MAX_MESSAGE {
        let sent = message(len as u64, len);
        put(&from, &sent);
        assert_eq!(take(&to), Some(sent.clone()), "{len} bytes are delivered");

        let start = ring.consumer_position();
        let record = ring.records().next().expect("one record");
        let (header, captured) = split(&record);
        assert!(captured == sent, "{len} bytes are captured");
        assert_eq!((header.cookie, header.len as usize), (cookie.0, len));
        assert!(header.boot_ns > boot_ns, "kernel time goes on");
        boot_ns = header.boot_ns;

        let body = len.saturating_sub(FRAME_HEADER_LEN) as u64;
        let percent = 100 * body / (record.end - start);
        let least = match body {
            0..64 => 0,
            64..512 => 40,
            512..32_768 => 60,
            _ => 90,
        };
        assert!(percent >= least, "{body} bytes of body use {percent} % of their room in the ring");

        ring.release(record.end);
        bytes += len as u64;
    }
    assert_eq!(counts(&taps, cookie).captured, Count { records: MAX_MESSAGE as u64, bytes });
    assert_eq!(ring.consumer_position(), ring.producer_position());
}

#[test]
fn empty_and_too_long_messages_are_tossed_and_counted() {
    let bpffs = Bpffs::mount();
    let (mut taps, mut ring) = bpffs.open();
    let (from, to, cookie) = armed_pair(&mut taps);
    for len in [0, MAX_MESSAGE + 1, 100_000] {
        put(&from, &message(0, len));
    }
    assert_eq!(take(&to), None);
    assert_eq!(drain(&mut ring), []);
    assert_eq!(counts(&taps, cookie).tossed_size, 3);
    put(&from, b"fine");
    assert_eq!(take(&to).as_deref(), Some(&b"fine"[..]));
}

#[test]
fn with_a_full_ring_exactly_the_captured_messages_are_delivered() {
    let bpffs = Bpffs::mount();
    let (mut taps, mut ring) = bpffs.open();
    let (from, to, cookie) = armed_pair(&mut taps);
    let lens = [1, 40, 200, 1000, 3000, 9000, MAX_MESSAGE];
    let mut sent = 0;
    for round in 0..20 {
        let mut delivered = Vec::new();
        for turn in 0..100 {
            put(&from, &message(sent, lens[(round + turn) % lens.len()].max(8)));
            sent += 1;
            delivered.extend(take(&to));
        }
        let counts = counts(&taps, cookie);
        assert_eq!(counts.captured.records + counts.tossed_full, sent);
        assert!(delivered.len() < 100, "the ring was full");
        let captured: Vec<_> = drain(&mut ring).into_iter().map(|(_, message)| message).collect();
        assert!(captured == delivered, "round {round}: captured is not what was delivered");
        assert!(!captured.is_empty(), "released room takes messages again");
    }
}

#[test]
fn records_can_be_read_again_until_they_are_released() {
    let bpffs = Bpffs::mount();
    let (mut taps, mut ring) = bpffs.open();
    let (from, _to, _) = armed_pair(&mut taps);
    for text in [&b"one"[..], b"two", b"three"] {
        put(&from, text);
    }
    let read = |ring: &weir_agent::tap::Ring| -> Vec<Vec<u8>> {
        ring.records().map(|record| split(&record).1.to_owned()).collect()
    };
    assert_eq!(read(&ring), [&b"one"[..], b"two", b"three"]);
    let first = ring.records().next().expect("a record").end;
    ring.release(first);
    assert_eq!(read(&ring), [&b"two"[..], b"three"]);
    let mut records = ring.records();
    let last = records.by_ref().last().expect("a record").end;
    assert_eq!(records.position(), last);
    assert_eq!(ring.producer_position(), last);
}

#[test]
#[should_panic(expected = "is outside")]
fn releasing_what_was_never_produced_panics() {
    let bpffs = Bpffs::mount();
    let (_taps, mut ring) = bpffs.open();
    ring.release(8);
}

#[test]
fn the_ring_is_readable_exactly_while_something_is_not_released() {
    let bpffs = Bpffs::mount();
    let (mut taps, mut ring) = bpffs.open();
    let (from, _to, _) = armed_pair(&mut taps);
    let readable = |ring: &weir_agent::tap::Ring| {
        let mut fds = [PollFd::new(ring.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).expect("polling") == 1
    };
    assert!(!readable(&ring));
    put(&from, b"x");
    assert!(readable(&ring));
    drain(&mut ring);
    assert!(!readable(&ring));
}

#[test]
fn a_poller_that_released_everything_is_woken_by_the_next_message() {
    const MESSAGES: usize = 20_000;
    let bpffs = Bpffs::mount();
    let (mut taps, mut ring) = bpffs.open();
    let (from, to, _) = armed_pair(&mut taps);
    let drained = &AtomicUsize::new(0);
    thread::scope(|scope| {
        // One message at a time, and the next only when this one has left the ring: every one needs its wake-up.
        scope.spawn(move || {
            for number in 0..MESSAGES {
                put(&from, &message(number as u64, 64));
                take(&to).expect("the ring has room");
                while drained.load(Ordering::Acquire) <= number {
                    thread::yield_now();
                }
            }
        });
        while drained.load(Ordering::Relaxed) < MESSAGES {
            let mut fds = [PollFd::new(ring.as_fd(), PollFlags::POLLIN)];
            assert_eq!(poll(&mut fds, PollTimeout::from(60_000_u16)), Ok(1), "a wake-up was lost");
            drained.fetch_add(drain(&mut ring).len(), Ordering::Release);
        }
    });
}

#[test]
fn two_busy_taps_lose_and_mix_nothing() {
    const MESSAGES: u64 = 50_000;
    let bpffs = Bpffs::mount();
    let (mut taps, mut ring) = bpffs.open();
    let pairs = [armed_pair(&mut taps), armed_pair(&mut taps)];
    let running = AtomicUsize::new(pairs.len());
    let mut next = [0_u64; 2];
    thread::scope(|scope| {
        for (tap, (from, to, _)) in pairs.iter().enumerate() {
            let running = &running;
            scope.spawn(move || {
                for number in 0..MESSAGES {
                    let len = 8 + (number * 7919 + tap as u64 * 31) % 4000;
                    let sent = message(number * 2 + tap as u64, usize::try_from(len).expect("small"));
                    // Tossed while the ring is full: send again, as the proxy does.
                    let received = loop {
                        put(from, &sent);
                        if let Some(received) = take(to) {
                            break received;
                        }
                        thread::yield_now();
                    };
                    assert!(received == sent, "message {number} of tap {tap} arrives as it was sent");
                }
                running.fetch_sub(1, Ordering::Release);
            });
        }
        loop {
            let done = running.load(Ordering::Acquire) == 0;
            for (cookie, captured) in drain(&mut ring) {
                let tap = pairs.iter().position(|pair| pair.2 == cookie).expect("one of the two");
                let expected = message(next[tap] * 2 + tap as u64, captured.len());
                assert!(captured == expected, "record {} of tap {tap} is the next message", next[tap]);
                next[tap] += 1;
            }
            if done {
                break;
            }
        }
    });
    assert_eq!(next, [MESSAGES; 2]);
    for (_, _, cookie) in pairs {
        assert_eq!(counts(&taps, cookie).captured.records, MESSAGES);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn around_the_ring_many_times_every_record_is_whole(
        lens in prop::collection::vec(prop_oneof![1_usize..200, 1_usize..5000, 1..=MAX_MESSAGE], 50..300),
        unread in 0_usize..3,
    ) {
        let bpffs = Bpffs::mount();
        let (mut taps, mut ring) = open(&TapOptions { ring_bytes: 256 * 1024, ..bpffs.options() })?;
        let (from, to, _) = armed_pair(&mut taps);
        let mut captured = 0;
        for (number, &len) in lens.iter().enumerate() {
            put(&from, &message(number as u64, len));
            prop_assert!(take(&to).is_some());
            // Stay a few records behind, so that walks start and end anywhere.
            while number - captured >= unread {
                let record = ring.records().next().expect("a record");
                prop_assert!(split(&record).1 == message(captured as u64, lens[captured]));
                ring.release(record.end);
                captured += 1;
                if captured > number {
                    break;
                }
            }
        }
        let rest: Vec<_> = drain(&mut ring).into_iter().map(|(_, message)| message).collect();
        let expected: Vec<_> = (captured..lens.len()).map(|i| message(i as u64, lens[i])).collect();
        prop_assert!(rest == expected);
    }
}
