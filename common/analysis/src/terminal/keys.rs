//! What a user typed: keys, what of it was pasted, and the line that a terminal in canonical mode makes of it.
//!
//! Answers of the user's terminal (where the cursor is, which colours it has) come the same way and are no keys.

/// The most bytes of a line that are kept: line editors take more than the 4096 of canonical mode.
const LINE_BYTES_MAX: usize = 64 << 10;

/// What was typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// Something that writes or edits.
    Other,
    /// The key after which a line editor does not hold what was typed (Tab, arrows, control keys).
    Edit,
    /// The line is to be run.
    Enter,
    /// The line is to be given up: Ctrl-C, Ctrl-\.
    Interrupt,
    /// Ctrl-D.
    End,
}

enum State {
    Ground,
    Escape,
    Csi,
    Ss3,
    String,
    StringEscape,
}

/// Follows what a user types.
pub(super) struct Keys {
    state: State,
    parameters: Vec<u8>,
    /// Whether it comes from a bracketed paste.
    pub(super) pasting: bool,
    /// What a terminal in canonical mode would hold.
    line: Vec<u8>,
    /// Whether what was typed would be taken as it is, without the keys that only line editors know.
    plain: bool,
    quoted: bool,
}

/// The most bytes of a control sequence's parameters that are looked at.
const PARAMETERS_MAX: usize = 32;

impl Keys {
    pub(super) fn new() -> Self {
        Self {
            state: State::Ground,
            parameters: Vec::new(),
            pasting: false,
            line: Vec::new(),
            plain: true,
            quoted: false,
        }
    }

    /// Takes a byte, and says which key it completes.
    pub(super) fn byte(&mut self, byte: u8) -> Option<Key> {
        match self.state {
            State::Ground if byte == 0x1b => self.state = State::Escape,
            State::Ground => return Some(self.ground(byte)),
            State::Escape => {
                self.parameters.clear();
                match byte {
                    b'[' => self.state = State::Csi,
                    b'O' => self.state = State::Ss3,
                    b']' | b'P' | b'_' | b'^' => self.state = State::String,
                    0x1b => {}
                    b'\r' | b'\n' => {
                        // Vi mode: Escape, then Enter.
                        self.state = State::Ground;
                        return Some(self.ground(byte));
                    }
                    _ => return Some(self.edit()),
                }
            }
            State::Ss3 => return Some(self.edit()),
            State::Csi => match byte {
                0x40..=0x7e => return self.sequence(byte),
                0x1b => self.state = State::Escape,
                _ if self.parameters.len() < PARAMETERS_MAX => self.parameters.push(byte),
                _ => {}
            },
            State::String => match byte {
                0x07 | 0x9c => self.state = State::Ground,
                0x1b => self.state = State::StringEscape,
                _ => {}
            },
            State::StringEscape => {
                self.state = if byte == b'\\' { State::Ground } else { State::Escape };
            }
        }
        None
    }

    fn sequence(&mut self, last: u8) -> Option<Key> {
        self.state = State::Ground;
        match (last, self.parameters.as_slice()) {
            (b'~', b"200") => self.pasting = true,
            (b'~', b"201") => self.pasting = false,
            // Reports of the cursor, of attributes, of modes and of the window; the mouse; focus.
            (b'R', parameters) if parameters.contains(&b';') => {}
            (b'c' | b'n' | b't' | b'y' | b'x', _) | (b'I' | b'O', b"") | (b'M' | b'm', _) => {}
            (b'u', parameters) if parameters.first() == Some(&b'?') => {}
            _ => return Some(self.edit()),
        }
        None
    }

    fn edit(&mut self) -> Key {
        self.state = State::Ground;
        self.plain = false;
        Key::Edit
    }

    fn ground(&mut self, byte: u8) -> Key {
        if std::mem::take(&mut self.quoted) {
            self.push(byte);
            return Key::Other;
        }
        match byte {
            b'\r' | b'\n' if self.pasting => self.push(b'\n'),
            b'\r' | b'\n' => return Key::Enter,
            // Runs the line, too, in readline (operate-and-get-next).
            0x0f => {
                self.plain = false;
                return Key::Enter;
            }
            0x03 | 0x1c => {
                self.clear();
                return Key::Interrupt;
            }
            0x04 => return Key::End,
            0x7f | 0x08 => {
                let text = String::from_utf8_lossy(&self.line);
                let kept = text.char_indices().next_back().map_or(0, |(at, _)| at);
                self.line.truncate(kept);
            }
            0x15 => self.clear(),
            0x17 => {
                let kept = self.line.trim_ascii_end().iter().rposition(|b| *b == b' ').map_or(0, |at| at + 1);
                self.line.truncate(kept);
            }
            0x16 => self.quoted = true,
            b'\t' | 0x00..=0x1f => {
                self.plain = false;
                return Key::Edit;
            }
            _ => self.push(byte),
        }
        Key::Other
    }

    fn push(&mut self, byte: u8) {
        if self.line.len() < LINE_BYTES_MAX {
            self.line.push(byte);
        }
    }

    fn clear(&mut self) {
        self.line.clear();
        self.plain = true;
    }

    /// What was typed of the line so far, if it was typed as it is.
    pub(super) fn line(&self) -> Option<String> {
        self.plain.then(|| String::from_utf8_lossy(&self.line).into_owned())
    }

    /// The line that Enter ended, if it was typed as it is.
    pub(super) fn take_line(&mut self) -> Option<String> {
        let plain = std::mem::replace(&mut self.plain, true);
        let line = std::mem::take(&mut self.line);
        plain.then(|| String::from_utf8_lossy(&line).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(bytes: &[u8]) -> (Vec<Key>, Option<String>) {
        let mut keys = Keys::new();
        let typed = bytes.iter().filter_map(|byte| keys.byte(*byte)).collect();
        (typed, keys.take_line())
    }

    #[test]
    fn a_terminal_edits_a_line() {
        assert_eq!(typed("sl\x7f\x7fls fooé\x7f\x7f\x17-l".as_bytes()).1.as_deref(), Some("ls -l"));
        assert_eq!(typed(b"foo\x15ls").1.as_deref(), Some("ls"));
        assert_eq!(typed(b"ls /e\t").1, None, "what Tab adds is not known");
    }

    #[test]
    fn answers_of_the_terminal_are_no_keys() {
        let (keys, _) = typed(b"\x1b[24;80R\x1b[?62;c\x1b]11;rgb:0/0/0\x07\x1b[I\x1bP1$r0m\x1b\\");
        assert_eq!(keys, []);
        assert_eq!(typed(b"\x1b[A\x1bOA\x1bb").0, [Key::Edit; 3]);
    }

    #[test]
    fn a_line_end_in_a_bracketed_paste_runs_nothing() {
        let (keys, line) = typed(b"\x1b[200~a\rb\x1b[201~");
        assert!(!keys.contains(&Key::Enter));
        assert_eq!(line.as_deref(), Some("a\nb"));
        assert_eq!(typed(b"a\r").0.last(), Some(&Key::Enter));
    }
}
