//! What fuzzers feed with bytes, and seeds for them: see `docs/fuzzing.md`, and [`weir_common::fuzz`].

use weir_common::{
    frame::{ChannelType, Direction, Pty, WindowSize},
    recording::{
        Clock, Content, Event, Gap, GapCause, What,
        findings::{COMMAND_CHARS_MAX, Command, FileAccess, FileResult, Forward, PATH_BYTES_MAX, Span},
    },
    session::ChannelNo,
};

use crate::{
    Analysis, Findings, Found, TranscriptLine,
    masking::{LineState, MASK, Masking},
};

/// The most findings of any kind that a byte of input gives, and some more at the end.
const FINDINGS_PER_BYTE_MAX: usize = 64;
/// The most findings that need no input.
const FINDINGS_FREE: usize = 4096;
/// The most bytes of a line of the transcript.
const LINE_BYTES_MAX: usize = 1 << 20;

/// A terminal and who types on it: what is shown, what is typed, other sizes and gaps.
pub fn terminal(bytes: &[u8]) {
    let Some((size, rest)) = bytes.split_first_chunk::<2>() else { return };
    let mut session = Session::new(true);
    session.say(Direction::ClientToTarget, What::Pty(pty(u32::from(size[0]), u32::from(size[1]))));
    session.say(Direction::ClientToTarget, What::Shell);
    for (what, data) in chunks(rest) {
        session.now += 1;
        match what % 8 {
            0..=2 => session.say(Direction::TargetToClient, What::Stdout(content(data))),
            3..=4 => session.say(Direction::ClientToTarget, What::Stdin(content(data))),
            5 => session.say(Direction::TargetToClient, gap()),
            6 => session.say(Direction::ClientToTarget, What::WindowChange(absurd_size(data))),
            _ => session.say(Direction::ClientToTarget, What::WindowChange(size_of(data.len()))),
        }
    }
    session.end();
}

/// What carries files: SFTP, scp in both directions, rsync; in pieces or not.
pub fn transfers(bytes: &[u8]) {
    let (whole, pieces) = (follow_transfers(bytes, usize::MAX), follow_transfers(bytes, 1));
    assert!(whole == pieces, "in which pieces something comes means nothing");
}

fn follow_transfers(bytes: &[u8], piece_bytes: usize) -> Found {
    let mut session = Session::new(true);
    let Some((kind, rest)) = bytes.split_first() else { return session.end() };
    let begin = match kind % 6 {
        0 | 1 => What::Subsystem { name: "sftp".to_owned() },
        2 => exec("scp -r -t /tmp/x"),
        3 => exec("scp -p -f a b"),
        4 => exec("rsync --server -vlogDtpre.iLsfxCIvu . /tmp"),
        _ => exec("rsync --server --sender -vlogDtpre.iLsfxCIvu . /tmp"),
    };
    session.say(Direction::ClientToTarget, begin);
    for (what, data) in chunks(rest) {
        session.now += 1;
        let dir = if what % 2 == 0 { Direction::ClientToTarget } else { Direction::TargetToClient };
        if what >= 250 {
            session.say(dir, gap());
        }
        for piece in data.chunks(piece_bytes) {
            let what = match dir {
                Direction::ClientToTarget => What::Stdin(content(piece)),
                Direction::TargetToClient => What::Stdout(content(piece)),
            };
            session.say(dir, what);
        }
    }
    session.end()
}

/// Any session: events as lines of JSON.
pub fn session(bytes: &[u8]) {
    follow_session(bytes);
}

fn follow_session(bytes: &[u8]) -> Found {
    let mut session = Session::new(false);
    for line in bytes.split(|byte| *byte == b'\n') {
        if let Ok(event) = serde_json::from_slice::<Event>(line) {
            session.event(&event);
        }
    }
    session.end()
}

/// Text that holds secrets or not, as a command and as lines.
pub fn masking(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let masking = Masking::default();
    let (masked, count) = masking.mask(&text);
    assert_eq!(count == 0, masked == text, "what is counted is replaced");
    assert!(masked.len() <= 4 * text.len() + MASK.len());
    assert!(masked.matches(MASK).count() >= usize::try_from(count).expect("few"));
    let mut state = LineState::default();
    for line in text.lines() {
        let (masked, _) = masking.mask_line(&mut state, line);
        assert!(masked.len() <= 4 * line.len() + MASK.len());
        assert!(!masked.contains('\n'));
    }
}

/// A valid input of each body here, by the body's name.
#[must_use]
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let mut shell = vec![24, 80];
    for (what, data) in [
        (0, "\x1b]133;A\x07ada@web-1:~$ \x1b]133;B\x07"),
        (3, "ls\x1b[D\x1b[C /tmp\r"),
        (0, "ls /tmp\r\n\x1b]133;C\x07\x1b[1ma\x1b[m  b\r\n\x1b]133;D;0\x07$ "),
        (7, "0123456789"),
        (3, "\x1b[200~vi\x1b[201~\r"),
        (0, "vi\r\n\x1b[?1049h~\x1b[5;1Hx\x1b[?1049l$ "),
        (6, "\u{1}\u{0}\u{0}\u{0}"),
        (5, ""),
        (3, "\x04"),
    ] {
        shell.extend(chunk(what, data.as_bytes()));
    }
    let copy = [
        chunk(1, b"\0"),
        chunk(0, b"D0755 0 d\nC0644 3 f\n"),
        chunk(1, b"\0\0"),
        chunk(0, b"abc\0E\n"),
        chunk(1, b"\0\0"),
    ];
    let scp = [vec![2], copy.concat()].concat();
    let mut sftp = vec![0];
    for (what, body) in [
        (0, &b"\x01\0\0\0\x03"[..]),
        (1, b"\x02\0\0\0\x03"),
        (0, b"\x03\0\0\0\x01\0\0\0\x02/f\0\0\0\x01\0\0\0\0"),
        (1, b"\x66\0\0\0\x01\0\0\0\x01h"),
        (0, b"\x05\0\0\0\x02\0\0\0\x01h\0\0\0\0\0\0\0\0\0\0\x10\0"),
        (1, b"\x67\0\0\0\x02\0\0\0\x03abc"),
        (0, b"\x04\0\0\0\x03\0\0\0\x01h"),
        (1, b"\x65\0\0\0\x03\0\0\0\0\0\0\0\0\0\0\0\0"),
    ] {
        let len = u32::try_from(body.len()).expect("short").to_be_bytes();
        sftp.extend(chunk(what, &[&len, body].concat()));
    }
    let events = [
        r#"{"t":1,"dir":"c2t","ch":0,"seq":0,"len":0,"kind":"open","channel":{"type":"session"}}"#,
        r#"{"t":2,"dir":"c2t","ch":0,"seq":1,"len":0,"kind":"exec","text":"mysql -phunter2"}"#,
        r#"{"t":3,"dir":"t2c","ch":0,"seq":0,"len":3,"kind":"stdout","text":"hi\n"}"#,
        r#"{"t":4,"dir":"t2c","ch":0,"seq":1,"len":4,"kind":"exit_status","status":0}"#,
        r#"{"t":5,"dir":"t2c","ch":0,"seq":2,"len":0,"kind":"close"}"#,
        r#"{"t":6,"dir":"c2t","ch":0,"seq":2,"len":0,"kind":"close"}"#,
    ];
    let secrets = "PGPASSWORD='a b' psql -h h; curl -u a:b -H \"Authorization: Bearer x\" https://u:p@h/\n\
        -----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\nmysql -psecret --token $(cat f)";
    vec![
        ("terminal", shell),
        ("transfers", scp),
        ("transfers", sftp),
        ("session", events.join("\n").into_bytes()),
        ("masking", secrets.as_bytes().to_vec()),
    ]
}

/// What [`chunks`] takes apart.
fn chunk(what: u8, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![what, u8::try_from(data.len()).expect("short")];
    bytes.extend_from_slice(data);
    bytes
}

/// A byte that says what comes, one that says how long it is, and that.
fn chunks(mut rest: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let ([what, len], behind) = rest.split_first_chunk::<2>()?;
        let (data, behind) = behind.split_at(behind.len().min(usize::from(*len)));
        rest = behind;
        Some((*what, data))
    })
}

fn pty(rows: u32, cols: u32) -> Pty {
    Pty { term: "xterm-256color".to_owned(), size: size(rows, cols), modes: Vec::new() }
}

fn size(rows: u32, cols: u32) -> WindowSize {
    WindowSize { cols, rows, ..WindowSize::default() }
}

/// A size that somebody may have.
fn size_of(len: usize) -> WindowSize {
    let len = u32::try_from(len).unwrap_or_default();
    size(len % 60, len)
}

/// A size that nobody has.
fn absurd_size(data: &[u8]) -> WindowSize {
    let number = |at: usize| data.get(at..at + 4).map_or(0, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
    size(number(0), number(4))
}

fn content(data: &[u8]) -> Content {
    match std::str::from_utf8(data) {
        Ok(text) => Content::Text(text.to_owned()),
        Err(_) => Content::B64(data.to_vec()),
    }
}

fn exec(command: &str) -> What {
    What::Exec(Content::Text(command.to_owned()))
}

fn gap() -> What {
    What::Gap(Gap { records: 1, bytes: 17, since: 0, cause: GapCause::RingFull })
}

/// A session as it is followed, and what was found so far.
struct Session {
    analysis: Analysis,
    /// When it is, and the number of the frame.
    now: u64,
    input_bytes: usize,
    found: Checked,
}

impl Session {
    fn new(in_order: bool) -> Self {
        let clock = Clock { boot_ns: 0, at: jiff::Timestamp::UNIX_EPOCH };
        let analysis = Analysis::new(Some(clock), Masking::default());
        let mut session =
            Self { analysis, now: 0, input_bytes: 0, found: Checked { in_order, ..Checked::default() } };
        if in_order {
            session.say(Direction::ClientToTarget, What::Open { channel: ChannelType::Session });
        }
        session
    }

    fn say(&mut self, dir: Direction, what: What) {
        let len = u32::try_from(what.content().map_or(0, Content::len)).expect("short");
        self.event(&Event { t: self.now, dir, ch: ChannelNo(0), seq: self.now, len, what });
    }

    fn event(&mut self, event: &Event) {
        let content = event.what.content().and_then(|content| content.bytes(&[])).unwrap_or_default();
        self.input_bytes += content.len() + 1;
        self.analysis.event(event, content, &mut self.found);
        self.found.check(self.input_bytes);
    }

    fn end(mut self) -> Found {
        self.analysis.finish(&mut self.found);
        self.found.check(self.input_bytes);
        self.found.found
    }
}

/// Each finding is checked as it comes.
#[derive(Default)]
struct Checked {
    /// Whether time goes on from event to event.
    in_order: bool,
    found: Found,
}

impl Checked {
    fn check(&self, input_bytes: usize) {
        let Found { commands, files, forwards, lines } = &self.found;
        let max = FINDINGS_FREE + FINDINGS_PER_BYTE_MAX * input_bytes;
        for found in [commands.len(), files.len(), forwards.len(), lines.len()] {
            assert!(found <= max, "{found} findings of {input_bytes} bytes");
        }
    }

    fn check_span(&self, span: &Span) {
        assert!(!self.in_order || span.t_end.is_none_or(|end| span.t <= end), "what ends has begun before");
    }
}

/// What is stored reads back.
fn comes_back<T: serde::Serialize + serde::de::DeserializeOwned + PartialEq>(finding: &T) {
    let line = serde_json::to_string(finding).expect("findings serialize");
    assert!(!line.contains('\n'));
    assert!(serde_json::from_str::<T>(&line).expect("just written") == *finding);
}

fn check_number(n: u32, before: usize) {
    assert_eq!(usize::try_from(n).expect("few"), before + 1, "numbers have no gaps");
}

fn is_short(text: &str) -> bool {
    text.len() <= PATH_BYTES_MAX + '…'.len_utf8()
}

impl Findings for Checked {
    fn command(&mut self, command: Command) {
        check_number(command.n, self.found.commands.len());
        self.check_span(&command.span);
        assert!(command.text.chars().count() <= COMMAND_CHARS_MAX);
        assert!(command.evidence.from <= command.evidence.to, "{:?}", command.evidence);
        assert!(!self.in_order || command.evidence.first_seq <= command.evidence.last_seq);
        assert!(command.cwd.as_deref().is_none_or(is_short));
        comes_back(&command);
        self.found.command(command);
    }

    fn file(&mut self, file: FileAccess) {
        check_number(file.n, self.found.files.len());
        self.check_span(&file.span);
        assert!(is_short(&file.path) && file.other_path.as_deref().is_none_or(is_short));
        match &file.result {
            FileResult::Failed(why) | FileResult::Unfollowed(why) => assert!(is_short(why)),
            FileResult::Ok | FileResult::Unknown => {}
        }
        comes_back(&file);
        self.found.file(file);
    }

    fn forward(&mut self, forward: Forward) {
        check_number(forward.n, self.found.forwards.len());
        self.check_span(&forward.span);
        assert!(is_short(&forward.to) && forward.from.as_deref().is_none_or(is_short));
        comes_back(&forward);
        self.found.forward(forward);
    }

    fn line(&mut self, line: TranscriptLine) {
        assert!(line.text.len() <= LINE_BYTES_MAX, "a line of {} bytes", line.text.len());
        assert!(!line.text.contains(['\n', '\r', '\x1b']), "a line is one, and acts on nothing");
        self.found.line(line);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn body(name: &str) -> fn(&[u8]) {
        match name {
            "terminal" => terminal,
            "transfers" => transfers,
            "session" => session,
            "masking" => masking,
            other => unreachable!("{other} has no body"),
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_followed_within_bounds(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            for body in [terminal, transfers, session, masking] {
                body(&bytes);
            }
        }

        #[test]
        fn valid_input_that_was_changed_is_followed_within_bounds(
            seed: prop::sample::Index, at: prop::sample::Index, with: Vec<u8>, cut in 0_usize..8,
        ) {
            let seeds = seeds();
            let (name, seed) = seed.get(&seeds);
            let at = at.index(seed.len());
            let mut bytes = seed[..at].to_vec();
            bytes.extend_from_slice(&with);
            bytes.extend_from_slice(&seed[(at + cut).min(seed.len())..]);
            body(name)(&bytes);
        }
    }

    #[test]
    fn every_seed_leads_to_findings() {
        for (name, seed) in seeds() {
            body(name)(&seed);
        }
        let seeds = seeds();
        assert_eq!(follow_transfers(&seeds[1].1, usize::MAX).files.len(), 2, "scp: a directory, a file");
        assert_eq!(follow_transfers(&seeds[2].1, usize::MAX).files.len(), 1, "sftp");
        let commands = follow_session(&seeds[3].1).commands;
        assert_eq!(commands.len(), 1);
        assert_eq!(commands[0].text, "mysql -p‹masked›");
    }
}
