//! Lines, one after the other: a private key goes over many, and so does a command whose line ends are escaped.

use std::{borrow::Cow, collections::BTreeMap, fmt, ops::Range};

use weir_common::session::ChannelNo;

use super::{
    Masking, replaced,
    shapes::{BEGIN, END, KEY_LINES_MAX, is_key_line},
};

/// The most terminals on which something may go on from line to line.
const TERMINALS_MAX: usize = 1000;
/// The most lines of a command that are looked at together.
const COMMAND_LINES_MAX: usize = 32;
/// The most bytes of these.
const COMMAND_BYTES_MAX: usize = 4 << 10;
/// The most bytes of what a shell asks for the next line with.
const PROMPT_BYTES_MAX: usize = 16;

/// Remembers what lines before have begun, terminal by terminal.
#[derive(Default)]
pub struct Lines {
    open: BTreeMap<(ChannelNo, Option<String>), LineState>,
}

impl Lines {
    /// Masks the next line of a terminal, or of a pane of it.
    pub fn mask<'a>(
        &mut self,
        masking: &Masking,
        ch: ChannelNo,
        pane: Option<&str>,
        line: &'a str,
    ) -> Cow<'a, str> {
        let key = (ch, pane.map(str::to_owned));
        let mut state = self.open.remove(&key).unwrap_or_default();
        let masked = masking.mask_line(&mut state, line).0;
        if state.is_open() && self.open.len() < TERMINALS_MAX {
            self.open.insert(key, state);
        }
        masked
    }
}

/// What lines before have begun, in one stream of them.
#[derive(Clone, Default)]
pub struct LineState {
    /// How many more lines may be of a private key.
    pub(super) key_lines: usize,
    /// The lines before of a command that goes on, as they were: looked at again, and never shown.
    pub(super) command: String,
    /// How many these are.
    pub(super) command_lines: usize,
}

impl LineState {
    fn is_open(&self) -> bool {
        self.key_lines > 0 || !self.command.is_empty()
    }

    /// What of this line is a private key's, and where the rest begins; none if it is all of the key.
    fn key(&mut self, line: &str) -> (Option<Range<usize>>, Option<usize>) {
        let lines = std::mem::take(&mut self.key_lines);
        let end = line.find(END);
        let body = &line[..end.unwrap_or(line.len())];
        if lines == 0 || !is_key_line(body) {
            return (None, Some(0));
        }
        if end.is_none() {
            self.key_lines = lines - 1;
        }
        let from = body.len() - body.trim_start().len();
        (Some(from..from + body.trim().len()), end)
    }

    /// Remembers a line that goes on in the next.
    fn goes_on(&mut self, line: &str) {
        let backslashes = line.bytes().rev().take_while(|byte| *byte == b'\\').count();
        if backslashes % 2 == 0 {
            (self.command, self.command_lines) = (String::new(), 0);
            return;
        }
        if self.command_lines == COMMAND_LINES_MAX || self.command.len() + line.len() >= COMMAND_BYTES_MAX {
            (self.command, self.command_lines) = (String::new(), 0);
        }
        if line.len() < COMMAND_BYTES_MAX {
            self.command.push_str(line);
            self.command.push('\n');
            self.command_lines += 1;
        }
    }
}

/// What is remembered may hold secrets.
impl fmt::Debug for LineState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key_lines, command, command_lines } = self;
        write!(f, "LineState(key: {key_lines}, command: {command_lines} lines, {} bytes)", command.len())
    }
}

impl Masking {
    /// The same as [`Masking::mask`] for one line after the other: a private key is masked on all lines that it is on, and
    /// a line behind an escaped line end is looked at together with those before it.
    #[must_use]
    pub fn mask_line<'a>(&self, state: &mut LineState, line: &'a str) -> (Cow<'a, str>, u32) {
        let (key, rest) = state.key(line);
        let mut secrets: Vec<_> = key.into_iter().collect();
        if let Some(rest) = rest {
            let (found, open_key) = self.secrets(&line[rest..]);
            secrets.extend(found.into_iter().map(|found| found.start + rest..found.end + rest));
            if state.command.is_empty() {
                state.goes_on(line);
            } else {
                let behind = without_prompt(line);
                self.together(&state.command, &behind, &mut secrets);
                state.goes_on(&behind);
            }
            if open_key {
                *state = LineState { key_lines: KEY_LINES_MAX, ..LineState::default() };
            }
        }
        replaced(line, secrets)
    }

    /// What [`Self::mask_line`] remembers of a line, where nobody is shown it. Costs little for most lines.
    pub fn pass_line(&self, state: &mut LineState, line: &[u8]) {
        if state.is_open() || line.ends_with(b"\\") || memchr::memmem::find(line, BEGIN.as_bytes()).is_some()
        {
            let _ = self.mask_line(state, &String::from_utf8_lossy(line));
        }
    }

    /// What is secret on a command's last line because of those before it.
    fn together(&self, before: &str, line: &str, secrets: &mut Vec<Range<usize>>) {
        let (found, _) = self.secrets(&[before, line].concat());
        let from = |at: usize| at.saturating_sub(before.len());
        secrets.extend(found.into_iter().map(|found| from(found.start)..from(found.end)));
    }
}

/// The line with blanks in the place of what a shell may have asked for it with: `> `, `quote> `.
fn without_prompt(line: &str) -> Cow<'_, str> {
    let Some(sign) = line.find("> ").filter(|sign| *sign < PROMPT_BYTES_MAX) else {
        return Cow::Borrowed(line);
    };
    let name = line[..sign].trim_start_matches(' ');
    if name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-') {
        Cow::Owned(" ".repeat(sign + 1) + &line[sign + 1..])
    } else {
        Cow::Borrowed(line)
    }
}
