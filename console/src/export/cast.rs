//! Writes asciicast, the recording format of asciinema: version 2
//! (<https://docs.asciinema.org/manual/asciicast/v2/>) and version 3
//! (<https://docs.asciinema.org/manual/asciicast/v3/>).
//!
//! A pure encoder: header and events go in, lines come out. Everything that a terminal would act on is written as
//! `\uNNNN`, so the file itself can be looked at; what a player makes of it is decided by what is put in.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{emulator::Size, escape};

/// A version of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Times since the start, in every version of asciinema.
    V2,
    /// Times since the event before, and exit codes; asciinema 3 and later.
    V3,
}

/// What the first line says.
#[derive(Clone, Debug)]
pub struct Header {
    /// The terminal's size at first.
    pub size: Size,
    /// The terminal's name.
    pub term: Option<String>,
    /// Unix time of the start in seconds.
    pub timestamp: Option<i64>,
    /// The most seconds that a player should wait.
    pub idle_limit: Option<f64>,
    /// What ran instead of a shell.
    pub command: Option<String>,
    /// What it is.
    pub title: Option<String>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Output.
    Output,
    /// Input.
    Input,
    /// A mark to jump to.
    Marker,
    /// The terminal's new size, as `COLSxROWS`.
    Resize,
    /// The exit code; version 3 only.
    Exit,
}

/// Writes one recording.
pub struct Encoder {
    version: Version,
    last_us: u64,
}

#[derive(Serialize)]
struct HeaderV2<'a> {
    version: u8,
    width: u16,
    height: u16,
    #[serde(flatten)]
    common: Common<'a>,
}

#[derive(Serialize)]
struct HeaderV3<'a> {
    version: u8,
    term: Term<'a>,
    #[serde(flatten)]
    common: Common<'a>,
}

#[derive(Serialize)]
struct Term<'a> {
    cols: u16,
    rows: u16,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

#[derive(Serialize)]
struct Common<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_time_limit: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    env: BTreeMap<&'a str, &'a str>,
}

impl Encoder {
    /// At the start.
    #[must_use]
    pub fn new(version: Version) -> Self {
        Self { version, last_us: 0 }
    }

    /// The first line.
    #[must_use]
    pub fn header(&self, header: &Header) -> String {
        let Header { size, term, timestamp, idle_limit, command, title } = header;
        let term = term.as_deref();
        let mut common = Common {
            timestamp: *timestamp,
            idle_time_limit: *idle_limit,
            command: command.as_deref(),
            title: title.as_deref(),
            env: BTreeMap::new(),
        };
        let Size { cols, rows } = *size;
        match self.version {
            Version::V2 => {
                common.env.extend(term.map(|term| ("TERM", term)));
                line(&HeaderV2 { version: 2, width: cols, height: rows, common })
            }
            Version::V3 => line(&HeaderV3 { version: 3, term: Term { cols, rows, name: term }, common }),
        }
    }

    /// The line of an event, so many nanoseconds after the start; none of what the version does not know.
    #[must_use]
    pub fn event(&mut self, t_ns: u64, code: Code, data: &str) -> Option<String> {
        // Differences of rounded times add up to rounded times: nothing drifts.
        let us = (t_ns / 1000).max(self.last_us);
        let since = match self.version {
            Version::V2 if code == Code::Exit => return None,
            Version::V2 => us,
            Version::V3 => us - self.last_us,
        };
        self.last_us = us;
        let code = match code {
            Code::Output => 'o',
            Code::Input => 'i',
            Code::Marker => 'm',
            Code::Resize => 'r',
            Code::Exit => 'x',
        };
        let data = line(&data);
        Some(format!("[{}.{:06}, \"{code}\", {}]\n", since / 1_000_000, since % 1_000_000, data.trim_end()))
    }
}

fn line(value: &impl Serialize) -> String {
    // Strings and numbers always serialize.
    escape::json(&serde_json::to_string(value).unwrap_or_default()) + "\n"
}

/// Makes text of bytes that come in pieces: a character that is cut waits for its rest, and what is no UTF-8 is
/// replaced.
#[derive(Default)]
pub struct Utf8 {
    cut: Vec<u8>,
}

impl Utf8 {
    /// The text that is whole by now.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.cut.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&self.cut[self.tail()..]) {
            Err(error) if error.error_len().is_none() => self.tail() + error.valid_up_to(),
            _ => self.cut.len(),
        };
        let rest = self.cut.split_off(whole);
        String::from_utf8_lossy(&std::mem::replace(&mut self.cut, rest)).into_owned()
    }

    /// What is left at the end.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.cut).into_owned()
    }

    /// Where the last character that may be cut begins.
    fn tail(&self) -> usize {
        let from = self.cut.len().saturating_sub(3);
        let starts = |byte: &u8| *byte >= 0xc0;
        self.cut[from..].iter().rposition(starts).map_or(self.cut.len(), |at| from + at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header() -> Header {
        Header {
            size: Size { cols: 100, rows: 30 },
            term: Some("xterm".into()),
            timestamp: Some(1_767_323_045),
            idle_limit: Some(2.0),
            command: None,
            title: Some("alice on db-1\x1b".into()),
        }
    }

    #[test]
    fn version_2_has_times_since_the_start_and_no_exit_codes() {
        let mut encoder = Encoder::new(Version::V2);
        assert_eq!(
            encoder.header(&header()),
            "{\"version\":2,\"width\":100,\"height\":30,\"timestamp\":1767323045,\"idle_time_limit\":2.0,\
             \"title\":\"alice on db-1\\u001b\",\"env\":{\"TERM\":\"xterm\"}}\n"
        );
        let event = |encoder: &mut Encoder, t, code, data| encoder.event(t, code, data).unwrap_or_default();
        assert_eq!(
            event(&mut encoder, 1_500_000_999, Code::Output, "a\x1b[1m\"\u{9b}"),
            "[1.500000, \"o\", \"a\\u001b[1m\\\"\\u009b\"]\n"
        );
        assert_eq!(
            event(&mut encoder, 2_000_000_000, Code::Resize, "80x24"),
            "[2.000000, \"r\", \"80x24\"]\n"
        );
        assert_eq!(encoder.event(3_000_000_000, Code::Exit, "0"), None);
    }

    #[test]
    fn version_3_has_times_since_the_event_before_that_do_not_drift() {
        let mut encoder = Encoder::new(Version::V3);
        assert_eq!(
            encoder.header(&header()),
            "{\"version\":3,\"term\":{\"cols\":100,\"rows\":30,\"type\":\"xterm\"},\"timestamp\":1767323045,\
             \"idle_time_limit\":2.0,\"title\":\"alice on db-1\\u001b\"}\n"
        );
        let lines: Vec<_> =
            (1..=3).filter_map(|n| encoder.event(n * 1_999_999, Code::Marker, "ls")).collect();
        assert_eq!(
            lines,
            ["[0.001999, \"m\", \"ls\"]\n", "[0.002000, \"m\", \"ls\"]\n", "[0.002000, \"m\", \"ls\"]\n"]
        );
        assert_eq!(encoder.event(0, Code::Exit, "7").as_deref(), Some("[0.000000, \"x\", \"7\"]\n"));
    }

    proptest! {
        #[test]
        fn every_line_is_json_that_shows_as_it_is(t: u64, data in ".*", term in ".*") {
            let mut encoder = Encoder::new(Version::V3);
            let first = encoder.header(&Header { term: Some(term.clone()), ..header() });
            let first: serde_json::Value = serde_json::from_str(&first).expect("JSON");
            prop_assert_eq!(first["term"]["type"].as_str(), Some(term.as_str()));
            let line = encoder.event(t, Code::Output, &data).expect("known to all");
            prop_assert!(!line.trim_end_matches('\n').chars().any(escape::is_unsafe));
            let (_, code, back): (f64, String, String) = serde_json::from_str(&line).expect("JSON");
            prop_assert_eq!((code.as_str(), back), ("o", data));
        }

        #[test]
        fn text_in_pieces_is_the_text(text in ".*", length in 1usize..5, any: Vec<u8>) {
            let decode = |bytes: &[u8]| {
                let mut utf8 = Utf8::default();
                let mut out: String = bytes.chunks(length).map(|piece| utf8.push(piece)).collect();
                out.push_str(&utf8.finish());
                out
            };
            prop_assert_eq!(decode(text.as_bytes()), text);
            prop_assert!(decode(&any).len() >= any.iter().filter(|byte| byte.is_ascii()).count());
        }
    }
}
