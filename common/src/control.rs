//! The control protocol between proxy and agent.
//!
//! A `SOCK_SEQPACKET` socket; one message is one JSON object of at most [`MAX_MESSAGE`] bytes. Each session has
//! a connection of its own: [`Request::Open`] first, [`Request::Connected`] when the target is, then an [`Request::Arm`] and a [`Request::Disarm`] per
//! channel, [`Request::Freeze`] when the grant is over, [`Request::Close`] at the end. Every request gets one [`Reply`], in order. A connection that ends without `Close` is a
//! connector that went away.
//!
//! `Arm` carries two descriptors (`SCM_RIGHTS`): the tap's client end, then its target end.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::session::{ChannelNo, Outcome, SessionMeta, TargetPeer};

/// The most bytes of a control message.
pub const MAX_MESSAGE: usize = 64 * 1024;
/// The descriptors that come with [`Request::Arm`].
pub const ARM_DESCRIPTORS: usize = 2;

/// What the proxy asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Register a session, or take it up again after the agent restarted.
    Open {
        /// The proxy's [`crate::abi::ABI_VERSION`]; the agent refuses another, but to take a session up again that was begun
        /// under an older one that it still reads.
        abi: u16,
        /// True when the session is under way and this connection replaces one that broke.
        resume: bool,
        /// The access context.
        meta: Box<SessionMeta>,
    },
    /// The target is connected, and this is what was found. Once a session, before the first [`Self::Arm`].
    Connected {
        /// The target.
        target: TargetPeer,
    },
    /// Attach the filter to a tap's two sockets, lock it and let messages pass.
    Arm {
        /// The channel the tap is for.
        channel: ChannelNo,
    },
    /// A channel is closed and its tap carries nothing more: the agent may forget its sockets.
    Disarm {
        /// The channel the tap was for.
        channel: ChannelNo,
    },
    /// Nothing may pass the session's taps from here on: its grant is over. The kernel stops it at once, whatever the
    /// proxy does; `Close` follows.
    Freeze,
    /// The session is over and its taps carry nothing more.
    Close {
        /// How it ended.
        outcome: Outcome,
    },
}

/// What the agent answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case", deny_unknown_fields)]
pub enum Reply {
    /// The session is registered.
    Opened,
    /// The target is noted.
    Connected,
    /// The tap is armed; the proxy has the only descriptors of it.
    Armed {
        /// The channel the tap is for.
        channel: ChannelNo,
    },
    /// The tap is counted and forgotten; nothing passes it any more.
    Disarmed {
        /// The channel the tap was for.
        channel: ChannelNo,
    },
    /// The session's taps are frozen.
    Frozen,
    /// The session's end is in the spool.
    Closed,
    /// The request was not carried out now, and may be later: the agent is stopping, or the spool takes nothing.
    /// A proxy asks again after a pause, on a new connection if this one ends.
    TryAgain {
        /// Why, in words that may be shown to the user.
        reason: String,
    },
    /// The request was not carried out and will not be.
    Refused {
        /// Why, in words that may be shown to the user.
        reason: String,
    },
}

/// Why bytes are not a control message.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Over the limit.
    #[error("control message of {len} bytes is over the limit of {MAX_MESSAGE}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// Not the JSON that is expected.
    #[error("malformed control message: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// Writes a message.
///
/// # Errors
/// [`ControlError::TooLong`] past [`MAX_MESSAGE`] bytes.
pub fn encode(message: &impl Serialize) -> Result<Vec<u8>, ControlError> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > MAX_MESSAGE {
        return Err(ControlError::TooLong { len: bytes.len() });
    }
    Ok(bytes)
}

/// Reads a message.
///
/// # Errors
/// [`ControlError`] if it is too long or not the JSON that is expected.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ControlError> {
    if bytes.len() > MAX_MESSAGE {
        return Err(ControlError::TooLong { len: bytes.len() });
    }
    Ok(serde_json::from_slice(bytes)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::session::{CapturePolicy, Integration, Permission, Proof, Resource, SessionId};

    fn meta(user: String, approvers: Vec<String>) -> SessionMeta {
        SessionMeta {
            session_id: SessionId::generate(),
            user,
            grant_id: "g-1".into(),
            request_id: "REQ-1".into(),
            approvers,
            access_flow: "break-glass".into(),
            resource: Resource {
                name: "web-1".into(),
                integration: Integration::Ssh,
                host: "10.0.0.1".into(),
                port: 22,
            },
            target_login: "admin".into(),
            permissions: vec![Permission::Shell],
            proof: Proof::PublicKey { fingerprint: "SHA256:y".into() },
            client_address: ([127, 0, 0, 1], 4711).into(),
            client_version: "SSH-2.0-OpenSSH_9.2".into(),
            expires_at: jiff::Timestamp::UNIX_EPOCH,
            capture_policy: CapturePolicy::FailClosed,
            record_file_content: true,
        }
    }

    proptest! {
        #[test]
        fn a_request_reads_back_as_it_was_written(
            user in ".*", approvers in prop::collection::vec(".*", 0..4), resume: bool, channel: u32, reason in ".*",
        ) {
            let requests = [
                Request::Open { abi: 1, resume, meta: Box::new(meta(user, approvers)) },
                Request::Arm { channel: ChannelNo(channel) },
                Request::Disarm { channel: ChannelNo(channel) },
                Request::Close { outcome: Outcome::Ended { reason } },
            ];
            for request in requests {
                let bytes = encode(&request).expect("generated requests are short");
                prop_assert_eq!(decode::<Request>(&bytes).expect("just written"), request);
            }
        }

        #[test]
        fn arbitrary_bytes_are_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(decode::<Request>(&bytes).is_err());
        }

        #[test]
        fn a_request_cut_anywhere_is_refused(cut in 0_usize..1000) {
            let request = Request::Open { abi: 1, resume: false, meta: Box::new(meta("ada".into(), vec![])) };
            let bytes = encode(&request).expect("short");
            prop_assert!(decode::<Request>(&bytes[..cut % bytes.len()]).is_err());
        }
    }

    #[test]
    fn a_message_over_the_limit_is_refused_before_it_is_parsed() {
        let long = vec![b' '; MAX_MESSAGE + 1];
        assert!(matches!(decode::<Request>(&long), Err(ControlError::TooLong { .. })));
        assert!(matches!(encode(&"x".repeat(MAX_MESSAGE)), Err(ControlError::TooLong { .. })));
    }

    #[test]
    fn an_unknown_field_is_refused() {
        let error = decode::<Request>(br#"{"op":"arm","channel":1,"extra":2}"#).expect_err("extra field");
        assert!(error.to_string().contains("extra"), "{error}");
    }
}
