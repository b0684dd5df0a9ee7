//! One round: a sender and a receiver over a fresh pair, and a drain if the receiver is armed.

use std::{
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, recv, send, shutdown, socketpair},
    time::{ClockId, clock_gettime},
};
use weir_agent::tap::{Ring, TapState, Taps};
use weir_common::abi::{FRAME_HEADER_LEN, RecordHeader};

/// What to capture with.
pub(crate) struct Capture<'a> {
    pub(crate) taps: &'a mut Taps,
    pub(crate) ring: &'a mut Ring,
}

/// What a round took.
pub(crate) struct Measured {
    /// Of all threads, in user space and in the kernel.
    pub(crate) cpu: Duration,
    pub(crate) wall: Duration,
    /// Ring bytes that the messages took.
    pub(crate) ring_bytes: u64,
    /// How often the sender waited for the drain, lest a message be tossed.
    pub(crate) waits: u64,
}

/// What the drain and the sender know of each other.
struct Progress {
    /// Messages drained.
    drained: AtomicU64,
    /// Whether everything is sent.
    sent: AtomicBool,
    /// The most messages that may be in the ring, so that none is tossed.
    backlog: u64,
}

/// How long records may gather before the next walk. While they do, the kernel wakes nobody.
const COALESCE: Duration = Duration::from_micros(500);
/// How often the drain looks whether the round is over when nothing comes.
const IDLE_POLL_MS: u16 = 20;

pub(crate) fn measure(body: usize, messages: u64, capture: Option<Capture<'_>>) -> Result<Measured> {
    let (from, to) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    let len = FRAME_HEADER_LEN + body;
    let (armed, ring) = match capture {
        None => (None, None),
        Some(Capture { taps, ring }) => {
            let cookie = taps.arm(to.as_fd(), TapState::Armed).context("arming")?;
            (Some((taps, cookie)), Some(ring))
        }
    };
    let start_position = ring.as_ref().map_or(0, |ring| ring.consumer_position());
    // A record takes at most twice the message and its headers; half the ring is plenty.
    let backlog = ring.as_ref().map_or(u64::MAX, |ring| ring.capacity() / (4 * (len as u64 + 64)));
    let progress = &Progress { drained: AtomicU64::new(0), sent: AtomicBool::new(false), backlog };

    let (started, cpu_before) = (Instant::now(), cpu_time()?);
    let (received, waits, drained) = thread::scope(|scope| {
        let sender = scope.spawn(move || {
            let result = send_all(&from, len, messages, progress);
            progress.sent.store(true, Ordering::Release);
            result
        });
        let receiver = scope.spawn(move || receive_all(&to, len));
        let drain = ring.map(|ring| scope.spawn(move || drain_all(ring, progress)));
        let received = receiver.join().expect("the receiver does not panic");
        let waits = sender.join().expect("the sender does not panic")?;
        let drained = drain.map(|drain| drain.join().expect("the drain does not panic")).transpose()?;
        anyhow::Ok((received?, waits, drained))
    })?;
    let (wall, cpu) = (started.elapsed(), cpu_time()?.saturating_sub(cpu_before));

    let mut end_position = start_position;
    if let Some((taps, cookie)) = armed {
        let counts = taps.counts(cookie)?.context("the tap has counts")?;
        let (records, end) = drained.context("the drain ran")?;
        ensure!(
            counts.tossed_full == 0,
            "{} messages were tossed: the drain fell behind",
            counts.tossed_full
        );
        ensure!(counts.captured.records == messages && records == messages, "the drain missed messages");
        taps.remove(cookie)?;
        end_position = end;
    }
    ensure!(received == messages, "{received} of {messages} messages arrived");
    Ok(Measured { cpu, wall, ring_bytes: end_position - start_position, waits })
}

fn send_all(socket: &OwnedFd, len: usize, messages: u64, progress: &Progress) -> Result<u64> {
    let mut message = vec![b'x'; len];
    let mut waits = 0;
    for number in 0..messages {
        while number.saturating_sub(progress.drained.load(Ordering::Relaxed)) >= progress.backlog {
            waits += 1;
            rest();
        }
        message[8..FRAME_HEADER_LEN].copy_from_slice(&number.to_le_bytes());
        send(socket.as_raw_fd(), &message, MsgFlags::MSG_NOSIGNAL)?;
    }
    // The receiver sees the end when it has taken what is queued.
    shutdown(socket.as_raw_fd(), Shutdown::Write)?;
    Ok(waits)
}

fn receive_all(socket: &OwnedFd, len: usize) -> Result<u64> {
    let mut message = vec![0; len];
    let mut received = 0;
    while recv(socket.as_raw_fd(), &mut message, MsgFlags::empty())? > 0 {
        received += 1;
    }
    Ok(received)
}

/// Drains as the agent does until the sender is done, and returns the records and the last position.
fn drain_all(ring: &mut Ring, progress: &Progress) -> Result<(u64, u64)> {
    let mut batch = Vec::new();
    let mut drained = 0;
    loop {
        let done = progress.sent.load(Ordering::Acquire);
        let mut records = ring.records();
        let before = drained;
        for record in records.by_ref() {
            let (_, message) = RecordHeader::split(record.bytes).context("a record of another ABI")?;
            batch.extend_from_slice(message);
            if batch.len() > 1 << 20 {
                std::hint::black_box(&batch);
                batch.clear();
            }
            drained += 1;
        }
        let position = records.position();
        ring.release(position);
        std::hint::black_box(&batch);
        batch.clear();
        progress.drained.store(drained, Ordering::Relaxed);
        if drained > before {
            rest();
        } else if done {
            return Ok((drained, position));
        } else {
            poll(&mut [PollFd::new(ring.as_fd(), PollFlags::POLLIN)], PollTimeout::from(IDLE_POLL_MS))?;
        }
    }
}

/// Lets records gather.
fn rest() {
    #[expect(
        clippy::disallowed_methods,
        reason = "it is the agent's drain that is measured, which does this"
    )]
    thread::sleep(COALESCE);
}

fn cpu_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into())
}
