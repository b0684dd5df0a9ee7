//! Arming, freezing, counting and removing taps.

use std::{os::fd::BorrowedFd, sync::Arc};

use aya::{
    Ebpf,
    programs::{ProgramError, SocketFilter, socket_filter::SocketFilterError},
};
use weir_common::{
    abi::{PROGRAM, TAP_ARMED, TAP_BEST_EFFORT, TAP_FROZEN, TAP_PAUSED, TAP_SKIPPING, TapCounts, TapGap},
    recording::KernelCount,
    session::{CapturePolicy, SocketCookie},
};

use super::{
    ProgramLog, TapError,
    map::{Counts, Gap, Insert, Maps},
    rings::PinLock,
    socket,
};

/// What the kernel does with a socket's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum TapState {
    /// It captures and passes them, or tosses them where there is no room.
    Armed = TAP_ARMED,
    /// It tosses them.
    Frozen = TAP_FROZEN,
    /// It tosses them as if there were no room.
    Paused = TAP_PAUSED,
    /// It captures them where there is room, and passes and counts them where there is none.
    BestEffort = TAP_BEST_EFFORT,
    /// It passes and counts them.
    Skipping = TAP_SKIPPING,
}

impl TapState {
    /// The state of a tap that records, by the session's policy.
    #[must_use]
    pub fn recording(policy: CapturePolicy) -> Self {
        match policy {
            CapturePolicy::FailClosed => Self::Armed,
            CapturePolicy::BestEffort => Self::BestEffort,
        }
    }

    /// The state of a tap that records nothing, because its session has used up its share of the spool.
    #[must_use]
    pub fn over_quota(policy: CapturePolicy) -> Self {
        match policy {
            CapturePolicy::FailClosed => Self::Paused,
            CapturePolicy::BestEffort => Self::Skipping,
        }
    }

    /// Whether messages may pass unrecorded.
    fn has_gaps(self) -> bool {
        matches!(self, Self::BestEffort | Self::Skipping)
    }
}

/// The taps of a ring, those armed by agents before this one included.
pub struct Taps {
    /// None if the ring is of an older version.
    object: Option<Ebpf>,
    maps: Maps,
    _lock: Arc<PinLock>,
}

impl Taps {
    pub(super) fn new(object: Option<Ebpf>, maps: Maps, lock: &Arc<PinLock>) -> Self {
        Self { object, maps, _lock: Arc::clone(lock) }
    }

    /// The socket's cookie.
    ///
    /// # Errors
    /// [`TapError::NotATapSocket`] for anything but an `AF_UNIX` `SOCK_SEQPACKET` socket.
    pub fn cookie(socket: BorrowedFd<'_>) -> Result<SocketCookie, TapError> {
        socket::cookie(socket)
    }

    /// Makes the kernel do with every message that this socket receives from now on what `state` says.
    ///
    /// A socket is armed once. If it fails behind [`TapError::NotATapSocket`] and [`TapError::Locked`], the
    /// socket passes nothing ever again; in no case is an entry left in a map.
    ///
    /// # Errors
    /// [`TapError::NotATapSocket`], [`TapError::OlderAbi`], [`TapError::Locked`], [`TapError::NotEmpty`],
    /// [`TapError::TapsFull`], or the kernel's refusal.
    pub fn arm(&mut self, socket: BorrowedFd<'_>, state: TapState) -> Result<SocketCookie, TapError> {
        let cookie = Self::cookie(socket)?;
        // First the filter, which passes nothing for a cookie without an entry; the last step opens the tap.
        self.attach(socket)?;
        socket::lock_filter(socket)?;
        match socket::queued(socket)? {
            0 => {}
            bytes => return Err(TapError::NotEmpty { bytes }),
        }
        let entered = self.enter(cookie, state);
        if entered.is_err()
            && let Err(error) = self.remove(cookie)
        {
            tracing::warn!(cookie = cookie.0, %error, "counters of a tap that was not armed stay behind");
        }
        entered.map(|()| cookie)
    }

    /// Makes a tap's entries, the one that opens it as the last.
    fn enter(&mut self, cookie: SocketCookie, state: TapState) -> Result<(), TapError> {
        self.maps.counts.insert(cookie, Counts(TapCounts::default()), Insert::New)?;
        if let Some(gaps) = self.maps.gaps.as_mut().filter(|_| state.has_gaps()) {
            gaps.insert(cookie, Gap(TapGap::default()), Insert::New)?;
        }
        self.maps.states.insert(cookie, state as u32, Insert::New)
    }

    /// Lets nothing into this socket any more, from the next message on.
    ///
    /// # Errors
    /// [`TapError::UnknownTap`], or the kernel's refusal.
    pub fn freeze(&mut self, cookie: SocketCookie) -> Result<(), TapError> {
        self.maps.states.insert(cookie, TapState::Frozen as u32, Insert::Existing)
    }

    /// Has the kernel do from the next message on what `state` says. A tap that is frozen stays so.
    ///
    /// A state in which messages pass unrecorded is for taps that were armed in such a state: others have nothing to
    /// count with, and toss instead.
    ///
    /// # Errors
    /// [`TapError::UnknownTap`], [`TapError::OlderAbi`], or the kernel's refusal.
    pub fn set_state(&mut self, cookie: SocketCookie, state: TapState) -> Result<(), TapError> {
        match self.maps.states.get(cookie)? {
            None => return Err(TapError::UnknownTap { cookie }),
            // Nobody else writes it.
            Some(TAP_FROZEN) => return Ok(()),
            Some(_) => {}
        }
        if self.maps.gaps.is_none() && !matches!(state, TapState::Armed | TapState::Frozen) {
            return Err(TapError::OlderAbi);
        }
        self.maps.states.insert(cookie, state as u32, Insert::Existing)
    }

    /// The kernel's counters of this socket; None if it has no tap.
    ///
    /// A message is counted before its record can be read, so these are never behind what was drained.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn counts(&self, cookie: SocketCookie) -> Result<Option<KernelCount>, TapError> {
        let Some(counts) = self.maps.counts.get(cookie)? else { return Ok(None) };
        Ok(Some(counts.told_with(self.gap_entry(cookie)?)))
    }

    /// What the kernel passed unrecorded into this socket; None if nothing may.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn gap(&self, cookie: SocketCookie) -> Result<Option<TapGap>, TapError> {
        Ok(self.gap_entry(cookie)?.map(|Gap(gap)| gap))
    }

    fn gap_entry(&self, cookie: SocketCookie) -> Result<Option<Gap>, TapError> {
        self.maps.gaps.as_ref().map_or(Ok(None), |gaps| gaps.get(cookie))
    }

    /// Forgets this socket, which passes nothing from then on. It is fine if it was not known.
    ///
    /// Remove a tap when its socket is closed: the kernel may reuse the entry's memory at once, and a message
    /// that is just being captured would then be counted for another tap.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn remove(&mut self, cookie: SocketCookie) -> Result<(), TapError> {
        self.maps.states.remove(cookie)?;
        self.maps.counts.remove(cookie)?;
        self.maps.gaps.as_mut().map_or(Ok(()), |gaps| gaps.remove(cookie))
    }

    /// Whether this socket has a tap, armed or frozen, with its counters.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn has(&self, cookie: SocketCookie) -> Result<bool, TapError> {
        Ok(self.maps.states.get(cookie)?.is_some() && self.maps.counts.get(cookie)?.is_some())
    }

    /// Every socket that has a tap, armed or frozen.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn cookies(&self) -> Result<Vec<SocketCookie>, TapError> {
        self.maps.states.cookies()
    }

    /// The diagnostics of the program; None the second time, and of a ring of an older version.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub fn take_log(&mut self) -> Result<Option<ProgramLog>, TapError> {
        self.object.as_mut().map_or(Ok(None), ProgramLog::take)
    }

    fn attach(&self, socket: BorrowedFd<'_>) -> Result<(), TapError> {
        let object = self.object.as_ref().ok_or(TapError::OlderAbi)?;
        let program = object.program(PROGRAM).ok_or(TapError::Missing { name: PROGRAM })?;
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
