//! A bpffs per test, socket pairs, and messages that can be told apart.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::LazyLock,
};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, setsockopt, socketpair, sockopt},
};
use tempfile::TempDir;
use weir_agent::tap::{MIN_RING_BYTES, Record, Ring, RingPlace, Rings, TapError, TapOptions, TapState, Taps};
use weir_common::{
    abi::{MAX_MESSAGE, RecordHeader},
    recording::KernelCount,
    session::SocketCookie,
};

use crate::bpffs;

/// A BPF file system that nobody else uses, gone with this value.
pub(crate) struct Bpffs {
    at: PathBuf,
    _mounted: bpffs::Bpffs,
    _dir: TempDir,
}

impl Bpffs {
    pub(crate) fn mount() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let at = dir.path().join("bpf");
        Self { _mounted: bpffs::Bpffs::at(&at), at, _dir: dir }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.at
    }

    pub(crate) fn options(&self) -> TapOptions {
        TapOptions { bpf_dir: self.path().to_owned(), ring_bytes: MIN_RING_BYTES, max_taps: 16 }
    }

    pub(crate) fn rings(&self) -> Rings {
        Rings::open(&self.options()).expect("opening the rings")
    }

    pub(crate) fn open(&self) -> (Taps, Ring) {
        open(&self.options()).expect("opening the taps")
    }

    pub(crate) fn open_error(&self, options: &TapOptions) -> TapError {
        match open(options) {
            Err(error) => error,
            Ok(_) => panic!("it was opened"),
        }
    }
}

/// The first ring.
pub(crate) fn open(options: &TapOptions) -> Result<(Taps, Ring), TapError> {
    Rings::open(options)?.open_ring(RingPlace::current(0))
}

/// A connected pair as the proxy makes it, with room for several of the largest messages.
pub(crate) fn pair() -> (OwnedFd, OwnedFd) {
    let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .expect("a socket pair");
    for end in [&a, &b] {
        setsockopt(end, sockopt::SndBuf, &(8 * MAX_MESSAGE)).expect("a send buffer");
    }
    (a, b)
}

/// A pair of which the second end is armed.
pub(crate) fn armed_pair(taps: &mut Taps) -> (OwnedFd, OwnedFd, SocketCookie) {
    let (from, to) = pair();
    let cookie = taps.arm(to.as_fd(), TapState::Armed).expect("arming");
    (from, to, cookie)
}

pub(crate) fn put(socket: &OwnedFd, message: &[u8]) {
    let sent = send(socket.as_raw_fd(), message, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT);
    assert_eq!(sent, Ok(message.len()), "sending {} bytes", message.len());
}

/// What is in the socket's queue, if anything.
pub(crate) fn take(socket: &OwnedFd) -> Option<Vec<u8>> {
    let mut message = vec![0; MAX_MESSAGE + 1];
    match recv(socket.as_raw_fd(), &mut message, MsgFlags::MSG_DONTWAIT) {
        Ok(len) => {
            message.truncate(len);
            Some(message)
        }
        Err(Errno::EAGAIN) => None,
        Err(error) => panic!("receiving: {error}"),
    }
}

/// The message with this number: no two are alike from 8 bytes on. Cut from noise that is made once, because the
/// tests make gigabytes of messages, on emulated processors too.
pub(crate) fn message(number: u64, len: usize) -> Vec<u8> {
    const PLACES: usize = 65_521;
    static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| noise(256 * 1024));
    let at = usize::try_from(number).expect("64 bits") % PLACES;
    let mut bytes = number.to_ne_bytes().to_vec();
    bytes.extend_from_slice(&NOISE[at..at + len.saturating_sub(bytes.len())]);
    bytes.truncate(len);
    bytes
}

/// Bytes without a pattern, the same each time.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_ne_bytes()
    };
    (0..len / 8).flat_map(|_| next()).collect()
}

/// A record's header and message.
pub(crate) fn split<'a>(record: &Record<'a>) -> (RecordHeader, &'a [u8]) {
    RecordHeader::split(record.bytes).expect("a record as the program writes it")
}

/// Everything in the ring, released.
pub(crate) fn drain(ring: &mut Ring) -> Vec<(SocketCookie, Vec<u8>)> {
    let mut records = ring.records();
    let drained = records
        .by_ref()
        .map(|record| {
            let (header, message) = split(&record);
            (SocketCookie(header.cookie), message.to_owned())
        })
        .collect();
    let position = records.position();
    ring.release(position);
    drained
}

pub(crate) fn counts(taps: &Taps, cookie: SocketCookie) -> KernelCount {
    taps.counts(cookie).expect("reading the counts").expect("the tap has counts")
}

/// A raw `setsockopt` on the socket level, as an owner would try it.
pub(crate) fn set_option<T>(socket: BorrowedFd<'_>, name: libc::c_int, value: &T) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<T>()).expect("small");
    // SAFETY: the value is live and `len` is its size.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, name, std::ptr::from_ref(value).cast(), len)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
