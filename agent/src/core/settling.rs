//! Between a freeze and the count: when nothing can add to a tap any more and everything of it is drained.

use std::time::{Duration, Instant};

use weir_common::recording::{ChannelTotals, DirectionTotals, KernelCount};

use crate::session::ChannelKernel;

/// How long a message that the kernel is just passing may take to be in the ring after the freeze.
const SETTLE: Duration = Duration::from_millis(2);
/// How long the kernel's counters may disagree with what was drained before it is left at that.
const PATIENCE: Duration = Duration::from_secs(1);

/// Taps that were frozen.
#[derive(Debug)]
pub(super) struct Settling {
    frozen_at: Instant,
    /// Ring position up to which there may be records of them.
    until: Option<u64>,
    /// When everything up to there was drained.
    drained_at: Option<Instant>,
}

/// Everything up to the freeze is drained.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settled {
    /// The counters have had the time that they get to agree.
    pub(super) impatient: bool,
}

/// How far the ring is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Positions {
    pub(super) consumed: u64,
    pub(super) produced: u64,
}

impl Settling {
    /// They are frozen now.
    pub(super) fn begin() -> Self {
        Self { frozen_at: Instant::now(), until: None, drained_at: None }
    }

    /// Looks how far the ring is; `None` while there may be more of them in it.
    pub(super) fn look(&mut self, now: Instant, ring: Positions) -> Option<Settled> {
        if self.until.is_none() && now >= self.frozen_at + SETTLE {
            self.until = Some(ring.produced);
        }
        self.until.filter(|&until| ring.consumed >= until)?;
        Some(Settled { impatient: now >= *self.drained_at.get_or_insert(now) + PATIENCE })
    }
}

/// Whether the kernel captured what was drained, and passed unrecorded what gaps say, as far as it could be asked.
pub(super) fn adds_up(totals: &ChannelTotals, kernel: &ChannelKernel) -> bool {
    let agrees = |drained: &DirectionTotals, counted: Option<KernelCount>| {
        counted
            .is_none_or(|counted| counted.captured == drained.drained() && counted.passed == drained.passed)
    };
    agrees(&totals.c2t, kernel.c2t) && agrees(&totals.t2c, kernel.t2c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tap_is_settled_when_the_ring_is_drained_to_where_it_was_some_time_after_the_freeze() {
        let mut settling = Settling::begin();
        let (begin, ring) = (settling.frozen_at, |consumed, produced| Positions { consumed, produced });
        assert!(settling.look(begin, ring(10, 10)).is_none(), "a message may be on its way");
        assert!(settling.look(begin + SETTLE, ring(10, 30)).is_none());
        assert!(settling.look(begin + SETTLE, ring(29, 50)).is_none());
        let settled = settling.look(begin + SETTLE, ring(30, 90)).expect("others' records do not matter");
        assert!(!settled.impatient);
        let settled = settling.look(begin + SETTLE + PATIENCE, ring(30, 90)).expect("still");
        assert!(settled.impatient);
    }
}
