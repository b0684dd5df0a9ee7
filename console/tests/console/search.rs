//! Sessions are found by what they say of themselves, and lines by what they say, in a directory and in a bucket.

use std::{fs, path::Path, process::Command};

use bytes::Bytes;
use serde_json::Value;
use tempfile::TempDir;
use weir_common::{
    frame::{ChannelType, Message},
    recording::{
        MANIFEST, SIGNATURE, SUMS, StoredFindings,
        findings::{COMMANDS, Confidence, Evidence, FindingCounts, Source, Span},
    },
    session::ChannelNo,
};
use weir_store_testing::{ENVIRONMENT, Server};

use crate::support::{C2T, COPY, Draft, Sealed, T2C, new_key, sample, stored};

fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// A session in which one command is run without a terminal.
fn exec(user: &str, command: &str, chunks: &[&[u8]]) -> Draft {
    let mut draft = Draft::new();
    draft.meta.user = user.to_owned();
    draft.segment(false);
    run(&mut draft, COPY, command, chunks);
    draft
}

fn run(draft: &mut Draft, ch: ChannelNo, command: &str, chunks: &[&[u8]]) {
    draft.frame(0, ch, C2T, Message::Open(ChannelType::Session));
    draft.frame(10, ch, T2C, Message::OpenConfirm);
    draft.frame(1, ch, C2T, Message::Exec(command.as_bytes().to_vec()));
    draft.frame(8, ch, T2C, Message::Success);
    draft.frame(1, ch, C2T, Message::Stdin(text("typed secret\n")));
    for chunk in chunks {
        draft.frame(1000, ch, T2C, Message::Stdout(Bytes::copy_from_slice(chunk)));
    }
    draft.frame(1, ch, T2C, Message::Stderr(text("complaint\n")));
    draft.frame(1, ch, T2C, Message::ExitStatus(0));
    draft.frame(1, ch, T2C, Message::Close);
    draft.frame(1, ch, C2T, Message::Close);
}

struct Shelf {
    root: TempDir,
}

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    fn json(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    fn column(&self, n: usize) -> Vec<&str> {
        self.out.lines().map(|line| line.split('\t').nth(n).unwrap_or_default()).collect()
    }
}

impl Shelf {
    fn new(sealed: &[Sealed]) -> Self {
        let root = tempfile::tempdir().expect("temporary directory");
        for sealed in sealed {
            sealed.write(root.path());
        }
        Self { root }
    }

    fn weir(&self, args: &[&str]) -> Ran {
        weir(self.root.path().to_str().expect("text"), args)
    }
}

fn weir(store: &str, args: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    let output = command.args(args).env("WEIR_STORE", store).envs(ENVIRONMENT).output().expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// Takes the end away, as if the session were still running.
fn running(mut sealed: Sealed) -> Sealed {
    for name in [MANIFEST, SUMS, SIGNATURE] {
        sealed.objects.remove(name);
    }
    sealed
}

/// The same session at another time.
fn at(mut sealed: Sealed, opened_at: &str) -> Sealed {
    sealed.manifest.opened_at = opened_at.parse().expect("a time");
    sealed.write_manifest();
    sealed.write_sums();
    sealed
}

#[test]
fn a_line_is_found_with_session_time_user_and_command() {
    let shelf = Shelf::new(&[
        exec("alice@example.com", "cat notes", &[b"one\nthe nee", b"dle is here\nthree"]).seal(),
        exec("bob@example.com", "uname -a", &[b"Linux\n"]).seal(),
    ]);
    let ran = shelf.weir(&["search", "needle"]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{}", ran.out);
    let columns: Vec<_> = ran.out.trim_end().split('\t').collect();
    let expected =
        ["2026-01-02 03:04:06", "alice@example.com@db-1", "output", "cat notes", "the needle is here"];
    assert_eq!(columns[1..], expected);

    let ran = shelf.weir(&["search", "--json", "--in", "all", "n(o|ee)"]);
    let found = ran.json();
    let lines: Vec<_> = found.iter().map(|line| (line["in"].as_str(), line["line"].as_str())).collect();
    assert_eq!(lines, [(Some("command"), Some("cat notes")), (Some("output"), Some("the needle is here"))]);
    assert_eq!(
        (&found[1]["matches"][0], &found[1]["command"]),
        (&serde_json::json!([4, 7]), &"cat notes".into())
    );
    for (args, code) in [
        (&["search", "NEEDLE"][..], 1),
        (&["search", "-i", "NEEDLE"], 0),
        (&["search", "typed"], 1),
        (&["search", "--in", "input", "typed"], 0),
        (&["search", "complaint", "--in", "output"], 0),
        (&["search", "complaint", "--in", "commands,files"], 1),
        (&["search", "^three$"], 0),
        (&["search", "needle", "--user", "bob*"], 1),
        (&["search", "needle", "--user", "bob*,alice*", "--resource", "db-?", "--request-id", "REQ-1042"], 0),
        (&["search", "needle", "--session", "ffff"], 1),
        (&["search", "("], 2),
        (&["search", "needle", "--store", "/nonexistent"], 2),
        (&["search", "needle", "--since", "tomorrow"], 2),
    ] {
        let ran = shelf.weir(args);
        assert_eq!(ran.code, Some(code), "{args:?}: {} {}", ran.out, ran.err);
    }
}

#[test]
fn lines_around_a_match_and_their_number_are_as_asked_for() {
    let shelf = Shelf::new(&[exec("alice", "seq", &[b"1\n2\n3 x\n4\n5 x\n6\n7\n8 x\n9\n"]).seal()]);
    let lines = |args: &[&str]| {
        let ran = shelf.weir(&[&["search", "x", "--in", "output"][..], args].concat());
        ran.column(3)
            .into_iter()
            .zip(ran.column(5))
            .map(|(place, line)| format!("{place}:{line}"))
            .collect::<Vec<_>>()
    };
    assert_eq!(lines(&["--max-count", "2"]), ["output:3 x", "output:5 x"]);
    let expected = [
        "-output:2",
        "output:3 x",
        "-output:4",
        "output:5 x",
        "-output:6",
        "-output:7",
        "output:8 x",
        "-output:9",
    ];
    assert_eq!(lines(&["-C1"]), expected);
}

#[test]
fn sessions_come_in_order_however_many_are_read_at_once() {
    let mut sealed = Vec::new();
    for n in 0..40_u32 {
        let lines: String = (0..(n * 29) % 300).map(|line| format!("line {line} of {n}\n")).collect();
        let chunks: Vec<_> = lines.as_bytes().chunks(1000).collect();
        sealed.push(at(
            exec("alice", &format!("print {n}"), &chunks).seal(),
            &format!("2026-01-{:02}T10:00:00Z", n % 4 + 1),
        ));
    }
    let shelf = Shelf::new(&sealed);
    let one = shelf.weir(&["search", "line", "--jobs", "1", "--oldest-first"]);
    let many = shelf.weir(&["search", "line", "--jobs", "8", "--oldest-first"]);
    assert!(one.out == many.out && one.err.is_empty());
    assert_eq!(one.out.lines().count(), (0..40).map(|n| (n * 29) % 300).sum::<usize>());
    let newest = shelf.weir(&["search", "line 7 of"]);
    let mut expected: Vec<String> =
        shelf.weir(&["search", "line 7 of", "--oldest-first"]).out.lines().map(str::to_owned).collect();
    expected.reverse();
    assert_eq!(newest.out.lines().collect::<Vec<_>>(), expected);

    let listed = shelf.weir(&["sessions", "--json", "--since", "2026-01-02", "--until", "2026-01-03"]).json();
    assert_eq!(listed.len(), 20);
    assert!(
        listed[0]["opened_at"] == "2026-01-03T10:00:00Z" && listed[19]["opened_at"] == "2026-01-02T10:00:00Z"
    );
    let ran = shelf.weir(&["sessions", "--since", "2026-01-02T10:00:01", "--until", "2026-01-03T10:00"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""));
    let id = listed[0]["session"].as_str().expect("an id");
    let ran = shelf.weir(&["sessions", "--session", id]);
    assert_eq!((ran.code, ran.out.lines().count()), (Some(0), 2));
    let words: Vec<_> = ran.out.lines().nth(1).expect("a row").split_whitespace().collect();
    assert_eq!((words[0], words[1]), (id, "2026-01-03"));
}

#[test]
fn a_running_session_is_searched_as_far_as_it_is_stored() {
    let shelf = Shelf::new(&[running(exec("alice", "tail -f log", &[b"needle\n"]).seal())]);
    let ran = shelf.weir(&["search", "needle|tail"]);
    assert_eq!((ran.code, ran.column(3)), (Some(0), vec!["command", "output"]), "{}", ran.err);
    let ran = shelf.weir(&["sessions", "--json"]);
    assert_eq!((&ran.json()[0]["state"], &ran.json()[0]["closed_at"]), (&"running".into(), &Value::Null));
}

#[test]
fn what_can_not_be_read_is_told_and_the_rest_is_searched() {
    let mut cut = exec("carol", "cat", &[b"needle\n"]).seal();
    let segment = cut.objects["000001.ndjson.zst"].clone();
    cut.objects.insert("000001.ndjson.zst".into(), segment[..segment.len() - 9].to_vec());
    let good = exec("alice", "cat", &[b"needle\n"]).seal();
    let mut garbled = exec("bob", "cat", &[b"needle\n"]).seal();
    garbled.objects.insert(MANIFEST.into(), b"\x1b[2J{".to_vec());
    let shelf = Shelf::new(&[good, cut, garbled]);
    let dir = shelf.root.path().join("v1/dt=2026-01-02");
    fs::create_dir_all(dir.join("0190a0b1-0000-7000-8000-000000000000")).expect("writable");
    std::os::unix::fs::symlink("/etc", dir.join("0190a0b1-0000-7000-8000-000000000001")).expect("writable");
    fs::write(dir.join("0190a0b1-0000-7000-8000-000000000002"), "no directory").expect("writable");
    fs::create_dir(dir.join("no-session")).expect("writable");
    let ran = shelf.weir(&["search", "needle"]);
    assert_eq!(ran.code, Some(2), "{}", ran.out);
    assert!(ran.column(2).contains(&"alice@db-1"), "{}", ran.out);
    for said in
        ["can't be unpacked", "manifest.json is not a manifest", "neither a manifest nor the first segment"]
    {
        assert!(ran.err.contains(said), "{said}: {}", ran.err);
    }
    assert!(!ran.err.contains("000000000001") && !ran.err.contains('\x1b'), "{}", ran.err);
    assert_eq!(shelf.weir(&["sessions"]).code, Some(2));
}

#[test]
fn hostile_lines_do_nothing_to_a_terminal_and_long_ones_are_searched_to_their_end() {
    let mut long = vec![b'x'; 300_000];
    long.extend_from_slice(b"needle");
    long.extend(vec![b'y'; 300_000]);
    let hostile = b"\x1b]0;title\x07\x1b[2J\xff\xfeneedle\x1b[31m\t\xe2\x80\xae\r\n";
    let command = "echo \x1b[2J\x07";
    let chunks: Vec<&[u8]> = std::iter::once(&hostile[..]).chain(long.chunks(10_000)).collect();
    let shelf = Shelf::new(&[exec("al\x1b[2Jice", command, &chunks).seal()]);
    for args in [
        &["search", "needle"][..],
        &["search", "--json", "needle"],
        &["sessions"],
        &["search", "-C3", "echo"],
    ] {
        let ran = shelf.weir(args);
        assert_eq!(ran.code, Some(0), "{args:?} {}", ran.err);
        let bad = |c: char| (c.is_control() && c != '\n' && c != '\t') || c == '\u{202e}';
        assert!(!ran.out.chars().any(bad), "{args:?} {}", ran.out);
    }
    let ran = shelf.weir(&["search", "needle"]);
    assert_eq!(ran.out.lines().count(), 2);
    assert!(ran.column(5)[1].len() < 1000 && ran.column(5)[1].contains("xneedley"));
    assert!(ran.out.lines().all(|line| line.split('\t').count() == 6), "{}", ran.out);
}

#[test]
fn a_line_on_a_terminal_belongs_to_the_command_that_was_running() {
    let shelf = Shelf::new(&[sample().seal()]);
    let ran = shelf.weir(&["search", "notes|^ls$"]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{}", ran.out);
    let found: Vec<_> = ran.column(3).into_iter().zip(ran.column(4)).zip(ran.column(5)).collect();
    assert_eq!(found, [(("command", "ls"), "ls"), (("output", "ls"), "backup.tar  notes.txt")]);
}

#[test]
fn secrets_are_masked_and_not_found() {
    let shelf = Shelf::new(&[exec(
        "alice",
        "mysql -u root -phunter2hunter2 db",
        &[b"password=hunter2hunter2 needle\n"],
    )
    .seal()]);
    assert_eq!(shelf.weir(&["search", "hunter2"]).code, Some(1));
    let ran = shelf.weir(&["search", "needle|mysql"]);
    assert!(ran.out.lines().count() == 2 && !ran.out.contains("hunter2"), "{}", ran.out);
}

#[test]
fn a_secret_over_several_lines_is_masked_and_not_found_where_there_was_no_terminal() {
    let key = "needle before\n-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk\nsecretneedle\n\
               -----END OPENSSH PRIVATE KEY-----\nneedle behind\nmysql \\\n  -phunter2needle\n";
    let chunks: Vec<_> = key.as_bytes().chunks(7).collect();
    let shelf = Shelf::new(&[exec("alice", "cat key", &chunks).seal()]);
    for args in
        [&["search", "needle"][..], &["search", "needle", "-C9"], &["search", "-C2", "BEGIN|END|mysql"]]
    {
        let ran = shelf.weir(args);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        for secret in ["b3BlbnNzaC1rZXk", "secretneedle", "hunter2"] {
            assert!(!ran.out.contains(secret), "{args:?}: {}", ran.out);
        }
    }
    assert_eq!(shelf.weir(&["search", "needle"]).column(5), ["needle before", "needle behind"]);
    let lines = shelf.weir(&["search", "-C2", "BEGIN"]);
    let begin = "-----BEGIN OPENSSH PRIVATE KEY-----";
    assert_eq!(lines.column(5), ["needle before", begin, "‹masked›", "‹masked›"]);
    assert_eq!(shelf.weir(&["search", "b3Blb|hunter2"]).code, Some(1));
}

#[test]
fn stored_commands_are_searched_where_the_list_of_digests_vouches_for_them() {
    let command = weir_common::recording::findings::Command {
        n: 1,
        ch: ChannelNo(0),
        span: Span { t: 6_000_000_000, t_end: None, started_at: None, ended_at: None },
        text: "rm -rf /srv".into(),
        source: Source::Screen,
        confidence: Confidence::High,
        exit_code: Some(0),
        pasted: false,
        masked: 0,
        cwd: None,
        repl: None,
        pane: None,
        full_screen: Vec::new(),
        evidence: Evidence::default(),
    };
    let line = serde_json::to_string(&command).expect("it serializes") + "\n";
    let mut sealed = exec("alice", "cat notes", &[b"text\n"]).seal();
    sealed.objects.insert(COMMANDS.into(), line.clone().into_bytes());
    sealed.manifest.findings = Some(StoredFindings {
        counts: Some(FindingCounts { commands: 1, files: 0, forwards: 0 }),
        objects: vec![stored(COMMANDS, line.as_bytes())],
        superseded: Vec::new(),
    });
    sealed.reseal(&new_key());
    let shelf = Shelf::new(std::slice::from_ref(&sealed));
    let search = |pattern: &str| shelf.weir(&["search", "--in", "commands", pattern]);
    let ran = search("rm -rf");
    assert_eq!(
        (ran.code, ran.column(1), ran.column(5)),
        (Some(0), vec!["2026-01-02 03:04:06"], vec!["rm -rf /srv"])
    );
    assert_eq!(search("cat").code, Some(1), "the events are not read");
    assert_eq!(shelf.weir(&["sessions", "--json"]).json()[0]["commands"], 1);

    let path = shelf.root.path().join("v1/dt=2026-01-02").join(sealed.id().to_string()).join(COMMANDS);
    fs::write(&path, line.replace("srv", "etc")).expect("writable");
    let ran = search("cat|rm");
    assert_eq!((ran.code, ran.column(5)), (Some(2), vec!["cat notes"]), "{}", ran.err);
    assert!(ran.err.contains("commands.ndjson is not what the list of digests says"), "{}", ran.err);
    let mut garbled = sealed;
    garbled.objects.insert(COMMANDS.into(), vec![b'['; 3 << 20]);
    garbled.reseal(&new_key());
    garbled.write(shelf.root.path());
    let ran = search("rm");
    assert_eq!(ran.code, Some(2));
    assert!(ran.err.contains("has no finding in a line"), "{}", ran.err);
}

#[test]
fn a_bucket_is_listed_and_searched_as_a_directory_is() {
    let root = tempfile::tempdir().expect("temporary directory");
    let server = Server::start(root.path());
    server.only_reads();
    for (user, opened_at) in [("alice", "2026-01-02T10:00:00Z"), ("bob", "2026-01-05T10:00:00Z")] {
        let lines: String = (0..20_000).map(|n| format!("{user} {n}\n")).collect();
        let chunks: Vec<_> = lines.as_bytes().chunks(10_000).collect();
        at(exec(user, "print", &chunks).seal(), opened_at).write(&server.objects());
    }
    let endpoint = server.endpoint();
    let access = ["--region", "eu-central-1", "--path-style", "--endpoint", &endpoint];
    let found = |store: &str, args: &[&str]| weir(store, &[args, &access[..]].concat());
    let store = "s3://recordings/weir";
    let ran = found(store, &["search", "^(alice|bob) 1999[0-9]$", "--oldest-first"]);
    assert_eq!((ran.code, ran.out.lines().count()), (Some(0), 20), "{}", ran.err);
    let here = weir(
        server.objects().to_str().expect("text"),
        &["search", "^(alice|bob) 1999[0-9]$", "--oldest-first"],
    );
    assert_eq!(here.out, ran.out);
    let ran = found(store, &["sessions", "--json", "--since", "2026-01-03"]);
    assert_eq!((ran.json().len(), &ran.json()[0]["user"]), (1, &"bob".into()));
    let address = ran.json()[0]["address"].as_str().expect("an address").to_owned();
    assert!(found(store, &["show", &address]).out.contains("exec print"));
    for (store, said) in [
        ("s3://recordings/elsewhere", "is not a store of recordings"),
        ("s3://nothing", "there is no bucket nothing"),
        ("s3://UPPER", "bucket's name"),
    ] {
        let ran = found(store, &["search", "x"]);
        assert_eq!(ran.code, Some(2));
        assert!(ran.err.contains(said), "{}", ran.err);
    }
    assert_eq!(server.not_allowed(), Vec::<String>::new());
    assert!(!Path::new("s3:").exists());
}
