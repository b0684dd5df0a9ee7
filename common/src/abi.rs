//! The kernel ABI: what the BPF program writes into the ring and keeps in the `TAPS` map.
//!
//! Everything is `repr(C)`, little or big as the machine is, with explicit padding: writer and reader run on
//! the same kernel. A change of any layout here is a new [`ABI_VERSION`], and with it a new pin directory, so
//! that an old program and a new agent never read each other's bytes.

/// Version of the layouts in this module; part of the pin path and of every record.
pub const ABI_VERSION: u16 = 1;

/// Name of the program in the object file and of its pin.
pub const PROGRAM: &str = "weir_tap";
/// Name of the map from socket cookie to the tap's state, [`TAP_ARMED`] or [`TAP_FROZEN`]; only the agent writes it.
pub const TAPS_MAP: &str = "TAPS";
/// Name of the map from socket cookie to [`TapCounts`]; after the agent made the entry only the program writes it.
pub const COUNTS_MAP: &str = "COUNTS";
/// Name of the ring buffer map.
pub const RING_MAP: &str = "RING";

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
    /// Always zero.
    pub reserved: u16,
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
    /// Messages tossed because the ring had no room.
    pub tossed_full: u64,
    /// Messages tossed because the tap was frozen.
    pub tossed_frozen: u64,
    /// Messages tossed because they were empty or longer than [`MAX_MESSAGE`].
    pub tossed_size: u64,
}

const _: () = assert!(size_of::<TapCounts>() == 40 && align_of::<TapCounts>() == 8);

impl RecordHeader {
    /// Splits a ring record into its header and the captured message.
    ///
    /// `None` if the record is shorter than it says, or written by another ABI version: then the bytes behind
    /// the header mean nothing to this reader.
    #[must_use]
    pub fn split(record: &[u8]) -> Option<(Self, &[u8])> {
        let (header, rest) = record.split_first_chunk::<RECORD_HEADER_LEN>()?;
        let header = Self {
            cookie: u64::from_ne_bytes(*header.first_chunk()?),
            boot_ns: u64::from_ne_bytes(*header[8..].first_chunk()?),
            len: u32::from_ne_bytes(*header[16..].first_chunk()?),
            abi: u16::from_ne_bytes(*header[20..].first_chunk()?),
            reserved: u16::from_ne_bytes(*header[22..].first_chunk()?),
        };
        if header.abi != ABI_VERSION {
            return None;
        }
        Some((header, rest.get(..header.len as usize)?))
    }

    /// The header's bytes as the program writes them; for tests and benchmarks that play the kernel.
    #[must_use]
    pub fn to_bytes(self) -> [u8; RECORD_HEADER_LEN] {
        let Self { cookie, boot_ns, len, abi, reserved } = self;
        let mut bytes = [0; RECORD_HEADER_LEN];
        bytes[..8].copy_from_slice(&cookie.to_ne_bytes());
        bytes[8..16].copy_from_slice(&boot_ns.to_ne_bytes());
        bytes[16..20].copy_from_slice(&len.to_ne_bytes());
        bytes[20..22].copy_from_slice(&abi.to_ne_bytes());
        bytes[22..24].copy_from_slice(&reserved.to_ne_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_splits_into_the_header_that_was_written_and_its_message() {
        let header = RecordHeader { cookie: 7, boot_ns: 9, len: 3, abi: ABI_VERSION, reserved: 0 };
        let mut record = header.to_bytes().to_vec();
        record.extend_from_slice(b"abc and the rest of the size class");
        assert_eq!(RecordHeader::split(&record), Some((header, &b"abc"[..])));
    }

    #[test]
    fn a_short_record_or_one_of_another_abi_is_refused() {
        let header = RecordHeader { cookie: 7, boot_ns: 9, len: 3, abi: ABI_VERSION, reserved: 0 };
        let mut record = header.to_bytes().to_vec();
        record.extend_from_slice(b"ab");
        assert_eq!(RecordHeader::split(&record), None);
        assert_eq!(RecordHeader::split(&record[..10]), None);
        let other = RecordHeader { abi: ABI_VERSION + 1, ..header };
        assert_eq!(RecordHeader::split(&[&other.to_bytes()[..], b"abc"].concat()), None);
    }
}
