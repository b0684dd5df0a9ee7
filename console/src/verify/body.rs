//! How long the body of the frame was that an event describes.
//!
//! The frame's fields are put back together and encoded again: an event that says something else than what was
//! captured has, as a rule, another length.

use bytes::Bytes;
use weir_common::{frame::MAX_BODY, recording::What};

/// Bytes of the frame's body; `None` if no frame can carry it.
pub(super) fn body_len(what: What) -> Option<u64> {
    if let Some(content) = what.content() {
        return Some(content.len()).filter(|&len| len <= MAX_BODY as u64);
    }
    let Some(message) = what.into_message(|_| Bytes::new()) else { return Some(0) };
    Some(message.into_body().ok()?.len() as u64)
}

#[cfg(test)]
mod tests {
    use weir_common::{
        frame::{ChannelType, Env, Message, Pty},
        recording::Content,
    };

    use super::*;

    #[test]
    fn the_length_is_that_of_the_frame_the_event_was_made_from() {
        let messages = [
            Message::Open(ChannelType::Session),
            Message::Stdin(Bytes::from_static(b"abc")),
            Message::Exec(vec![0xff; 600]),
            Message::Pty(Pty {
                term: "xterm".into(),
                size: Default::default(),
                modes: vec![(53, 1), (0, 9600)],
            }),
            Message::Env(Env { name: "LANG".into(), value: "C.UTF-8".into() }),
            Message::ExitStatus(4_000_000_000),
        ];
        for message in messages {
            let len = message.clone().into_body().expect("short").len() as u64;
            assert_eq!(body_len(What::of(message, &mut Vec::new())), Some(len));
        }
    }

    #[test]
    fn what_no_frame_can_carry_has_no_length() {
        let long = "x".repeat(MAX_BODY + 1);
        assert_eq!(body_len(What::Stdout(Content::Text(long.clone()))), None);
        assert_eq!(body_len(What::Stdout(Content::Bulk { at: 0, bytes: u32::MAX })), None);
        assert_eq!(body_len(What::Subsystem { name: long }), None);
    }
}
