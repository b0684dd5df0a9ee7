//! The gate in front of a connection's socket: what bounds the bytes that the proxy holds.
//!
//! russh grants a peer new window when its data *arrives*, not when it has been passed on, so the window does
//! not bound what has to be held. The gate does: while more than [`limits::HELD_BYTES`] wait to be passed on,
//! the socket is not read, and TCP slows the peer down. russh's loop itself never blocks, so what goes the
//! other way keeps flowing.
//!
//! One thing must not wait behind a closed gate: the peer's window for the *other* direction. A user whose
//! terminal is slow may have megabytes of typed-ahead input before the message that says "I can take more
//! output" — with the gate shut the session would hang for good. So whoever waits for window lets the gate
//! [`seek`](Gate::seek) for that message: it is let through as soon as it is seen to arrive, and probes let a little
//! more through, in growing pauses, up to [`limits::HELD_BYTES_MAX`].
//! For what else may lie behind the data, keepalives above all, [`tend`] probes a gate that stays shut. And a
//! peer that has hung up is read to its end whatever is held: what is left of it is in the kernel already.

mod stream;
#[cfg(test)]
mod tests;

use std::{
    convert::Infallible,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use atomic_waker::AtomicWaker;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

pub use self::stream::{Connection, GatedStream};
use crate::{limits, metrics::metrics, session::End};

/// Counts what one connection's peer has sent and nobody has taken yet.
#[derive(Debug)]
pub struct Gate {
    held: AtomicUsize,
    allowed: AtomicUsize,
    bypasses: AtomicUsize,
    severed: AtomicBool,
    farewell: CancellationToken,
    reader: AtomicWaker,
    writer: AtomicWaker,
    /// Told when the reader finds the gate shut.
    shut: Notify,
}

/// Over [`limits::HELD_BYTES_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overflow;

impl Gate {
    /// An open gate.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            held: AtomicUsize::new(0),
            allowed: AtomicUsize::new(limits::HELD_BYTES),
            bypasses: AtomicUsize::new(0),
            severed: AtomicBool::new(false),
            farewell: CancellationToken::new(),
            reader: AtomicWaker::new(),
            writer: AtomicWaker::new(),
            shut: Notify::new(),
        })
    }

    /// Counts bytes that came in.
    ///
    /// # Errors
    /// [`Overflow`] if more is held now than any session may.
    pub fn hold(&self, bytes: usize) -> Result<(), Overflow> {
        let held = self.held.fetch_add(bytes, Ordering::AcqRel) + bytes;
        metrics().held(bytes);
        if held > limits::HELD_BYTES_MAX { Err(Overflow) } else { Ok(()) }
    }

    /// Counts bytes that were taken.
    pub fn release(&self, bytes: usize) {
        let before = self.held.fetch_sub(bytes, Ordering::AcqRel);
        metrics().released(bytes);
        let (after, allowed) = (before - bytes, self.allowed.load(Ordering::Acquire));
        if after < limits::HELD_BYTES {
            self.allowed.store(limits::HELD_BYTES, Ordering::Release);
        }
        if before >= allowed && after < allowed {
            self.reader.wake();
        }
    }

    /// Has the reader look again, for what it sees by itself.
    fn nudge(&self) {
        self.reader.wake();
    }

    /// Lets [`limits::PROBE_BYTES`] more through, if the gate is shut. True if it was.
    pub fn probe(&self) -> bool {
        if self.is_open() {
            return false;
        }
        self.allowed.fetch_max(self.held() + limits::PROBE_BYTES, Ordering::AcqRel);
        self.reader.wake();
        true
    }

    /// Resolves when there is something to read and the gate is shut.
    async fn until_shut(&self) {
        loop {
            let shut = self.shut.notified();
            tokio::pin!(shut);
            // What is told from here on is heard.
            shut.as_mut().enable();
            if !self.is_open() {
                return;
            }
            shut.await;
        }
    }

    /// Looks behind a gate that is shut for as long as it is awaited: for a wait that ends with a message from this
    /// peer. Never resolves.
    ///
    /// A peer that was short of window sends little but that message, and the reader sees it arrive (see
    /// [`GatedStream`]): it is only told to look. Where the message lies behind much, probes get there.
    pub async fn seek(&self) -> Infallible {
        let (mut pause, longest) = limits::PROBE_PAUSE;
        let mut probed = 0;
        loop {
            self.until_shut().await;
            let due = Instant::now() + pause;
            while Instant::now() < due && !self.is_open() {
                sleep_until(due.min(Instant::now() + limits::NEWS_TICK)).await;
                self.nudge();
            }
            if self.probe() {
                probed += limits::PROBE_BYTES;
            }
            // Whatever the peer had sent before its message was let through by then.
            if probed > limits::FIRST_WINDOW_BYTES as usize {
                pause = longest.min(pause * 2);
            }
        }
    }

    /// Keeps the gate open until the guard is dropped, for a wait that only this peer can end.
    #[must_use]
    pub fn bypass(self: &Arc<Self>) -> Bypass {
        self.bypasses.fetch_add(1, Ordering::AcqRel);
        self.reader.wake();
        Bypass(self.clone())
    }

    /// Cuts the connection: every further read and write fails.
    pub fn sever(&self) {
        self.severed.store(true, Ordering::Release);
        self.reader.wake();
        self.writer.wake();
    }

    /// Resolves when our side of the connection has said all it will ever say.
    ///
    /// russh then reads until the peer hangs up as well, which a peer may never do.
    pub async fn farewell(&self) {
        self.farewell.cancelled().await;
    }

    /// Bytes held now.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Acquire)
    }

    fn is_open(&self) -> bool {
        self.held() < self.allowed.load(Ordering::Acquire) || self.bypasses.load(Ordering::Acquire) > 0
    }

    fn check_severed(&self) -> io::Result<()> {
        if self.severed.load(Ordering::Acquire) {
            return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the session is over"));
        }
        Ok(())
    }
}

/// Looks after a gate until the session is over. It costs nothing while the gate is open.
pub fn tend(gate: &Arc<Gate>, end: &End) {
    let (gate, end) = (gate.clone(), end.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = end.over() => {}
            () = tend_for_ever(&gate) => {}
        }
    });
}

async fn tend_for_ever(gate: &Gate) {
    loop {
        gate.until_shut().await;
        for tick in 1.. {
            sleep(limits::GATE_TICK).await;
            // Also when it is open: two releases at a time may each leave the waking to the other.
            gate.nudge();
            if gate.is_open() {
                break;
            }
            if tick % limits::GATE_PROBE_TICKS == 0 {
                gate.probe();
            }
        }
    }
}

/// See [`Gate::bypass`].
#[derive(Debug)]
pub struct Bypass(Arc<Gate>);

impl Drop for Bypass {
    fn drop(&mut self) {
        self.0.bypasses.fetch_sub(1, Ordering::AcqRel);
    }
}
