//! Recordings that are signed by a trusted key and wrong all the same: an agent with a bug, or one that was taken
//! over. Digests and signature fit, so it is the structure and the arithmetic that have to tell.

use crate::support::{COPY, SHELL, Sealed, T2C, case::Case, new_key, pack, sample, unpack};
use ssh_key::{HashAlg, LineEnding, PrivateKey};
use weir_common::{
    digest::Sha256,
    recording::{Content, Event, MANIFEST, SIGNATURE, SUMS, What},
    session::{ChannelNo, SessionId},
};
use weir_console::verify::report::Check;

/// Changes the second segment's events; whatever can be counted from the events is counted anew.
fn with_events(change: impl FnOnce(&mut Vec<Event>)) -> Case {
    let mut draft = sample();
    change(&mut draft.segments[1].events);
    Case::signed(draft.seal())
}

/// Changes the manifest of a recording and signs it.
fn with_manifest(change: impl FnOnce(&mut Sealed)) -> Case {
    Case::new(sample().seal(), |sealed, key| {
        change(sealed);
        sealed.reseal(key);
    })
}

/// Changes the text of a segment, and makes the chain after it fit.
fn with_text(index: usize, change: impl Fn(&str) -> String) -> Case {
    Case::new(sample().seal(), |sealed, key| {
        let names: Vec<_> = sealed.manifest.segments.iter().map(|entry| entry.segment.name.clone()).collect();
        let mut replaced: Option<(Sha256, Sha256)> = None;
        for (at, name) in names.iter().enumerate().skip(index) {
            let old = sealed.objects[name].clone();
            let mut text = String::from_utf8(unpack(&old)).expect("NDJSON");
            if at == index {
                text = change(&text);
            }
            if let Some((before, after)) = replaced {
                text = text.replace(&before.to_string(), &after.to_string());
            }
            let new = pack(text.as_bytes());
            replaced = Some((Sha256::of(&old), Sha256::of(&new)));
            sealed.replace(name, new);
        }
        sealed.reseal(key);
    })
}

#[test]
fn a_gap_in_a_stream_is_found() {
    let case = with_events(|events| drop(events.remove(1)));
    case.only_finds(Check::Segments, "follows frame none at all: frames are missing");
    let case = with_events(|events| {
        let at = events.iter().position(|event| matches!(event.what, What::Stderr(_))).expect("one is there");
        events.remove(at);
    });
    case.only_finds(Check::Segments, "frames are missing");
}

#[test]
fn a_repeated_frame_is_found() {
    let case = with_events(|events| events.insert(1, events[0].clone()));
    case.only_finds(Check::Segments, "it is a repetition or out of order");
}

#[test]
fn swapped_frames_are_found() {
    let case = with_events(|events| {
        let stream: Vec<_> =
            (0..events.len()).filter(|&at| events[at].ch == COPY && events[at].dir == T2C).take(2).collect();
        events.swap(stream[0], stream[1]);
    });
    case.only_finds(Check::Segments, "frames are missing");
    case.only_finds(Check::Segments, "it is a repetition or out of order");
}

#[test]
fn frames_renumbered_after_a_cut_do_not_fit_the_kernels_count() {
    let case = Case::new(sample().seal(), |sealed, key| {
        let uncut = sealed.manifest.channels.clone();
        let mut draft = sample();
        draft.meta = sealed.manifest.session.clone();
        let last = draft.segments.last_mut().expect("three segments").events.pop();
        assert!(last.is_some_and(|event| event.ch == SHELL));
        *sealed = draft.seal();
        for (totals, uncut) in sealed.manifest.channels.iter_mut().zip(uncut) {
            totals.c2t.kernel = uncut.c2t.kernel;
            totals.t2c.kernel = uncut.t2c.kernel;
        }
        sealed.reseal(key);
    });
    case.only_finds(Check::Arithmetic, "the kernel captured");
}

#[test]
fn kernel_time_that_goes_back_is_found() {
    let case = with_events(|events| events.last_mut().expect("several").t -= 1_000_000_000);
    case.only_finds(Check::Segments, "earlier than");
}

#[test]
fn a_length_that_is_not_the_bodys_is_found() {
    for kind in ["open_confirm", "exec", "stdout", "stderr"] {
        let case = with_events(|events| {
            let event = events.iter_mut().find(|event| {
                serde_json::to_string(&event.what).expect("serializes").contains(&format!("\"{kind}\""))
            });
            event.expect("one is there").len += 1;
        });
        case.only_finds(Check::Segments, "says its body had");
    }
    let case = with_events(|events| events[0].what = What::Stdin(Content::Text("x".repeat(40_000))));
    case.finds(Check::Segments, "has a longer body than");
}

#[test]
fn a_frame_that_went_the_wrong_way_is_found() {
    let case = with_events(|events| events[0].what = What::Success);
    case.only_finds(Check::Segments, "is a frame of the kind Success, which can't go c2t");
}

#[test]
fn bulk_that_events_do_not_cover_or_cover_twice_is_found() {
    let mut draft = sample();
    draft.segments[1].bulk.push(0);
    Case::signed(draft.seal())
        .only_finds(Check::Segments, "has 571 bytes, and the events of 000002.ndjson.zst account for 570");
    let mut draft = sample();
    draft.segments[2].bulk.pop();
    Case::signed(draft.seal()).only_finds(Check::Segments, "has 399 bytes");
    let case = with_events(|events| {
        for event in events {
            if let What::Stdout(Content::Bulk { at, .. }) = &mut event.what {
                *at = 0;
            }
        }
    });
    case.only_finds(Check::Segments, "points to byte 0 of the bulk");
    let case = with_events(|events| {
        let what = What::Stdout(Content::Bulk { at: u64::MAX, bytes: 300 });
        *events
            .iter_mut()
            .find(|event| matches!(event.what, What::Stdout(Content::Bulk { .. })))
            .expect("there") = Event { what, ..events_template() };
    });
    case.finds(Check::Segments, "points to byte 18446744073709551615");
}

fn events_template() -> Event {
    let draft = sample();
    let event = draft.segments[1].events.iter().find(|event| event.len == 300);
    event.expect("300 binary bytes").clone()
}

#[test]
fn a_segment_that_does_not_continue_the_one_before_it_is_found() {
    let digest = Sha256::of(b"something else");
    let case = with_text(2, |text| {
        let from = text.find("\"previous\":\"").expect("a header") + 12;
        format!("{}{digest}{}", &text[..from], &text[from + 64..])
    });
    case.only_finds(Check::Segments, "gives the segment before it the SHA-256");
    let case = with_text(0, |text| text.replace("\"previous\":null", &format!("\"previous\":\"{digest}\"")));
    case.only_finds(Check::Segments, "and that is none");
}

#[test]
fn a_segment_taken_from_the_middle_is_found_even_if_the_manifest_closes_up() {
    let case = Case::new(sample().seal(), |sealed, key| {
        let removed = sealed.manifest.segments.remove(1);
        for object in [Some(removed.segment), removed.bulk, removed.signature].into_iter().flatten() {
            sealed.objects.remove(&object.name);
        }
        sealed.reseal(key);
    });
    case.finds(Check::Manifest, "segment 2 of the list has the number 3");
    case.finds(Check::Segments, "gives the segment before it the SHA-256");
    case.finds(Check::Segments, "frames are missing");
    case.finds(Check::Arithmetic, "the events add up to");
}

#[test]
fn the_last_segment_taken_away_is_found_by_the_arithmetic() {
    let case = Case::new(sample().seal(), |sealed, key| {
        let removed = sealed.manifest.segments.pop().expect("three segments");
        for object in [Some(removed.segment), removed.bulk, removed.signature].into_iter().flatten() {
            sealed.objects.remove(&object.name);
        }
        sealed.reseal(key);
    });
    case.only_finds(Check::Arithmetic, "the events add up to");
}

#[test]
fn a_header_of_another_session_index_version_or_bulk_is_found() {
    let other = SessionId::generate().to_string();
    let session = |text: &str| {
        let from = text.find("\"session\":\"").expect("a header") + 11;
        format!("{}{other}{}", &text[..from], &text[from + 36..])
    };
    with_text(1, session).only_finds(Check::Segments, "belongs to session");
    let index = |text: &str| text.replacen("\"index\":2", "\"index\":7", 1);
    with_text(1, index).only_finds(Check::Segments, "says it is segment 7, and is listed as 2");
    let version = |text: &str| text.replacen("\"weir\":1", "\"weir\":2", 1);
    with_text(1, version).only_finds(Check::Segments, "is in version 2 of the format");
    let bulk = |text: &str| {
        let (from, to) = (text.find("{\"name\"").expect("bulk"), text.find("}}").expect("a header"));
        format!("{}null{}", &text[..from], &text[to + 1..])
    };
    with_text(1, bulk).only_finds(Check::Segments, "says its bulk is none, and it is 000002.bin");
}

#[test]
fn counters_that_are_off_by_one_are_found() {
    type Change = fn(&mut Sealed);
    let changes: [(Change, &str); 7] = [
        (|s| kernel(s).captured.records += 1, "the kernel captured"),
        (|s| kernel(s).captured.bytes -= 1, "the kernel captured"),
        (|s| s.manifest.channels[0].c2t.duplicate.records += 1, "the kernel captured"),
        (|s| s.manifest.channels[0].c2t.out_of_sequence.bytes += 1, "the kernel captured"),
        (|s| s.manifest.channels[1].t2c.accepted.records += 1, "the events add up to"),
        (|s| s.manifest.channels[1].t2c.accepted.bytes -= 1, "the events add up to"),
        (|s| s.manifest.channels[1].t2c.malformed.bytes = u64::MAX, "the kernel captured"),
    ];
    for (change, words) in changes {
        with_manifest(change).only_finds(Check::Arithmetic, words);
    }
    let case = with_manifest(|s| s.manifest.segments[1].events.records += 1);
    case.only_finds(Check::Segments, "events of");
    let case = with_manifest(|s| s.manifest.segments[1].events.bytes -= 1);
    case.only_finds(Check::Segments, "captured bytes, and the manifest says");
}

fn kernel(sealed: &mut Sealed) -> &mut weir_common::recording::KernelCount {
    sealed.manifest.channels[0].t2c.kernel.as_mut().expect("counted")
}

#[test]
fn channels_that_are_missing_or_counted_twice_are_found() {
    let case = with_manifest(|s| s.manifest.channels.truncate(1));
    case.only_finds(Check::Segments, "belongs to channel 1, which the manifest does not name");
    let case = with_manifest(|s| s.manifest.channels.push(s.manifest.channels[0]));
    case.only_finds(Check::Arithmetic, "counts this channel twice");
    let case = with_manifest(|s| {
        let unused =
            weir_common::recording::ChannelTotals { channel: ChannelNo(9), ..s.manifest.channels[0] };
        s.manifest.channels.push(unused);
    });
    case.only_finds(Check::Arithmetic, "the events add up to 0 records");
}

#[test]
fn a_manifest_that_disagrees_with_the_objects_is_found() {
    let case = with_manifest(|s| s.manifest.segments[1].segment.bytes += 1);
    case.only_finds(Check::Manifest, "and it has");
    let case = with_manifest(|s| s.manifest.segments[0].segment.sha256 = Sha256::of(b"x"));
    case.only_finds(Check::Manifest, "and SHA256SUMS gives it");
    let case = with_manifest(|s| drop(s.objects.insert("commands.ndjson".into(), Vec::new())));
    case.only_finds(Check::Manifest, "does not name commands.ndjson");
    let case = with_manifest(|s| s.manifest.segments[1].bulk = None);
    case.finds(Check::Manifest, "does not name 000002.bin");
    let case = with_manifest(|s| s.manifest.segments[1].segment.name = "../../../etc/passwd".into());
    case.finds(Check::Manifest, "segment 2 is named ../../../etc/passwd");
    let case = with_manifest(|s| s.manifest.session.session_id = SessionId::generate());
    case.finds(Check::Segments, "belongs to session");
    let case = with_manifest(|s| s.manifest.weir = 2);
    case.finds(Check::Manifest, "is in version 2 of the format");
    let case = Case::new(sample().seal(), |sealed, key| {
        let manifest = String::from_utf8(sealed.objects[MANIFEST].clone()).expect("JSON");
        sealed.objects.insert(MANIFEST.into(), manifest.replacen('{', "{\"note\":1,", 1).into_bytes());
        sealed.write_sums();
        sealed.sign(key);
    });
    case.finds(Check::Manifest, "unknown field `note`");
}

#[test]
fn digests_in_another_form_are_found_even_if_they_are_signed() {
    let resigned = |change: fn(&str) -> String| {
        Case::new(sample().seal(), |sealed, key| {
            let sums = String::from_utf8(sealed.objects[SUMS].clone()).expect("text");
            sealed.objects.insert(SUMS.into(), change(&sums).into_bytes());
            sealed.sign(key);
        })
    };
    resigned(|sums| format!("{sums}\n")).finds(Check::Digests, "is not of the form");
    resigned(str::to_uppercase).finds(Check::Digests, "is not of the form");
    resigned(|sums| sums.replace("  0", " *0")).finds(Check::Digests, "is not of the form");
    resigned(|sums| format!("{sums}{}", &sums[..84])).finds(Check::Digests, "lists 000001.ndjson.zst again");
    resigned(|_| String::new()).finds(Check::Digests, "is not of the form");
    let own = |sums: &str| format!("{sums}{}  {SUMS}\n", Sha256::of(b""));
    resigned(own).only_finds(Check::Digests, "lists SHA256SUMS, which it can't vouch for");
}

#[test]
fn a_trusted_signature_for_another_purpose_is_found() {
    let sign = |namespace: &'static str| {
        Case::new(sample().seal(), move |sealed, key: &PrivateKey| {
            let signature = key.sign(namespace, HashAlg::Sha512, &sealed.objects[SUMS]).expect("ed25519");
            let armored = signature.to_pem(LineEnding::LF).expect("short");
            sealed.objects.insert(SIGNATURE.into(), armored.into_bytes());
        })
    };
    sign("git").only_finds(Check::Signature, "is for the namespace git");
    let case = Case::new(sample().seal(), |sealed, _| sealed.sign(&new_key()));
    case.only_finds(Check::Signature, "is not listed in FILE");
}

#[test]
fn what_nobody_vouches_for_is_noted_and_not_held_against_the_recording() {
    let case = with_manifest(|s| {
        s.manifest.channels[0].c2t.kernel = None;
        let t2c = &mut s.manifest.channels[0].t2c;
        t2c.malformed.add(16);
        t2c.kernel.as_mut().expect("counted").captured.add(16);
    });
    let report = case.verify();
    assert_eq!(report.findings, []);
    assert!(
        report.notes[0].contains("channel 0 c2t: the kernel's counters were not read"),
        "{:?}",
        report.notes
    );
    assert!(report.notes[1].contains("channel 0 t2c: 1 messages were not frames"), "{:?}", report.notes);
}
