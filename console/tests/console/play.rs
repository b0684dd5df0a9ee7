//! What `weir play` prints, and when.

use std::{fs, time::Duration};

use bytes::Bytes;
use clap::Parser;
use weir_common::{
    frame::Message,
    recording::{MANIFEST, SIGNATURE, SUMS},
};
use weir_console::{
    cli::{Cli, Command},
    look::Look,
    play::{
        pace::{Pace, Paced},
        play_paced,
    },
    recording::Recording,
    run::{Exit, World},
    store::SessionDir,
};

use crate::support::{C2T, COPY, Draft, SHELL, T2C, binary, case::Case, sample};

struct Played {
    out: Vec<u8>,
    err: String,
    exit: Exit,
    gaps: Vec<Duration>,
}

impl Played {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.out).expect("text")
    }
}

/// Notes how long it would have waited.
struct Noted {
    gaps: Vec<Duration>,
    stop_after: usize,
}

impl Pace for Noted {
    fn wait(&mut self, gap: Duration) -> Paced {
        self.gaps.push(gap);
        if self.gaps.len() > self.stop_after { Paced::Stop } else { Paced::Now }
    }
}

fn play_until(case: &Case, terminal: bool, args: &[&str], stop_after: usize) -> Played {
    let dir = case.dir.to_str().expect("UTF-8");
    let cli = Cli::try_parse_from([&["weir", "play", dir][..], args].concat()).expect("a good command line");
    let Command::Play(args) = cli.command else { panic!("not play") };
    let recording = Recording::open(SessionDir::open(&case.dir).expect("a directory")).expect("readable");
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut world = World {
        out: &mut out,
        err: &mut err,
        terminal,
        look: Look::default(),
        signers_paths: Vec::new(),
        now: jiff::Timestamp::UNIX_EPOCH,
        zone: jiff::tz::TimeZone::UTC,
    };
    let mut pace = Noted { gaps: Vec::new(), stop_after };
    let exit = play_paced(&recording, &args, &mut world, &mut pace).expect("in memory");
    Played { out, err: String::from_utf8(err).expect("text"), exit, gaps: pace.gaps }
}

fn play(case: &Case, terminal: bool, args: &[&str]) -> Played {
    play_until(case, terminal, args, usize::MAX)
}

/// A session with this output on one channel, in pieces as given.
fn printed(pieces: &[&[u8]]) -> Case {
    let mut draft = Draft::new();
    draft.segment(false);
    for (number, piece) in pieces.iter().enumerate() {
        if number == pieces.len() / 2 {
            draft.segment(number % 2 == 0);
        }
        draft.frame(10, SHELL, T2C, Message::Stdout(Bytes::copy_from_slice(piece)));
    }
    Case::signed(draft.seal())
}

#[test]
fn text_is_played_byte_for_byte_wherever_it_was_cut() {
    let text = "grüße\r\n\t日本語 und Text\n".repeat(50);
    for length in [1, 2, 3, 7, 299, 1000] {
        let pieces: Vec<_> = text.as_bytes().chunks(length).collect();
        let played = play(&printed(&pieces), false, &[]);
        assert_eq!(played.out, text.as_bytes(), "in pieces of {length}");
        assert_eq!(played.exit, Exit::Fine, "{}", played.err);
    }
}

#[test]
fn a_gap_is_told_where_it_was_with_its_size_and_its_cause() {
    let mut draft = Draft::new();
    draft.segment(false);
    draft.frame(10, SHELL, T2C, Message::Stdout(Bytes::from_static(b"before\n")));
    draft.gap(2001, SHELL, T2C, 70, 4000);
    let played = play(&Case::signed(draft.seal()), false, &[]);
    assert_eq!(played.text(), "before\n");
    let told = "GAP: 70 messages of 4,000 bytes passed unrecorded, no agent was running, for 2.000 s";
    assert!(played.err.contains(&format!("channel 0, t2c: {told}")), "{}", played.err);
}

#[test]
fn a_terminal_gets_colours_and_nothing_that_harms_it() {
    let case = printed(&[b"\x1b[1;31mred\x1b[0m\x1b]52;c;AA", b"AA\x07\x1b[6n", b"\x1bP$qm\x1b\\end"]);
    let played = play(&case, true, &["--instant"]);
    assert_eq!(played.text(), "\x1b[1;31mred\x1b[0mend\x1b[0m\x1b(B\x0f\r\n");
    assert_eq!(play(&case, true, &["--text"]).text(), "redend");
    assert_eq!(play(&case, false, &["--instant"]).text(), "redend");
}

#[test]
fn pauses_are_as_they_were_but_capped_and_divided() {
    let case = Case::signed(sample().seal());
    let ms = |args: &[&str]| {
        let gaps = play(&case, true, args).gaps;
        gaps.iter().map(|gap| gap.as_secs_f64() * 1000.0).collect::<Vec<_>>()
    };
    let close = |a: f64, b: f64| assert!((a - b).abs() < 0.01, "{a} {b}");
    let normal = ms(&[]);
    close(normal[0], 0.0);
    close(normal[1], 20.0);
    close(normal.iter().copied().fold(0.0, f64::max), 2000.0);
    close(ms(&["--idle-limit", "0.1"]).into_iter().fold(0.0, f64::max), 100.0);
    close(ms(&["--speed", "4"]).iter().sum(), normal.iter().sum::<f64>() / 4.0);
    close(ms(&["--idle-limit", "0"]).iter().sum(), 0.0);
}

#[test]
fn who_wants_no_more_gets_the_terminal_back_in_order() {
    let case = printed(&[b"\x1b[?1049h\x1b[?25l", b"never"]);
    let played = play_until(&case, true, &[], 1);
    assert_eq!(played.text(), "\x1b[?1049h\x1b[?25l\x1b[0m\x1b(B\x0f\x1b[?25h\x1b[?1049l\r\n");
}

#[test]
fn channels_are_told_apart_and_can_be_chosen() {
    let case = Case::signed(sample().seal());
    let shell = play(&case, false, &["--channel", "0"]);
    let expected = "root@db-1:~# ls\r\nbackup.tar  notes.txt\r\nroot@db-1:~# logout\r\n";
    assert_eq!(shell.text(), expected);
    let both = play(&case, false, &[]);
    assert!(both.text().starts_with("root@db-1:~# ls\r\nbackup.tar  notes.txt\r\n[channel 1]\n"));
    assert!(both.text().contains("[channel 1]\ncat: done\n"), "{}", both.text());
    assert!(both.text().ends_with("\n[channel 0]\nlogout\r\n"), "{}", both.text());
    assert!(both.err.contains("alice@example.com on db-1, 2026-01-02 03:04:05 UTC"), "{}", both.err);
}

#[test]
fn what_was_typed_is_marked_and_escaped() {
    let case = Case::signed(sample().seal());
    let played = play(&case, false, &["--channel", "0", "--stdin"]);
    assert!(played.text().starts_with("root@db-1:~# ‹l›l‹s›s‹\\r›\r\nbackup.tar"), "{}", played.text());
    assert!(played.text().ends_with("root@db-1:~# ‹\\x04›logout\r\n"), "{}", played.text());
}

#[test]
fn a_subsystem_is_not_played_unless_asked_for() {
    let mut draft = Draft::new();
    draft.segment(false);
    draft.frame(0, COPY, C2T, Message::Subsystem("sftp\x1b[31m".into()));
    draft.frame(1, COPY, T2C, Message::Stdout(Bytes::from_static(b"protocol")));
    let case = Case::signed(draft.seal());
    let played = play(&case, false, &[]);
    assert_eq!(played.text(), "");
    assert!(played.err.contains("channel 1 is the subsystem sftp\\x1b[31m"), "{}", played.err);
    assert_eq!(play(&case, false, &["--channel", "1"]).text(), "protocol");
}

#[test]
fn binary_output_comes_from_the_bulk_and_leaves_no_controls() {
    let case = printed(&[&binary(400), b"\n", &binary(5000), b"\nend\n"]);
    for terminal in [false, true] {
        let played = play(&case, terminal, &["--text"]);
        assert_eq!(played.exit, Exit::Fine, "{}", played.err);
        assert!(played.text().ends_with("end\n"));
        assert!(!played.text().chars().any(|c| c.is_control() && !"\r\n\t".contains(c)));
    }
}

#[test]
fn a_session_under_way_is_played_as_far_as_it_is_stored() {
    let case = Case::signed(sample().seal());
    for name in [MANIFEST, SUMS, SIGNATURE, "000003.ndjson.zst", "000003.bin.zst"] {
        fs::remove_file(case.dir.join(name)).expect("it is there");
    }
    let played = play(&case, false, &["--channel", "0"]);
    assert!(played.text().ends_with("root@db-1:~# "), "{}", played.text());
    assert!(played.err.contains("this session is not finished"), "{}", played.err);
    assert_eq!(played.exit, Exit::Fine);
}

#[test]
fn a_damaged_recording_is_played_with_warnings_and_another_exit_code() {
    let case = Case::signed(sample().seal());
    let mut bulk = case.read("000002.bin");
    bulk[0] ^= 1;
    case.write("000002.bin", &bulk);
    let played = play(&case, false, &["--channel", "0"]);
    assert!(played.text().ends_with("logout\r\n"), "{}", played.text());
    assert!(played.err.contains("warning: 000002.bin does not have the digest"), "{}", played.err);
    assert_eq!(played.exit, Exit::Wrong);

    case.write("000002.bin", b"short");
    let played = play(&case, false, &[]);
    assert!(played.err.contains("warning: 000002.ndjson.zst line 6: ends at byte 5"), "{}", played.err);
    fs::remove_file(case.dir.join("000001.ndjson.zst")).expect("it is there");
    let played = play(&case, false, &["--channel", "0"]);
    assert!(
        played.err.contains("000002.ndjson.zst does not continue the segment before it"),
        "{}",
        played.err
    );
    assert!(played.text().ends_with("root@db-1:~# logout\r\n"), "{}", played.text());
}
