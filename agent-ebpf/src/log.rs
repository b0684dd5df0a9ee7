//! The program's one diagnostic, in the form that aya-log reads.
//!
//! Written out, because its macros write field by field into room whose size they compute. Kernels before 6.17 verify for
//! an agent without `CAP_PERFMON` what a processor may do while it speculates, too, and there the bounds of such
//! writes are not known. Here every offset is a constant.

use aya_ebpf::{macros::map, maps::RingBuf};
use weir_common::abi::MAX_MESSAGE;

/// Where aya-log looks, with the size that it chose.
#[map(name = "AYA_LOGS")]
static LOG: RingBuf = RingBuf::with_byte_size(1 << 17, 0);

/// Tags of a record's fields and arguments (`RecordFieldKind` and `ArgumentKind` of aya-log-common 0.2).
const TARGET: u8 = 0;
const LEVEL: u8 = 1;
const MODULE: u8 = 2;
const FILE: u8 = 3;
const LINE: u8 = 4;
const ARGUMENTS: u8 = 5;
const U32: u8 = 8;
const U64: u8 = 9;
const TEXT: u8 = 20;

const WARNING: u8 = 2;

/// Written eight bytes at a time, of which the text's own length says how many count.
const WORDS: usize = 16;

/// Everything but the two numbers.
const RECORD: Record = Record::new()
    .field(TARGET, b"weir_tap")
    .field(LEVEL, &[WARNING])
    .field(MODULE, b"")
    .field(FILE, b"")
    .field(LINE, &[0; 4])
    .field(ARGUMENTS, &6_u32.to_ne_bytes())
    .field(TEXT, b"tossed a message of ")
    .field(U32, &[0; 4])
    .field(TEXT, b" bytes to socket ")
    .field(U64, &[0; 8])
    .field(TEXT, b": taps pass 1 to ")
    .field(U32, &(MAX_MESSAGE as u32).to_ne_bytes())
    .finish();
const LEN_AT: usize = RECORD.number_at(U32);
const COOKIE_AT: usize = RECORD.number_at(U64);

/// Tells that a message was tossed for its size, if there is room.
#[inline(always)]
pub(crate) fn tossed(len: u32, cookie: u64) {
    let Some(mut entry) = LOG.reserve::<[u64; WORDS]>(0) else { return };
    let record = entry.as_mut_ptr();
    // SAFETY: the reservation is as large and aligned, and both numbers have their places in it.
    unsafe {
        record.write(const { RECORD.words() });
        record.byte_add(LEN_AT).cast::<u32>().write_unaligned(len);
        record.byte_add(COOKIE_AT).cast::<u64>().write_unaligned(cookie);
    }
    entry.submit(0);
}

/// A record that is put together while the program is compiled.
#[derive(Clone, Copy)]
struct Record {
    bytes: [u8; WORDS * 8],
    used: usize,
}

impl Record {
    const fn new() -> Self {
        // Its length comes first.
        Self { bytes: [0; WORDS * 8], used: size_of::<u16>() }
    }

    /// Adds a tag, a length and a value.
    const fn field(mut self, tag: u8, value: &[u8]) -> Self {
        let len = (value.len() as u16).to_ne_bytes();
        self = self.put(&[tag, len[0], len[1]]);
        self.put(value)
    }

    const fn finish(mut self) -> Self {
        let len = (self.used as u16).to_ne_bytes();
        (self.bytes[0], self.bytes[1]) = (len[0], len[1]);
        self
    }

    const fn put(mut self, bytes: &[u8]) -> Self {
        let mut at = 0;
        while at < bytes.len() {
            self.bytes[self.used] = bytes[at];
            self.used += 1;
            at += 1;
        }
        self
    }

    /// Where the value of the first argument with this tag is.
    const fn number_at(&self, tag: u8) -> usize {
        let mut at = size_of::<u16>();
        let mut fields = 0;
        loop {
            // The fields have tags of their own.
            if fields > ARGUMENTS && self.bytes[at] == tag {
                return at + 3;
            }
            at += 3 + u16::from_ne_bytes([self.bytes[at + 1], self.bytes[at + 2]]) as usize;
            fields += 1;
        }
    }

    const fn words(&self) -> [u64; WORDS] {
        let mut words = [0; WORDS];
        let (bytes, _) = self.bytes.as_chunks();
        let mut at = 0;
        while at < WORDS {
            words[at] = u64::from_ne_bytes(bytes[at]);
            at += 1;
        }
        words
    }
}
