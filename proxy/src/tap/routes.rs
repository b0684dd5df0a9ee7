//! Which tap a channel's messages go to.
//!
//! A leg's russh handler finds here the queue of the channel it was called for. Removing a channel closes its
//! queue, and with it, once everything was taken, that side of the tap.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use weir_common::frame::Message;

use super::{Queue, QueueFull};

/// The queues of one leg's open channels, by the leg's own channel id.
#[derive(Debug)]
pub struct Routes<K>(Mutex<HashMap<K, Queue>>);

impl<K> Default for Routes<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq> Routes<K> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, Queue>> {
        // No code can panic while it holds the lock and leave the map half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a channel.
    pub fn insert(&self, channel: K, queue: Queue) {
        self.lock().insert(channel, queue);
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

    /// Removes all channels, without a word.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// Says `Close` on every channel and removes them all.
    pub fn close_all(&self) {
        for (_, queue) in self.lock().drain() {
            // A queue that has no room is dropped, which ends the channel as well.
            let _ = queue.push(Message::Close, 0);
        }
    }

    /// Says something without data on a channel; nothing if the channel is closed.
    ///
    /// # Errors
    /// [`QueueFull`] when the connection holds too much.
    pub fn push(&self, channel: &K, message: Message) -> Result<(), QueueFull> {
        self.lock().get(channel).map_or(Ok(()), |queue| queue.push(message, 0))
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
        self.lock().get(channel).map_or(Ok(()), |queue| queue.push_data(data, message))
    }
}
