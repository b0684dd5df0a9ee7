//! Which tap a channel's messages go to.
//!
//! A leg's russh handler finds here the queue of the channel it was called for. Removing a channel closes its
//! queue, and with it, once everything was taken, that side of the tap.
//!
//! Every channel has a token that is cancelled when its peer has closed it. Whoever waits for room in the peer's
//! window waits for that as well: russh never wakes a wait for window on a channel that is gone.
//!
//! A channel that this side opens on its peer has no number before it is asked for, and a peer may speak right behind
//! its confirmation. So the route is made by the handler that sees the confirmation ([`Routes::confirm`]), and who opened
//! the channel finds its queue here ([`Routes::confirmed`]).

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use weir_common::frame::{Env, ExitSignal, Message};

use super::{Queue, QueueFull, QueueReader, queue};
use crate::gate::Gate;

#[derive(Debug)]
struct Route {
    queue: Queue,
    closed: CancellationToken,
}

/// What the peer says on a channel that this side has opened, its confirmation first; and the channel's token.
pub type Confirmed = (QueueReader, CancellationToken);

/// The queues of one leg's open channels, by the leg's own channel id.
#[derive(Debug)]
pub struct Routes<K> {
    open: Mutex<HashMap<K, Route>>,
    confirmed: Mutex<HashMap<K, Confirmed>>,
    /// Told when a channel was confirmed, and when there will be no more.
    news: Notify,
    /// The peer is gone.
    gone: AtomicBool,
}

impl<K> Default for Routes<K> {
    fn default() -> Self {
        Self {
            open: Mutex::default(),
            confirmed: Mutex::default(),
            news: Notify::new(),
            gone: AtomicBool::new(false),
        }
    }
}

impl<K: Hash + Eq> Routes<K> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, Route>> {
        // No code can panic while it holds the lock and leave the map half changed.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_confirmed(&self) -> MutexGuard<'_, HashMap<K, Confirmed>> {
        self.confirmed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The peer has confirmed a channel that this side asked for, under this id: notes it and adds the route. A peer
    /// that confirms what is open changes nothing.
    ///
    /// # Errors
    /// [`QueueFull`] when the connection holds too much.
    pub fn confirm(&self, channel: K, gate: &Arc<Gate>) -> Result<(), QueueFull>
    where
        K: Copy,
    {
        if self.contains(&channel) {
            return Ok(());
        }
        let (messages, reader) = queue(gate);
        let pushed = messages.push(Message::OpenConfirm, 0);
        let closed = self.insert(channel, messages);
        self.lock_confirmed().insert(channel, (reader, closed));
        self.news.notify_waiters();
        pushed
    }

    /// What [`Self::confirm`] made of a channel that the peer is known to have confirmed; `None` if the peer was lost
    /// first.
    pub async fn confirmed(&self, channel: &K) -> Option<Confirmed> {
        loop {
            let news = self.news.notified();
            tokio::pin!(news);
            // What is told from here on is heard.
            news.as_mut().enable();
            if let Some(confirmed) = self.lock_confirmed().remove(channel) {
                return Some(confirmed);
            }
            if self.gone.load(Ordering::Acquire) {
                return None;
            }
            news.await;
        }
    }

    fn no_more(&self) {
        self.gone.store(true, Ordering::Release);
        self.news.notify_waiters();
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
        self.no_more();
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
        self.no_more();
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
