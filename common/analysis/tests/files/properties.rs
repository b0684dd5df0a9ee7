//! What holds whatever the bytes are and however they come.

use proptest::prelude::*;
use weir_analysis::{
    Found,
    transfers::{Chunk, Transfer},
};
use weir_common::{frame::Direction, recording::findings::FileAccess, session::ChannelNo};

use crate::{
    recorded::{C2T, Recorded, T2C, Wanted},
    relay::bytes,
    talk::{FOR_READING, FOR_WRITING, REMOVE, Talk, string},
};

/// Files read and written at once, in parts of any size, with refusals between.
fn sftp() -> impl Strategy<Value = Recorded> {
    let step = (0_u8..3, 0_usize..3000, any::<bool>());
    (prop::collection::vec(step, 1..20), any::<bool>()).prop_map(|(steps, closes)| {
        let mut talk = Talk::new();
        for handle in 0..3_u8 {
            let flags = if handle == 0 { FOR_READING } else { FOR_WRITING };
            talk.open(&[b'/', b'a' + handle], flags, &[handle]);
        }
        let mut offsets = [0; 3];
        let mut unanswered = Vec::new();
        for (handle, count, waits) in steps {
            let content = bytes(count as u64, count);
            let offset = &mut offsets[usize::from(handle)];
            let id = if handle == 0 {
                talk.ask_read(&[handle], *offset, u32::try_from(count).expect("short"))
            } else {
                talk.ask_write(&[handle], *offset, &content)
            };
            *offset += count as u64;
            unanswered.push((handle, id, content));
            if waits {
                for (handle, id, content) in unanswered.drain(..) {
                    match handle {
                        0 => talk.answer_read(id, &content),
                        1 => talk.status(id, 0, "Success"),
                        _ => talk.status(id, 4, "Failure"),
                    }
                }
                let id = talk.ask(REMOVE, &[&string(b"/gone")]);
                talk.status(id, 2, "No such file");
            }
        }
        if closes {
            (0..3).for_each(|handle| talk.close(&[handle]));
        }
        talk.recorded()
    })
}

/// Folders and files, some of them refused.
fn scp() -> impl Strategy<Value = Recorded> {
    let file = (0_usize..3000, 0_u8..6);
    (prop::collection::vec(file, 0..8), any::<bool>()).prop_map(|(files, from_target)| {
        let (sends, answers) = if from_target { (T2C, C2T) } else { (C2T, T2C) };
        let mut data = vec![(answers, vec![0])];
        let mut say = |said: Vec<u8>, answer: &[u8]| data.extend([(sends, said), (answers, answer.to_vec())]);
        let mut depth = 0;
        for (count, how) in files {
            match how {
                0 => {
                    say(b"D0755 0 a folder\n".to_vec(), b"\0");
                    depth += 1;
                }
                1 if depth > 0 => {
                    say(b"E\n".to_vec(), b"\0");
                    depth -= 1;
                }
                2 => say(format!("C0644 {count} refused\n").into_bytes(), b"\x01scp: refused: no\n"),
                _ => {
                    say(b"T1 0 1 0\n".to_vec(), b"\0");
                    say(format!("C0644 {count} file {how}\n").into_bytes(), b"\0");
                    let end: &[u8] = if how == 3 { b"\x01scp: it shrank\n" } else { b"\0" };
                    say([&bytes(count as u64, count), end].concat(), b"\0");
                }
            }
        }
        let command = if from_target { "scp -r -f 'some where'" } else { "scp -r -t 'some where'" };
        Recorded { wanted: Wanted::Command(command.into()), data }
    })
}

fn rsync() -> impl Strategy<Value = Recorded> {
    prop::collection::vec((any::<bool>(), 1_usize..500), 0..10).prop_map(|pieces| {
        let greeting = 31_u32.to_le_bytes().to_vec();
        let mut data = vec![(C2T, greeting.clone()), (T2C, greeting)];
        let direction = |up| if up { C2T } else { T2C };
        data.extend(pieces.into_iter().map(|(up, count)| (direction(up), bytes(count as u64, count))));
        Recorded { wanted: Wanted::Command(b"rsync --server -logDtpre.iLsfxCIvu . x".to_vec()), data }
    })
}

/// What a client and a target make of the protocols, and the same with some bytes changed.
fn any_recorded() -> impl Strategy<Value = Recorded> {
    let changes = prop_oneof![
        Just(Vec::new()),
        prop::collection::vec(
            (any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()),
            1..4
        ),
    ];
    (prop_oneof![sftp(), scp(), rsync()], changes).prop_map(|(mut recorded, changes)| {
        for (event, at, byte) in changes {
            let event = event.index(recorded.data.len());
            let bytes = &mut recorded.data[event].1;
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        recorded
    })
}

/// The same bytes in the same order, in other pieces.
fn cut_again(recorded: &Recorded, cuts: &[usize]) -> Recorded {
    let mut data: Vec<(Direction, Vec<u8>)> = Vec::new();
    for (direction, bytes) in &recorded.data {
        match data.last_mut().filter(|(last, _)| last == direction) {
            Some((_, last)) => last.extend_from_slice(bytes),
            None => data.push((*direction, bytes.clone())),
        }
    }
    let mut cuts = cuts.iter().copied().cycle();
    let cut = |(direction, bytes): (Direction, Vec<u8>)| {
        let (mut rest, mut pieces) = (&bytes[..], Vec::new());
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(cuts.next().unwrap_or(1).min(rest.len()));
            pieces.push((direction, piece.to_vec()));
            rest = behind;
        }
        pieces
    };
    Recorded { wanted: recorded.wanted.clone(), data: data.into_iter().flat_map(cut).collect() }
}

fn without_times(mut files: Vec<FileAccess>) -> Vec<FileAccess> {
    for file in &mut files {
        (file.span.t, file.span.t_end) = (0, file.span.t_end.map(|_| 0));
    }
    files
}

fn as_if_recorded(mut files: Vec<FileAccess>) -> Vec<FileAccess> {
    for transferred in files.iter_mut().flat_map(|file| [&mut file.read, &mut file.written]).flatten() {
        transferred.recorded = true;
    }
    files
}

fn all_kinds() -> impl Strategy<Value = Transfer> {
    prop::sample::select(vec!["", "scp -t x", "scp -r -f x y", "rsync --server . x", "rsync --server -s"])
        .prop_map(|command| {
            let transfer = if command.is_empty() {
                Transfer::for_subsystem("sftp")
            } else {
                Transfer::for_command(command.as_bytes())
            };
            transfer.expect("it carries files")
        })
}

proptest! {
    #[test]
    fn however_the_bytes_are_cut_the_findings_are_the_same(
        recorded in any_recorded(),
        cuts in prop::collection::vec(1_usize..400, 1..20),
    ) {
        let again = cut_again(&recorded, &cuts);
        prop_assert!(without_times(again.files()) == without_times(recorded.files()));
        prop_assert_eq!(again.content(C2T), recorded.content(C2T));
        prop_assert_eq!(again.content(T2C), recorded.content(T2C));
    }

    #[test]
    fn a_recording_without_content_tells_the_same(recorded in any_recorded()) {
        prop_assert!(as_if_recorded(recorded.files_without_content()) == recorded.files());
    }

    #[test]
    fn what_is_found_is_what_went(recorded in prop_oneof![sftp(), scp(), rsync()]) {
        let files = recorded.files();
        let sum = |of: fn(&FileAccess) -> Option<u64>| files.iter().filter_map(of).sum::<u64>();
        let (read, written) = (sum(|file| Some(file.read?.bytes)), sum(|file| Some(file.written?.bytes)));
        prop_assert_eq!(read, recorded.content(T2C).len() as u64);
        prop_assert_eq!(written, recorded.content(C2T).len() as u64);
    }

    #[test]
    fn a_state_that_was_stored_anywhere_goes_on_as_if_it_had_not_been(
        recorded in any_recorded(),
        cuts in prop::collection::vec(1_usize..400, 1..20),
    ) {
        let recorded = cut_again(&recorded, &cuts);
        let stored = |_: usize, transfer: &mut Transfer| {
            let text = serde_json::to_string(transfer).expect("it serializes");
            *transfer = serde_json::from_str(&text).expect("just written");
            assert_eq!(serde_json::to_string(transfer).expect("it serializes"), text);
        };
        prop_assert_eq!(recorded.ranges(stored), recorded.ranges(|_, _| {}));
    }

    #[test]
    fn no_bytes_make_it_panic(
        transfer in all_kinds(),
        data in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..60)), 0..20),
    ) {
        let (mut found, mut ranges) = (Found::default(), Vec::new());
        let (mut findings, mut content) = (transfer.clone(), transfer);
        for (up, bytes) in &data {
            let direction = if *up { C2T } else { T2C };
            findings.data(ChannelNo(0), direction, Default::default(), Chunk::Bytes(bytes), &mut found);
            content.content(direction, bytes, &mut ranges);
            prop_assert!(ranges.iter().all(|range| range.range.end <= bytes.len() && !range.range.is_empty()));
        }
        findings.end(ChannelNo(0), None, &mut found);
    }

    #[test]
    fn no_stored_state_makes_it_panic(
        recorded in any_recorded(),
        cut in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), b' '..b'~'), 0..4),
    ) {
        let mut transfer = recorded.transfer().expect("it carries files");
        let mut ranges = Vec::new();
        let (before, behind) = recorded.data.split_at(cut.index(recorded.data.len()));
        for (direction, bytes) in before {
            transfer.content(*direction, bytes, &mut ranges);
        }
        let mut text = serde_json::to_vec(&transfer).expect("it serializes");
        for (at, byte) in changes {
            let at = at.index(text.len());
            text[at] = byte;
        }
        if let Ok(mut transfer) = serde_json::from_slice::<Transfer>(&text) {
            let mut found = Found::default();
            for (direction, bytes) in behind {
                transfer.clone().content(*direction, bytes, &mut ranges);
                transfer.data(ChannelNo(0), *direction, Default::default(), Chunk::Bytes(bytes), &mut found);
            }
            transfer.end(ChannelNo(0), None, &mut found);
        }
    }
}
