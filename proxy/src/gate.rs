//! The gate in front of a connection's socket: what bounds the bytes that the proxy holds.
//!
//! russh grants a peer new window when its data *arrives*, not when it has been passed on, so the window does
//! not bound what has to be held. The gate does: while more than [`limits::HELD_BYTES`] wait to be passed on,
//! the socket is not read, and TCP slows the peer down. russh's loop itself never blocks, so what goes the
//! other way keeps flowing.
//!
//! One thing must not wait behind a closed gate: the peer's window for the *other* direction. A user whose
//! terminal is slow may have megabytes of typed-ahead input before the message that says "I can take more
//! output" — with the gate shut the session would hang for good. So whoever waits for window asks for a
//! [`Gate::probe`], which lets a little more through, in growing pauses, up to [`limits::HELD_BYTES_MAX`].
//! For what else may lie behind the data, keepalives above all, [`tend`] probes a gate that stays shut. And a
//! peer that has hung up is read to its end whatever is held: what is left of it is in the kernel already.

use std::{
    io,
    os::fd::AsFd,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use atomic_waker::AtomicWaker;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

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

/// Looks after a gate until the session is over.
pub fn tend(gate: &Arc<Gate>, end: &End) {
    let (gate, end) = (gate.clone(), end.clone());
    tokio::spawn(async move {
        let mut shut_ticks = 0;
        loop {
            tokio::select! {
                () = end.over() => return,
                () = sleep(limits::GATE_TICK) => {}
            }
            if gate.is_open() {
                shut_ticks = 0;
                continue;
            }
            shut_ticks += 1;
            gate.nudge();
            if shut_ticks % limits::GATE_PROBE_TICKS == 0 {
                gate.probe();
            }
        }
    });
}

/// See [`Gate::bypass`].
#[derive(Debug)]
pub struct Bypass(Arc<Gate>);

impl Drop for Bypass {
    fn drop(&mut self) {
        self.0.bypasses.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What the gate needs of a connection besides reading.
pub trait Connection {
    /// Asks for the next acknowledgements without delay.
    fn quick_ack(&self);
    /// Whether the peer will send nothing more than what is here already.
    fn is_hung_up(&self) -> bool;
}

impl Connection for TcpStream {
    fn quick_ack(&self) {
        // A hint; without it the connection is slower and no less right.
        let _ = SockRef::from(self).set_tcp_quickack(true);
    }

    fn is_hung_up(&self) -> bool {
        let hung_up =
            PollFlags::from_bits_retain(nix::libc::POLLRDHUP) | PollFlags::POLLHUP | PollFlags::POLLERR;
        let mut poll_fd = [PollFd::new(self.as_fd(), hung_up)];
        let ready = nix::poll::poll(&mut poll_fd, PollTimeout::ZERO).is_ok_and(|ready| ready > 0);
        ready && poll_fd[0].revents().is_some_and(|events| events.intersects(hung_up))
    }
}

/// A connection that is read only while its gate is open.
#[derive(Debug)]
pub struct GatedStream<S> {
    inner: S,
    gate: Arc<Gate>,
}

impl<S> GatedStream<S> {
    /// Puts a gate in front of a connection.
    pub fn new(inner: S, gate: Arc<Gate>) -> Self {
        Self { inner, gate }
    }
}

impl<S: AsyncRead + Connection + Unpin> AsyncRead for GatedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.gate.reader.register(cx.waker());
        self.gate.check_severed()?;
        if !self.gate.is_open() && !self.inner.is_hung_up() {
            return Poll::Pending;
        }
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        if read.is_ready() && self.gate.held() >= limits::HELD_BYTES {
            // What is looked for is a small packet behind data. The peer's kernel holds it back until that data is
            // acknowledged (Nagle), and ours would wait 40 ms to do so because nobody reads (RFC 1122 4.2.3.2).
            self.inner.quick_ack();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for GatedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.gate.check_severed()?;
        match Pin::new(&mut self.inner).poll_write(cx, buf) {
            Poll::Pending => {
                self.gate.writer.register(cx.waker());
                self.gate.check_severed()?;
                Poll::Pending
            }
            ready => ready,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut_down = ready!(Pin::new(&mut self.inner).poll_shutdown(cx));
        self.gate.farewell.cancel();
        shut_down?;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    impl Connection for tokio::io::DuplexStream {
        fn quick_ack(&self) {}

        fn is_hung_up(&self) -> bool {
            false
        }
    }

    async fn is_readable(stream: &mut (impl AsyncRead + Unpin)) -> bool {
        let mut byte = [0];
        tokio::select! {
            biased;
            read = stream.read(&mut byte) => read.expect("the pipe is whole") == 1,
            () = tokio::task::yield_now() => false,
        }
    }

    async fn gated() -> (tokio::io::DuplexStream, GatedStream<tokio::io::DuplexStream>, Arc<Gate>) {
        let (mut peer, ours) = duplex(1024);
        peer.write_all(&[7; 512]).await.expect("the pipe has room");
        let gate = Gate::new();
        (peer, GatedStream::new(ours, gate.clone()), gate)
    }

    #[tokio::test]
    async fn a_full_gate_stops_reading_until_enough_is_taken() {
        let (_peer, mut stream, gate) = gated().await;
        assert!(is_readable(&mut stream).await);
        gate.hold(limits::HELD_BYTES).expect("under the maximum");
        assert!(!is_readable(&mut stream).await);
        gate.release(1);
        assert!(is_readable(&mut stream).await);
    }

    #[tokio::test]
    async fn a_probe_opens_a_full_gate_for_a_bounded_number_of_bytes() {
        let (_peer, mut stream, gate) = gated().await;
        gate.hold(limits::HELD_BYTES).expect("under the maximum");
        assert!(gate.probe());
        assert!(is_readable(&mut stream).await);
        assert!(!gate.probe(), "it is open already");
        gate.hold(limits::PROBE_BYTES).expect("under the maximum");
        assert!(!is_readable(&mut stream).await);
    }

    #[tokio::test]
    async fn a_bypass_keeps_a_full_gate_open_until_it_is_dropped() {
        let (_peer, mut stream, gate) = gated().await;
        gate.hold(limits::HELD_BYTES).expect("under the maximum");
        let bypass = gate.bypass();
        assert!(is_readable(&mut stream).await);
        drop(bypass);
        assert!(!is_readable(&mut stream).await);
    }

    #[tokio::test]
    async fn a_severed_connection_fails_to_read_and_to_write() {
        let (_peer, mut stream, gate) = gated().await;
        gate.sever();
        assert!(stream.read_u8().await.is_err());
        assert!(stream.write_u8(1).await.is_err());
    }

    #[tokio::test]
    async fn a_peer_that_has_hung_up_is_read_to_its_end_although_the_gate_is_shut() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mut peer = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connected");
        let (ours, _) = listener.accept().await.expect("connected");
        let gate = Gate::new();
        gate.hold(limits::HELD_BYTES).expect("under the maximum");
        let end = End::default();
        tend(&gate, &end);
        let mut stream = GatedStream::new(ours, gate);
        peer.write_all(b"last words").await.expect("sent");
        assert!(!is_readable(&mut stream).await);
        drop(peer);
        let mut read = Vec::new();
        stream.read_to_end(&mut read).await.expect("to the end");
        assert_eq!(read, b"last words");
        end.done();
    }

    #[test]
    fn holding_more_than_any_session_may_is_an_overflow() {
        let gate = Gate::new();
        assert_eq!(gate.hold(limits::HELD_BYTES_MAX), Ok(()));
        assert_eq!(gate.hold(1), Err(Overflow));
    }
}
