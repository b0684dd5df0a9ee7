//! Both ends of a tap against each other and against a lossy middle, without the kernel's filter: unarmed
//! sockets of a test process pass everything.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use proptest::prelude::*;
use tokio::time::timeout;
use weir_common::{
    frame::{Header, MAX_BODY, Message},
    session::CapturePolicy,
};

use super::{End, TapError, open_pair, pair_of, queue};
use crate::{gate::Gate, limits};

const STALL: Duration = Duration::from_secs(30);

fn chunk(number: usize) -> Bytes {
    Bytes::from(number.to_le_bytes().repeat(number % 40 + 1))
}

/// Sends these numbers from one end while the middle tosses as told, and gives what the other end took.
async fn taken_through_a_lossy_middle(
    total: usize,
    mut toss: impl FnMut() -> bool + Send + 'static,
) -> Vec<Bytes> {
    // Two pairs with the test in between: what it does not pass on was tossed.
    let (sending, middle_in) = open_pair(&Arc::default()).expect("a pair");
    let (middle_out, receiving) = open_pair(&Arc::default()).expect("a pair");
    let gate = Gate::new();
    let (messages, reader) = queue(&gate);
    for number in 0..total {
        messages.push(Message::Stdin(chunk(number)), 8).expect("few");
    }
    let End { sender, socket: _, receiver: _ } = sending;
    let progress = sender.progress.clone();
    let sending = tokio::spawn(sender.run(reader, STALL));
    let middle = tokio::spawn(async move {
        let mut buffer = vec![0; MAX_BODY + 1024];
        loop {
            let len = middle_in.socket.recv(&mut buffer).await.expect("the pair is whole").bytes_read();
            if len == 0 {
                return;
            }
            if !toss() {
                middle_out.socket.send(&buffer[..len]).await.expect("the pair is whole");
            }
        }
    });
    let mut receiver = receiving.receiver;
    let mut taken = Vec::new();
    while taken.len() < total {
        match receiver.next().await.expect("good frames") {
            Some(Message::Stdin(data)) => taken.push(data),
            other => panic!("{other:?}"),
        }
        // In a real tap both directions share the number; here the test carries it over.
        progress.advance(taken.len() as u64);
    }
    drop(messages);
    sending.await.expect("no panic").expect("all was taken");
    middle.abort();
    assert_eq!(gate.held(), 0, "what was taken is held no longer");
    taken
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn whatever_is_tossed_on_the_way_everything_is_taken_once_and_in_order(
        seed in prop::collection::vec(prop::bool::weighted(0.3), 1..50), total in 1_usize..60,
    ) {
        // The pattern ends, and with it the tossing: a middle that tosses forever is a stall.
        let mut fates = seed.into_iter();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let taken = runtime
            .expect("a runtime")
            .block_on(taken_through_a_lossy_middle(total, move || fates.next().unwrap_or(false)));
        prop_assert_eq!(taken, (0..total).map(chunk).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_receiver_that_is_merely_slow_is_sent_nothing_twice() {
    let (client, target) = open_pair(&Arc::default()).expect("a pair");
    let gate = Gate::new();
    let (messages, reader) = queue(&gate);
    for number in 0..4 {
        messages.push(Message::Stdin(chunk(number)), 8).expect("few");
    }
    drop(messages);
    let sending = tokio::spawn(client.sender.run(reader, STALL));
    // Many resend pauses long nobody takes anything, but the frames lie in the socket's queue.
    tokio::time::sleep(limits::RESEND_PAUSE.0 * 50).await;
    let mut buffer = vec![0; 1024];
    let mut seen = Vec::new();
    for number in 1..=4 {
        // Counted as taken just before it leaves the queue, so that no moment looks like a toss.
        target.receiver.progress.advance(number);
        let len = target.socket.recv(&mut buffer).await.expect("a frame").bytes_read();
        let (header, _) = Header::split(&buffer[..len]).expect("a frame");
        seen.push(header.seq);
    }
    sending.await.expect("no panic").expect("all was taken");
    let more = timeout(Duration::from_millis(50), target.socket.recv(&mut buffer)).await;
    assert!(more.is_err(), "something was sent twice");
    assert_eq!(seen, [0, 1, 2, 3]);
}

#[tokio::test]
async fn frames_that_are_tossed_for_too_long_are_a_stall() {
    let (client, target) = open_pair(&Arc::default()).expect("a pair");
    let (messages, reader) = queue(&Gate::new());
    messages.push(Message::Eof, 0).expect("one");
    let sending = tokio::spawn(client.sender.run(reader, Duration::from_millis(100)));
    let tossing = async {
        let mut buffer = [0; 64];
        loop {
            target.socket.recv(&mut buffer).await.expect("the pair is whole");
        }
    };
    let ended = tokio::select! {
        ended = sending => ended.expect("no panic"),
        () = tossing => unreachable!("it never ends"),
    };
    assert!(matches!(ended, Err(TapError::Stalled { .. })), "{ended:?}");
}

#[tokio::test]
async fn a_malformed_frame_ends_the_stream_with_its_cause() {
    let (client, mut target) = open_pair(&Arc::default()).expect("a pair");
    client.socket.send(b"not a frame at all").await.expect("sent");
    let error = target.receiver.next().await.expect_err("malformed");
    assert!(error.to_string().contains("frame version"), "{error}");
}

#[tokio::test]
async fn the_receiver_takes_what_was_sent_before_the_other_end_closed() {
    let (client, mut target) = open_pair(&Arc::default()).expect("a pair");
    let (messages, reader) = queue(&Gate::new());
    messages.push(Message::Shell, 0).expect("one");
    messages.push(Message::Close, 0).expect("one");
    drop(messages);
    let sending = tokio::spawn(client.sender.run(reader, STALL));
    assert_eq!(target.receiver.next().await.expect("a frame"), Some(Message::Shell));
    assert_eq!(target.receiver.next().await.expect("a frame"), Some(Message::Close));
    sending.await.expect("no panic").expect("all was taken");
    drop((client.socket, client.receiver));
    assert_eq!(target.receiver.next().await.expect("the end"), None);
}

#[tokio::test]
async fn sending_to_a_closed_end_says_so() {
    let (client, target) = open_pair(&Arc::default()).expect("a pair");
    drop(target);
    let (messages, reader) = queue(&Gate::new());
    messages.push(Message::Eof, 0).expect("one");
    let ended = client.sender.run(reader, STALL).await;
    assert!(matches!(ended, Err(TapError::Closed)), "{ended:?}");
}

#[tokio::test]
async fn nothing_passes_a_tap_that_is_not_armed() {
    let (client, mut target) = pair_of(&Arc::default(), CapturePolicy::FailClosed).expect("a pair");
    let (messages, reader) = queue(&Gate::new());
    messages.push(Message::Eof, 0).expect("room");
    let End { sender, socket, receiver } = client;
    let stalled = sender.run(reader, Duration::from_millis(50)).await;
    assert!(matches!(stalled, Err(TapError::Stalled { .. })), "{stalled:?}");
    drop((socket, receiver));
    assert!(target.receiver.next().await.expect("no failure").is_none(), "the end, and nothing before it");
}

#[tokio::test]
async fn under_best_effort_nothing_is_sent_twice_and_a_stall_is_still_seen() {
    for (policy, least, most) in [(CapturePolicy::BestEffort, 1, 1), (CapturePolicy::FailClosed, 2, 1000)] {
        let (mut client, target) = open_pair(&Arc::default()).expect("a pair");
        client.sender.resends = policy == CapturePolicy::FailClosed;
        let (messages, reader) = queue(&Gate::new());
        messages.push(Message::Eof, 0).expect("room");
        let receiving = tokio::spawn(async move {
            let (mut received, mut buffer) = (0, vec![0; 1024]);
            // Received and not taken: what a sender can't tell from tossed.
            while target.socket.recv(&mut buffer).await.is_ok_and(|info| info.bytes_read() > 0) {
                received += 1;
            }
            received
        });
        let End { sender, socket, receiver } = client;
        let stalled = sender.run(reader, Duration::from_millis(200)).await;
        assert!(matches!(stalled, Err(TapError::Stalled { .. })), "{stalled:?}");
        drop((socket, receiver));
        let received = receiving.await.expect("no panic");
        assert!((least..=most).contains(&received), "{policy:?}: {received}");
    }
}
