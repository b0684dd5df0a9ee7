//! What only an `ioctl` tells: how many bytes a socket has waiting.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use nix::libc::c_int;

/// Bytes that a TCP socket has received and nobody has read (`SIOCINQ`, tcp(7)).
pub(crate) fn unread_bytes(socket: &impl AsFd) -> io::Result<usize> {
    let mut bytes: c_int = 0;
    // SAFETY: the descriptor is open for as long as the borrow of `socket`, and SIOCINQ writes one int to the address
    // it is given, which is that of a live local (tcp_ioctl, net/ipv4/tcp.c, Linux 5.10 to 6.18).
    #[expect(unsafe_code, reason = "no safe wrapper of SIOCINQ exists")]
    unsafe { raw::siocinq(socket.as_fd().as_raw_fd(), &raw mut bytes) }?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// Memory of messages that a Unix socket has sent and nobody has received; 0 if the queue is empty (`SIOCOUTQ`,
/// unix(7)).
pub(crate) fn unreceived_bytes(socket: &impl AsFd) -> io::Result<usize> {
    let mut bytes: c_int = 0;
    // SAFETY: the descriptor is open for as long as the borrow of `socket`, and SIOCOUTQ writes one int to the
    // address it is given, which is that of a live local (unix_ioctl, net/unix/af_unix.c, Linux 5.10 to 6.18).
    #[expect(unsafe_code, reason = "no safe wrapper of SIOCOUTQ exists")]
    unsafe { raw::siocoutq(socket.as_fd().as_raw_fd(), &raw mut bytes) }?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

mod raw {
    nix::ioctl_read_bad!(siocinq, nix::libc::FIONREAD, nix::libc::c_int);
    nix::ioctl_read_bad!(siocoutq, nix::libc::TIOCOUTQ, nix::libc::c_int);
}
