//! How much space spools may take, and from where on it is too little.

use super::{ConfigError, GIB, KIB, MIB, value, within};
use crate::spool::{DISK_RESERVE_BYTES, SpaceLimits};

/// With less than this free of the disk no session begins, where nothing else is configured.
pub(super) const DISK_REFUSE_BYTES: u64 = 256 * MIB;
/// The smallest share of a session, so that a few full segments find room in it.
const SESSION_MIN_BYTES: u64 = 64 * KIB;
/// As much of a disk as a threshold may be.
const DISK_MAX_BYTES: u64 = 1024 * GIB;

/// The keys about space, as they are written. All in bytes.
#[derive(Debug)]
pub(super) struct RawSpace {
    pub(super) spool_max_bytes: u64,
    pub(super) spool_refuse_bytes: Option<u64>,
    pub(super) session_spool_max_bytes: Option<u64>,
    pub(super) disk_reserve_bytes: u64,
    pub(super) disk_refuse_bytes: u64,
}

/// The bounds of space that make sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceConfig {
    /// Of all sessions together.
    pub limits: SpaceLimits,
    /// Past this many unstored bytes a session is paused.
    pub session_max_bytes: u64,
}

impl RawSpace {
    pub(super) fn validate(self) -> Result<SpaceConfig, ConfigError> {
        let Self {
            spool_max_bytes: max,
            spool_refuse_bytes,
            session_spool_max_bytes,
            disk_reserve_bytes,
            disk_refuse_bytes,
        } = self;
        let refuse_bytes = spool_refuse_bytes.unwrap_or(max / 5 * 4);
        within("spool_refuse_bytes", refuse_bytes, 1, max)?;
        let session_max_bytes = session_spool_max_bytes.unwrap_or((max / 8).max(SESSION_MIN_BYTES));
        within("session_spool_max_bytes", session_max_bytes, SESSION_MIN_BYTES, max)?;
        within("disk_reserve_bytes", disk_reserve_bytes, DISK_RESERVE_BYTES, DISK_MAX_BYTES)?;
        if disk_refuse_bytes != 0 && disk_refuse_bytes < disk_reserve_bytes {
            let problem = format!(
                "{disk_refuse_bytes} is less than disk_reserve_bytes ({disk_reserve_bytes}); sessions would stall \
                 before new ones are refused. 0 refuses none for the disk's sake"
            );
            return Err(value("disk_refuse_bytes", problem));
        }
        within("disk_refuse_bytes", disk_refuse_bytes, 0, DISK_MAX_BYTES)?;
        let limits = SpaceLimits { max_bytes: max, refuse_bytes, disk_reserve_bytes, disk_refuse_bytes };
        Ok(SpaceConfig { limits, session_max_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw() -> RawSpace {
        RawSpace {
            spool_max_bytes: 1000 * MIB,
            spool_refuse_bytes: None,
            session_spool_max_bytes: None,
            disk_reserve_bytes: DISK_RESERVE_BYTES,
            disk_refuse_bytes: DISK_REFUSE_BYTES,
        }
    }

    #[test]
    fn shares_of_the_spool_follow_its_size() {
        let SpaceConfig { limits, session_max_bytes } = raw().validate().expect("the defaults make sense");
        assert_eq!((limits.refuse_bytes, session_max_bytes), (800 * MIB, 125 * MIB));
    }

    #[test]
    fn thresholds_in_the_wrong_order_are_refused_by_their_key() {
        for (raw, key) in [
            (RawSpace { spool_refuse_bytes: Some(1001 * MIB), ..raw() }, "spool_refuse_bytes"),
            (RawSpace { session_spool_max_bytes: Some(1001 * MIB), ..raw() }, "session_spool_max_bytes"),
            (RawSpace { session_spool_max_bytes: Some(1), ..raw() }, "session_spool_max_bytes"),
            (RawSpace { disk_reserve_bytes: 0, ..raw() }, "disk_reserve_bytes"),
            (RawSpace { disk_refuse_bytes: 1, ..raw() }, "disk_refuse_bytes"),
        ] {
            let problem = raw.validate().expect_err(key).to_string();
            assert!(problem.starts_with(key), "{problem}");
        }
        let unwatched = RawSpace { disk_refuse_bytes: 0, ..raw() };
        assert_eq!(unwatched.validate().expect("makes sense").limits.disk_refuse_bytes, 0);
    }
}
