//! Segments that were just stored, so that a small session's need not be fetched at its end.
//!
//! Also tells whose segments this process has stored: nobody can have begun to complete such a session before.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use weir_common::recording::{Manifest, SegmentEntry};

/// Larger objects are fetched.
const OBJECT_MAX: usize = 64 << 10;
/// Of all sessions together.
const BYTES_MAX: usize = 8 << 20;
/// As many sessions as may be open (`max_sessions`), or have ended while the store was away by default, and twice as many.
const SESSIONS_MAX: usize = 1 << 17;

/// What is at hand, by the session's directory.
#[derive(Default)]
pub(crate) struct AtHand {
    sessions: Mutex<Sessions>,
}

#[derive(Default)]
struct Sessions {
    by_dir: HashMap<String, Kept>,
    /// The directories, in the order in which they came. Some are gone.
    order: VecDeque<String>,
    bytes: usize,
}

/// What is at hand of a session.
#[derive(Default)]
pub(crate) struct Kept {
    last: Option<u32>,
    objects: HashMap<String, Bytes>,
}

impl AtHand {
    /// This segment is in the store now.
    pub(crate) fn keep(&self, dir: &str, entry: &SegmentEntry, segment: &Bytes, bulk: Option<&Bytes>) {
        let mut sessions = self.lock();
        let Sessions { by_dir, order, bytes } = &mut *sessions;
        let kept = by_dir.entry(dir.to_owned()).or_insert_with(|| {
            order.push_back(dir.to_owned());
            Kept::default()
        });
        kept.last = Some(entry.index);
        let named = [(Some(&entry.segment), Some(segment)), (entry.bulk.as_ref(), bulk)];
        for (object, body) in named.into_iter().filter_map(|(object, body)| object.zip(body)) {
            if body.len() <= OBJECT_MAX && object.bytes == body.len() as u64 {
                let before = kept.objects.insert(object.name.clone(), body.clone());
                *bytes = *bytes + body.len() - before.map_or(0, |before| before.len());
            }
        }
        sessions.make_room();
    }

    /// Whether nothing of the session would have to be fetched.
    pub(crate) fn has_all(&self, dir: &str, manifest: &Manifest) -> bool {
        let sessions = self.lock();
        sessions.by_dir.get(dir).is_some_and(|kept| kept.has_all(manifest))
    }

    /// Whether this process has stored the session's segment before this one, so that it began this one itself.
    pub(crate) fn goes_on(&self, dir: &str, index: u32) -> bool {
        self.lock().by_dir.get(dir).is_some_and(|kept| kept.last.is_some_and(|last| last + 1 == index))
    }

    /// What is at hand of the session, which is not any more.
    pub(crate) fn take(&self, dir: &str) -> Kept {
        let mut sessions = self.lock();
        let kept = sessions.by_dir.remove(dir).unwrap_or_default();
        sessions.bytes -= kept.bytes();
        kept
    }

    fn lock(&self) -> MutexGuard<'_, Sessions> {
        // Nothing is done under it that leaves it half done.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sessions {
    /// The oldest sessions go first, as a whole: that one is not known costs a look into the store.
    fn make_room(&mut self) {
        while self.bytes > BYTES_MAX || self.by_dir.len() > SESSIONS_MAX || self.has_many_gone() {
            let Some(dir) = self.order.pop_front() else { return };
            self.bytes -= self.by_dir.remove(&dir).map_or(0, |kept| kept.bytes());
        }
    }

    fn has_many_gone(&self) -> bool {
        self.order.len() > 2 * self.by_dir.len() + 1024
    }
}

impl Kept {
    /// The object, if it is at hand.
    pub(crate) fn object(&self, name: &str) -> Option<&Bytes> {
        self.objects.get(name)
    }

    /// Whether this process has stored the session's last segment.
    pub(crate) fn is_all(&self, manifest: &Manifest) -> bool {
        self.last.is_some() && self.last == manifest.segments.last().map(|entry| entry.index)
    }

    /// Whether nothing of the session would have to be fetched.
    pub(crate) fn has_all(&self, manifest: &Manifest) -> bool {
        let mut objects =
            manifest.segments.iter().flat_map(|entry| entry.bulk.iter().chain([&entry.segment]));
        self.is_all(manifest) && objects.all(|object| self.object(&object.name).is_some())
    }

    fn bytes(&self) -> usize {
        self.objects.values().map(Bytes::len).sum()
    }
}
