//! One message of the control socket, with its descriptors.
//!
//! Owns what a peer can do wrong here: too long, not JSON, too few or too many descriptors. Descriptors are
//! owned values from the moment the kernel hands them over, so every way out of here closes them.

use std::{io, os::fd::OwnedFd};

use tokio_seqpacket::{UnixSeqpacket, ancillary::OwnedAncillaryMessage};
use weir_common::control::{self, ARM_DESCRIPTORS, ControlError, Request};

/// Room for one `SCM_RIGHTS` message with more descriptors than any request has, so that too many are seen.
const ANCILLARY_BYTES: usize = 64;

/// What came.
pub(super) struct Received {
    pub(super) request: Request,
    pub(super) descriptors: Vec<OwnedFd>,
}

/// Why a message is not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReceiveError {
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("a request came with more descriptors than the {ARM_DESCRIPTORS} of a tap")]
    TooManyDescriptors,
    #[error("a request came with {found} descriptors and not with {expected}")]
    Descriptors { expected: usize, found: usize },
}

/// The kernel's control message headers are aligned like this.
#[repr(align(8))]
struct Ancillary([u8; ANCILLARY_BYTES]);

/// Receives the next message; `None` at the end of the connection.
pub(super) async fn receive(socket: &UnixSeqpacket) -> Result<Option<Received>, ReceiveError> {
    // Room for a message is taken only once there is one: a session's connection is idle nearly all the time.
    drop(socket.as_async_fd().readable().await?);
    let mut bytes = vec![0; control::MAX_MESSAGE];
    let mut ancillary = Ancillary([0; ANCILLARY_BYTES]);
    let (info, reader) = socket.recv_with_ancillary(&mut bytes, &mut ancillary.0).await?;
    let mut descriptors = Vec::new();
    for message in reader.into_messages() {
        if let OwnedAncillaryMessage::FileDescriptors(received) = message {
            descriptors.extend(received);
        }
    }
    if info.truncated() {
        return Err(ControlError::TooLong { len: control::MAX_MESSAGE + 1 }.into());
    }
    if info.ancillary_truncated() {
        return Err(ReceiveError::TooManyDescriptors);
    }
    if info.bytes_read() == 0 {
        return Ok(None);
    }
    let request: Request = control::decode(&bytes[..info.bytes_read()])?;
    let expected = if matches!(request, Request::Arm { .. }) { ARM_DESCRIPTORS } else { 0 };
    if descriptors.len() != expected {
        return Err(ReceiveError::Descriptors { expected, found: descriptors.len() });
    }
    Ok(Some(Received { request, descriptors }))
}
