//! A tap, and both legs of a proxy that send and take frames as fast as they can.

use std::{
    os::fd::{AsRawFd, OwnedFd, RawFd},
    time::Duration,
};

use anyhow::{Result, ensure};
use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair},
};
use weir_common::{
    abi::FRAME_HEADER_LEN,
    control::{Reply, Request},
    frame::{Direction, Message},
    session::ChannelNo,
};

use crate::{
    proxy::{Control, frame},
    rest,
};

/// The pauses before a frame that was tossed is sent again, as the proxy's.
const RESEND_PAUSE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));

pub(crate) struct Feeder {
    client: OwnedFd,
    target: OwnedFd,
    /// The next frame's number, by direction.
    next: [u64; 2],
}

impl Feeder {
    pub(crate) fn new() -> Result<Self> {
        let (client, target) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok(Self { client, target, next: [0; 2] })
    }

    /// A new one, armed for a session's channel.
    pub(crate) fn armed(control: &Control, channel: ChannelNo) -> Result<Self> {
        let feeder = Self::new()?;
        let armed = control.ask(&Request::Arm { channel }, &feeder.descriptors());
        ensure!(armed == Some(Reply::Armed { channel }), "not armed: {armed:?}");
        Ok(feeder)
    }

    pub(crate) fn descriptors(&self) -> [RawFd; 2] {
        [self.client.as_raw_fd(), self.target.as_raw_fd()]
    }

    /// Descriptors for somebody else.
    pub(crate) fn descriptors_cloned(&self) -> Result<[OwnedFd; 2]> {
        Ok([self.client.try_clone()?, self.target.try_clone()?])
    }

    /// Sends a frame, whose number is put in, and says whether it came through. Of what is taken only the first
    /// byte is copied: it is the agent that is measured, not the taking.
    pub(crate) fn try_pass(&mut self, direction: Direction, frame: &mut [u8]) -> Result<bool> {
        let next = &mut self.next[direction as usize];
        frame[8..FRAME_HEADER_LEN].copy_from_slice(&next.to_le_bytes());
        let (from, to) = match direction {
            Direction::ClientToTarget => (&self.client, &self.target),
            Direction::TargetToClient => (&self.target, &self.client),
        };
        send(from.as_raw_fd(), frame, MsgFlags::MSG_NOSIGNAL)?;
        match recv(to.as_raw_fd(), &mut [0], MsgFlags::MSG_DONTWAIT) {
            Ok(_) => {
                *next += 1;
                Ok(true)
            }
            Err(Errno::EAGAIN) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Sends a frame until it comes through, with a proxy's pauses, and says how often it was tossed.
    pub(crate) fn pass(&mut self, direction: Direction, frame: &mut [u8]) -> Result<u64> {
        let (mut pause, mut tossed) = (RESEND_PAUSE.0, 0);
        while !self.try_pass(direction, frame)? {
            rest(pause);
            pause = (pause * 2).min(RESEND_PAUSE.1);
            tossed += 1;
        }
        Ok(tossed)
    }
}

/// A frame of what a program prints.
pub(crate) fn stdout_frame(body: &[u8]) -> Vec<u8> {
    frame(Message::Stdout(bytes::Bytes::copy_from_slice(body)), 0)
}

/// A frame of what somebody types.
pub(crate) fn stdin_frame(body: &[u8]) -> Vec<u8> {
    frame(Message::Stdin(bytes::Bytes::copy_from_slice(body)), 0)
}
