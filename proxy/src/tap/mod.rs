//! The tap's two ends, as the legs use them.
//!
//! A [`pair`] is one `AF_UNIX` `SOCK_SEQPACKET` socket pair. Each leg gets an [`End`]: a [`Sender`] for what it
//! wants of the other, a [`Receiver`] for what the other wants of it. The agent's filter sits on the receiving
//! sockets; what it tosses looks sent to the sender, so the sender keeps every frame until the receiver has
//! taken it.
//!
//! Besides the sockets the two ends share one number per direction, how many frames were taken
//! ([`Progress`]). It carries nothing of the session: it only tells the sender what it may forget.

mod activity;
mod receiver;
mod routes;
mod sender;
#[cfg(test)]
mod tests;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use socket2::{SockFilter, SockRef};
use tokio::sync::Notify;
use tokio_seqpacket::UnixSeqpacket;
use weir_common::{
    frame::{Direction, FrameError},
    session::CapturePolicy,
};

pub use self::{
    activity::Activity,
    receiver::Receiver,
    routes::{Confirmed, Routes},
    sender::{Queue, QueueFull, QueueReader, Sender, queue},
};

/// What can go wrong on a tap.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The socket failed.
    #[error("tap socket: {0}")]
    Socket(#[from] io::Error),
    /// The other end of the tap is closed.
    #[error("the other end of the tap is closed")]
    Closed,
    /// The other leg sent something that is no frame.
    #[error("malformed frame on the tap: {0}")]
    Frame(#[from] FrameError),
    /// Frames were tossed for too long.
    #[error("the recording has stalled for {seconds} s")]
    Stalled {
        /// For how long.
        seconds: u64,
    },
}

/// How many frames of one direction the receiver has taken.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    taken: AtomicU64,
    changed: Notify,
}

impl Progress {
    fn taken(&self) -> u64 {
        self.taken.load(Ordering::Acquire)
    }

    fn advance(&self, taken: u64) {
        self.taken.store(taken, Ordering::Release);
        self.changed.notify_one();
    }
}

/// One end of a tap.
#[derive(Debug)]
pub struct End {
    /// The socket, for the agent to arm.
    pub socket: Arc<UnixSeqpacket>,
    /// What this leg says.
    pub sender: Sender,
    /// What the other leg says.
    pub receiver: Receiver,
}

/// Makes a tap, whose data counts as this activity: the client leg's end and the target leg's end.
///
/// Under best effort nothing is tossed that would be taken later, and so nothing is sent twice: a frame that passed
/// unrecorded must not be counted again.
///
/// Nothing passes it before the agent has armed it: the kernel sees to that.
///
/// # Errors
/// When the process has no descriptors left.
pub fn pair_of(activity: &Arc<Activity>, policy: CapturePolicy) -> io::Result<(End, End)> {
    let mut ends = open_pair(activity)?;
    for end in [&mut ends.0, &mut ends.1] {
        end.sender.resends = policy == CapturePolicy::FailClosed;
        // The agent's filter takes its place.
        SockRef::from(end.socket.as_async_fd().get_ref()).attach_filter(&[TOSS_ALL])?;
    }
    Ok(ends)
}

/// A classic BPF program of one instruction: keep 0 bytes of every message (`BPF_RET | BPF_K`).
const TOSS_ALL: SockFilter = SockFilter::new(0x06, 0, 0, 0);

/// A tap that nothing shuts, for tests of the tap itself.
fn open_pair(activity: &Arc<Activity>) -> io::Result<(End, End)> {
    let (client, target) = UnixSeqpacket::pair()?;
    for socket in [&client, &target] {
        // A whole window of full frames, with the kernel's bookkeeping; net.core.wmem_max may cut it.
        SockRef::from(socket.as_async_fd().get_ref()).set_send_buffer_size(SEND_BUFFER_BYTES)?;
    }
    let (client, target) = (Arc::new(client), Arc::new(target));
    let to_target = Arc::new(Progress::default());
    let to_client = Arc::new(Progress::default());
    let client_end = End {
        sender: Sender::new(client.clone(), to_target.clone()),
        receiver: Receiver::new(
            client.clone(),
            Direction::TargetToClient,
            to_client.clone(),
            activity.clone(),
        ),
        socket: client,
    };
    let target_end = End {
        sender: Sender::new(target.clone(), to_client),
        receiver: Receiver::new(target.clone(), Direction::ClientToTarget, to_target, activity.clone()),
        socket: target,
    };
    Ok((client_end, target_end))
}

const SEND_BUFFER_BYTES: usize = 208 << 10;
