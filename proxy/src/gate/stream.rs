//! The connection behind a gate.

use std::{
    io,
    os::fd::AsFd,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use nix::poll::{PollFd, PollFlags, PollTimeout};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::Gate;
use crate::{ioctl, limits};

/// What the gate needs of a connection besides reading.
pub trait Connection {
    /// Asks for the next acknowledgements without delay.
    fn quick_ack(&self);
    /// Whether the peer will send nothing more than what is here already.
    fn is_hung_up(&self) -> bool;
    /// Bytes that have arrived and were not read.
    fn unread_bytes(&self) -> usize;
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

    fn unread_bytes(&self) -> usize {
        // Without it, probes find what is looked for.
        ioctl::unread_bytes(self).unwrap_or(0)
    }
}

/// A connection that is read only while its gate is open, and for news.
///
/// News is a little that arrives while the gate is shut: a peer that has no window left can't send data, but it can send
/// that it takes data again. What is there by then is read whatever is held.
#[derive(Debug)]
pub struct GatedStream<S> {
    pub(super) inner: S,
    gate: Arc<Gate>,
    /// What was unread when it was last looked at.
    unread: usize,
    /// What is to be read although the gate is shut.
    owed: usize,
}

impl<S> GatedStream<S> {
    /// Puts a gate in front of a connection.
    pub fn new(inner: S, gate: Arc<Gate>) -> Self {
        Self { inner, gate, unread: 0, owed: 0 }
    }
}

impl<S: Connection> GatedStream<S> {
    fn has_news(&mut self) -> bool {
        if self.owed > 0 {
            return true;
        }
        let before = self.unread;
        self.unread = self.inner.unread_bytes();
        let grown = self.unread.saturating_sub(before);
        if (1..=limits::NEWS_BYTES).contains(&grown) && self.unread <= limits::NEWS_BEHIND_BYTES {
            self.owed = self.unread;
        }
        self.owed > 0
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
        if !self.gate.is_open() && !self.inner.is_hung_up() && !self.has_news() {
            self.gate.shut.notify_waiters();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.unread = 0;
        self.owed = if read.is_ready() { self.owed.saturating_sub(buf.filled().len() - before) } else { 0 };
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
