//! The sending side of a tap: a window of frames, each kept until it was taken, sent again when it was tossed.
//!
//! A toss looks like success to the sender. It shows up as a frame that is neither taken nor still in the
//! socket's queue, and `SIOCOUTQ` tells the two apart: with the queue empty and frames not taken, they are
//! gone. A slow receiver, with frames waiting in the queue, is never sent anything twice. One that has read a frame and not
//! yet said so may be; it takes the frame once.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    time::{Instant, sleep_until},
};
use tokio_seqpacket::UnixSeqpacket;
use weir_common::frame::{HEADER_LEN, Header, MAX_BODY, Message, WINDOW};

use super::{Progress, TapError};
use crate::{
    gate::{Gate, Overflow},
    ioctl, limits,
    metrics::{Stalled, metrics},
};

/// What a leg wants to say over a tap, in order; bounded by the gate of the connection it came from.
#[derive(Debug, Clone)]
pub struct Queue {
    messages: mpsc::Sender<(Message, usize)>,
    gate: Arc<Gate>,
}

/// More is held than any session may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {} MiB wait to be passed on", limits::HELD_BYTES_MAX >> 20)]
pub struct QueueFull;

/// The receiving end of a [`Queue`], for [`Sender::run`].
#[derive(Debug)]
pub struct QueueReader {
    messages: mpsc::Receiver<(Message, usize)>,
    gate: Arc<Gate>,
}

/// Makes a queue whose bytes count as held by this connection.
#[must_use]
pub fn queue(gate: &Arc<Gate>) -> (Queue, QueueReader) {
    let (sender, receiver) = mpsc::channel(limits::QUEUE_MESSAGES);
    (Queue { messages: sender, gate: gate.clone() }, QueueReader { messages: receiver, gate: gate.clone() })
}

impl Queue {
    /// Puts a message in; never waits. A message to a tap that has closed is dropped.
    ///
    /// # Errors
    /// [`QueueFull`] when the connection holds too much.
    pub fn push(&self, message: Message, body_bytes: usize) -> Result<(), QueueFull> {
        let cost = body_bytes + limits::MESSAGE_OVERHEAD;
        let held = self.gate.hold(cost);
        match self.messages.try_send((message, cost)) {
            Ok(()) => held.map_err(|Overflow| QueueFull),
            Err(TrySendError::Full(_)) => {
                self.gate.release(cost);
                Err(QueueFull)
            }
            Err(TrySendError::Closed(_)) => {
                self.gate.release(cost);
                Ok(())
            }
        }
    }

    /// Puts data in, a message for every [`MAX_BODY`] bytes.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn push_data(&self, data: &[u8], message: fn(Bytes) -> Message) -> Result<(), QueueFull> {
        data.chunks(MAX_BODY)
            .try_for_each(|chunk| self.push(message(Bytes::copy_from_slice(chunk)), chunk.len()))
    }
}

impl Drop for QueueReader {
    fn drop(&mut self) {
        self.messages.close();
        while let Ok((_, cost)) = self.messages.try_recv() {
            self.gate.release(cost);
        }
    }
}

struct InFlight {
    header: [u8; HEADER_LEN],
    body: Bytes,
    cost: usize,
    sent_at: Instant,
}

/// The sending side of one direction of a tap.
#[derive(Debug)]
pub struct Sender {
    socket: Arc<UnixSeqpacket>,
    pub(super) progress: Arc<Progress>,
    /// Whether what was tossed is sent again.
    pub(super) resends: bool,
}

impl Sender {
    pub(super) fn new(socket: Arc<UnixSeqpacket>, progress: Arc<Progress>) -> Self {
        Self { socket, progress, resends: true }
    }

    /// Sends what comes out of the queue until the queue is closed and everything was taken.
    ///
    /// # Errors
    /// [`TapError::Stalled`] when frames are tossed for longer than `stall_timeout`; [`TapError::Closed`] when
    /// the other end is gone.
    pub async fn run(self, mut queue: QueueReader, stall_timeout: Duration) -> Result<(), TapError> {
        let mut window = Window {
            socket: self.socket,
            progress: self.progress,
            gate: queue.gate.clone(),
            in_flight: VecDeque::with_capacity(WINDOW),
            next_seq: 0,
            pause: limits::RESEND_PAUSE.0,
            tossed_since: None,
            resends: self.resends,
        };
        let check = sleep_until(Instant::now());
        tokio::pin!(check);
        let mut open = true;
        loop {
            window.forget_taken();
            if !open && window.in_flight.is_empty() {
                return Ok(());
            }
            let progress = window.progress.clone();
            tokio::select! {
                biased;
                next = queue.messages.recv(), if open && window.in_flight.len() < WINDOW => match next {
                    None => open = false,
                    Some((message, cost)) => {
                        if window.in_flight.is_empty() {
                            check.as_mut().reset(Instant::now() + window.pause);
                        }
                        window.send(message, cost).await?;
                    }
                },
                () = progress.changed.notified(), if !window.in_flight.is_empty() => {}
                () = &mut check, if !window.in_flight.is_empty() => {
                    window.resend_tossed(stall_timeout).await?;
                    check.as_mut().reset(Instant::now() + window.pause);
                }
            }
        }
    }
}

struct Window {
    socket: Arc<UnixSeqpacket>,
    progress: Arc<Progress>,
    gate: Arc<Gate>,
    in_flight: VecDeque<InFlight>,
    next_seq: u64,
    pause: Duration,
    tossed_since: Option<(Instant, Stalled)>,
    resends: bool,
}

impl Drop for Window {
    fn drop(&mut self) {
        self.gate.release(self.in_flight.iter().map(|frame| frame.cost).sum());
    }
}

impl Window {
    fn forget_taken(&mut self) {
        let first = self.next_seq - self.in_flight.len() as u64;
        for _ in first..self.progress.taken() {
            let Some(frame) = self.in_flight.pop_front() else { break };
            self.gate.release(frame.cost);
            self.pause = limits::RESEND_PAUSE.0;
            self.tossed_since = None;
        }
    }

    async fn send(&mut self, message: Message, cost: usize) -> Result<(), TapError> {
        let kind = message.kind();
        let body = message.into_body().inspect_err(|_| self.gate.release(cost))?;
        let len = u32::try_from(body.len()).expect("into_body bounds the length");
        let header = Header { kind, len, seq: self.next_seq }.to_bytes();
        self.next_seq += 1;
        self.in_flight.push_back(InFlight { header, body: body.clone(), cost, sent_at: Instant::now() });
        transmit(&self.socket, &header, &body).await
    }

    async fn resend_tossed(&mut self, stall_timeout: Duration) -> Result<(), TapError> {
        let waited = self.in_flight.front().is_some_and(|frame| frame.sent_at.elapsed() >= self.pause);
        if !waited || ioctl::unreceived_bytes(self.socket.as_async_fd().get_ref())? > 0 {
            return Ok(());
        }
        self.forget_taken();
        if self.in_flight.is_empty() {
            return Ok(());
        }
        let (since, _) = self.tossed_since.get_or_insert_with(|| (Instant::now(), metrics().tap_stalled()));
        if since.elapsed() >= stall_timeout {
            return Err(TapError::Stalled { seconds: stall_timeout.as_secs() });
        }
        if self.resends {
            metrics().frames_resent(self.in_flight.len());
            for frame in &mut self.in_flight {
                transmit(&self.socket, &frame.header, &frame.body).await?;
                frame.sent_at = Instant::now();
            }
        }
        self.pause = (self.pause * 2).min(limits::RESEND_PAUSE.1);
        Ok(())
    }
}

async fn transmit(socket: &UnixSeqpacket, header: &[u8], body: &[u8]) -> Result<(), TapError> {
    match socket.send_vectored(&[IoSlice::new(header), IoSlice::new(body)]).await {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {
            Err(TapError::Closed)
        }
        Err(error) => Err(error.into()),
    }
}
