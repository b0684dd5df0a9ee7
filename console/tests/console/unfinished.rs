//! Sessions without an end: under way, or of a node that never came back. What is there is held to the same measure, and
//! what is missing from its end can't be told from what never was.

use std::{fs, process::Command};

use weir_common::recording::{MANIFEST, SIGNATURE, SUMS, SegmentHeader};
use weir_console::verify::report::{Check, Report, Unfinished, Verdict};

use crate::support::{Draft, Sealed, allowed_signers, case::Case, new_key, pack, sample, unpack};

/// The recording without what is stored at its end.
fn under_way(sealed: Sealed, prepare: impl FnOnce(&mut Sealed, &ssh_key::PrivateKey)) -> Case {
    sealed.manifest.segments.iter().for_each(|entry| assert!(entry.signature.is_none()));
    Case::new(sealed, |sealed, key| {
        prepare(sealed, key);
        for name in [MANIFEST, SUMS, SIGNATURE] {
            sealed.objects.remove(name);
        }
    })
}

fn sealed() -> Case {
    under_way(sample().seal(), |_, _| {})
}

fn until(report: &Report) -> (u32, String) {
    let Unfinished { segments, until } = report.unfinished.expect("it is unfinished");
    (segments, until.expect("the first segment has the clock").to_string())
}

#[test]
fn a_session_under_way_is_verified_up_to_its_last_segment() {
    let case = sealed();
    let report = case.verify();
    assert_eq!(report.findings, []);
    assert_eq!(report.verdict, Verdict::Unfinished);
    assert_eq!(until(&report), (3, "2026-01-02T03:04:11.659Z".to_owned()));
    let session = report.session.expect("the first segment says whose it is");
    assert_eq!((session.session.user.as_str(), session.closed_at), ("alice@example.com", None));
    assert!(report.signer.is_some_and(|signer| signer.allowed_by.is_some()));
    fs::remove_file(case.dir.join("000003.sig")).expect("it is there");
    let report = case.verify();
    assert_eq!((report.verdict, until(&report).0), (Verdict::Unfinished, 2));
    assert!(report.notes[0].contains("000003.ndjson.zst is not signed yet"), "{:?}", report.notes);
    fs::remove_file(case.dir.join("000003.ndjson.zst")).expect("it is there");
    let report = case.verify();
    assert_eq!((report.verdict, until(&report).0), (Verdict::Unfinished, 2), "its bulk is there alone");
}

#[test]
fn the_state_has_words_json_and_an_exit_code_of_its_own() {
    let root = tempfile::tempdir().expect("temporary directory");
    let key = new_key();
    let signers = root.path().join("allowed_signers");
    fs::write(&signers, allowed_signers(&key)).expect("writable");
    let mut unfinished = sample().seal();
    unfinished.sign_segments(&key);
    for name in [MANIFEST, SUMS, SIGNATURE] {
        unfinished.objects.remove(name);
    }
    let mut good = sample().seal();
    good.reseal(&key);
    let (unfinished, good) = (unfinished.write(root.path()), good.write(root.path()));
    let weir = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command.arg("verify").args(args).arg(&unfinished).arg(&good);
        let output = command.env_remove("WEIR_ALLOWED_SIGNERS").env("HOME", "/nonexistent").output();
        let output = output.expect("it runs");
        (output.status.code(), String::from_utf8(output.stdout).expect("text"))
    };
    let signers = signers.to_str().expect("text");
    let (code, text) = weir(&["--allowed-signers", signers]);
    assert_eq!(code, Some(4), "{text}");
    let line = text.lines().find(|line| line.starts_with("UNFINISHED ")).expect("a verdict");
    assert!(
        line.ends_with(
            "verified up to segment 3, which ends at 2026-01-02 03:04:11 UTC; the session is under way or its end is not \
             in the store"
        ),
        "{line}"
    );
    let by_hand = text.lines().find(|line| line.contains("< 000003.ndjson.zst")).expect("a command");
    let done = Command::new("sh").arg("-c").arg(by_hand).current_dir(&unfinished).output().expect("sh runs");
    assert!(done.status.success(), "{by_hand}: {}", String::from_utf8_lossy(&done.stdout));
    let (_, text) = weir(&["--json", "--allowed-signers", signers]);
    let report: serde_json::Value = serde_json::from_str(text.lines().next().expect("two")).expect("JSON");
    assert_eq!((&report["verdict"], &report["unfinished"]["segments"]), (&"unfinished".into(), &3.into()));
    let (code, text) = weir(&[]);
    assert_eq!(code, Some(3), "{text}");
    assert!(
        text.contains("anyone could have signed it, pass --allowed-signers; verified up to segment 3"),
        "{text}"
    );
}

#[test]
fn missing_and_forged_signatures_are_found() {
    let case = sealed();
    for name in ["000001.sig", "000002.sig"] {
        let good = case.read(name);
        fs::remove_file(case.dir.join(name)).expect("it is there");
        case.only_finds(Check::Signature, "is missing");
        case.write(name, &good);
    }
    for (name, other) in [("000001.sig", "000002.sig"), ("000003.sig", "000001.sig")] {
        let good = case.read(name);
        case.write(name, &case.read(other));
        case.only_finds(Check::Signature, "is not the signature of this");
        case.write(name, &good);
    }
    for name in ["000001.sig", "000002.sig", "000003.sig"] {
        let good = case.read(name);
        for byte in 0..good.len() {
            let mut bad = good.clone();
            bad[byte] ^= 1;
            case.write(name, &bad);
            case.only_finds(Check::Signature, "");
        }
        case.write(name, &good);
    }
    assert_eq!(case.verify().verdict, Verdict::Unfinished);
}

#[test]
fn a_segment_altered_swapped_or_taken_from_the_middle_is_found() {
    let case = sealed();
    let names =
        ["000001.ndjson.zst", "000002.ndjson.zst", "000002.bin", "000003.ndjson.zst", "000003.bin.zst"];
    for (first, a) in names.iter().enumerate() {
        let good = case.read(a);
        let mut bad = good.clone();
        bad[good.len() / 2] ^= 1;
        case.write(a, &bad);
        assert_eq!(case.verify().verdict, Verdict::NotIntact, "{a}");
        for b in &names[first + 1..] {
            let other = case.read(b);
            case.write(a, &other);
            case.write(b, &good);
            assert_eq!(case.verify().verdict, Verdict::NotIntact, "{a} and {b}");
            case.write(b, &other);
        }
        case.write(a, &good);
    }
    for index in [1, 2] {
        let gone = [format!("{index:06}.ndjson.zst"), format!("{index:06}.sig")];
        let kept = gone.clone().map(|name| case.read(&name));
        gone.iter().for_each(|name| fs::remove_file(case.dir.join(name)).expect("it is there"));
        case.finds(Check::Segments, "is missing");
        gone.iter().zip(kept).for_each(|(name, bytes)| case.write(name, &bytes));
    }
    assert_eq!(case.verify().verdict, Verdict::Unfinished);
}

#[test]
fn a_chain_that_was_cut_and_signed_again_by_another_key_is_found() {
    let case = under_way(sample().seal(), |sealed, _| {
        sealed.manifest.segments.truncate(2);
        for name in ["000003.ndjson.zst", "000003.bin.zst", "000003.sig"] {
            sealed.objects.remove(name);
        }
        sealed.sign_segments(&new_key());
    });
    case.only_finds(Check::Signature, "is valid, but its key");
    let last = under_way(sample().seal(), |sealed, key| {
        let good = sealed.clone();
        sealed.sign_segments(&new_key());
        for name in ["000001.sig", "000002.sig"] {
            sealed.objects.insert(name.to_owned(), good.objects[name].clone());
        }
        assert!(key.public_key().key_data().is_ed25519());
    });
    last.only_finds(Check::Signature, "is not listed in FILE");
}

#[test]
fn a_segment_of_another_session_is_found_though_the_agent_signed_it() {
    let other: Draft = sample();
    let case = under_way(sample().seal(), |sealed, key| {
        let mut other = other.seal();
        other.sign_segments(key);
        for name in ["000003.ndjson.zst", "000003.sig"] {
            sealed.objects.insert(name.to_owned(), other.objects[name].clone());
        }
    });
    case.finds(Check::Segments, "belongs to session");
}

#[test]
fn what_the_first_segment_says_of_the_session_is_held_against_its_place_and_the_manifest() {
    let opened = |change: fn(&mut SegmentHeader)| {
        move |sealed: &mut Sealed| {
            let text = String::from_utf8(unpack(&sealed.objects["000001.ndjson.zst"])).expect("NDJSON");
            let (first, rest) = text.split_once('\n').expect("a header");
            let mut header: SegmentHeader = serde_json::from_str(first).expect("a header");
            change(&mut header);
            let line = serde_json::to_string(&header).expect("serializes");
            sealed.replace("000001.ndjson.zst", pack(format!("{line}\n{rest}").as_bytes()));
        }
    };
    let only_first = |mut draft: Draft| {
        draft.segments.truncate(1);
        draft.seal()
    };
    let none = opened(|header| header.opened = None);
    let user = opened(|header| header.opened.as_mut().expect("filled").session.user = "mallory".into());
    let day = opened(|header| {
        let opened = header.opened.as_mut().expect("filled");
        opened.opened_at = "2026-01-03T03:04:05Z".parse().expect("a time");
    });
    let resigned = |change: &dyn Fn(&mut Sealed)| {
        Case::new(only_first(sample()), |sealed, key| {
            change(sealed);
            sealed.reseal(key);
        })
    };
    resigned(&none).only_finds(Check::Segments, "does not say whose session it is");
    resigned(&user)
        .only_finds(Check::Segments, "says something else than the manifest about the access context");
    resigned(&day).only_finds(Check::Segments, "about when the session was opened");
    let alone = |change: &dyn Fn(&mut Sealed)| {
        under_way(only_first(sample()), |sealed, key| {
            change(sealed);
            sealed.sign_segments(key);
        })
    };
    alone(&none).only_finds(Check::Segments, "does not say whose session it is");
    alone(&day).only_finds(Check::Segments, "it lies in dt=2026-01-02");
}

#[test]
fn a_finished_recording_needs_the_signature_of_every_segment() {
    let case = Case::new(sample().seal(), |sealed, key| {
        sealed.reseal(key);
        sealed.manifest.segments[1].signature = None;
        sealed.objects.remove("000002.sig");
        sealed.write_manifest();
        sealed.write_sums();
        sealed.sign(key);
    });
    case.finds(Check::Signature, "is missing: 000002.ndjson.zst is not signed");
    case.finds(Check::Manifest, "names no signature of segment 2");
    let case = Case::new(sample().seal(), |sealed, key| {
        sealed.reseal(key);
        let other = sealed.objects["000001.sig"].clone();
        sealed.replace("000002.sig", other);
        sealed.write_sums();
        sealed.sign(key);
    });
    case.only_finds(Check::Signature, "is not the signature of this 000002.ndjson.zst");
}

#[test]
fn a_recording_that_lost_a_part_of_its_end_is_not_taken_for_one_under_way() {
    for gone in [&[MANIFEST, SUMS][..], &[MANIFEST, SIGNATURE], &[SUMS, SIGNATURE], &[SIGNATURE]] {
        let case = Case::signed(sample().seal());
        gone.iter().for_each(|name| fs::remove_file(case.dir.join(name)).expect("it is there"));
        case.finds(Check::Objects, "is missing");
    }
    let case = sealed();
    for name in case.names() {
        fs::remove_file(case.dir.join(name)).expect("it is there");
    }
    case.finds(Check::Objects, "is missing");
    let case = sealed();
    case.write("000009.sig", b"");
    case.only_finds(Check::Objects, "is extra");
}
