//! The kernel ABI: what the BPF program writes into the ring and keeps in the `TAPS` map.
//!
//! Everything is `repr(C)`, little or big as the machine is, with explicit padding: writer and reader run on
//! the same kernel. A change of any layout here is a new [`ABI_VERSION`], and with it a new pin directory, so
//! that an old program and a new agent never read each other's bytes.

/// Version of the layouts in this module; part of the pin path and of every record.
///
/// Version 1 had no [`GAPS_MAP`], no records of kind [`RECORD_GAP`] and of the states only the first two. An agent
/// still reads it, so that sessions that were armed by the agent before can end.
pub const ABI_VERSION: u16 = 2;
/// The oldest version whose records and maps are read.
pub const OLDEST_ABI_VERSION: u16 = 1;

/// Name of the program in the object file and of its pin.
pub const PROGRAM: &str = "weir_tap";
/// Name of the map from socket cookie to the tap's state, such as [`TAP_ARMED`]; only the agent writes it.
pub const TAPS_MAP: &str = "TAPS";
/// Name of the map from socket cookie to [`TapCounts`]; after the agent made the entry only the program writes it.
pub const COUNTS_MAP: &str = "COUNTS";
/// Name of the ring buffer map.
pub const RING_MAP: &str = "RING";
/// Name of the map from socket cookie to [`TapGap`], with an entry for each tap that may pass messages unrecorded
/// ([`TAP_BEST_EFFORT`], [`TAP_SKIPPING`]).
pub const GAPS_MAP: &str = "GAPS";

/// The largest message a tap passes: a frame header and [`MAX_FRAME_BODY`] bytes. Longer ones are tossed.
pub const MAX_MESSAGE: usize = FRAME_HEADER_LEN + MAX_FRAME_BODY;
/// Bytes of a frame header, see `frame`.
pub const FRAME_HEADER_LEN: usize = 16;
/// The largest frame body in bytes: what SSH implementations take as the largest packet payload
/// (RFC 4253 section 6.1).
pub const MAX_FRAME_BODY: usize = 32 * 1024;

/// State of a socket whose messages are captured and passed.
pub const TAP_ARMED: u32 = 1;
/// State of a socket that the kernel lets nothing into any more. A socket without any state is treated the same.
pub const TAP_FROZEN: u32 = 2;
/// State of a socket whose session has used up its share of the spool: messages are tossed as if the ring were full.
pub const TAP_PAUSED: u32 = 3;
/// State of a socket whose messages are captured where there is room, and passed and counted as a gap where there is
/// none (`capture_policy = "best_effort"`).
pub const TAP_BEST_EFFORT: u32 = 4;
/// State of a best-effort socket whose session has used up its share of the spool: messages are passed and counted.
pub const TAP_SKIPPING: u32 = 5;

/// [`RecordHeader::kind`] of a captured message.
pub const RECORD_MESSAGE: u16 = 0;
/// [`RecordHeader::kind`] of a [`GapRecord`]: what was passed unrecorded right before the next message of the socket.
pub const RECORD_GAP: u16 = 1;

/// What precedes the captured message in a ring record.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// Cookie of the socket that received the message (`SO_COOKIE`).
    pub cookie: u64,
    /// Kernel time since boot in nanoseconds, suspend included (`bpf_ktime_get_boot_ns`).
    pub boot_ns: u64,
    /// Bytes of the message that follows. The ring record may be longer: sizes are rounded up to a class.
    pub len: u32,
    /// [`ABI_VERSION`] of the program that wrote the record.
    pub abi: u16,
    /// [`RECORD_MESSAGE`] or [`RECORD_GAP`].
    pub kind: u16,
}

/// Bytes of a [`RecordHeader`].
pub const RECORD_HEADER_LEN: usize = size_of::<RecordHeader>();

const _: () = assert!(RECORD_HEADER_LEN == 24 && align_of::<RecordHeader>() == 8);

/// The kernel's own counters of one receiving socket.
///
/// They are apart from the state so that a freeze, which overwrites the state, can't undo a count.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TapCounts {
    /// Messages copied into the ring and passed.
    pub captured_records: u64,
    /// Bytes of those messages.
    pub captured_bytes: u64,
    /// Messages tossed because there was no room: in the ring, or in the session's share of the spool
    /// ([`TAP_PAUSED`]).
    pub tossed_full: u64,
    /// Messages tossed because the tap was frozen.
    pub tossed_frozen: u64,
    /// Messages tossed because they were empty or longer than [`MAX_MESSAGE`].
    pub tossed_size: u64,
}

const _: () = assert!(size_of::<TapCounts>() == 40 && align_of::<TapCounts>() == 8);

/// What the kernel passed unrecorded of one receiving socket: the entry of [`GAPS_MAP`].
///
/// A socket has one sender, so the program runs for it once at a time, and the fields agree with each other.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TapGap {
    /// Messages of the gap that is open: no record says it yet. 0 if none is.
    pub open_records: u64,
    /// Bytes of those.
    pub open_bytes: u64,
    /// Kernel time since boot in nanoseconds of the first of them.
    pub open_since_ns: u64,
    /// Messages passed unrecorded, in all.
    pub passed_records: u64,
    /// Bytes of those.
    pub passed_bytes: u64,
}

const _: () = assert!(size_of::<TapGap>() == 40 && align_of::<TapGap>() == 8);

/// The message of a record of kind [`RECORD_GAP`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GapRecord {
    /// Messages passed unrecorded.
    pub records: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Kernel time since boot in nanoseconds of the first of them.
    pub since_ns: u64,
    /// Why, as far as is known: 0 from the program, which knows only that there was no room; the agent writes what it
    /// knows when it moves the record to the spool.
    pub cause: u32,
    /// Always zero.
    pub reserved: u32,
}

/// Bytes of a [`GapRecord`].
pub const GAP_RECORD_LEN: usize = size_of::<GapRecord>();

const _: () = assert!(GAP_RECORD_LEN == 32 && align_of::<GapRecord>() == 8);

impl GapRecord {
    /// Reads the message of a gap record; `None` if it has another length.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; GAP_RECORD_LEN] = bytes.try_into().ok()?;
        Some(Self {
            records: u64::from_ne_bytes(*bytes.first_chunk()?),
            bytes: u64::from_ne_bytes(*bytes[8..].first_chunk()?),
            since_ns: u64::from_ne_bytes(*bytes[16..].first_chunk()?),
            cause: u32::from_ne_bytes(*bytes[24..].first_chunk()?),
            reserved: u32::from_ne_bytes(*bytes[28..].first_chunk()?),
        })
    }

    /// The bytes as the program writes them.
    #[must_use]
    pub fn to_bytes(self) -> [u8; GAP_RECORD_LEN] {
        let Self { records, bytes, since_ns, cause, reserved } = self;
        let mut out = [0; GAP_RECORD_LEN];
        out[..8].copy_from_slice(&records.to_ne_bytes());
        out[8..16].copy_from_slice(&bytes.to_ne_bytes());
        out[16..24].copy_from_slice(&since_ns.to_ne_bytes());
        out[24..28].copy_from_slice(&cause.to_ne_bytes());
        out[28..].copy_from_slice(&reserved.to_ne_bytes());
        out
    }
}

impl RecordHeader {
    /// Splits a ring record into its header and the captured message.
    ///
    /// `None` if the record is shorter than it says, or written by an ABI version that is not read: then the bytes
    /// behind the header mean nothing to this reader.
    #[must_use]
    pub fn split(record: &[u8]) -> Option<(Self, &[u8])> {
        let (header, rest) = record.split_first_chunk::<RECORD_HEADER_LEN>()?;
        let header = Self {
            cookie: u64::from_ne_bytes(*header.first_chunk()?),
            boot_ns: u64::from_ne_bytes(*header[8..].first_chunk()?),
            len: u32::from_ne_bytes(*header[16..].first_chunk()?),
            abi: u16::from_ne_bytes(*header[20..].first_chunk()?),
            kind: u16::from_ne_bytes(*header[22..].first_chunk()?),
        };
        if !(OLDEST_ABI_VERSION..=ABI_VERSION).contains(&header.abi) {
            return None;
        }
        Some((header, rest.get(..header.len as usize)?))
    }

    /// The header's bytes as the program writes them; for tests and benchmarks that play the kernel.
    #[must_use]
    pub fn to_bytes(self) -> [u8; RECORD_HEADER_LEN] {
        let Self { cookie, boot_ns, len, abi, kind } = self;
        let mut bytes = [0; RECORD_HEADER_LEN];
        bytes[..8].copy_from_slice(&cookie.to_ne_bytes());
        bytes[8..16].copy_from_slice(&boot_ns.to_ne_bytes());
        bytes[16..20].copy_from_slice(&len.to_ne_bytes());
        bytes[20..22].copy_from_slice(&abi.to_ne_bytes());
        bytes[22..24].copy_from_slice(&kind.to_ne_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_splits_into_the_header_that_was_written_and_its_message() {
        let header = RecordHeader { cookie: 7, boot_ns: 9, len: 3, abi: ABI_VERSION, kind: RECORD_MESSAGE };
        let mut record = header.to_bytes().to_vec();
        record.extend_from_slice(b"abc and the rest of the size class");
        assert_eq!(RecordHeader::split(&record), Some((header, &b"abc"[..])));
    }

    #[test]
    fn a_short_record_or_one_of_another_abi_is_refused() {
        let header = RecordHeader { cookie: 7, boot_ns: 9, len: 3, abi: ABI_VERSION, kind: RECORD_MESSAGE };
        let mut record = header.to_bytes().to_vec();
        record.extend_from_slice(b"ab");
        assert_eq!(RecordHeader::split(&record), None);
        assert_eq!(RecordHeader::split(&record[..10]), None);
        let other = RecordHeader { abi: ABI_VERSION + 1, ..header };
        assert_eq!(RecordHeader::split(&[&other.to_bytes()[..], b"abc"].concat()), None);
    }
}
