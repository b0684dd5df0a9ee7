//! The consumer's side of the BPF ring buffer.
//!
//! aya has one too, but it gives a record back to the kernel when its item is dropped, one at a time. Here the
//! order is the point: many records are read, then made safe in the spool, and only then is their room
//! released, all at once.
//!
//! The protocol is that of `Documentation/bpf/ringbuf.rst` and `kernel/bpf/ringbuf.c` (as of Linux 6.12):
//! - The map's first page holds the consumer position, which only we write; the second the producer position,
//!   which only the kernel writes. Both count bytes and never wrap. The data pages follow, mapped twice in a
//!   row, so that every record is contiguous.
//! - A record is an 8-byte header, whose first word is the length with a busy and a discard bit, and its bytes,
//!   padded to 8. The busy bit goes away when the program submits or discards the record.
//! - On submission the kernel wakes pollers only if the consumer position is that record's start. Therefore
//!   [`Ring::release`] ends in a full barrier: either the following poll sees the new record, or its submitter
//!   sees the new position.
//!
//! Invariant: bytes handed out by [`Ring::records`] stay what they are until [`Ring::release`] passes them.

use std::{
    os::fd::{AsFd, BorrowedFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering, fence},
    },
};

use aya::maps::MapData;
use nix::sys::mman::ProtFlags;
use serde::{Deserialize, Serialize};

use super::{TapError, mapping::Mapping, rings::PinLock};

/// Identifies a ring: the kernel's number of the map, and the boot in which that number is unique.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RingId {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// The BPF map's id.
    pub map_id: u32,
}

/// The ring that every tap's messages are captured in, in one order over all taps.
///
/// Poll its descriptor for input to wait for records; it stays readable until everything is released.
pub struct Ring {
    map: MapData,
    id: RingId,
    capacity: u64,
    page: usize,
    consumer: Mapping,
    producer: Mapping,
    _lock: Arc<PinLock>,
}

/// A captured message in the ring, as the program wrote it: a `RecordHeader`, the message, padding.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    /// The record.
    pub bytes: &'a [u8],
    /// The position behind it: releasing up to here gives its room back.
    pub end: u64,
}

/// Walks the records that are in the ring, see [`Ring::records`].
pub struct Records<'a> {
    ring: &'a Ring,
    position: u64,
    limit: u64,
}

const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;
const HEADER_LEN: u64 = size_of::<u64>() as u64;

// Positions are the kernel's `unsigned long`.
const _: () = assert!(usize::BITS == 64);

impl Ring {
    /// Maps a ring map's memory. `page` is the size of a memory page.
    pub(super) fn new(
        map: MapData,
        id: RingId,
        capacity: u32,
        page: usize,
        lock: Arc<PinLock>,
    ) -> Result<Self, TapError> {
        let fd = map.fd().as_fd();
        let data = 2 * capacity as usize;
        let consumer = Mapping::new(fd, 0, page, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)
            .map_err(|source| TapError::Mmap { part: "consumer page", source })?;
        let producer = Mapping::new(fd, page, page + data, ProtFlags::PROT_READ)
            .map_err(|source| TapError::Mmap { part: "producer and data pages", source })?;
        Ok(Self { map, id, capacity: u64::from(capacity), page, consumer, producer, _lock: lock })
    }

    /// Which ring this is. The same id means the same positions and records.
    #[must_use]
    pub fn id(&self) -> &RingId {
        &self.id
    }

    /// Its size in bytes.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Everything before this position is released. Survives this process.
    #[must_use]
    pub fn consumer_position(&self) -> u64 {
        // Nobody else writes it, so there is nothing to order against.
        self.consumer_word().load(Ordering::Relaxed)
    }

    /// Everything before this position has been reserved by the program, and most of it submitted.
    #[must_use]
    pub fn producer_position(&self) -> u64 {
        // Pairs with the kernel's store-release in `__bpf_ringbuf_reserve`: the headers up to here are visible.
        self.producer.u64_at(0).load(Ordering::Acquire)
    }

    /// The submitted records from the consumer position on, up to what was there when it was called.
    ///
    /// Ends early at a record that the program is still writing. Releases nothing.
    #[must_use]
    pub fn records(&self) -> Records<'_> {
        Records { ring: self, position: self.consumer_position(), limit: self.producer_position() }
    }

    /// Gives the room of everything before `position` back to the kernel.
    ///
    /// # Panics
    /// If the position moves backwards or past what was produced, or is not a record's boundary as far as can
    /// be seen: any of it would hand out torn records, and so it is a bug that must not go on.
    pub fn release(&mut self, position: u64) {
        let (from, to) = (self.consumer_position(), self.producer_position());
        assert!((from..=to).contains(&position), "released position {position} is outside {from}..={to}");
        assert!(position.is_multiple_of(HEADER_LEN), "released position {position} is inside a record");
        // Pairs with the kernel's load-acquire before it reuses the room: our reads are done by then.
        self.consumer_word().store(position, Ordering::Release);
        // See the module's documentation: orders this store before the loads of the next poll or walk.
        fence(Ordering::SeqCst);
    }

    fn consumer_word(&self) -> &AtomicU64 {
        self.consumer.u64_at(0)
    }

    /// Offset into `producer` of what is at this position.
    fn offset(&self, position: u64) -> usize {
        // Below twice the capacity, which fits `usize` as the mapping does.
        #[expect(clippy::cast_possible_truncation, reason = "see the assertion on the size of usize")]
        let offset = (position & (self.capacity - 1)) as usize;
        self.page + offset
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.fd().as_fd()
    }
}

impl Records<'_> {
    /// The position behind everything walked so far, discarded records included.
    ///
    /// After the last record it can be past that record's end: then what follows it was discarded.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        while self.position < self.limit {
            let offset = self.ring.offset(self.position);
            // Pairs with the kernel's xchg in `bpf_ringbuf_commit`: once it is not busy, the bytes are visible.
            let header = self.ring.producer.u32_at(offset).load(Ordering::Acquire);
            if header & BUSY != 0 {
                return None;
            }
            let len = header & !(BUSY | DISCARDED);
            let end = self.position + (HEADER_LEN + u64::from(len)).next_multiple_of(HEADER_LEN);
            self.position = end;
            if header & DISCARDED != 0 {
                continue;
            }
            // SAFETY: submitted, so the program is done with it, and the kernel reuses the room only after a
            // `release`, which needs the ring mutably while `'a` borrows it.
            let bytes = unsafe { self.ring.producer.bytes(offset + size_of::<u64>(), len as usize) };
            return Some(Record { bytes, end });
        }
        None
    }
}
