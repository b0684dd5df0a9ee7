//! The receiving side of a tap: frames strictly in sequence, everything else ignored.
//!
//! It decides by [`Inbound`], the rule that the agent runs over the same messages.

use std::{cell::RefCell, future::poll_fn, io, sync::Arc, task::Poll};

use bytes::Bytes;
use tokio_seqpacket::UnixSeqpacket;
use weir_common::{
    abi,
    frame::{Direction, HEADER_LEN, Inbound, Kind, Message, Verdict},
};

use super::{Activity, Progress, TapError};
use crate::metrics::{Counter, metrics};

thread_local! {
    // One buffer a thread instead of one a tap: an idle session holds no memory for reading.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; abi::MAX_MESSAGE + 1]);
}

/// The receiving side of one direction of a tap.
#[derive(Debug)]
pub struct Receiver {
    socket: Arc<UnixSeqpacket>,
    inbound: Inbound,
    pub(super) progress: Arc<Progress>,
    activity: Arc<Activity>,
    delivered: &'static Counter,
}

impl Receiver {
    pub(super) fn new(
        socket: Arc<UnixSeqpacket>,
        direction: Direction,
        progress: Arc<Progress>,
        activity: Arc<Activity>,
    ) -> Self {
        let delivered = metrics().delivered(direction);
        Self { socket, inbound: Inbound::new(direction), progress, activity, delivered }
    }

    /// The next frame's message; `None` when the other end is closed and everything was taken.
    ///
    /// Cancellation loses nothing.
    ///
    /// # Errors
    /// [`TapError::Frame`] if the next message is no frame, [`TapError::Socket`] if the socket fails.
    pub async fn next(&mut self) -> Result<Option<Message>, TapError> {
        let Self { socket, inbound, progress, activity, delivered } = self;
        poll_fn(|cx| {
            SCRATCH.with_borrow_mut(|scratch| {
                loop {
                    let info = match socket.poll_recv(cx, scratch) {
                        Poll::Pending => return Poll::Pending,
                        // The other end was closed with frames of ours unread: there is nothing more to take.
                        Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => {
                            return Poll::Ready(Ok(None));
                        }
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                        Poll::Ready(Ok(info)) => info,
                    };
                    let message = &scratch[..info.bytes_read()];
                    if message.is_empty() {
                        // A tap never carries an empty message: the filter tosses it. So this is the end.
                        return Poll::Ready(Ok(None));
                    }
                    match inbound.accept(message) {
                        Verdict::Take(header) => {
                            let body = Bytes::copy_from_slice(&message[HEADER_LEN..]);
                            progress.advance(inbound.next_seq());
                            if matches!(header.kind, Kind::Stdin | Kind::Stdout | Kind::Stderr) {
                                activity.note();
                                delivered.inc_by(body.len() as u64);
                            }
                            return Poll::Ready(Ok(Some(Message::decode(header.kind, body)?)));
                        }
                        Verdict::Duplicate | Verdict::OutOfSequence | Verdict::Ended => {}
                        Verdict::Malformed(error) => return Poll::Ready(Err(error.into())),
                    }
                }
            })
        })
        .await
    }
}
