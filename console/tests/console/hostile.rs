//! Recordings that are made to harm the one who reads them: each is a clear finding, in bounded time and memory,
//! and never a panic.

use std::{fs, io::Write, process::Command};

use proptest::prelude::*;
use weir_common::{
    frame::MAX_BODY,
    recording::{MANIFEST, SEGMENT_BULK_MAX, SEGMENT_NDJSON_MAX, SIGNATURE, SUMS, segment_name},
};
use weir_console::{
    escape,
    look::Look,
    recording::Recording,
    segment::LINE_MAX,
    show,
    store::SessionDir,
    verify::{
        print,
        report::{Check, FINDINGS_MAX, Report},
    },
};

use crate::support::{Sealed, case::Case, pack, sample, unpack};

/// A recording with another first segment, everything else made to fit.
fn with_segment(change: impl FnOnce(&[u8]) -> Vec<u8>) -> Case {
    with_object(&segment_name(1), change)
}

fn with_object(name: &str, change: impl FnOnce(&[u8]) -> Vec<u8>) -> Case {
    Case::new(sample().seal(), |sealed, key| {
        let changed = change(&sealed.objects[name]);
        sealed.replace(name, changed);
        sealed.reseal(key);
    })
}

fn with_manifest_bytes(bytes: &[u8]) -> Case {
    Case::new(sample().seal(), |sealed, key| {
        sealed.objects.insert(MANIFEST.to_owned(), bytes.to_vec());
        sealed.write_sums();
        sealed.sign(key);
    })
}

/// So many bytes that cost next to nothing when packed.
fn bomb(start: &[u8], byte: u8, bytes: u64) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(start_packed(start), 1).expect("in memory");
    let block = vec![byte; 1 << 20];
    for _ in 0..bytes >> 20 {
        encoder.write_all(&block).expect("in memory");
    }
    encoder.finish().expect("in memory")
}

/// A frame of its own: decoders go on with the next one.
fn start_packed(start: &[u8]) -> Vec<u8> {
    if start.is_empty() { Vec::new() } else { pack(start) }
}

fn header(segment: &[u8]) -> Vec<u8> {
    let text = unpack(segment);
    text.split_inclusive(|&byte| byte == b'\n').next().expect("a header").to_vec()
}

#[test]
fn a_segment_that_unpacks_to_more_than_the_limit_is_not_unpacked_further() {
    // Short lines, so that it is the total that goes over.
    let case = with_segment(|good| bomb(&header(good), b'\n', SEGMENT_NDJSON_MAX / 512));
    let report = case.verify();
    let segments =
        report.checks.iter().find(|result| result.check == Check::Segments).expect("it is checked");
    assert!(segments.findings > 1_000_000, "every empty line is a finding: {}", segments.findings);
    assert!(report.findings.len() <= Check::ALL.len() * FINDINGS_MAX, "but only some are kept");
}

#[test]
fn a_line_that_never_ends_is_given_up_at_its_limit() {
    let case = with_segment(|good| bomb(&header(good), b'x', 1 << 30));
    case.finds(Check::Segments, &format!("line 2 has more than {LINE_MAX} bytes"));
    let case = with_segment(|_| bomb(b"", b' ', 1 << 30));
    case.finds(Check::Segments, &format!("line 1 has more than {LINE_MAX} bytes"));
}

#[test]
fn bulk_that_unpacks_to_more_than_the_limit_is_given_up_there() {
    let case = with_object("000003.bin.zst", |_| bomb(b"", 0, SEGMENT_BULK_MAX + (2 << 20)));
    case.finds(Check::Segments, &format!("unpacks to more than {SEGMENT_BULK_MAX} bytes"));
}

#[test]
fn a_bomb_takes_little_memory() {
    let case = with_segment(|good| bomb(&header(good), b'x', 1 << 30));
    // Address space of 512 MB: far below what the segment would unpack to.
    let script = "ulimit -v 524288 && exec \"$0\" \"$@\"";
    for command in [&["verify"][..], &["show"], &["play", "--text"]] {
        let output = Command::new("sh")
            .args(["-c", script, env!("CARGO_BIN_EXE_weir")])
            .args(command)
            .arg(&case.dir)
            .output()
            .expect("a shell");
        let text = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned();
        assert_eq!(output.status.code(), Some(1), "{command:?}: {text}");
        assert!(text.contains("line 2 has more than"), "{command:?}: {text}");
    }
}

#[test]
fn deep_json_is_a_finding() {
    let deep = format!("{{\"weir\":1,\"session\":{}", "[".repeat(100_000));
    with_manifest_bytes(deep.as_bytes()).finds(Check::Manifest, "is not a manifest");
    let deep = format!("{{\"t\":1,\"text\":{}", "[".repeat(100_000));
    let case = with_segment(|good| pack(&[&header(good)[..], deep.as_bytes()].concat()));
    case.finds(Check::Segments, "recursion limit exceeded");
}

#[test]
fn a_manifest_that_is_no_text_or_too_long_is_a_finding() {
    with_manifest_bytes(b"\xff\xfe\x00").finds(Check::Manifest, "is not a manifest");
    with_manifest_bytes(b"").finds(Check::Manifest, "is not a manifest");
    with_manifest_bytes(&vec![b' '; 33 << 20]).finds(Check::Manifest, "the most that is read of it");
}

#[test]
fn garbage_in_any_object_is_a_finding_of_the_check_it_concerns() {
    let garbage = (0..=255).cycle().take(5000).collect::<Vec<u8>>();
    let case = with_segment(|_| garbage.clone());
    case.finds(Check::Segments, "can't be unpacked after 0 lines");
    let case = with_object("000003.bin.zst", |_| garbage.clone());
    case.finds(Check::Segments, "can't be read after 0 unpacked bytes");
    let case = Case::signed(sample().seal());
    case.write(SUMS, &garbage);
    case.finds(Check::Digests, "is not UTF-8 text");
    case.write(SIGNATURE, &garbage);
    case.finds(Check::Signature, "is not an SSH signature");
    case.write(SIGNATURE, &vec![b'-'; 1 << 20]);
    case.finds(Check::Signature, "the most that is read of it");
}

#[test]
fn counts_that_would_overflow_are_added_up_all_the_same() {
    let case = Case::new(sample().seal(), |sealed, key| {
        for totals in &mut sealed.manifest.channels {
            for direction in [&mut totals.c2t, &mut totals.t2c] {
                direction.accepted.bytes = u64::MAX;
                direction.duplicate.bytes = u64::MAX;
                direction.kernel.as_mut().expect("counted").tossed_full = u64::MAX;
                direction.kernel.as_mut().expect("counted").tossed_size = u64::MAX;
            }
        }
        for entry in &mut sealed.manifest.segments {
            entry.events.bytes = u64::MAX;
        }
        sealed.reseal(key);
    });
    case.finds(Check::Arithmetic, "36893488147419103");
    everything_can_be_printed(&case);
}

#[test]
fn no_control_character_of_a_recording_reaches_the_output() {
    let hostile = "\x1b]52;c;AAAA\x07\u{9b}5n\r\n\u{202e}INTACT";
    let mut draft = sample();
    draft.meta.user = hostile.to_owned();
    draft.meta.approvers = vec![hostile.to_owned()];
    draft.meta.resource.name = hostile.to_owned();
    draft.meta.client_version = hostile.to_owned();
    draft.outcome = weir_common::session::Outcome::Ended { reason: hostile.to_owned() };
    for event in draft.segments.iter_mut().flat_map(|segment| &mut segment.events) {
        use weir_common::recording::{Content, What};
        match &mut event.what {
            What::Env(env) => (env.name, env.value) = (hostile.to_owned(), hostile.to_owned()),
            What::Pty(pty) => pty.term = hostile.to_owned(),
            What::Exec(command) => *command = Content::Text(hostile.to_owned()),
            _ => {}
        }
    }
    let case = Case::signed(draft.seal());
    case.write(&format!("extra{}", hostile.replace('/', "")), b"");
    everything_can_be_printed(&case);
}

/// Prints all there is to print and checks that no terminal could act on it.
fn everything_can_be_printed(case: &Case) {
    let mut out = Vec::new();
    let report = case.verify();
    let by_hand = print::ByHand { signers: None, identity: "weir-agent" };
    print::text(&report, &by_hand, Look::default(), &mut out).expect("in memory");
    print::json(&report, &mut out).expect("in memory");
    let recording = Recording::open(SessionDir::open(&case.dir).expect("a directory")).expect("readable");
    let shown = show::gather(&recording);
    show::print::text(&shown, Look::default(), &mut out).expect("in memory");
    show::print::json(&shown, &mut out).expect("in memory");
    let text = String::from_utf8(out).expect("text");
    assert!(!text.chars().any(|c| c != '\n' && escape::is_unsafe(c)));
    for line in text.lines().filter(|line| line.starts_with("INTACT")) {
        assert_eq!(report.verdict, weir_console::verify::report::Verdict::Intact, "{line}");
    }
}

/// Puts bytes in the place of an object, with and without making digests and signature fit, and reads it all.
fn survives(name: &str, bytes: &[u8]) -> Report {
    let mut sealed = sample().seal();
    let resign = |sealed: &mut Sealed, key: &ssh_key::PrivateKey| {
        sealed.replace(name, bytes.to_vec());
        sealed.objects.insert(name.to_owned(), bytes.to_vec());
        if name != SUMS {
            sealed.write_sums();
        }
        if name != SIGNATURE {
            sealed.sign(key);
        }
    };
    sealed.manifest.session.user = "alice".into();
    let case = Case::new(sealed, resign);
    everything_can_be_printed(&case);
    let text = fs::read(case.dir.join(name)).expect("just written");
    assert_eq!(text, bytes);
    case.verify()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_as_any_object_are_read_without_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..600), packed: bool,
    ) {
        for name in [&segment_name(2), "000002.bin", "000003.bin.zst", MANIFEST, SUMS, SIGNATURE] {
            let bytes = if packed { pack(&bytes) } else { bytes.clone() };
            let report = survives(name, &bytes);
            prop_assert!(!report.findings.is_empty() || name == "000002.bin");
        }
    }

    #[test]
    fn arbitrary_lines_in_a_segment_are_read_without_panic(
        lines in prop::collection::vec(line(), 0..20), cut in any::<prop::sample::Index>(),
    ) {
        let text = lines.join("\n");
        let good = sample().seal().objects[&segment_name(1)].clone();
        let bytes = [&header(&good)[..], &text.as_bytes()[..cut.index(text.len() + 1)]].concat();
        let report = survives(&segment_name(1), &pack(&bytes));
        prop_assert!(!report.findings.is_empty());
    }
}

/// Something like an event.
fn line() -> impl Strategy<Value = String> {
    let number = || prop_oneof![Just(0), Just(1), Just(u64::MAX), Just(MAX_BODY as u64), any::<u64>()];
    let what = prop::sample::select(vec![
        r#""kind":"eof""#,
        r#""kind":"stdout","text":"hi""#,
        r#""kind":"stdout","b64":"/w==""#,
        r#""kind":"stdin","bulk":{"at":18446744073709551615,"bytes":4294967295}"#,
        r#""kind":"stdout","bulk":{"at":0,"bytes":1}"#,
        r#""kind":"exec","text":"\u0000\u001b[31m""#,
        r#""kind":"exit_status","status":4294967295"#,
        r#""kind":"pty","term":"","size":{"cols":0,"rows":0,"width_px":0,"height_px":0},"modes":[[1,2]]"#,
        r#""kind":"nonsense""#,
        r#""kind":["#,
    ]);
    (number(), 0_u32..3, number(), number(), what, any::<bool>()).prop_map(|(t, ch, seq, len, what, c2t)| {
        let (dir, len) = (if c2t { "c2t" } else { "t2c" }, len & 0xffff);
        format!(r#"{{"t":{t},"dir":"{dir}","ch":{ch},"seq":{seq},"len":{len},{what}}}"#)
    })
}
