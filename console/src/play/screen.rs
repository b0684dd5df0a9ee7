//! Lets through to a terminal only what can't do it, or its owner, harm.
//!
//! A recording holds what a program once wrote to somebody else's terminal, and that program may have been hostile.
//! So its bytes are parsed and written anew; a sequence that is not on the list below is not passed on. Through get
//!
//! * text, and the controls BS, HT, LF, VT, FF, CR, SO, SI;
//! * colours and other renditions (SGR), cursor movement, erasing (not the scrollback), inserting and deleting,
//!   scrolling and the scrolling region, repeating a character, soft reset;
//! * the modes insert, origin, reverse screen, autowrap, visible cursor and alternate screen;
//! * saving and restoring the cursor, index and reverse index, and the ASCII, British and line drawing charsets.
//!
//! Left out is everything else, above all whatever makes a terminal answer (device attributes, status and window
//! reports, ENQ), store something (clipboard, title, keys) or fetch something (links, images, notifications): all OSC,
//! DCS, APC, PM and SOS strings, mouse and keyboard modes, and full reset. What the session left switched on is
//! switched off by [`Screen::restore`].

use std::collections::BTreeSet;

use vte::{Params, Perform};

use super::bounded::{Bounded, Heard};

/// DEC private modes that may be set and reset. They change what is shown and nothing else.
const PRIVATE_MODES: [u16; 9] = [5, 6, 7, 12, 25, 47, 1047, 1048, 1049];
/// Private modes that are on in a terminal that was just switched on: autowrap and the visible cursor.
const ON_BY_DEFAULT: [u16; 2] = [7, 25];
/// The most often that one sequence repeats a character: a long line of it.
const REPEAT_MAX: u16 = 1000;
/// The mode to insert characters instead of overwriting.
const INSERT_MODE: u16 = 4;

/// One stream of output on its way to a terminal.
#[derive(Default)]
pub struct Screen {
    parser: Bounded,
    filter: Filter,
}

impl Screen {
    /// What of these bytes may be written to a terminal. Sequences may be split between calls anywhere.
    pub fn filter(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.parser.advance(&mut self.filter, bytes);
        std::mem::take(&mut self.filter.out).into_bytes()
    }

    /// Whether no sequence is open, so that a new filter would go on just the same.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.parser.is_at_rest()
    }

    /// What to write at the end to have the terminal as it was.
    #[must_use]
    pub fn restore(&self) -> Vec<u8> {
        let Filter { out: _, heard: _, changed, insert, region } = &self.filter;
        let mut out = String::from("\x1b[0m\x1b(B\x0f");
        if *insert {
            out.push_str("\x1b[4l");
        }
        if *region {
            // Resetting the region moves the cursor.
            out.push_str("\x1b7\x1b[r\x1b8");
        }
        // Saving the cursor is no state to undo.
        for mode in changed.iter().filter(|mode| **mode != 1048) {
            let end = if ON_BY_DEFAULT.contains(mode) { 'h' } else { 'l' };
            out.push_str(&format!("\x1b[?{mode}{end}"));
        }
        out.into_bytes()
    }
}

#[derive(Default)]
struct Filter {
    out: String,
    heard: bool,
    /// Private modes that are not as they are by default.
    changed: BTreeSet<u16>,
    insert: bool,
    region: bool,
}

impl Filter {
    fn modes(&mut self, params: &Params, private: bool, on: bool) {
        let end = if on { 'h' } else { 'l' };
        for mode in params.iter().filter_map(|param| param.first().copied()) {
            if private && PRIVATE_MODES.contains(&mode) {
                if on == ON_BY_DEFAULT.contains(&mode) {
                    self.changed.remove(&mode);
                } else {
                    self.changed.insert(mode);
                }
                self.out.push_str(&format!("\x1b[?{mode}{end}"));
            } else if !private && mode == INSERT_MODE {
                self.insert = on;
                self.out.push_str(&format!("\x1b[{mode}{end}"));
            }
        }
    }

    fn pass(&mut self, params: &Params, action: char) {
        // Eight bytes must not become a screenful a thousand times over.
        let most = if action == 'b' { REPEAT_MAX } else { u16::MAX };
        let number = |value: &u16| (*value).min(most).to_string();
        let params: Vec<_> =
            params.iter().map(|param| param.iter().map(number).collect::<Vec<_>>().join(":")).collect();
        self.out.push_str(&format!("\x1b[{}{action}", params.join(";")));
    }
}

impl Heard for Filter {
    fn heard(&mut self) -> bool {
        std::mem::take(&mut self.heard)
    }
}

impl Perform for Filter {
    fn print(&mut self, c: char) {
        self.heard = true;
        if !c.is_control() {
            self.out.push(c);
        }
    }

    fn execute(&mut self, byte: u8) {
        self.heard = true;
        if matches!(byte, 0x08..=0x0f) {
            self.out.push(char::from(byte));
        }
    }

    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], ignore: bool, action: char) {
        self.heard = true;
        let first = params.iter().next().and_then(|param| param.first().copied()).unwrap_or(0);
        match (ignore, intermediates, action) {
            (true, ..) => {}
            (_, b"?", 'h' | 'l') => self.modes(params, true, action == 'h'),
            (_, b"", 'h' | 'l') => self.modes(params, false, action == 'h'),
            (_, b"!", 'p') => self.out.push_str("\x1b[!p"),
            // Three erases the scrollback, which is the viewer's.
            (_, b"", 'J') if first > 2 => {}
            // With more parameters it starts mouse tracking.
            (_, b"", 'T') if params.len() > 1 => {}
            // With parameters it sets margins or more.
            (_, b"", 's' | 'u') if params.len() > 1 || first != 0 => {}
            (_, b"", 's' | 'u') => self.out.push_str(&format!("\x1b[{action}")),
            (_, b"", 'r') => {
                self.region = true;
                self.pass(params, action);
            }
            (
                _,
                b"",
                'A'..='M' | 'P' | 'S' | 'T' | 'X' | 'Z' | '@' | '`' | 'a' | 'b' | 'd' | 'e' | 'f' | 'm',
            ) => {
                self.pass(params, action);
            }
            _ => {}
        }
    }

    fn esc_dispatch(&mut self, intermediates: &[u8], ignore: bool, byte: u8) {
        self.heard = true;
        match (ignore, intermediates, byte) {
            (false, b"", b'7' | b'8' | b'D' | b'E' | b'M') => {
                self.out.push_str(&format!("\x1b{}", char::from(byte)));
            }
            (false, b"(" | b")", b'0' | b'A' | b'B') => {
                self.out.push_str(&format!("\x1b{}{}", char::from(intermediates[0]), char::from(byte)));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filter(bytes: &str) -> String {
        String::from_utf8(Screen::default().filter(bytes.as_bytes())).expect("text")
    }

    #[test]
    fn what_only_changes_the_picture_gets_through() {
        for kept in [
            "plain, grüße, 日本 \u{1f600}\r\n\ttab\x08",
            "\x1b[1;38;5;208mbold\x1b[0m",
            "\x1b[38:2:255:0:10mcolour",
            "\x1b[2J\x1b[10;20H\x1b[3A\x1b[0K\x1b[2L\x1b[4P\x1b[5X\x1b[2;20r\x1b[3S\x1b[3T",
            "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[4h",
            "\x1b7\x1b8\x1bM\x1bD\x1bE\x1b[s\x1b[u\x1b[!p",
            "\x1b(0lqk\x1b(B\x0e\x0f",
        ] {
            assert_eq!(filter(kept).replace("[0s", "[s"), kept, "{kept:?}");
        }
    }

    #[test]
    fn what_makes_a_terminal_answer_store_or_fetch_something_is_left_out() {
        for (what, hostile) in [
            ("clipboard, OSC 52", "\x1b]52;c;aGFja2Vk\x07"),
            ("clipboard, ended by ST", "\x1b]52;c;aGFja2Vk\x1b\\"),
            ("title", "\x1b]0;title\x07"),
            ("title stack", "\x1b[22;0t\x1b[23;0t"),
            ("title report", "\x1b[21t"),
            ("link", "\x1b]8;;http://evil.example\x1b\\"),
            ("image", "\x1b]1337;File=inline=1:AAAA\x07"),
            ("notification", "\x1b]777;notify;a;b\x07"),
            ("DCS request for settings", "\x1bP$qm\x1b\\"),
            ("DCS definition of keys", "\x1bP0;1|17/0a\x1b\\"),
            ("sixel", "\x1bPq#0;2;0;0;0~-\x1b\\"),
            ("APC", "\x1b_Gf=24;AAAA\x1b\\"),
            ("PM", "\x1b^private\x1b\\"),
            ("SOS", "\x1bXstring\x1b\\"),
            ("device attributes", "\x1b[c\x1b[0c\x1b[>c\x1b[=c\x1bZ"),
            ("status and cursor reports", "\x1b[5n\x1b[6n\x1b[?6n"),
            ("version and mode requests", "\x1b[>q\x1b[?25$p\x1b[x"),
            ("answerback", "\x05"),
            ("bell", "\x07"),
            ("printing", "\x1b[5i\x1b[4i"),
            (
                "mouse, focus, paste and key modes",
                "\x1b[?1000h\x1b[?1004h\x1b[?1006h\x1b[?2004h\x1b[?1h\x1b=",
            ),
            ("keyboard protocols", "\x1b[>4;2m\x1b[>1u\x1b[?u\x1b[=1;1u"),
            ("highlight tracking", "\x1b[1;2;3;4;5T"),
            ("margins", "\x1b[5;10s\x1b[?69h"),
            ("scrollback", "\x1b[3J"),
            ("full reset", "\x1bc"),
            ("keyboard lock", "\x1b[2h"),
            ("other encoding", "\x1b%@\x1b%G"),
            ("C1 controls in UTF-8", "\u{9b}5n\u{90}\u{9d}\u{85}".trim_start_matches("x")),
        ] {
            let left = filter(&format!("a{hostile}b"));
            assert!(!left.contains('\x1b') && !left.chars().any(char::is_control), "{what}: {left:?}");
            assert!(left.starts_with('a') && left.ends_with('b'), "{what}: {left:?}");
        }
    }

    #[test]
    fn raw_c1_bytes_are_not_passed_on() {
        let left = Screen::default().filter(b"a\x9b5nb\x9d52;c;AAAA\x07c");
        assert!(!String::from_utf8(left).expect("text").chars().any(char::is_control));
    }

    #[test]
    fn a_sequence_split_anywhere_is_treated_the_same() {
        let bytes = "x\x1b]52;c;AAAA\x07\x1b[31mé\x1b[6n\x1bP$qm\x1b\\y".as_bytes();
        for cut in 0..bytes.len() {
            let mut screen = Screen::default();
            let parts = [screen.filter(&bytes[..cut]), screen.filter(&bytes[cut..])].concat();
            assert_eq!(String::from_utf8(parts).expect("text"), "x\x1b[31méy", "cut at {cut}");
        }
    }

    #[test]
    fn what_the_session_left_switched_on_is_switched_off_and_nothing_else() {
        let restore = |bytes: &str| {
            let mut screen = Screen::default();
            screen.filter(bytes.as_bytes());
            String::from_utf8(screen.restore()).expect("text")
        };
        let always = "\x1b[0m\x1b(B\x0f";
        assert_eq!(restore("\x1b[?1049h\x1b[?25l\x1b[?25h\x1b[?1049l"), always);
        assert_eq!(
            restore("\x1b[?1049h\x1b[?25;7l\x1b[2;5r\x1b[4h"),
            format!("{always}\x1b[4l\x1b7\x1b[r\x1b8\x1b[?7h\x1b[?25h\x1b[?1049l")
        );
    }

    proptest! {
        #[test]
        fn whatever_comes_in_only_listed_sequences_go_out(
            bytes in prop::collection::vec(prop_oneof![
                Just(0x1b), Just(b'['), Just(b']'), Just(b'?'), Just(b';'), Just(b'5'), Just(b'n'), Just(b'c'), any::<u8>(),
            ], 0..300),
        ) {
            let left = String::from_utf8(Screen::default().filter(&bytes)).expect("text");
            // What went out is understood in full by the filter itself: nothing in it is left out.
            let again = String::from_utf8(Screen::default().filter(left.as_bytes())).expect("text");
            prop_assert_eq!(again, left);
        }
    }
}
