//! What `weir export` writes, and that nothing hostile is in it.

use std::{fs, io};

use bytes::Bytes;
use clap::Parser;
use serde_json::Value;
use weir_common::{
    frame::{ChannelType, Message, Pty, WindowSize},
    recording::{
        StoredFindings,
        findings::{COMMANDS, Command, Confidence, Evidence, FindingCounts, Source, Span},
    },
    session::ChannelNo,
};
use weir_console::{
    cli::Cli,
    look::Look,
    run::{Exit, World, run},
};

use crate::support::{C2T, Draft, SHELL, Sealed, T2C, case::Case, sample, stored};

struct Exported {
    out: String,
    err: String,
    exit: Exit,
}

fn weir(case: &Case, args: &[&str]) -> Exported {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let exit = run_into(case, args, &mut out, &mut err);
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Exported { out: text(out), err: text(err), exit }
}

fn run_into(case: &Case, args: &[&str], out: &mut dyn io::Write, err: &mut dyn io::Write) -> Exit {
    let dir = case.dir.to_str().expect("UTF-8");
    let cli = Cli::try_parse_from([&["weir"][..], args, &[dir]].concat()).expect("a good command line");
    let mut world = World {
        out,
        err,
        terminal: false,
        look: Look::default(),
        signers_paths: Vec::new(),
        now: jiff::Timestamp::UNIX_EPOCH,
        zone: jiff::tz::TimeZone::UTC,
    };
    run(&cli, &mut world).expect("it can be carried out")
}

fn export(case: &Case, args: &[&str]) -> Exported {
    weir(case, &[&["export", "--format"][..], args].concat())
}

/// A session on a terminal with this output.
fn printed(outputs: &[&[u8]]) -> Draft {
    let mut draft = Draft::new();
    draft.segment(false);
    let size = WindowSize { cols: 40, rows: 10, width_px: 0, height_px: 0 };
    draft.frame(0, SHELL, C2T, Message::Pty(Pty { term: "xterm".into(), size, modes: Vec::new() }));
    draft.frame(1, SHELL, C2T, Message::Shell);
    for output in outputs {
        draft.frame(500, SHELL, T2C, Message::Stdout(Bytes::copy_from_slice(output)));
    }
    draft
}

fn command(n: u32, t: u64, text: &str) -> Command {
    Command {
        n,
        ch: ChannelNo(0),
        span: Span { t, t_end: Some(t + 1_500_000_000), started_at: None, ended_at: None },
        text: text.to_owned(),
        source: Source::Screen,
        confidence: Confidence::High,
        exit_code: Some(3),
        pasted: false,
        masked: 0,
        cwd: None,
        repl: None,
        pane: None,
        full_screen: Vec::new(),
        evidence: Evidence::default(),
    }
}

/// The sample with stored commands that are listed.
fn with_commands(commands: &[Command]) -> Case {
    let mut sealed = sample().seal();
    store(&mut sealed, commands);
    Case::signed(sealed)
}

fn store(sealed: &mut Sealed, commands: &[Command]) {
    let lines = commands.iter().map(|command| serde_json::to_string(command).expect("it serializes") + "\n");
    let lines = lines.collect::<String>().into_bytes();
    let counts = FindingCounts { commands: commands.len() as u64, ..FindingCounts::default() };
    let objects = vec![stored(COMMANDS, &lines)];
    sealed.manifest.findings =
        Some(StoredFindings { counts: Some(counts), objects, ..StoredFindings::default() });
    sealed.objects.insert(COMMANDS.to_owned(), lines);
}

#[test]
fn an_asciicast_of_the_first_terminal_is_as_published() {
    let case = with_commands(&[command(1, 5_500_000_000, "ls\nmore")]);
    let v2 = export(&case, &["cast", "--idle-limit", "2"]);
    assert_eq!(v2.exit, Exit::Fine, "{}", v2.err);
    let expected = r#"{"version":2,"width":80,"height":24,"timestamp":1767323045,"idle_time_limit":2.0,"title":"alice@example.com on db-1","env":{"TERM":"xterm-256color"}}
[0.337000, "o", "\u001b[1;32mroot@db-1\u001b[0m:~# "]
[0.479000, "o", "l"]
[0.500000, "m", "ls …"]
[0.621000, "o", "s"]
[0.763000, "o", "\r"]
[0.766000, "o", "\nbackup.tar  notes.txt\r\n"]
[4.793000, "o", "\u001b[1;32mroot@db-1\u001b[0m:~# "]
[5.701000, "r", "120x24"]
[6.406000, "o", "logout\r\n"]
"#;
    assert_eq!(v2.out, expected);
    assert!(v2.err.contains("channel 1 is not in it: exec cat backup.tar"), "{}", v2.err);
    let v3 = export(&case, &["cast3"]);
    let lines: Vec<_> = v3.out.lines().collect();
    assert!(
        lines[0]
            .starts_with(r#"{"version":3,"term":{"cols":80,"rows":24,"type":"xterm-256color"},"timestamp""#)
    );
    assert_eq!(lines[2], r#"[0.142000, "o", "l"]"#);
    assert_eq!(lines.last(), Some(&r#"[0.001000, "x", "0"]"#));
}

#[test]
fn what_was_typed_is_in_it_only_if_asked_for() {
    let case = Case::signed(sample().seal());
    assert!(!export(&case, &["cast"]).out.contains("\"i\""));
    assert!(export(&case, &["cast", "--stdin"]).out.contains(r#"[0.477000, "i", "l"]"#));
}

#[test]
fn what_harms_a_terminal_is_in_it_only_if_asked_for() {
    let case = Case::signed(printed(&[b"a\x1b]52;c;AA", b"AA\x07b\xe2\x82", b"\xac\x1b[6n"]).seal());
    let safe = export(&case, &["cast"]);
    assert!(safe.out.contains(r#""o", "a"]"#) && safe.out.contains("\"€\""), "{}", safe.out);
    assert!(!safe.out.contains("52;c") && !safe.out.contains("6n"), "{}", safe.out);
    let raw = export(&case, &["cast", "--raw"]);
    assert!(raw.out.contains("\\u001b]52;c;AA") && raw.out.contains("€\\u001b[6n"), "{}", raw.out);
    assert!(raw.err.contains("will reach that of who plays it"), "{}", raw.err);
}

#[test]
fn ndjson_has_every_event_with_its_time_and_its_bytes() {
    let case = Case::signed(sample().seal());
    let exported = export(&case, &["ndjson"]);
    let events: Vec<Value> =
        exported.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(events.len(), 35);
    assert_eq!(events[0]["at"], "2026-01-02T03:04:05.25Z");
    let exec = events.iter().find(|event| event["kind"] == "exec").expect("there is one");
    assert_eq!(exec["text"], "cat backup.tar");
    assert!(!exported.out.contains("\"bulk\""));
    assert!(events.iter().any(|event| event["b64"].as_str().is_some_and(|bytes| bytes.len() > 350)));
    let one = export(&case, &["ndjson", "--channel", "1"]);
    assert!(one.out.lines().all(|line| line.contains("\"ch\":1")));
}

#[test]
fn csv_has_the_stored_commands_and_no_formulas() {
    let case = with_commands(&[command(1, 5_500_000_000, "=HYPERLINK(\"http://x\",\"y\")\x1b[31m")]);
    let exported = export(&case, &["csv"]);
    let mut lines = exported.out.split("\r\n");
    assert!(lines.next().is_some_and(|line| line.starts_with("number,channel,started_at,")));
    assert_eq!(
        lines.next(),
        Some("1,0,,,1.500,3,\"'=HYPERLINK(\"\"http://x\"\",\"\"y\"\")\\x1b[31m\",screen,high,false,0,,,,0,0")
    );
    assert!(exported.err.contains("as the agent stored it"), "{}", exported.err);
}

#[test]
fn the_command_in_an_asciicasts_header_and_in_what_is_told_is_masked() {
    let mut draft = sample();
    for ch in [2, 3] {
        draft.frame(1, ChannelNo(ch), C2T, Message::Open(ChannelType::Session));
        draft.frame(1, ChannelNo(ch), C2T, Message::Exec(b"mysql -phunter2 db".to_vec()));
        draft.frame(1, ChannelNo(ch), T2C, Message::Success);
        draft.frame(1, ChannelNo(ch), T2C, Message::Stdout(Bytes::from_static(b"1\n")));
    }
    let case = Case::signed(draft.seal());
    for format in ["cast", "cast3"] {
        let Exported { out, err, .. } = export(&case, &[format, "--channel", "2"]);
        let header: Value = serde_json::from_str(out.lines().next().expect("a header")).expect("JSON");
        assert_eq!(header["command"], "mysql -p‹masked› db");
        assert!(err.contains("channel 3 is not in it: exec mysql -p‹masked› db"), "{err}");
        assert!(!out.contains("hunter2") && !err.contains("hunter2"), "{out}{err}");
    }
}

/// A pipe whose reader takes so many bytes and goes.
struct Pipe(usize);

impl io::Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_has_enough_does_not_change_what_is_wrong() {
    let good = with_commands(&[command(1, 5_500_000_000, "ls")]);
    let bad = with_commands(&[command(1, 5_500_000_000, "ls")]);
    bad.write(COMMANDS, b"{}");
    let formats =
        ["cast", "cast3", "html", "txt", "ndjson", "csv"].map(|format| ["export", "--format", format]);
    for (case, exit) in [(&good, Exit::Fine), (&bad, Exit::Wrong)] {
        for args in formats.iter().map(|args| &args[..]).chain([&["play"][..], &["show"]]) {
            for taken in [0, 20] {
                let mut err = Vec::new();
                let exited = run_into(case, args, &mut Pipe(taken), &mut err);
                assert_eq!(exited, exit, "{args:?} {taken}: {}", String::from_utf8_lossy(&err));
            }
        }
    }
}

#[test]
fn stored_findings_that_are_not_as_listed_are_made_anew() {
    let case = with_commands(&[command(1, 5_500_000_000, "stored")]);
    case.write(COMMANDS, b"{}");
    let exported = export(&case, &["csv"]);
    assert!(exported.err.contains("made from the events just now"), "{}", exported.err);
    assert!(exported.out.contains("cat backup.tar") && !exported.out.contains("stored"), "{}", exported.out);
    assert_eq!(exported.exit, Exit::Wrong, "the digest is wrong: {}", exported.err);
}

#[test]
fn a_page_holds_the_session_as_text_and_its_commands() {
    let hostile = "</script><script>alert(1)</script><img src=x onerror=alert(1)>";
    let mut draft = printed(&[b"\x1b[31mred\x1b[0m \x1b]0;title\x07", hostile.as_bytes()]);
    draft.meta.user = hostile.to_owned();
    let mut sealed = draft.seal();
    store(&mut sealed, &[command(1, 5_600_000_000, hostile)]);
    let page = export(&Case::signed(sealed), &["html"]);
    assert_eq!(page.exit, Exit::Fine, "{}", page.err);
    assert!(!page.out.contains("alert(1)<") && !page.out.contains("<img"), "{}", page.out);
    assert_eq!(page.out.matches("</script>").count(), 3);
    assert!(page.out.contains("red") && !page.out.contains("title\\u0007") && !page.out.contains("\\u001b"));
    assert!(page.out.contains("\"n\":1,\"ms\":1500,\"exit\":3"), "{}", page.out);
}

#[test]
fn a_file_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let case = Case::signed(sample().seal());
    let path = case.dir.parent().expect("a day").join("out.cast");
    let path_text = path.to_str().expect("UTF-8").to_owned();
    let exported = export(&case, &["cast", "--output", &path_text]);
    assert_eq!(exported.out, "");
    assert!(fs::read_to_string(&path).expect("it is there").starts_with("{\"version\":2"));
    assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o600);
}

#[test]
fn show_lists_commands_files_and_forwards() {
    let case = with_commands(&[command(1, 5_500_000_000, "ls -l\x1b]0;x\x07")]);
    let shown = weir(&case, &["show"]);
    assert!(shown.out.contains("Commands, as the agent stored them:\n"), "{}", shown.out);
    assert!(shown.out.contains("1.500 s     3  ls -l\\x1b]0;x\\x07\n"), "{}", shown.out);
    let made = weir(&Case::signed(sample().seal()), &["show"]);
    assert!(made.out.contains("Commands, made from the events just now:\n"), "{}", made.out);
    assert!(made.out.contains("cat backup.tar"), "{}", made.out);
    let json: Value = serde_json::from_str(&weir(&case, &["show", "--json"]).out).expect("JSON");
    assert_eq!((&json["findings_from"], &json["commands"][0]["n"]), (&"stored".into(), &1.into()));
}
