//! The space of all spools of the agent together, and when it becomes too little.
//!
//! Owns two thresholds. Past the first, no session begins any more, and whoever asks is told so at once; past
//! the second, records find no room and running sessions stall. What lies behind the second is for the state
//! changes by which space is given back. Each lane has a spool; the space is the agent's, so the counts are
//! shared.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use super::{SpoolError, failed, reserve::Reserve};

/// Which part of a threshold must be free again before it counts as not reached.
const HYSTERESIS_PART: u64 = 64;
/// The most that this is.
const HYSTERESIS_MAX_BYTES: u64 = 1024 * 1024;

/// A lane's pass ends with the record that reaches this many bytes; between two passes it looks for space.
pub const PASS_BYTES: u64 = 4 * 1024 * 1024;

/// How much space there is. All in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceLimits {
    /// Records find room up to this many in all spools together.
    pub max_bytes: u64,
    /// Past this many no session begins.
    pub refuse_bytes: u64,
    /// What records leave free of the disk, for state changes. Large ones are reckoned on top.
    pub disk_reserve_bytes: u64,
    /// With less than this free of the disk no session begins; 0 for whatever the disk has.
    pub disk_refuse_bytes: u64,
}

/// The space, shared by all spools.
#[derive(Debug)]
pub struct Space {
    limits: SpaceLimits,
    used: AtomicU64,
    /// How many spools share it.
    spools: AtomicU64,
    /// Bytes that large changes of state may take besides the reserve.
    states: AtomicU64,
    short: AtomicBool,
    /// The part of the disk's reserve that is held, if any is to be.
    reserve: Option<Reserve>,
}

/// Why no session begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// The spools have reached [`SpaceLimits::refuse_bytes`].
    Spool {
        /// Their bytes.
        used: u64,
    },
    /// The disk has less than [`SpaceLimits::disk_refuse_bytes`].
    Disk {
        /// Its free bytes.
        free: u64,
    },
}

impl Space {
    /// Space of which nothing is used.
    #[must_use]
    pub fn new(limits: SpaceLimits) -> Arc<Self> {
        Self::with(limits, None)
    }

    /// The same, of which a part is held by a file in the directory of the spools, see [`Self::give_up_reserve`].
    #[must_use]
    pub fn held_in(spools: &Path, limits: SpaceLimits) -> Arc<Self> {
        Self::with(limits, Some(Reserve::new(spools, limits.disk_reserve_bytes)))
    }

    fn with(limits: SpaceLimits, reserve: Option<Reserve>) -> Arc<Self> {
        Arc::new(Self {
            limits,
            used: AtomicU64::new(0),
            spools: AtomicU64::new(0),
            states: AtomicU64::new(0),
            short: AtomicBool::new(false),
            reserve,
        })
    }

    /// Its bounds.
    #[must_use]
    pub fn limits(&self) -> SpaceLimits {
        self.limits
    }

    /// Bytes of all spools.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether this many bytes of records may be appended, by the spools' own bound. Lanes that ask at the same
    /// time may each be told yes: the bound is passed by a drain's pass of each at most.
    #[must_use]
    pub fn has_room(&self, bytes: u64) -> bool {
        self.used().saturating_add(bytes) <= self.limits.max_bytes
    }

    /// What has to be free on top before sessions that stalled go on.
    #[must_use]
    pub fn margin(&self) -> u64 {
        hysteresis(self.limits.max_bytes)
    }

    /// Whether this many bytes of records leave the disk of `dir` its reserve.
    ///
    /// # Errors
    /// [`SpoolError::Io`] if the file system does not say.
    pub fn disk_has_room(&self, dir: &Path, bytes: u64) -> Result<bool, SpoolError> {
        // The others may be told the same at this moment.
        let others = self.spools.load(Ordering::Relaxed).saturating_sub(1).saturating_mul(PASS_BYTES);
        let reserve = self.reserve().saturating_add(others);
        Ok(self.free(dir)? >= bytes.saturating_add(reserve))
    }

    /// Holds its part of the disk's reserve, if there is room for that.
    pub fn keep_reserve(&self, dir: &Path) {
        if let Some(reserve) = &self.reserve {
            reserve.keep(|| disk_free(dir).is_ok_and(|free| free >= self.reserve()));
        }
    }

    /// Gives the disk the room that is held, for a change of state that found none; says whether there was any.
    #[must_use]
    pub fn give_up_reserve(&self) -> bool {
        self.reserve.as_ref().is_some_and(Reserve::give_up)
    }

    /// Free bytes of the disk, those that are held for changes of state among them.
    fn free(&self, dir: &Path) -> Result<u64, SpoolError> {
        let held = self.reserve.as_ref().map_or(0, Reserve::held);
        Ok(disk_free(dir)?.saturating_add(held))
    }

    /// What is left free of the disk for changes of state.
    fn reserve(&self) -> u64 {
        self.limits.disk_reserve_bytes.saturating_add(self.states.load(Ordering::Relaxed))
    }

    /// Why no session may begin at the moment, if none may.
    ///
    /// # Errors
    /// [`SpoolError::Io`] if the file system does not say.
    pub fn shortage(&self, dir: &Path) -> Result<Option<Shortage>, SpoolError> {
        let SpaceLimits { refuse_bytes, mut disk_refuse_bytes, .. } = self.limits;
        if disk_refuse_bytes > 0 {
            // Before running ones stall.
            disk_refuse_bytes = disk_refuse_bytes.max(self.reserve());
        }
        // Once it is short, it has to be clearly better.
        let more = |of| if self.short.load(Ordering::Relaxed) { hysteresis(of) } else { 0 };
        let (used, free) = (self.used(), self.free(dir)?);
        let shortage = if used > refuse_bytes.saturating_sub(more(refuse_bytes)) {
            Some(Shortage::Spool { used })
        } else if free < disk_refuse_bytes.saturating_add(more(disk_refuse_bytes)) {
            Some(Shortage::Disk { free })
        } else {
            None
        };
        self.short.store(shortage.is_some(), Ordering::Relaxed);
        Ok(shortage)
    }
}

fn hysteresis(of: u64) -> u64 {
    (of / HYSTERESIS_PART).min(HYSTERESIS_MAX_BYTES)
}

/// Bytes that are free on the disk of this directory, for whoever is not root.
///
/// # Errors
/// [`SpoolError::Io`] if the file system does not say.
pub fn disk_free(dir: &Path) -> Result<u64, SpoolError> {
    let stat = nix::sys::statvfs::statvfs(dir)
        .map_err(|errno| failed("ask for the free space of", dir)(errno.into()))?;
    Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
}

/// What one spool takes of the space; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    space: Arc<Space>,
    bytes: u64,
    states: u64,
}

impl Share {
    pub(super) fn new(space: Arc<Space>) -> Self {
        space.spools.fetch_add(1, Ordering::Relaxed);
        Self { space, bytes: 0, states: 0 }
    }

    pub(super) fn space(&self) -> &Space {
        &self.space
    }

    /// It takes this many bytes now.
    pub(super) fn set(&mut self, bytes: u64) {
        let before = std::mem::replace(&mut self.bytes, bytes);
        change(&self.space.used, before, bytes);
    }

    /// Its changes of state may take so much besides the reserve.
    pub(super) fn set_states(&mut self, bytes: u64) {
        let before = std::mem::replace(&mut self.states, bytes);
        change(&self.space.states, before, bytes);
    }
}

fn change(sum: &AtomicU64, before: u64, now: u64) {
    // Wraps as the subtraction does, so the sum stays right.
    sum.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
        self.set_states(0);
        self.space.spools.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(max_bytes: u64, refuse_bytes: u64) -> Arc<Space> {
        Space::new(SpaceLimits { max_bytes, refuse_bytes, disk_reserve_bytes: 0, disk_refuse_bytes: 0 })
    }

    #[test]
    fn what_several_spools_take_counts_together_until_they_are_dropped() {
        let space = space(1000, 800);
        let (mut one, mut other) = (Share::new(Arc::clone(&space)), Share::new(Arc::clone(&space)));
        one.set(300);
        other.set(600);
        one.set(200);
        assert_eq!(space.used(), 800);
        assert!(space.has_room(200) && !space.has_room(201));
        drop(other);
        assert_eq!(space.used(), 200);
    }

    #[test]
    fn sessions_are_refused_before_they_stall_and_taken_again_a_little_below() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let space = space(1000, 640);
        let mut share = Share::new(Arc::clone(&space));
        let shortage = || space.shortage(dir.path()).expect("a file system");
        share.set(640);
        assert_eq!(shortage(), None);
        share.set(641);
        assert_eq!(shortage(), Some(Shortage::Spool { used: 641 }));
        assert!(space.has_room(100), "running sessions go on");
        share.set(635);
        assert_eq!(shortage(), Some(Shortage::Spool { used: 635 }));
        share.set(630);
        assert_eq!(shortage(), None);
    }

    #[test]
    fn large_changes_of_state_are_left_room_for_on_the_disk_whatever_spool_they_are_of() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let limits =
            SpaceLimits { max_bytes: 1, refuse_bytes: 1, disk_reserve_bytes: 1, disk_refuse_bytes: 1 };
        let space = Space::new(limits);
        let (mut one, mut other) = (Share::new(Arc::clone(&space)), Share::new(Arc::clone(&space)));
        let roomy = || {
            let shortage = space.shortage(dir.path()).expect("a file system");
            (space.disk_has_room(dir.path(), 1).expect("a file system"), shortage.is_none())
        };
        assert_eq!(roomy(), (true, true));
        one.set_states(u64::MAX / 2);
        other.set_states(1000);
        one.set_states(1000);
        assert_eq!(roomy(), (true, true));
        other.set_states(u64::MAX / 2);
        assert_eq!(roomy(), (false, false));
        drop(other);
        assert_eq!(roomy(), (true, true));
        assert_eq!(space.states.load(Ordering::Relaxed), 1000);
    }

    #[test]
    fn a_disk_with_too_little_free_refuses_sessions_too() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let limits = SpaceLimits {
            max_bytes: 1,
            refuse_bytes: 1,
            disk_reserve_bytes: u64::MAX,
            disk_refuse_bytes: u64::MAX,
        };
        let space = Space::new(limits);
        let shortage = space.shortage(dir.path()).expect("a file system");
        assert!(matches!(shortage, Some(Shortage::Disk { .. })), "{shortage:?}");
        assert!(!space.disk_has_room(dir.path(), 0).expect("a file system"));
    }
}
