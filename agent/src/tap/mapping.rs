//! Shared memory of a BPF map, unmapped on drop.

use std::{
    io,
    num::NonZeroUsize,
    os::fd::{AsFd, BorrowedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64},
};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// A shared mapping of a descriptor.
pub(super) struct Mapping {
    start: NonNull<u8>,
    len: NonZeroUsize,
}

// SAFETY: a mapping belongs to the process, not to a thread, and nothing here depends on the thread.
unsafe impl Send for Mapping {}

impl Mapping {
    pub(super) fn new(
        fd: BorrowedFd<'_>,
        offset: usize,
        len: usize,
        protection: ProtFlags,
    ) -> io::Result<Self> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
        let len = NonZeroUsize::new(len).ok_or_else(invalid)?;
        let offset = offset.try_into().map_err(|_| invalid())?;
        // SAFETY: the kernel chooses the address, so that no other memory is replaced.
        let start = unsafe { mmap(None, len, protection, MapFlags::MAP_SHARED, fd.as_fd(), offset)? };
        Ok(Self { start: start.cast(), len })
    }

    /// The number at an offset that the kernel or we change at any time.
    pub(super) fn u64_at(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: checked to be inside and aligned; the kernel accesses it with whole-word loads and stores.
        unsafe { &*self.inside::<AtomicU64>(offset) }
    }

    /// As [`Self::u64_at`], of 4 bytes.
    pub(super) fn u32_at(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: as above.
        unsafe { &*self.inside::<AtomicU32>(offset) }
    }

    /// # Safety
    /// Nobody changes these bytes while the slice lives.
    pub(super) unsafe fn bytes(&self, offset: usize, len: usize) -> &[u8] {
        assert!(offset.checked_add(len).is_some_and(|end| end <= self.len.get()), "inside the mapping");
        // SAFETY: inside the mapping, which lives as long as `self`; that they stay is up to the caller.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(offset), len) }
    }

    fn inside<T>(&self, offset: usize) -> *const T {
        let end = offset.checked_add(size_of::<T>());
        assert!(end.is_some_and(|end| end <= self.len.get()), "inside the mapping");
        assert!(offset.is_multiple_of(align_of::<T>()), "aligned");
        // SAFETY: inside the mapping, as checked above; mappings start at a page and so keep the alignment.
        unsafe { self.start.as_ptr().add(offset).cast_const().cast() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let Self { start, len } = self;
        // SAFETY: exactly what `new` mapped; references into it can't outlive `self`.
        if let Err(error) = unsafe { munmap(start.cast(), len.get()) } {
            tracing::warn!(%error, "a mapping of the ring could not be removed");
        }
    }
}
