//! What somebody sees who sits at a terminal and presses keys while `weir play` plays. Their terminal is emulated, too.

use std::{collections::VecDeque, fs, io, time::Duration};

use bytes::Bytes;
use clap::Parser;
use weir_common::{
    frame::{Message, Pty, WindowSize},
    recording::{MANIFEST, SIGNATURE, SUMS},
};
use weir_console::{
    cli::{Cli, Command},
    emulator::{Emulator, Size},
    play::live::{Pressed, Seat, Watched, controls::Key, watch},
    recording::Recording,
    store::SessionDir,
    track,
};

use crate::support::{C2T, Draft, SHELL, T2C, case::Case};

/// A viewer who presses keys at times, in a world without delays.
struct Viewer {
    now: Duration,
    keys: VecDeque<(Duration, Key)>,
    terminal: Emulator,
    written: String,
    /// The screen before each key, and at the end.
    seen: Vec<String>,
    /// What happens at a time besides keys.
    then: Option<(Duration, Box<dyn FnOnce()>)>,
}

impl Seat for Viewer {
    fn size(&self) -> (u16, u16) {
        (60, 8)
    }

    fn now(&self) -> Duration {
        self.now
    }

    fn key(&mut self, wait: Duration) -> io::Result<Pressed> {
        if self.then.as_ref().is_some_and(|(at, _)| *at <= self.now)
            && let Some((_, then)) = self.then.take()
        {
            then();
        }
        if let Some((at, key)) = self.keys.front().copied()
            && at <= self.now + wait
        {
            self.now = self.now.max(at);
            self.keys.pop_front();
            self.seen.push(self.terminal.picture().text());
            return Ok(Pressed::Key(key));
        }
        self.now += wait.max(Duration::from_micros(100));
        assert!(self.now < Duration::from_secs(3600), "nobody watches for so long");
        Ok(Pressed::Nothing)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written.push_str(std::str::from_utf8(bytes).expect("text"));
        self.terminal.feed(bytes);
        Ok(())
    }
}

fn viewer(keys: &[(u64, Key)]) -> Viewer {
    Viewer {
        now: Duration::ZERO,
        keys: keys.iter().map(|(ms, key)| (Duration::from_millis(*ms), *key)).collect(),
        terminal: Emulator::new(Size { cols: 60, rows: 8 }, true),
        written: String::new(),
        seen: Vec::new(),
        then: None,
    }
}

fn play(case: &Case, args: &[&str], viewer: &mut Viewer) -> Watched {
    let dir = case.dir.to_str().expect("UTF-8");
    let cli = Cli::try_parse_from([&["weir", "play", dir][..], args].concat()).expect("a good command line");
    let Command::Play(args) = cli.command else { panic!("not play") };
    let session = SessionDir::open(&case.dir).expect("a directory");
    let mut recording = Recording::open(session).expect("readable");
    let track = track::choose(&recording, args.channel).expect("a channel");
    let watched = watch(&mut recording, track, &args, viewer).expect("in memory");
    viewer.seen.push(viewer.terminal.picture().text());
    watched
}

/// Lines a second apart on a terminal, `line 0` to `line 99`, in four segments.
fn lines() -> Draft {
    let mut draft = Draft::new();
    for n in 0..100 {
        if n % 25 == 0 {
            draft.segment(false);
        }
        if n == 0 {
            let size = WindowSize { cols: 40, rows: 6, width_px: 0, height_px: 0 };
            draft.frame(0, SHELL, C2T, Message::Pty(Pty { term: "xterm".into(), size, modes: Vec::new() }));
            draft.frame(0, SHELL, C2T, Message::Shell);
        }
        let hostile = "\x1b]52;c;AAAA\x07\x1b[6n";
        let line = format!("{hostile}\x1b[3{}mline {n}\x1b[0m\r\n", n % 8);
        draft.frame(1000, SHELL, T2C, Message::Stdout(Bytes::from(line)));
    }
    draft
}

/// The last line that is shown.
fn last(picture: &str) -> &str {
    picture.lines().rfind(|line| line.starts_with("line ")).unwrap_or_default()
}

#[test]
fn a_session_plays_in_its_time_with_pauses_and_steps() {
    let case = Case::signed(lines().seal());
    let keys = [
        (5500, Key::Char(' ')),
        (20_000, Key::Char('.')),
        (20_100, Key::Char('.')),
        (20_200, Key::Char(' ')),
        (22_700, Key::Char('+')),
        (24_700, Key::Char('q')),
    ];
    let mut viewer = viewer(&keys);
    play(&case, &[], &mut viewer);
    let seen: Vec<_> = viewer.seen.iter().map(|picture| last(picture)).collect();
    assert_eq!(seen[..4], ["line 4", "line 4", "line 5", "line 6"]);
    assert_eq!(seen[4], "line 8", "{:?}", viewer.seen[4]);
    assert_eq!(seen[5], "line 12", "twice as fast: {:?}", viewer.seen[5]);
    assert!(viewer.seen[1].contains(" paused 0:05"), "{}", viewer.seen[1]);
    assert!(viewer.seen[4].contains(" playing 0:0"), "{}", viewer.seen[4]);
}

#[test]
fn nothing_of_the_session_but_text_reaches_the_viewer() {
    let case = Case::signed(lines().seal());
    let mut viewer = viewer(&[(3500, Key::Char('q'))]);
    play(&case, &[], &mut viewer);
    assert!(viewer.written.contains("line 2"));
    assert!(!viewer.written.contains("52;c") && !viewer.written.contains("[6n"));
}

#[test]
fn going_back_and_on_shows_the_same_as_playing_did() {
    let case = Case::signed(lines().seal());
    let keys = [
        (0, Key::Char(' ')),
        (100, Key::Up),
        (200, Key::Down),
        (300, Key::Right),
        (400, Key::End),
        (500, Key::Left),
        (600, Key::Home),
        (700, Key::Char('g')),
        (701, Key::Char('4')),
        (702, Key::Char('2')),
        (703, Key::Enter),
        (800, Key::Char('q')),
    ];
    let mut viewer = viewer(&keys);
    play(&case, &[], &mut viewer);
    let seen: Vec<_> = viewer.seen.iter().map(|picture| last(picture)).collect();
    assert_eq!(seen[1], "", "paused at the start");
    assert_eq!(seen[2], "line 59");
    assert_eq!(seen[3], "");
    assert_eq!(seen[4], "line 4");
    assert_eq!(seen[5], "line 99");
    assert_eq!(seen[6], "line 94");
    assert_eq!(seen[7], "");
    assert_eq!(seen[11], "line 41");
    let rows = |picture: &str| picture.lines().take(6).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(rows(&viewer.seen[11]), ["line 37", "line 38", "line 39", "line 40", "line 41", ""]);
}

#[test]
fn what_is_searched_for_is_found_where_it_is_shown_and_again() {
    let case = Case::signed(lines().seal());
    let keys = [(100, Key::Char('n')), (200, Key::Char('n')), (300, Key::Char('q'))];
    let mut viewer = viewer(&keys);
    play(&case, &["--search", "e [37]3$"], &mut viewer);
    let seen: Vec<_> = viewer.seen.iter().map(|picture| last(picture)).collect();
    assert_eq!(seen[..2], ["line 33", "line 73"]);
    assert!(viewer.seen[0].contains("/e [37]3$ at 0:34"), "{}", viewer.seen[0]);
    assert_eq!(seen[2], "line 73", "it stays where it was");
    assert!(viewer.seen[2].contains("is not shown after 1:14"), "{}", viewer.seen[2]);
}

#[test]
fn playing_begins_where_it_is_told_to() {
    let case = Case::signed(lines().seal());
    for (args, line) in [
        (["--at", "+10s"], "line 9"),
        (["--at", "0:30"], "line 29"),
        (["--at", "2026-01-02T03:04:25.250Z"], "line 19"),
    ] {
        let mut viewer = viewer(&[(10, Key::Char('q'))]);
        play(&case, &args, &mut viewer);
        assert_eq!(last(&viewer.seen[0]), line, "{args:?}");
    }
}

#[test]
fn a_session_under_way_is_followed_to_its_end() {
    let case = Case::signed(lines().seal());
    let later = ["000003.ndjson.zst", "000004.ndjson.zst", MANIFEST, SUMS, SIGNATURE];
    let kept: Vec<_> = later.iter().map(|name| (case.dir.join(name), case.read(name))).collect();
    for (path, _) in &kept {
        fs::remove_file(path).expect("it is there");
    }
    let mut viewer = viewer(&[]);
    viewer.then = Some((
        Duration::from_secs(90),
        Box::new(move || kept.iter().for_each(|(path, bytes)| fs::write(path, bytes).expect("writable"))),
    ));
    let watched = play(&case, &["--follow"], &mut viewer);
    assert_eq!(last(&viewer.seen[0]), "line 99");
    assert!(viewer.written.contains(" waiting "), "it had to wait");
    assert_eq!(watched.t / 1_000_000_000, 100);
    assert!(
        viewer.now > Duration::from_secs(90) && viewer.now < Duration::from_secs(200),
        "{:?}",
        viewer.now
    );
}
