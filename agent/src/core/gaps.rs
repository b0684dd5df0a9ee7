//! Gaps on their way into the spool: those that the ring tells, and those that are open when a tap is over.

use std::time::{Duration, Instant};

use tracing::{debug, warn};
use weir_common::{
    abi::{GapRecord, TapGap},
    recording::{ChannelTotals, Count, DirectionTotals, Gap},
    session::{SessionId, SocketCookie},
};

use super::Core;
use crate::{
    clock,
    gap::SpooledGap,
    journal::{JournalError, RingRecord},
    ledger::Accounted,
};

/// How often the log says that messages passed unrecorded.
const TELL_PAUSE: Duration = Duration::from_secs(1);

impl Core {
    /// The spool's record of a gap that the ring tells; `None` if its socket is no session's.
    pub(super) fn spooled_gap(&self, cookie: SocketCookie, gap: GapRecord, ended_ns: u64) -> Option<Vec<u8>> {
        let GapRecord { records, bytes, since_ns, cause: _, reserved: _ } = gap;
        let (session, seq) = self.journal.ledger().next_seq(cookie)?;
        let cause = self.causes.of(session, since_ns, ended_ns);
        let spooled = SpooledGap { seq, gap: Gap { records, bytes, since: since_ns, cause } };
        Some(spooled.to_record(cookie, ended_ns))
    }

    /// Puts the gaps into the spool that are still open at the end of these channels. Nothing passes them any more,
    /// and what was captured of them is drained.
    pub(super) fn record_open_gaps(&mut self, channels: &[ChannelTotals]) -> Result<(), JournalError> {
        for totals in channels.iter().flat_map(|channel| [channel.c2t, channel.t2c]) {
            let Some(open) = self.open_gap(&totals) else { continue };
            let ended_ns = clock::boot_ns();
            let TapGap { open_records: records, open_bytes: bytes, open_since_ns: since_ns, .. } = open;
            let gap = GapRecord { records, bytes, since_ns, cause: 0, reserved: 0 };
            let Some(record) = self.spooled_gap(totals.cookie, gap, ended_ns) else { continue };
            let end = self.journal.position();
            let record = RingRecord { bytes: &record, end };
            let mut told = None;
            let appended = self.journal.append_records(&[record], |accounted| {
                if let Accounted::Gap { session, gap, .. } = accounted {
                    told = Some((session, gap));
                }
            });
            self.noted(appended)?;
            if let Some((session, gap)) = told {
                self.tell_gap(session, &gap);
            }
        }
        Ok(())
    }

    /// The gap that is open, unless it is in the spool: an agent that was killed after it put it there left the kernel's
    /// entry as it was.
    fn open_gap(&self, totals: &DirectionTotals) -> Option<TapGap> {
        let gap = self.taps.gap(totals.cookie).unwrap_or_else(|error| {
            warn!(cookie = totals.cookie.0, error = &error as &dyn std::error::Error, "cannot read a gap");
            None
        })?;
        let Count { records, bytes } = totals.passed;
        // What the kernel counted in all, less what was told: a message that it was just passing may have come late.
        let (open_records, open_bytes) =
            (gap.passed_records.checked_sub(records)?, gap.passed_bytes.checked_sub(bytes)?);
        (open_records > 0).then_some(TapGap { open_records, open_bytes, ..gap })
    }

    /// Says how large a gap is that was put into the spool. Where there is one after the other, the log has one a second.
    pub(super) fn tell_gap(&mut self, session: SessionId, gap: &Gap) {
        const SAID: &str = "messages passed unrecorded, as the session's grant permits";
        let Gap { records, bytes, since: _, cause } = gap;
        if self.next_gap_told.is_some_and(|next| Instant::now() < next) {
            return debug!(%session, records, bytes, ?cause, "{SAID}");
        }
        self.next_gap_told = Some(Instant::now() + TELL_PAUSE);
        warn!(%session, records, bytes, ?cause, "{SAID}");
    }
}
