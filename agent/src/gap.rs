//! A gap as it lies in the spool: the program's record, and what only the agent knows of it.
//!
//! The cause and the sequence number are written when the record moves to the spool, so that every replay and every
//! encoding of the segment says the same. Pure; not here: which cause it is (`core`), and what a gap does to a session
//! (`session`).

use weir_common::{
    abi::{ABI_VERSION, GAP_RECORD_LEN, GapRecord, RECORD_GAP, RECORD_HEADER_LEN, RecordHeader},
    recording::{Gap, GapCause},
    session::SocketCookie,
};

/// Bytes of the message of a gap's record in the spool.
const LEN: usize = GAP_RECORD_LEN + size_of::<u64>();

/// The causes, by the number that stands for them in [`GapRecord::cause`]: from 1, since the program writes 0.
const CAUSES: [GapCause; 5] = [
    GapCause::RingFull,
    GapCause::SpoolFull,
    GapCause::SpoolUnwritable,
    GapCause::SessionQuota,
    GapCause::AgentDown,
];

/// A gap, and where it is in its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpooledGap {
    /// The sequence number of the first frame in it.
    pub seq: u64,
    /// The gap.
    pub gap: Gap,
}

impl SpooledGap {
    /// The record for the spool.
    ///
    /// `ended_ns` is the kernel time since boot when the gap was over.
    #[must_use]
    pub fn to_record(&self, cookie: SocketCookie, ended_ns: u64) -> Vec<u8> {
        let Self { seq, gap: Gap { records, bytes, since, cause } } = *self;
        #[expect(clippy::cast_possible_truncation, reason = "a few dozen")]
        let len = LEN as u32;
        let header =
            RecordHeader { cookie: cookie.0, boot_ns: ended_ns, len, abi: ABI_VERSION, kind: RECORD_GAP };
        let number = CAUSES.iter().position(|&other| other == cause);
        let cause = number.and_then(|number| u32::try_from(number + 1).ok()).unwrap_or(0);
        let gap = GapRecord { records, bytes, since_ns: since, cause, reserved: 0 };
        let mut record = Vec::with_capacity(RECORD_HEADER_LEN + LEN);
        record.extend_from_slice(&header.to_bytes());
        record.extend_from_slice(&gap.to_bytes());
        record.extend_from_slice(&seq.to_ne_bytes());
        record
    }

    /// Reads the message of a record of the spool; `None` if it is no gap's.
    #[must_use]
    pub fn from_message(message: &[u8]) -> Option<Self> {
        let (gap, seq) = message.split_first_chunk::<GAP_RECORD_LEN>()?;
        let GapRecord { records, bytes, since_ns, cause, reserved: _ } = GapRecord::from_bytes(gap)?;
        let seq = u64::from_ne_bytes(seq.try_into().ok()?);
        let cause = *CAUSES.get(usize::try_from(cause.checked_sub(1)?).ok()?)?;
        Some(Self { seq, gap: Gap { records, bytes, since: since_ns, cause } })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_gap_reads_back_as_it_was_written(
            seq: u64, records: u64, bytes: u64, since: u64, cause in prop::sample::select(CAUSES.to_vec()),
        ) {
            let gap = SpooledGap { seq, gap: Gap { records, bytes, since, cause } };
            let record = gap.to_record(SocketCookie(7), 9);
            let (header, message) = RecordHeader::split(&record).expect("whole");
            prop_assert_eq!((header.cookie, header.boot_ns, header.kind), (7, 9, RECORD_GAP));
            prop_assert_eq!(SpooledGap::from_message(message), Some(gap));
            prop_assert_eq!(SpooledGap::from_message(&message[..message.len() - 1]), None);
        }

        #[test]
        fn arbitrary_bytes_are_a_gap_only_if_they_have_its_length_and_a_cause(
            bytes in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            if let Some(gap) = SpooledGap::from_message(&bytes) {
                let record = gap.to_record(SocketCookie(7), 9);
                prop_assert_eq!(bytes.len(), record.len() - RECORD_HEADER_LEN);
            }
        }
    }
}
