//! Which tap a channel's messages go to.
//!
//! A leg's russh handler finds here the queue of the channel it was called for. Removing a channel closes its
//! queue, and with it, once everything was taken, that side of the tap.
//!
//! Every channel has a token that is cancelled when its peer has closed it. Whoever waits for room in the peer's
//! window waits for that as well: russh never wakes a wait for window on a channel that is gone.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use weir_common::frame::Message;

use super::{Queue, QueueFull};

#[derive(Debug)]
struct Route {
    queue: Queue,
    closed: CancellationToken,
}

/// The queues of one leg's open channels, by the leg's own channel id.
#[derive(Debug)]
pub struct Routes<K>(Mutex<HashMap<K, Route>>);

impl<K> Default for Routes<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq> Routes<K> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, Route>> {
        // No code can panic while it holds the lock and leave the map half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        self.lock().get(channel).map_or(Ok(()), |route| route.queue.push(message, 0))
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
