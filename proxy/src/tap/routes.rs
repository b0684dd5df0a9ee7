//! Which tap a channel's messages go to.
//!
//! A leg's russh handler finds here the queue of the channel it was called for. Removing a channel closes its
//! queue, and with it, once everything was taken, that side of the tap.
//!
//! Every channel has a token that is cancelled when its peer has closed it. Whoever waits for room in the peer's
//! window waits for that as well: russh never wakes a wait for window on a channel that is gone.
//!
//! A channel that this side opens on its peer has no number before the peer has confirmed it, and a peer may
//! speak right behind its confirmation. So the route is made by the handler that sees the confirmation: who
//! opens a channel leaves its queue here first ([`Routes::opening`]), one channel at a time, because a
//! confirmation does not say which of them it is about.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use weir_common::frame::{Env, ExitSignal, Message};

use super::{Queue, QueueFull};

#[derive(Debug)]
struct Route {
    queue: Queue,
    closed: CancellationToken,
}

#[derive(Debug)]
struct Expected {
    queue: Queue,
    confirmed: oneshot::Sender<CancellationToken>,
}

/// The queues of one leg's open channels, by the leg's own channel id.
#[derive(Debug)]
pub struct Routes<K> {
    open: Mutex<HashMap<K, Route>>,
    opening_turn: tokio::sync::Mutex<()>,
    expected: Mutex<Option<Expected>>,
}

impl<K> Default for Routes<K> {
    fn default() -> Self {
        Self {
            open: Mutex::default(),
            opening_turn: tokio::sync::Mutex::default(),
            expected: Mutex::default(),
        }
    }
}

/// The turn to open a channel on the peer.
#[derive(Debug)]
pub struct Opening<'a, K> {
    routes: &'a Routes<K>,
    _turn: tokio::sync::MutexGuard<'a, ()>,
    confirmed: oneshot::Receiver<CancellationToken>,
}

impl<K> Opening<'_, K> {
    /// The channel's token, when the handler has seen the peer's confirmation; `None` if the connection was
    /// lost first. To be called when the peer is known to have confirmed.
    pub async fn confirmed(mut self) -> Option<CancellationToken> {
        (&mut self.confirmed).await.ok()
    }
}

impl<K> Drop for Opening<'_, K> {
    /// What was not confirmed by now is not expected any more.
    fn drop(&mut self) {
        self.routes.expect_none();
    }
}

impl<K> Routes<K> {
    fn expect(&self, expected: Expected) {
        *self.expected.lock().unwrap_or_else(PoisonError::into_inner) = Some(expected);
    }

    fn expect_none(&self) -> Option<Expected> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<K: Hash + Eq> Routes<K> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, Route>> {
        // No code can panic while it holds the lock and leave the map half changed.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the turn to open a channel, whose messages are to go to this queue.
    pub async fn opening(&self, queue: &Queue) -> Opening<'_, K> {
        let turn = self.opening_turn.lock().await;
        let (sender, confirmed) = oneshot::channel();
        self.expect(Expected { queue: queue.clone(), confirmed: sender });
        Opening { routes: self, _turn: turn, confirmed }
    }

    /// The peer has confirmed the channel that was being opened, under this id: says so and adds it.
    ///
    /// # Errors
    /// [`QueueFull`] when the connection holds too much.
    pub fn confirm(&self, channel: K) -> Result<(), QueueFull> {
        let Some(Expected { queue, confirmed }) = self.expect_none() else { return Ok(()) };
        let pushed = queue.push(Message::OpenConfirm, 0);
        // Whoever opened it may have given up.
        let _ = confirmed.send(self.insert(channel, queue));
        pushed
    }

    /// How many channels are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a channel. The token is cancelled when the peer has closed it.
    pub fn insert(&self, channel: K, queue: Queue) -> CancellationToken {
        let closed = CancellationToken::new();
        self.lock().insert(channel, Route { queue, closed: closed.clone() });
        closed
    }

    /// Whether a channel is open.
    #[must_use]
    pub fn contains(&self, channel: &K) -> bool {
        self.lock().contains_key(channel)
    }

    /// Removes a channel. True if it was there.
    pub fn remove(&self, channel: &K) -> bool {
        self.lock().remove(channel).is_some()
    }

    /// Removes all channels, without a word: the peer is gone.
    pub fn clear(&self) {
        self.expect_none();
        for (_, route) in self.lock().drain() {
            route.closed.cancel();
        }
    }

    /// Says `Close` and removes the channel: the peer has closed it.
    ///
    /// # Errors
    /// [`QueueFull`] when the connection holds too much.
    pub fn close(&self, channel: &K) -> Result<(), QueueFull> {
        let Some(route) = self.lock().remove(channel) else { return Ok(()) };
        route.closed.cancel();
        route.queue.push(Message::Close, 0)
    }

    /// Says `Close` on every channel and removes them all: the peer is gone, and what it had said still counts.
    pub fn close_all(&self) {
        self.expect_none();
        for (_, route) in self.lock().drain() {
            route.closed.cancel();
            // A queue that has no room is dropped, which ends the channel as well.
            let _ = route.queue.push(Message::Close, 0);
        }
    }

    /// Says something without data on a channel; nothing if the channel is closed.
    ///
    /// # Errors
    /// [`QueueFull`] when the connection holds too much.
    pub fn push(&self, channel: &K, message: Message) -> Result<(), QueueFull> {
        let bytes = field_bytes(&message);
        self.lock().get(channel).map_or(Ok(()), |route| route.queue.push(message, bytes))
    }

    /// Passes data on; nothing if the channel is closed.
    ///
    /// # Errors
    /// [`QueueFull`] when the connection holds too much.
    pub fn push_data(
        &self,
        channel: &K,
        data: &[u8],
        message: fn(Bytes) -> Message,
    ) -> Result<(), QueueFull> {
        self.lock().get(channel).map_or(Ok(()), |route| route.queue.push_data(data, message))
    }
}

/// Bytes of a message's fields whose length the peer chooses.
fn field_bytes(message: &Message) -> usize {
    match message {
        Message::Env(Env { name, value }) => name.len() + value.len(),
        Message::Exec(command) => command.len(),
        Message::Subsystem(text) | Message::Signal(text) => text.len(),
        Message::Pty(pty) => pty.term.len() + size_of_val(&pty.modes[..]),
        Message::X11(request) => request.auth_protocol.len() + request.auth_cookie.len(),
        Message::ExitSignal(ExitSignal { signal, message, core_dumped: _ }) => signal.len() + message.len(),
        _ => 0,
    }
}
