//! What the tap needs of a socket and the standard library does not have.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

use weir_common::session::SocketCookie;

use super::TapError;

/// The socket's cookie, if it is one that a tap can have.
pub(super) fn cookie(socket: BorrowedFd<'_>) -> Result<SocketCookie, TapError> {
    let number = |name| option(socket, name).map(i32::from_ne_bytes);
    let not_one = |source: io::Error| TapError::NotATapSocket { found: source.to_string() };
    let (domain, kind) = (number(libc::SO_DOMAIN).map_err(not_one)?, number(libc::SO_TYPE).map_err(not_one)?);
    if (domain, kind) != (libc::AF_UNIX, libc::SOCK_SEQPACKET) {
        return Err(TapError::NotATapSocket { found: format!("domain {domain}, type {kind}") });
    }
    match option(socket, libc::SO_COOKIE) {
        Ok(cookie) => Ok(SocketCookie(u64::from_ne_bytes(cookie))),
        Err(source) => Err(TapError::Socket { op: "reading the cookie", source }),
    }
}

/// Makes the socket's filter permanent, for its owner too.
pub(super) fn lock_filter(socket: BorrowedFd<'_>) -> Result<(), TapError> {
    let on: libc::c_int = 1;
    // SAFETY: the value is a live int, and the length is its size.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LOCK_FILTER,
            (&raw const on).cast(),
            len_of::<libc::c_int>(),
        )
    };
    check(result).map_err(|source| TapError::Socket { op: "locking the filter", source })
}

/// Whether the socket's filter is permanent.
pub(super) fn is_locked(socket: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(option(socket, libc::SO_LOCK_FILTER).map(libc::c_int::from_ne_bytes)? != 0)
}

/// Bytes waiting to be received, over all queued messages.
pub(super) fn queued(socket: BorrowedFd<'_>) -> Result<u64, TapError> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int, which lives until the call returns.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    check(result).map_err(|source| TapError::Socket { op: "FIONREAD", source })?;
    Ok(u64::try_from(bytes).unwrap_or(0))
}

/// A socket option of `N` bytes on the socket level.
fn option<const N: usize>(socket: BorrowedFd<'_>, name: libc::c_int) -> io::Result<[u8; N]> {
    let mut value = [0; N];
    let mut len = len_of::<[u8; N]>();
    // SAFETY: the value is live and `len` is its size, so the kernel writes no further.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, name, value.as_mut_ptr().cast(), &raw mut len)
    };
    check(result)?;
    Ok(value)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

const fn len_of<T>() -> libc::socklen_t {
    #[expect(clippy::cast_possible_truncation, reason = "option values are a few bytes")]
    {
        size_of::<T>() as libc::socklen_t
    }
}
