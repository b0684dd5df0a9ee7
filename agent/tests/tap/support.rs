//! A bpffs per test, socket pairs, and messages that can be told apart.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, setsockopt, socketpair, sockopt},
};
use tempfile::TempDir;
use weir_agent::tap::{MIN_RING_BYTES, Record, Ring, RingPlace, Rings, TapError, TapOptions, TapState, Taps};
use weir_common::{
    abi::{MAX_MESSAGE, RecordHeader},
    recording::KernelCount,
    session::SocketCookie,
};

/// A BPF filesystem that nobody else uses, gone with this value.
pub(crate) struct Bpffs {
    dir: TempDir,
}

impl Bpffs {
    pub(crate) fn mount() -> Self {
        let dir = tempfile::tempdir().expect("a directory to mount on");
        mount(Some("bpf"), dir.path(), Some("bpf"), MsFlags::empty(), None::<&str>)
            .expect("mounting a bpffs, which takes root");
        Self { dir }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
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

impl Drop for Bpffs {
    fn drop(&mut self) {
        umount2(self.dir.path(), MntFlags::MNT_DETACH).expect("unmounting our own bpffs");
    }
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

/// The message with this number: no two are alike from 8 bytes on.
pub(crate) fn message(number: u64, len: usize) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = number.to_ne_bytes().to_vec();
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_ne_bytes());
    }
    bytes.truncate(len);
    bytes
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
