//! Writes a page that plays a session in a browser.
//!
//! The terminal is emulated here; the page gets what changed on the screen, as text with colours, and only paints it.
//! So no control sequence reaches it. All that is from the session stands in two blocks of JSON in which `<`, `>` and
//! `&` are escaped, the script puts it into the page as text only, and the page's policy lets no other script run and
//! nothing be loaded.

mod frames;

use std::{
    io::{self, Write},
    ops::ControlFlow,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest, Sha256};
use weir_common::{recording::findings::Command, session::ChannelNo};

use crate::{
    emulator::Emulator,
    export::ExportError,
    track::{Beat, Track},
};
use frames::{Differ, Frame, Palette};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
const BODY: &str = include_str!("body.html");

/// How long a pause lasts by default where idle time is skipped.
pub const IDLE_LIMIT_S: f64 = 2.0;
/// The part of a page's bytes that is kept for commands and styles.
const RESERVED_PART: u64 = 4;
/// Output within this time makes one frame: a thirtieth of a second.
const FRAME_NS: u64 = 33_000_000;
/// The most gaps that are marked; each takes some hundred bytes of memory until the page ends.
const GAPS_MAX: usize = 10_000;
/// The most characters of a command in the list.
const COMMAND_CHARS_MAX: usize = 500;

/// What the page says about the session.
#[derive(Serialize)]
pub struct About {
    /// Who on what.
    pub title: Option<String>,
    /// The session's id.
    pub session: String,
    /// When the channel was opened.
    pub started_at: Option<Timestamp>,
    /// The channel.
    pub channel: ChannelNo,
    /// Whether the session is over.
    pub finished: bool,
    /// How long a pause lasts where idle time is skipped, in seconds.
    pub idle_limit: f64,
}

/// A page that is being written.
pub struct Page<'a> {
    out: Counted<'a>,
    about: serde_json::Value,
    frames_max: u64,
    bytes_max: u64,
    emulator: Emulator,
    differ: Differ,
    palette: Palette,
    /// When the frame that is being gathered began.
    since: Option<u64>,
    typed: String,
    marks: Vec<Mark>,
    gaps_left_out: usize,
    any: bool,
    now: u64,
    cut: Option<u64>,
}

/// A place to jump to.
#[derive(Serialize)]
struct Mark {
    /// Milliseconds since the start.
    t: u64,
    /// What it says.
    text: String,
    /// The number of a command.
    #[serde(skip_serializing_if = "Option::is_none")]
    n: Option<u32>,
    /// The length of a command in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    ms: Option<u64>,
    /// How a command ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    exit: Option<i32>,
}

#[derive(Serialize)]
struct Tail<'a> {
    about: &'a serde_json::Value,
    styles: &'a Palette,
    marks: &'a [Mark],
    /// Milliseconds.
    length: u64,
    /// Milliseconds after which nothing is in the page.
    cut: Option<u64>,
    marks_left_out: usize,
}

impl<'a> Page<'a> {
    /// Begins a page of at most so many bytes.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn new(about: &About, track: &Track, bytes_max: u64, out: &'a mut dyn Write) -> io::Result<Self> {
        let digest = STANDARD.encode(Sha256::digest(SCRIPT.as_bytes()));
        let mut out = Counted { out, written: 0 };
        write!(
            out,
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; \
             script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'\">\n\
             <meta name=\"referrer\" content=\"no-referrer\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n\
             <title>Weir session</title>\n<style>\n{STYLE}</style>\n</head>\n{BODY}\
             <script type=\"application/json\" id=\"frames\">[\n"
        )?;
        Ok(Self {
            out,
            about: serde_json::to_value(about).map_err(io::Error::other)?,
            frames_max: bytes_max - bytes_max / RESERVED_PART,
            bytes_max,
            emulator: Emulator::new(track.size, track.term.is_some()),
            differ: Differ::default(),
            palette: Palette::default(),
            since: Some(0),
            typed: String::new(),
            marks: Vec::new(),
            gaps_left_out: 0,
            any: false,
            now: 0,
            cut: None,
        })
    }

    /// Takes what comes next.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn beat(&mut self, t: u64, beat: Beat<'_>, stdin: bool) -> Result<ControlFlow<()>, ExportError> {
        if self.since.is_some_and(|since| t.saturating_sub(since) >= FRAME_NS) && self.frame()?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        self.now = t;
        match beat {
            Beat::Output(bytes) => self.emulator.feed(bytes),
            Beat::Resize(size) => self.emulator.resize(size),
            Beat::Typed(bytes) if stdin => self.typed.push_str(&crate::escape::bytes(bytes)),
            Beat::Gap(text) => {
                if self.marks.len() < GAPS_MAX {
                    self.marks.push(Mark { t: t / 1_000_000, text, n: None, ms: None, exit: None });
                } else {
                    self.gaps_left_out += 1;
                }
                return Ok(ControlFlow::Continue(()));
            }
            _ => return Ok(ControlFlow::Continue(())),
        }
        self.since.get_or_insert(t);
        Ok(ControlFlow::Continue(()))
    }

    /// Writes the frame that was gathered.
    fn frame(&mut self) -> io::Result<ControlFlow<()>> {
        let Some(since) = self.since.take() else { return Ok(ControlFlow::Continue(())) };
        let typed = std::mem::take(&mut self.typed);
        let frame = self.differ.frame(since / 1_000_000, self.emulator.picture(), &mut self.palette);
        let only_typed = || (!typed.is_empty()).then(|| Frame::at(since / 1_000_000));
        let Some(mut frame) = frame.or_else(only_typed) else { return Ok(ControlFlow::Continue(())) };
        frame.typed = typed;
        let json = json(&frame)?;
        if self.out.written + json.len() as u64 + 2 > self.frames_max {
            self.cut = Some(since);
            return Ok(ControlFlow::Break(()));
        }
        write!(self.out, "{}{json}", if self.any { ",\n" } else { "" })?;
        self.any = true;
        Ok(ControlFlow::Continue(()))
    }

    /// Writes the rest; says, in nanoseconds, after what time the session was cut, if it was. `start` is the track's.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn finish(mut self, commands: &[Command], start: u64) -> io::Result<Option<u64>> {
        if self.cut.is_none() {
            // That it is the last does not matter: it is in, or `cut` says that it is not.
            let _ = self.frame()?;
        }
        let channel = &self.about["channel"];
        let listed = commands.iter().filter(|command| *channel == u64::from(command.ch.0));
        self.marks.extend(listed.map(|command| Mark::of(command, start)));
        self.marks.sort_by_key(|mark| mark.t);
        let end = self.cut.unwrap_or(u64::MAX) / 1_000_000;
        self.marks.retain(|mark| mark.t <= end);
        let left = self.bytes_max.saturating_sub(self.out.written + SCRIPT.len() as u64 + 4096);
        let mut left = left.saturating_sub(json(&self.palette)?.len() as u64);
        let mut kept = 0;
        for mark in &self.marks {
            let Some(rest) = left.checked_sub(json(mark)?.len() as u64 + 1) else { break };
            (left, kept) = (rest, kept + 1);
        }
        let tail = Tail {
            about: &self.about,
            styles: &self.palette,
            marks: &self.marks[..kept],
            length: self.cut.unwrap_or(self.now) / 1_000_000,
            cut: self.cut.map(|cut| cut / 1_000_000),
            marks_left_out: self.marks.len() - kept + self.gaps_left_out,
        };
        let tail = json(&tail)?;
        write!(
            self.out,
            "\n]</script>\n<script type=\"application/json\" id=\"session\">{tail}</script>\n\
             <script>{SCRIPT}</script>\n</body>\n</html>\n"
        )?;
        Ok(self.cut)
    }
}

impl Mark {
    fn of(command: &Command, start: u64) -> Self {
        let span = command.span;
        let text = match command.text.char_indices().nth(COMMAND_CHARS_MAX) {
            Some((end, _)) => format!("{}…", &command.text[..end]),
            None => command.text.clone(),
        };
        Self {
            t: span.t.saturating_sub(start) / 1_000_000,
            text: text.replace(|c| c != '\n' && crate::escape::is_unsafe(c), "\u{fffd}"),
            n: Some(command.n),
            ms: span.t_end.map(|end| end.saturating_sub(span.t) / 1_000_000),
            exit: command.exit_code,
        }
    }
}

/// JSON that nothing in a page can take for markup.
fn json(value: &impl Serialize) -> io::Result<String> {
    let json = crate::escape::json(&serde_json::to_string(value)?);
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            c => out.push(c),
        }
    }
    Ok(out)
}

struct Counted<'a> {
    out: &'a mut dyn Write,
    written: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::emulator::Size;

    fn track() -> Track {
        Track {
            channel: ChannelNo(0),
            size: Size { cols: 40, rows: 6 },
            term: Some("xterm".into()),
            command: None,
            start: 0,
        }
    }

    fn about(title: &str) -> About {
        About {
            title: Some(title.to_owned()),
            session: title.to_owned(),
            started_at: None,
            channel: ChannelNo(0),
            finished: true,
            idle_limit: 2.0,
        }
    }

    fn page(title: &str, beats: &[(u64, &[u8])], bytes_max: u64) -> (String, Option<u64>) {
        let mut out = Vec::new();
        let mut page = Page::new(&about(title), &track(), bytes_max, &mut out).expect("in memory");
        for (t, bytes) in beats {
            let flow = page.beat(*t, Beat::Output(bytes), true).expect("in memory");
            if flow.is_break() {
                break;
            }
            let _ = page.beat(*t, Beat::Typed(bytes), true).expect("in memory");
            let gap = Beat::Gap(String::from_utf8_lossy(bytes).into_owned());
            let _ = page.beat(*t, gap, true).expect("in memory");
        }
        let cut = page.finish(&[], 0).expect("in memory");
        (String::from_utf8(out).expect("text"), cut)
    }

    proptest! {
        #[test]
        fn nothing_of_a_session_is_markup_in_its_page(
            texts in prop::collection::vec(
                prop_oneof![
                    "(</script>|<!--|<script|]]>|&lt;|<img src=x onerror=alert|\u{2028}|[a-z<>&'\"]){1,5}".prop_map(String::into_bytes),
                    prop::collection::vec(any::<u8>(), 0..40),
                ],
                1..6,
            ),
            title in "(</title>|<b>|\"|'|[a-z]){0,4}",
        ) {
            let beats: Vec<_> = texts.iter().zip(1..).map(|(text, n)| (n * 50_000_000, text.as_slice())).collect();
            let (hostile, _) = page(&title, &beats, 1 << 20);
            let (plain, _) = page("x", &[], 1 << 20);
            for sign in ["<", ">", "&"] {
                prop_assert_eq!(hostile.matches(sign).count(), plain.matches(sign).count());
            }
            prop_assert!(!hostile.chars().any(|c| c != '\n' && crate::escape::is_unsafe(c)));
            for id in ["frames", "session"] {
                let block = hostile.split_once(&format!("id=\"{id}\">")).and_then(|(_, rest)| rest.split_once("</script>"));
                let (block, _) = block.expect("a block");
                prop_assert!(serde_json::from_str::<serde_json::Value>(block).is_ok());
            }
        }
    }

    #[test]
    fn a_page_is_no_longer_than_it_may_be_and_says_where_it_ends() {
        let line = "a line that fills the screen\r\n".repeat(6);
        let beats: Vec<_> = (0..5000).map(|n| (n * 100_000_000, format!("{n} {line}"))).collect();
        let beats: Vec<_> = beats.iter().map(|(t, text)| (*t, text.as_bytes())).collect();
        let (page, cut) = page("x", &beats, 100_000);
        let cut = cut.expect("it is too long");
        assert!(page.len() <= 100_000 && page.len() > 60_000, "{}", page.len());
        assert!(page.contains(&format!("\"cut\":{}", cut / 1_000_000)));
        assert!(page.ends_with("</html>\n"));
    }

    #[test]
    fn gaps_beyond_the_bound_are_counted() {
        let mut out = Vec::new();
        let mut page = Page::new(&about("x"), &track(), 64 << 20, &mut out).expect("in memory");
        for n in 0..GAPS_MAX as u64 + 7 {
            let _ = page.beat(n, Beat::Gap("GAP".to_owned()), false).expect("in memory");
            assert!(page.marks.len() <= GAPS_MAX);
        }
        page.finish(&[], 0).expect("in memory");
        let page = String::from_utf8(out).expect("text");
        assert!(page.contains("\"marks_left_out\":7") && page.matches("\"GAP\"").count() == GAPS_MAX);
    }

    #[test]
    fn the_policy_lets_this_script_run_and_nothing_else() {
        let (page, _) = page("x", &[], 1 << 20);
        let digest = STANDARD.encode(Sha256::digest(SCRIPT.as_bytes()));
        assert!(page.contains(&format!(
            "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
        )));
        assert!(page.contains(&format!("<script>{SCRIPT}</script>")));
        for dangerous in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "http"] {
            assert!(!SCRIPT.contains(dangerous), "{dangerous}");
        }
    }
}
