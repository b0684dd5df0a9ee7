//! Lines of terminals, one after the other: a private key goes over many.

use std::{borrow::Cow, collections::BTreeMap};

use weir_common::session::ChannelNo;

use super::{
    MASK, Masking,
    shapes::{END, KEY_LINES_MAX, is_key_line},
};

/// The most terminals on which a key may be open.
const TERMINALS_MAX: usize = 1000;

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

/// What lines before have begun, on one terminal.
#[derive(Clone, Copy, Debug, Default)]
pub struct LineState {
    /// How many more lines may be of a private key.
    key_lines: usize,
}

impl LineState {
    fn is_open(self) -> bool {
        self.key_lines > 0
    }
}

impl Masking {
    /// The same as [`Masking::mask`] for one line after the other: a private key is masked on all lines that it is on.
    #[must_use]
    pub fn mask_line<'a>(&self, state: &mut LineState, line: &'a str) -> (Cow<'a, str>, u32) {
        if state.is_open() {
            let end = line.find(END);
            let body = &line[..end.unwrap_or(line.len())];
            if is_key_line(body) {
                state.key_lines = if end.is_some() { 0 } else { state.key_lines - 1 };
                let said = body.trim();
                if said.is_empty() {
                    return (Cow::Borrowed(line), 0);
                }
                return (Cow::Owned(line.replacen(said, MASK, 1)), 1);
            }
        }
        let (masked, count, open_key) = self.mask_all(line);
        state.key_lines = if open_key { KEY_LINES_MAX } else { 0 };
        (masked, count)
    }
}
