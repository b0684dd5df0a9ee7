//! Writes events a line each, as they are stored, with calendar times and with their bytes where they were: nothing
//! points into a bulk any more.

use std::io::{self, Write};

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use weir_common::recording::{Clock, Content, Event};

use crate::{escape, recording::content_bytes};

#[derive(Serialize)]
struct Line<'a> {
    /// Calendar time, where a clock is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<Timestamp>,
    #[serde(flatten)]
    event: Value,
    /// The text in bytes that are not all text: what is no UTF-8 is replaced. The exact bytes are in `b64`.
    #[serde(skip_serializing_if = "Option::is_none")]
    lossy_text: Option<&'a str>,
}

/// Writes an event.
///
/// # Errors
/// If it can't be written.
pub fn event(
    event: &Event,
    bulk: Option<&[u8]>,
    clock: Option<Clock>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut value = serde_json::to_value(event)?;
    let mut text = None;
    if let (Some(content @ (Content::B64(_) | Content::Bulk { .. })), Value::Object(fields)) =
        (event.what.content(), &mut value)
    {
        let bytes = content_bytes(content, bulk);
        // Bytes that are missing stay a reference to where they should be.
        if bytes.len() as u64 == content.len() {
            fields.remove("bulk");
            fields.insert("b64".to_owned(), STANDARD.encode(bytes).into());
            text = Some(String::from_utf8_lossy(bytes));
        }
    }
    let at = clock.and_then(|clock| clock.at(event.t));
    let line = Line { at, event: value, lossy_text: text.as_deref() };
    writeln!(out, "{}", escape::json(&serde_json::to_string(&line)?))
}

#[cfg(test)]
mod tests {
    use weir_common::{frame::Direction, recording::What, session::ChannelNo};

    use super::*;

    #[test]
    fn bytes_stand_where_they_belong_with_their_text_beside_them() {
        let line = |content, bulk: Option<&[u8]>| {
            let what = What::Stdout(content);
            let event_of = Event {
                t: 2_000_000_000,
                dir: Direction::TargetToClient,
                ch: ChannelNo(0),
                seq: 3,
                len: 4,
                what,
            };
            let clock = Clock { boot_ns: 0, at: Timestamp::UNIX_EPOCH };
            let mut out = Vec::new();
            event(&event_of, bulk, Some(clock), &mut out).expect("in memory");
            String::from_utf8(out).expect("text")
        };
        let head = r#"{"at":"1970-01-01T00:00:02Z","ch":0,"dir":"t2c","kind":"stdout","len":4,"seq":3,"t":2000000000"#;
        let text = line(Content::Text("a\x1b\u{9b}".into()), None);
        let sorted: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(sorted["text"], "a\x1b\u{9b}");
        assert!(!text.trim_end().chars().any(escape::is_unsafe));
        let bulk: Value =
            serde_json::from_str(&line(Content::Bulk { at: 9, bytes: 4 }, Some(b"ab\xffc"))).expect("JSON");
        let expected: Value =
            serde_json::from_str(&format!("{head},\"b64\":\"YWL/Yw==\",\"lossy_text\":\"ab\u{fffd}c\"}}"))
                .expect("JSON");
        assert_eq!(bulk, expected);
        assert!(line(Content::Bulk { at: 9, bytes: 4 }, None).contains("\"bulk\""));
    }
}
