//! Arming, freezing, counting and removing taps.

use std::{os::fd::BorrowedFd, sync::Arc};

use aya::{
    Ebpf,
    programs::{ProgramError, SocketFilter, socket_filter::SocketFilterError},
};
use weir_common::{
    abi::{COUNTS_MAP, PROGRAM, TAP_ARMED, TAP_FROZEN, TAPS_MAP, TapCounts},
    recording::KernelCount,
    session::SocketCookie,
};

use super::{
    ProgramLog, TapError,
    load::PinLock,
    map::{CookieMap, Counts, Insert},
    socket,
};

/// The taps of this node, those armed by agents before this one included.
pub struct Taps {
    object: Ebpf,
    states: CookieMap<u32>,
    counts: CookieMap<Counts>,
    _lock: Arc<PinLock>,
}

impl Taps {
    pub(super) fn new(mut object: Ebpf, lock: Arc<PinLock>) -> Result<Self, TapError> {
        let mut take = |name| object.take_map(name).ok_or(TapError::Missing { name });
        let states = CookieMap::new(TAPS_MAP, take(TAPS_MAP)?)?;
        let counts = CookieMap::new(COUNTS_MAP, take(COUNTS_MAP)?)?;
        Ok(Self { object, states, counts, _lock: lock })
    }

    /// The socket's cookie.
    ///
    /// # Errors
    /// [`TapError::NotATapSocket`] for anything but an `AF_UNIX` `SOCK_SEQPACKET` socket.
    pub fn cookie(socket: BorrowedFd<'_>) -> Result<SocketCookie, TapError> {
        socket::cookie(socket)
    }

    /// Makes the kernel record every message that this socket receives from now on, or not pass it.
    ///
    /// A socket is armed once. If it fails behind [`TapError::NotATapSocket`] and [`TapError::Locked`], the
    /// socket passes nothing ever again; in no case is an entry left in a map.
    ///
    /// # Errors
    /// [`TapError::NotATapSocket`], [`TapError::Locked`], [`TapError::NotEmpty`], [`TapError::TapsFull`], or
    /// the kernel's refusal.
    pub fn arm(&mut self, socket: BorrowedFd<'_>) -> Result<SocketCookie, TapError> {
        let cookie = Self::cookie(socket)?;
        // First the filter, which passes nothing for a cookie without an entry; the last step opens the tap.
        self.attach(socket)?;
        socket::lock_filter(socket)?;
        match socket::queued(socket)? {
            0 => {}
            bytes => return Err(TapError::NotEmpty { bytes }),
        }
        self.counts.insert(cookie, Counts(TapCounts::default()), Insert::New)?;
        self.states.insert(cookie, TAP_ARMED, Insert::New).inspect_err(|_| {
            if let Err(error) = self.counts.remove(cookie) {
                tracing::warn!(cookie = cookie.0, %error, "counters of a tap that was not armed stay behind");
            }
        })?;
        Ok(cookie)
    }

    /// Lets nothing into this socket any more, from the next message on.
    ///
    /// # Errors
    /// [`TapError::UnknownTap`], or the kernel's refusal.
    pub fn freeze(&mut self, cookie: SocketCookie) -> Result<(), TapError> {
        self.states.insert(cookie, TAP_FROZEN, Insert::Existing)
    }

    /// The kernel's counters of this socket; None if it has no tap.
    ///
    /// A message is counted before its record can be read, so these are never behind what was drained.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn counts(&self, cookie: SocketCookie) -> Result<Option<KernelCount>, TapError> {
        Ok(self.counts.get(cookie)?.map(KernelCount::from))
    }

    /// Forgets this socket, which passes nothing from then on. It is fine if it was not known.
    ///
    /// Remove a tap when its socket is closed: the kernel may reuse the entry's memory at once, and a message
    /// that is just being captured would then be counted for another tap.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn remove(&mut self, cookie: SocketCookie) -> Result<(), TapError> {
        self.states.remove(cookie)?;
        self.counts.remove(cookie)
    }

    /// Whether this socket has a tap, armed or frozen, with its counters.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn has(&self, cookie: SocketCookie) -> Result<bool, TapError> {
        Ok(self.states.get(cookie)?.is_some() && self.counts.get(cookie)?.is_some())
    }

    /// Every socket that has a tap, armed or frozen.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn cookies(&self) -> Result<Vec<SocketCookie>, TapError> {
        self.states.cookies()
    }

    /// The diagnostics of the program; None the second time.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn take_log(&mut self) -> Result<Option<ProgramLog>, TapError> {
        ProgramLog::take(&mut self.object)
    }

    fn attach(&self, socket: BorrowedFd<'_>) -> Result<(), TapError> {
        let program = self.object.program(PROGRAM).ok_or(TapError::Missing { name: PROGRAM })?;
        let program: &SocketFilter = program.try_into().map_err(load_error)?;
        match program.attach(socket) {
            Ok(()) => Ok(()),
            Err(ProgramError::SocketFilterError(SocketFilterError::SetsockoptError {
                io_error: source,
                ..
            })) if source.raw_os_error() == Some(libc::EPERM) => Err(TapError::Locked),
            Err(ProgramError::SocketFilterError(SocketFilterError::SetsockoptError {
                io_error: source,
                ..
            })) => Err(TapError::Socket { op: "attaching the filter", source }),
            Err(source) => Err(load_error(source)),
        }
    }
}

fn load_error(source: ProgramError) -> TapError {
    TapError::Load { op: "attaching", source: source.into() }
}
