//! Which lanes an agent opens: those that are configured, and those that agents before left something in.
//!
//! Pure. A spool is named after the ring that it belongs to: `<ABI version>-<number>`.

use std::{collections::BTreeSet, path::Path};

use tracing::warn;
use weir_common::abi::ABI_VERSION;

use crate::tap::RingPlace;

/// A lane to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LanePlan {
    /// Its ring.
    pub(crate) place: RingPlace,
    /// The place that its spool is named after; another one only where that ring is gone.
    pub(crate) spool: RingPlace,
    /// Which of the configured lanes it is; none for one that takes no new sessions, and goes when its last one
    /// is stored.
    pub(crate) group: Option<usize>,
}

/// The lanes for so many groups, given what is pinned and which spools there are.
pub(crate) fn lanes(groups: u16, pinned: &[RingPlace], spools: &[RingPlace]) -> Vec<LanePlan> {
    let mut lanes: Vec<_> = (0..groups)
        .map(|ring| {
            let place = RingPlace::current(ring);
            LanePlan { place, spool: place, group: Some(usize::from(ring)) }
        })
        .collect();
    let mut used: BTreeSet<_> = pinned.iter().chain(spools).copied().collect();
    used.extend(lanes.iter().map(|lane| lane.place));
    for spool in used.clone() {
        let configured = spool.abi == ABI_VERSION && spool.ring < groups;
        if configured {
            continue;
        }
        // The ring of an older version cannot be made anew, so its spool gets one of this version's.
        let place = if spool.abi == ABI_VERSION || pinned.contains(&spool) {
            spool
        } else {
            let Some(spare) = (groups..=u16::MAX).map(RingPlace::current).find(|ring| !used.contains(ring))
            else {
                continue;
            };
            used.insert(spare);
            spare
        };
        lanes.push(LanePlan { place, spool, group: None });
    }
    lanes
}

/// The place that a spool's directory is named after.
pub(crate) fn spool_place(dir: &Path) -> Option<RingPlace> {
    let (abi, ring) = dir.file_name()?.to_str()?.split_once('-')?;
    let place = RingPlace { abi: abi.parse().ok()?, ring: ring.parse().ok()? };
    if place.abi > ABI_VERSION {
        warn!(spool = %dir.display(), "a spool of a newer version of the agent is left alone");
        return None;
    }
    Some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(abi: u16, ring: u16) -> RingPlace {
        RingPlace { abi, ring }
    }

    fn ending(place: RingPlace, spool: RingPlace) -> LanePlan {
        LanePlan { place, spool, group: None }
    }

    fn configured(ring: u16) -> LanePlan {
        let place = RingPlace::current(ring);
        LanePlan { place, spool: place, group: Some(ring.into()) }
    }

    #[test]
    fn what_is_configured_is_adopted_or_made() {
        let ours = place(ABI_VERSION, 0);
        assert_eq!(lanes(2, &[ours], &[ours]), [configured(0), configured(1)]);
    }

    #[test]
    fn what_more_groups_or_an_older_version_left_is_drained_to_its_end() {
        let (surplus, old) = (place(ABI_VERSION, 1), place(ABI_VERSION - 1, 0));
        assert_eq!(
            lanes(1, &[old, surplus], &[surplus]),
            [configured(0), ending(old, old), ending(surplus, surplus)]
        );
    }

    #[test]
    fn a_spool_whose_ring_is_gone_and_cannot_be_made_gets_one_that_nobody_uses() {
        let (old, taken) = (place(ABI_VERSION - 1, 0), place(ABI_VERSION, 1));
        assert_eq!(
            lanes(1, &[taken], &[old]),
            [configured(0), ending(place(ABI_VERSION, 2), old), ending(taken, taken)]
        );
    }

    #[test]
    fn spools_are_named_after_their_rings() {
        assert_eq!(spool_place(Path::new("/x/spool/1-3")), Some(place(1, 3)));
        for name in ["00000001.log", "2", "2-", "x-1", "99-0"] {
            assert_eq!(spool_place(&Path::new("/x/spool").join(name)), None, "{name}");
        }
        assert_eq!(spool_place(Path::new(&format!("/x/{}", place(2, 7)))), Some(place(2, 7)));
    }
}
