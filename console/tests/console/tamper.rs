//! Whoever can write to the store but can't sign changes nothing unnoticed: not a byte, not an object.

use std::{fs, process::Command};

use crate::support::{case::Case, new_key, pack, sample, unpack};
use weir_common::{
    digest::Sha256,
    frame::Direction,
    recording::{Event, SIGNATURE, SUMS},
    session::ChannelNo,
};
use weir_console::{
    recording::Recording,
    show,
    store::SessionDir,
    verify::report::{Check, Verdict},
};

/// Applies a change to every object at every offset and expects each to be found.
fn every_offset_of_every_object(change: impl Fn(&mut Vec<u8>, usize)) {
    let case = Case::signed(sample().seal());
    assert_eq!(case.verify().verdict, Verdict::Intact);
    let mut changes = 0;
    for name in case.names() {
        let good = case.read(&name);
        for offset in 0..good.len() {
            let mut bad = good.clone();
            change(&mut bad, offset);
            case.write(&name, &bad);
            let report = case.verify();
            assert_eq!(report.verdict, Verdict::NotIntact, "{name} at {offset}");
            assert!(!report.findings.is_empty(), "{name} at {offset}");
            changes += 1;
        }
        case.write(&name, &good);
    }
    assert!(changes > 4000, "{changes}");
    assert_eq!(case.verify().verdict, Verdict::Intact);
}

/// Not zero, and another one at every offset.
fn noise(offset: usize) -> u8 {
    let digest = Sha256::of(&offset.to_le_bytes());
    digest.as_bytes().iter().copied().find(|&byte| byte != 0).expect("a digest of more than zeros")
}

#[test]
fn every_flipped_byte_is_found() {
    every_offset_of_every_object(|bytes, offset| bytes[offset] ^= noise(offset));
}

#[test]
fn every_dropped_byte_is_found() {
    every_offset_of_every_object(|bytes, offset| {
        bytes.remove(offset);
    });
}

#[test]
fn every_truncation_is_found() {
    every_offset_of_every_object(Vec::truncate);
}

#[test]
fn every_flipped_bit_of_the_signature_is_found() {
    let case = Case::signed(sample().seal());
    let good = case.read(SIGNATURE);
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        case.write(SIGNATURE, &bad);
        case.only_finds(Check::Signature, "");
    }
}

#[test]
fn other_spellings_of_a_valid_signature_are_found() {
    let case = Case::signed(sample().seal());
    let good = String::from_utf8(case.read(SIGNATURE)).expect("text");
    let wrapped_elsewhere = {
        let body: String = good.lines().filter(|line| !line.starts_with('-')).collect();
        let lines: Vec<_> =
            body.as_bytes().chunks(64).map(|line| str::from_utf8(line).expect("base64")).collect();
        format!("-----BEGIN SSH SIGNATURE-----\n{}\n-----END SSH SIGNATURE-----\n", lines.join("\n"))
    };
    for bad in [
        good.replace('\n', "\r\n"),
        format!("{good}\n"),
        format!("\n{good}"),
        format!("a preamble\n{good}"),
        good.trim_end().to_owned(),
        wrapped_elsewhere,
        format!("{good}{good}"),
    ] {
        case.write(SIGNATURE, bad.as_bytes());
        case.only_finds(Check::Signature, "");
    }
}

#[test]
fn every_dropped_object_is_found() {
    let case = Case::signed(sample().seal());
    for name in case.names() {
        let good = case.read(&name);
        fs::remove_file(case.dir.join(&name)).expect("it is there");
        let report = case.verify();
        assert_eq!(report.verdict, Verdict::NotIntact, "{name}");
        let named = report
            .findings
            .iter()
            .any(|finding| finding.check == Check::Objects && finding.place.object.as_deref() == Some(&name));
        assert!(named, "{name}: {:#?}", report.findings);
        case.write(&name, &good);
    }
}

#[test]
fn whatever_is_extra_is_found() {
    let case = Case::signed(sample().seal());
    for name in ["extra", "000004.ndjson.zst", ".hidden", "SHA256SUMS.sig.old"] {
        case.write(name, b"");
        case.only_finds(Check::Objects, "is extra");
        fs::remove_file(case.dir.join(name)).expect("just written");
    }
    fs::create_dir(case.dir.join("sub")).expect("writable");
    case.only_finds(Check::Objects, "is a directory");
    fs::remove_dir(case.dir.join("sub")).expect("just made");
    std::os::unix::net::UnixListener::bind(case.dir.join("socket")).expect("writable");
    case.only_finds(Check::Objects, "is not a regular file");
    fs::remove_file(case.dir.join("socket")).expect("just made");
    assert_eq!(case.verify().verdict, Verdict::Intact);
}

#[test]
fn an_object_that_became_a_link_to_the_same_bytes_is_found() {
    let case = Case::signed(sample().seal());
    for name in case.names() {
        let (inside, outside) = (case.dir.join(&name), case.root().join(&name));
        fs::rename(&inside, &outside).expect("writable");
        std::os::unix::fs::symlink(&outside, &inside).expect("writable");
        case.finds(Check::Objects, "is a symbolic link");
        fs::rename(&outside, &inside).expect("writable");
    }
    assert_eq!(case.verify().verdict, Verdict::Intact);
}

#[test]
fn an_object_that_became_a_pipe_is_found_and_keeps_nobody_waiting() {
    let case = Case::signed(sample().seal());
    for name in case.names() {
        let good = case.read(&name);
        let path = case.dir.join(&name);
        fs::remove_file(&path).expect("it is there");
        let made = Command::new("mkfifo").arg(&path).status().expect("mkfifo is installed");
        assert!(made.success());
        case.finds(Check::Objects, "is not a regular file");
        let recording = Recording::open(SessionDir::open(&case.dir).expect("a directory")).expect("readable");
        let warned = !show::gather(&recording).warnings.is_empty();
        assert_eq!(warned, name != SIGNATURE, "{name}: only the signature is of no use to `show`");
        fs::remove_file(&path).expect("just made");
        case.write(&name, &good);
    }
    assert_eq!(case.verify().verdict, Verdict::Intact);
}

#[test]
fn any_two_objects_swapped_are_found() {
    let case = Case::signed(sample().seal());
    let names = case.names();
    for (first, a) in names.iter().enumerate() {
        for b in &names[first + 1..] {
            let good = [case.read(a), case.read(b)];
            case.write(a, &good[1]);
            case.write(b, &good[0]);
            assert_eq!(case.verify().verdict, Verdict::NotIntact, "{a} and {b}");
            case.write(a, &good[0]);
            case.write(b, &good[1]);
        }
    }
}

/// Every way to swap two neighbours, to drop one and to repeat one; `Some` are the two that were swapped.
fn shuffles<T: Copy>(lines: &[T]) -> Vec<(Vec<T>, Option<[T; 2]>)> {
    let mut all = Vec::new();
    for (at, &line) in lines.iter().enumerate() {
        let mut dropped = lines.to_vec();
        dropped.remove(at);
        all.push((dropped, None));
        let mut repeated = lines.to_vec();
        repeated.insert(at, line);
        all.push((repeated, None));
        if at > 0 {
            let mut swapped = lines.to_vec();
            swapped.swap(at - 1, at);
            all.push((swapped, Some([lines[at - 1], line])));
        }
    }
    all
}

/// Which stream a line of a segment belongs to; `None` for the header.
fn stream(line: &[u8]) -> Option<(ChannelNo, Direction)> {
    serde_json::from_slice(line).ok().map(|Event { ch, dir, .. }| (ch, dir))
}

fn lines(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.split_inclusive(|&byte| byte == b'\n').collect()
}

#[test]
fn lines_of_the_digests_swapped_dropped_or_repeated_are_found() {
    let case = Case::signed(sample().seal());
    let good = case.read(SUMS);
    for (bad, _) in shuffles(&lines(&good)) {
        case.write(SUMS, &bad.concat());
        case.finds(Check::Signature, "is not the signature of this SHA256SUMS");
    }
}

#[test]
fn lines_of_a_segment_swapped_dropped_or_repeated_are_found_even_if_everything_else_is_made_to_fit() {
    let sealed = sample().seal();
    let case = Case::signed(sealed.clone());
    let mut tried = 0;
    for entry in &sealed.manifest.segments {
        let name = &entry.segment.name;
        let good = unpack(&sealed.objects[name]);
        for (bad, swapped) in shuffles(&lines(&good)) {
            let mut forged = sealed.clone();
            forged.sign_segments(&case.key);
            forged.replace(name, pack(&bad.concat()));
            // As one who can't sign: the digests fit, the signature does not.
            forged.write_sums();
            forged.write(case.root());
            case.finds(Check::Signature, "is not the signature of this SHA256SUMS");
            // Between streams there is no order to break: their records reach the ring in any.
            if swapped
                .is_some_and(|[a, b]| stream(a).is_some() && stream(b).is_some() && stream(a) != stream(b))
            {
                continue;
            }
            // As one who can, so that only the structure is left to tell.
            forged.reseal(&case.key);
            forged.write(case.root());
            case.finds(Check::Segments, "");
            tried += 1;
        }
    }
    assert!(tried > 80, "{tried}");
}

#[test]
fn whoever_makes_everything_fit_but_signs_with_another_key_is_found() {
    let mut draft = sample();
    draft.meta.user = "mallory@example.com".into();
    let case = Case::new(draft.seal(), |sealed, _| sealed.reseal(&new_key()));
    case.only_finds(Check::Signature, "is not listed in FILE");
}

#[test]
fn a_signature_taken_from_another_session_is_found() {
    let other = Case::signed(sample().seal());
    let case = Case::signed(sample().seal());
    case.write(SIGNATURE, &other.read(SIGNATURE));
    case.only_finds(Check::Signature, "is not the signature of this SHA256SUMS");
}

#[test]
fn a_recording_put_in_the_place_of_another_is_found() {
    let case = Case::signed(sample().seal());
    let elsewhere = |parent: &str, name: &str| {
        let dir = case.root().join(parent).join(name);
        fs::create_dir_all(&dir).expect("writable");
        for name in case.names() {
            fs::copy(case.dir.join(&name), dir.join(&name)).expect("writable");
        }
        let report = case.verify_at(&dir);
        report.findings.into_iter().map(|finding| (finding.check, finding.problem)).collect::<Vec<_>>()
    };
    let own_name = case.dir.file_name().and_then(|name| name.to_str()).expect("UTF-8").to_owned();
    let renamed = elsewhere("dt=2026-01-02", "0198f000-0000-7000-8000-000000000000");
    assert!(
        matches!(&renamed[..], [(Check::Manifest, problem)] if problem.contains("the directory is named"))
    );
    let other_day = elsewhere("dt=2026-01-03", &own_name);
    assert!(
        matches!(&other_day[..], [(Check::Manifest, problem)] if problem.contains("lies in dt=2026-01-03"))
    );
    assert_eq!(elsewhere("evidence", &own_name), [], "outside of a store there is no date to agree with");
}
