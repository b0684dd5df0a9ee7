//! Cuts what a target sends into what an emulator may see and what only marks something: control strings (OSC, DCS
//! and the like) are taken out, and changes of the modes that matter here are said.
//!
//! A string longer than [`STRING_BYTES_MAX`] is passed over, and never kept. Nothing else is kept.

/// The most bytes of a control string. VS Code's marks carry a whole command line, in which a byte may take four.
const STRING_BYTES_MAX: usize = 64 << 10;
/// The most bytes of the parameters of a control sequence that are looked at.
const PARAMETERS_MAX: usize = 64;
/// How many cells each byte of output may change, on average. Programs need few; without a limit, four bytes could
/// change a whole screen again and again.
const CELLS_PER_BYTE: usize = 64;
/// How many cells may be changed at once before that counts.
const CELLS_MAX: usize = 16 << 20;

/// Ends a control sequence without effect (ECMA-48, CAN).
const CANCEL: &[u8] = &[0x18];

/// A piece of the output.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// For the emulator, with all its control sequences. Such a sequence may go on in the next piece.
    Text(&'a [u8]),
    /// A line feed, for the emulator.
    LineFeed,
    /// The emulator was told to switch these.
    Mode(Mode, bool),
    /// An operating system command.
    Osc(Vec<u8>),
    /// A device control string.
    Dcs(Vec<u8>),
}

/// A mode that matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Bracketed paste, which a line editor has on while it waits.
    Paste,
    /// The alternate screen.
    Alternate,
}

/// Where in the grammar of ECMA-48 the output is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ground,
    Escape,
    Csi,
    String(Kind),
    StringEscape(Kind),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Osc,
    Dcs,
    Other,
}

/// Follows one stream of output.
pub(super) struct Scanner {
    state: State,
    string: Vec<u8>,
    overlong: bool,
    parameters: Vec<u8>,
    modes: Vec<(Mode, bool)>,
    /// How many cells may be changed still.
    cells: usize,
}

impl Scanner {
    pub(super) fn new() -> Self {
        Self {
            state: State::Ground,
            string: Vec::new(),
            overlong: false,
            parameters: Vec::with_capacity(PARAMETERS_MAX),
            modes: Vec::new(),
            cells: CELLS_MAX,
        }
    }

    /// So many bytes come, for a screen of so many cells.
    pub(super) fn begin(&mut self, bytes: usize) {
        self.cells = CELLS_MAX.min(self.cells.saturating_add(bytes.saturating_mul(CELLS_PER_BYTE)));
    }

    /// Whether so many cells may be changed; then they count as changed.
    pub(super) fn affords(&mut self, cells: usize) -> bool {
        let rest = self.cells.checked_sub(cells);
        self.cells = rest.unwrap_or(self.cells);
        rest.is_some()
    }

    /// Whether a sequence with this last byte may be obeyed on a screen of so many cells.
    fn affords_sequence(&mut self, last: u8, screen: usize) -> bool {
        let parameters = self.parameters.strip_prefix(b"?").unwrap_or(&self.parameters);
        let number =
            std::str::from_utf8(parameters).ok().and_then(|text| text.split(';').next()?.parse().ok());
        match last {
            // Repeats a character.
            b'b' => self.affords(number.unwrap_or(1).min(1 << 16)),
            // Erases, scrolls, inserts and deletes lines.
            b'J' | b'S' | b'T' | b'L' | b'M' => self.affords(screen),
            b'h' | b'l' if matches!(number, Some(3 | 47 | 1047 | 1049)) => self.affords(screen),
            _ => true,
        }
    }

    /// The next piece of `bytes`, and how many of them it used up. Line feeds come by themselves if `lines`; the
    /// screen has so many cells. To be called until nothing comes.
    pub(super) fn next<'a>(
        &mut self,
        bytes: &'a [u8],
        lines: bool,
        screen: usize,
    ) -> Option<(Piece<'a>, usize)> {
        if let Some((mode, on)) = self.modes.pop() {
            return Some((Piece::Mode(mode, on), 0));
        }
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            match self.state {
                State::Ground => {
                    let rest = &bytes[at..];
                    let end = rest.iter().position(|&b| b == 0x1b || (lines && b == b'\n'));
                    match end {
                        Some(0) if byte == b'\n' => return Some((Piece::LineFeed, at + 1)),
                        Some(0) => self.state = State::Escape,
                        Some(end) => return Some((Piece::Text(&rest[..end]), at + end)),
                        None => return Some((Piece::Text(rest), bytes.len())),
                    }
                }
                State::Escape => {
                    self.state = match byte {
                        b'[' => State::Csi,
                        b']' => State::String(Kind::Osc),
                        b'P' => State::String(Kind::Dcs),
                        // `k` sets a title in tmux and screen.
                        b'X' | b'^' | b'_' | b'k' => State::String(Kind::Other),
                        0x1b => State::Escape,
                        _ => State::Ground,
                    };
                    match self.state {
                        State::Csi => {
                            self.parameters.clear();
                            return Some((Piece::Text(b"\x1b["), at + 1));
                        }
                        State::String(_) => {
                            self.string.clear();
                            self.overlong = false;
                        }
                        // A full reset.
                        State::Ground if byte == b'c' => {
                            if !self.affords(screen) {
                                return Some((Piece::Text(b""), at + 1));
                            }
                            return Some((Piece::Text(b"\x1b"), at));
                        }
                        State::Ground => return Some((Piece::Text(b"\x1b"), at)),
                        _ => {}
                    }
                }
                State::Csi => return Some(self.sequence(bytes, at, screen)),
                State::String(kind) => {
                    let rest = &bytes[at..];
                    let ends =
                        |b: &u8| matches!(b, 0x07 | 0x18 | 0x1a | 0x1b) || (*b == 0x9c && kind == Kind::Dcs);
                    let end = rest.iter().position(ends);
                    self.keep(kind, &rest[..end.unwrap_or(rest.len())]);
                    at += end.unwrap_or(rest.len());
                    match end.map(|end| rest[end]) {
                        None => return Some((Piece::Text(b""), at)),
                        Some(0x1b) => self.state = State::StringEscape(kind),
                        Some(0x18 | 0x1a) => self.state = State::Ground,
                        Some(_) => {
                            self.state = State::Ground;
                            if let Some(piece) = self.string(kind) {
                                return Some((piece, at + 1));
                            }
                        }
                    }
                }
                State::StringEscape(kind) => {
                    if byte == b'\\' {
                        self.state = State::Ground;
                        if let Some(piece) = self.string(kind) {
                            return Some((piece, at + 1));
                        }
                    } else {
                        self.state = State::Escape;
                        continue;
                    }
                }
            }
            at += 1;
        }
        (at > 0).then_some((Piece::Text(b""), at))
    }

    fn keep(&mut self, kind: Kind, bytes: &[u8]) {
        if kind == Kind::Other || self.overlong {
            return;
        }
        self.overlong = self.string.len() + bytes.len() > STRING_BYTES_MAX;
        if self.overlong {
            self.string = Vec::new();
        } else {
            self.string.extend_from_slice(bytes);
        }
    }

    fn string(&mut self, kind: Kind) -> Option<Piece<'static>> {
        let string = std::mem::take(&mut self.string);
        match kind {
            _ if self.overlong => None,
            Kind::Osc => Some(Piece::Osc(string)),
            Kind::Dcs => Some(Piece::Dcs(string)),
            Kind::Other => None,
        }
    }

    fn sequence<'a>(&mut self, bytes: &'a [u8], at: usize, screen: usize) -> (Piece<'a>, usize) {
        for (offset, &byte) in bytes[at..].iter().enumerate() {
            let end = at + offset;
            match byte {
                0x1b => {
                    self.state = State::Ground;
                    return (Piece::Text(&bytes[at..end]), end);
                }
                0x18 | 0x1a | 0x80.. => {
                    self.state = State::Ground;
                    return (Piece::Text(&bytes[at..end]), end);
                }
                0x40..=0x7e => {
                    self.state = State::Ground;
                    if !self.affords_sequence(byte, screen) {
                        return (Piece::Text(CANCEL), end + 1);
                    }
                    self.modes(byte);
                    return (Piece::Text(&bytes[at..=end]), end + 1);
                }
                _ if self.parameters.len() < PARAMETERS_MAX => self.parameters.push(byte),
                _ => {}
            }
        }
        (Piece::Text(&bytes[at..]), bytes.len())
    }

    /// Notes which modes a sequence with this last byte switches (DECSET, DECRST).
    fn modes(&mut self, last: u8) {
        let on = match last {
            b'h' => true,
            b'l' => false,
            _ => return,
        };
        let Some(numbers) = self.parameters.strip_prefix(b"?") else { return };
        for number in numbers.split(|&byte| byte == b';').rev() {
            match number {
                b"2004" => self.modes.push((Mode::Paste, on)),
                b"47" | b"1047" | b"1049" => self.modes.push((Mode::Alternate, on)),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What an emulator would see, with marks in between.
    fn scanned(pieces: &[&[u8]]) -> (Vec<u8>, Vec<String>) {
        let (mut text, mut marks) = (Vec::new(), Vec::new());
        let mut scanner = Scanner::new();
        for bytes in pieces {
            let mut rest = *bytes;
            while let Some((piece, used)) = scanner.next(rest, false, 80) {
                rest = &rest[used..];
                match piece {
                    Piece::Text(bytes) => text.extend_from_slice(bytes),
                    other => marks.push(format!("{other:?}")),
                }
            }
        }
        (text, marks)
    }

    #[test]
    fn strings_are_taken_out_and_modes_are_said() {
        let (text, marks) =
            scanned(&[b"a\x1b]133;A\x07b\x1b[?2004;1049h\x1b]7;x\x1b", b"\\c\x1bP$dff\x9cd\x1bkt\x1b\\e"]);
        assert_eq!(text, b"ab\x1b[?2004;1049hcde");
        assert_eq!(marks[1..3], ["Mode(Paste, true)", "Mode(Alternate, true)"]);
        assert_eq!(marks.len(), 5);
    }

    #[test]
    fn an_endless_string_is_not_kept() {
        let mut scanner = Scanner::new();
        let part = [b'x'; 4096];
        scanner.next(b"\x1b]0;", false, 80);
        for _ in 0..1000 {
            scanner.next(&part, false, 80);
            assert!(scanner.string.capacity() <= 2 * STRING_BYTES_MAX);
        }
        assert_eq!(scanner.next(b"\x07", false, 80), Some((Piece::Text(b""), 1)), "nothing is said of it");
    }

    #[test]
    fn what_costs_too_much_is_not_obeyed() {
        let mut scanner = Scanner::new();
        let mut obeyed = 0;
        for _ in 0..100_000 {
            scanner.begin(4);
            let mut rest = &b"\x1b[2J"[..];
            while let Some((piece, used)) = scanner.next(rest, false, 1920) {
                rest = &rest[used..];
                obeyed += usize::from(piece == Piece::Text(b"2J"));
            }
        }
        assert!((8000..25_000).contains(&obeyed), "{obeyed}");
    }

    proptest! {
        #[test]
        fn splits_make_no_difference(
            bytes in prop::collection::vec(prop::sample::select(b"\x1b[]P?204h;l\x07\\\x9cak\x18\n".to_vec()), 0..80),
            split in 0..80usize,
        ) {
            let (first, second) = bytes.split_at(split.min(bytes.len()));
            prop_assert_eq!(scanned(&[first, second]), scanned(&[&bytes]));
        }
    }
}
