//! SFTP that no client here speaks: concurrent, out of order, at its bounds, hostile.

use weir_analysis::{
    Found,
    transfers::{Chunk, Transfer},
};
use weir_common::{
    digest::Sha256,
    recording::findings::{
        FileAccess,
        FileOperation::{self, Copy, Link, Open, Remove, Rename, SetAttributes, Symlink},
        FileResult, Transferred,
    },
    session::ChannelNo,
};

use crate::{
    recorded::{C2T, Recorded, T2C},
    relay::{bytes, check, only, whole},
    talk::{
        CLOSE, DATA, EXTENDED, FOR_APPENDING, FOR_READING, FOR_WRITING, FSETSTAT, HANDLE, OPEN, REMOVE,
        SYMLINK, Talk, WRITE, string,
    },
};

fn failed(words: &str) -> FileResult {
    FileResult::Failed(words.to_owned())
}

/// Why it was not followed to its end, and what was found besides.
#[track_caller]
fn unfollowed(recorded: &Recorded) -> (String, Vec<FileAccess>) {
    let mut files = recorded.files();
    let last = files.pop().expect("it says so");
    let FileResult::Unfollowed(why) = last.result else { panic!("followed to its end") };
    assert_eq!((last.operation, &last.path[..]), (FileOperation::Transfer, ""));
    assert!(!files.iter().any(|file| matches!(file.result, FileResult::Unfollowed(_))), "it is said once");
    (why, files)
}

#[test]
fn files_that_are_open_at_once_are_kept_apart() {
    let mut talk = Talk::new();
    talk.open(b"/a", FOR_WRITING, b"0");
    talk.open(b"/b", FOR_WRITING, b"1");
    talk.open(b"/c", FOR_READING, b"2");
    let (a, b, c) = (bytes(1, 1000), bytes(2, 1000), bytes(3, 1000));
    for at in [0, 500] {
        let part = at..at + 500;
        let asked = [
            talk.ask_write(b"0", at as u64, &a[part.clone()]),
            talk.ask_write(b"1", at as u64, &b[part.clone()]),
            talk.ask_read(b"2", at as u64, 500),
        ];
        talk.status(asked[1], 0, "Success");
        talk.answer_read(asked[2], &c[part]);
        talk.status(asked[0], 0, "Success");
    }
    for handle in [b"1", b"2", b"0"] {
        talk.close(handle);
    }
    let files = check(&talk.recorded());
    assert_eq!(only(&files, Open, "/a").written, Some(whole(&a)));
    assert_eq!(only(&files, Open, "/b").written, Some(whole(&b)));
    assert_eq!(only(&files, Open, "/c").read, Some(whole(&c)));
    let order: Vec<_> = files.iter().map(|file| (file.n, &file.path[..])).collect();
    assert_eq!(order, [(1, "/b"), (2, "/c"), (3, "/a")], "as they ended");
}

#[test]
fn answers_are_taken_as_they_arrive_and_at_the_offset_that_was_asked_for() {
    let content = bytes(1, 3000);
    let mut talk = Talk::new();
    talk.open(b"/f", FOR_READING, b"0");
    let asked: Vec<_> = (0..3).map(|nth| talk.ask_read(b"0", nth * 1000, 1000)).collect();
    talk.answer_read(asked[0], &content[..1000]);
    talk.answer_read(asked[2], &content[2000..]);
    talk.answer_read(asked[1], &content[1000..2000]);
    talk.close(b"0");
    let arrived = [&content[..1000], &content[2000..], &content[1000..2000]].concat();
    let read = Transferred { in_order: false, ..whole(&arrived) };
    assert_eq!(only(&check(&talk.recorded()), Open, "/f").read, Some(read));

    // A short answer, and the rest asked for before anything behind it.
    let mut talk = Talk::new();
    talk.open(b"/f", FOR_READING, b"0");
    let id = talk.ask_read(b"0", 0, 2000);
    talk.answer_read(id, &content[..700]);
    let id = talk.ask_read(b"0", 700, 2300);
    talk.answer_read(id, &content[700..]);
    let id = talk.ask_read(b"0", 3000, 0);
    talk.answer_read(id, b"");
    let id = talk.ask_read(b"0", 9999, 10);
    talk.status(id, 1, "End of file");
    talk.close(b"0");
    let files = check(&talk.recorded());
    let file = only(&files, Open, "/f");
    assert_eq!((file.read, &file.result), (Some(whole(&content)), &FileResult::Ok));
}

#[test]
fn a_handle_that_is_used_again_means_the_file_that_it_was_given_for() {
    let mut talk = Talk::new();
    for (path, content) in [(b"/a", b"first"), (b"/b", b"other")] {
        talk.open(path, FOR_WRITING, b"0");
        talk.write(b"0", 0, content);
        talk.close(b"0");
    }
    let files = check(&talk.recorded());
    assert_eq!(only(&files, Open, "/a").written, Some(whole(b"first")));
    assert_eq!(only(&files, Open, "/b").written, Some(whole(b"other")));
}

#[test]
fn requests_with_the_same_id_are_answered_in_turn() {
    let mut talk = Talk::new();
    talk.ask_as(5, REMOVE, &[&string(b"/a")]);
    talk.ask_as(5, REMOVE, &[&string(b"/b")]);
    talk.status(5, 3, "Permission denied");
    talk.status(5, 0, "Success");
    let files = check(&talk.recorded());
    assert_eq!(only(&files, Remove, "/a").result, failed("Permission denied"));
    assert_eq!(only(&files, Remove, "/b").result, FileResult::Ok);
}

#[test]
fn a_failure_while_a_file_is_open_is_its_result() {
    let mut talk = Talk::new();
    talk.open(b"/f", FOR_WRITING, b"0");
    talk.write(b"0", 0, b"some");
    let id = talk.ask_write(b"0", 4, b"more");
    talk.status(id, 4, "No space left on device");
    talk.close(b"0");
    let id = talk.ask(OPEN, &[&string(b"/g"), &[0; 8]]);
    talk.status(id, 3, "");
    let files = check(&talk.recorded());
    let file = only(&files, Open, "/f");
    assert_eq!((&file.result, file.written), (&failed("No space left on device"), Some(whole(b"somemore"))));
    let file = only(&files, Open, "/g");
    assert_eq!((&file.result, file.read, file.written), (&failed("Permission denied"), None, None));
}

#[test]
fn what_is_appended_is_not_the_whole_whatever_offset_it_says() {
    let mut talk = Talk::new();
    talk.open(b"/log", FOR_APPENDING, b"0");
    talk.write(b"0", 0, b"a line");
    talk.close(b"0");
    let written = Transferred { in_order: false, ..whole(b"a line") };
    assert_eq!(only(&check(&talk.recorded()), Open, "/log").written, Some(written));
}

#[test]
fn extensions_of_openssh_that_change_files_are_told() {
    let mut talk = Talk::new();
    let mode = [&4_u32.to_be_bytes()[..], &0o100_640_u32.to_be_bytes()].concat();
    let asked = [
        talk.ask(EXTENDED, &[&string(b"posix-rename@openssh.com"), &string(b"/a"), &string(b"/b")]),
        talk.ask(EXTENDED, &[&string(b"hardlink@openssh.com"), &string(b"/a"), &string(b"/h")]),
        talk.ask(EXTENDED, &[&string(b"lsetstat@openssh.com"), &string(b"/l"), &mode]),
        talk.ask(SYMLINK, &[&string(b"points here"), &string(b"/s")]),
        talk.ask(EXTENDED, &[&string(b"statvfs@openssh.com"), &string(b"/")]),
    ];
    for id in asked {
        talk.status(id, 0, "Success");
    }
    talk.open(b"/from", FOR_READING, b"0");
    talk.open(b"/to", FOR_WRITING, b"1");
    let id = talk.ask(EXTENDED, &[&string(b"copy-data"), &string(b"0"), &[0; 16], &string(b"1"), &[0; 8]]);
    talk.status(id, 0, "Success");
    let id = talk.ask(EXTENDED, &[&string(b"fsync@openssh.com"), &string(b"1")]);
    talk.status(id, 0, "Success");
    let id = talk.ask(FSETSTAT, &[&string(b"1"), &mode]);
    talk.status(id, 0, "Success");
    talk.close(b"0");
    talk.close(b"1");
    let files = check(&talk.recorded());
    for (operation, path, other) in
        [(Rename, "/a", "/b"), (Link, "/h", "/a"), (Symlink, "/s", "points here"), (Copy, "/from", "/to")]
    {
        assert_eq!(only(&files, operation, path).other_path.as_deref(), Some(other), "{operation:?}");
    }
    for path in ["/l", "/to"] {
        assert_eq!(only(&files, SetAttributes, path).mode, Some(0o640), "without the file's type");
    }
    assert_eq!(only(&files, Open, "/to").written, Some(whole(b"")), "nothing of the copy went through");
    assert_eq!(files.len(), 8);
}

#[test]
fn of_a_later_version_no_attributes_are_told() {
    let mut talk = Talk::of_version(6);
    let id = talk.ask(OPEN, &[&string(b"/f"), &[0xff; 12]]);
    talk.answer(id, HANDLE, &[&string(b"0")]);
    talk.write(b"0", 0, b"content");
    talk.close(b"0");
    let files = check(&talk.recorded());
    let file = only(&files, Open, "/f");
    assert_eq!((file.mode, file.read, file.written), (None, None, Some(whole(b"content"))));
}

#[test]
fn what_is_under_way_at_the_end_is_told_as_such() {
    let mut talk = Talk::new();
    talk.open(b"/f", FOR_WRITING, b"0");
    talk.write(b"0", 0, b"content");
    talk.ask(REMOVE, &[&string(b"/g")]);
    let recorded = talk.recorded();
    let files = check(&recorded);
    let (file, removed) = (only(&files, Open, "/f"), only(&files, Remove, "/g"));
    assert_eq!((&file.result, file.written), (&FileResult::Unknown, Some(whole(b"content"))));
    assert_eq!(removed.result, FileResult::Unknown);
    assert!(file.span.t_end.is_some(), "the channel was closed");

    let mut found = Found::default();
    follow(&recorded, &mut found).end(ChannelNo(0), None, &mut found);
    assert_eq!(only(&found.files, Open, "/f").span.t_end, None, "the recording ends earlier");
}

fn follow(recorded: &Recorded, found: &mut Found) -> Transfer {
    let mut transfer = recorded.transfer().expect("it carries files");
    for (direction, bytes) in &recorded.data {
        transfer.data(ChannelNo(0), *direction, Default::default(), Chunk::Bytes(bytes), found);
    }
    transfer
}

#[test]
fn behind_a_gap_nothing_is_followed_and_that_is_said_once() {
    let mut talk = Talk::new();
    talk.open(b"/f", FOR_WRITING, b"0");
    talk.write(b"0", 0, b"content");
    let mut found = Found::default();
    let mut transfer = follow(&talk.clone().recorded(), &mut found);
    transfer.gap(C2T);
    assert!(found.files.is_empty());
    let mut content = transfer.clone();
    for _ in 0..2 {
        transfer.data(ChannelNo(0), C2T, Default::default(), Chunk::Bytes(b"anything"), &mut found);
        transfer.gap(T2C);
    }
    transfer.end(ChannelNo(0), None, &mut found);
    let results: Vec<_> = found.files.iter().map(|file| file.result.clone()).collect();
    let why = "something is missing from the recording here".to_owned();
    assert_eq!(results, [FileResult::Unknown, FileResult::Unfollowed(why)]);

    let mut ranges = Vec::new();
    let id = talk.ask_write(b"0", 7, b"more");
    let (_, bytes) = &talk.recorded().data[id as usize - 7];
    content.content(C2T, bytes, &mut ranges);
    assert!(ranges.is_empty(), "it stays in the recording");
}

#[test]
fn content_that_cannot_be_told_whose_it_is_ends_the_following() {
    // A client that writes to a handle before it was told that there is one.
    let mut talk = Talk::new();
    let open = talk.ask(OPEN, &[&string(b"/f"), &FOR_WRITING.to_be_bytes(), &[0; 4]]);
    let write = talk.ask_write(b"\0\0\0\0", 0, b"hidden");
    talk.answer(open, HANDLE, &[&string(b"\0\0\0\0")]);
    let mut refused = talk.clone();
    talk.status(write, 0, "Success");
    let (why, files) = unfollowed(&talk.recorded());
    assert!(why.contains("not known to be open"), "{why}");
    assert_eq!(only(&files, Open, "/f").result, FileResult::Unknown);
    refused.status(write, 4, "Failure");
    refused.close(b"\0\0\0\0");
    assert_eq!(only(&check(&refused.recorded()), Open, "/f").written, Some(whole(b"")));

    // Data that nobody asked for, or of a file that is closed.
    let mut talk = Talk::new();
    talk.answer_read(99, b"content");
    assert!(unfollowed(&talk.recorded()).0.contains("nothing that was asked"));
    let mut talk = Talk::new();
    talk.open(b"/f", FOR_READING, b"0");
    let read = talk.ask_read(b"0", 0, 10);
    talk.close(b"0");
    talk.answer_read(read, b"content");
    assert!(unfollowed(&talk.recorded()).0.contains("not known to be open"));
}

#[test]
fn what_is_under_way_is_bounded() {
    let open = |count: u32| {
        let mut talk = Talk::new();
        (0..count).for_each(|nth| talk.open(b"/f", FOR_READING, &nth.to_be_bytes()));
        talk.recorded()
    };
    assert_eq!(open(256).files().len(), 256);
    let (why, files) = unfollowed(&open(257));
    assert!(why.contains("256 files") && files.len() == 256, "{why}");

    let asked = |count: u32, path: &[u8]| {
        let mut talk = Talk::new();
        for _ in 0..count {
            talk.ask(REMOVE, &[&string(path)]);
        }
        talk.recorded()
    };
    assert_eq!(asked(1024, b"/f").files().len(), 1024);
    assert!(unfollowed(&asked(1025, b"/f")).0.contains("1024 requests"));
    assert!(unfollowed(&asked(40, &[b'x'; 4000])).0.contains("bytes under way"));

    let mut talk = Talk::new();
    talk.ask(WRITE, &[&string(&[0; 257]), &[0; 12]]);
    assert!(unfollowed(&talk.recorded()).0.contains("handle"));
}

#[test]
fn a_path_of_any_length_is_cut() {
    for length in [4096, 4097, 100_000] {
        let mut talk = Talk::new();
        let id = talk.ask(REMOVE, &[&string(&vec![b'x'; length])]);
        talk.status(id, 4, &"w".repeat(5000));
        let files = check(&talk.recorded());
        let path = &files[0].path;
        assert_eq!((path.len() > 4096, path.ends_with('…')), (length > 4096, length > 4096));
        assert!(path.len() < 4100);
        assert!(matches!(&files[0].result, FileResult::Failed(words) if words.len() < 520));
    }
}

#[test]
fn a_request_for_a_whole_file_at_once_takes_little_to_remember() {
    let content = bytes(1, 100_000);
    let mut talk = Talk::new();
    talk.open(b"/f", FOR_READING, b"0");
    let asked: Vec<_> = (0..5000).map(|nth| talk.ask_read(b"0", nth * 20, 20)).collect();
    for (id, part) in asked.into_iter().zip(content.chunks(20)) {
        talk.answer_read(id, part);
    }
    talk.close(b"0");
    let recorded = talk.recorded();
    assert_eq!(only(&recorded.files(), Open, "/f").read, Some(whole(&content)));
    let before = Recorded { data: recorded.data[..5004].to_vec(), ..recorded };
    let transfer = follow(&before, &mut Found::default());
    assert!(serde_json::to_string(&transfer).expect("it serializes").len() < 1000);
}

#[test]
fn bytes_that_are_no_packets_end_the_following() {
    for bytes in [
        &[0; 4][..],
        &[0, 0, 0, 1, 6],
        &[0, 0, 0, 3, 13, 0, 0],
        // A path that is longer than its packet, and content that is.
        &[0, 0, 0, 10, 13, 0, 0, 0, 1, 0, 0, 0, 9, b'x'],
        &[0, 0, 0, 22, 6, 0, 0, 0, 1, 0, 0, 0, 1, b'0', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9],
    ] {
        let mut talk = Talk::new().recorded();
        talk.data.push((C2T, bytes.to_vec()));
        assert!(unfollowed(&talk).0.contains("not of the protocol"), "{bytes:?}");
    }
    let mut talk = Talk::new();
    let id = talk.ask(CLOSE, &[&string(b"0")]);
    talk.answer(id, DATA, &[&string(b"content")]);
    unfollowed(&talk.recorded());
}

#[test]
fn content_that_a_recording_withholds_elsewhere_is_not_believed() {
    let mut found = Found::default();
    let mut transfer = Transfer::for_subsystem("sftp").expect("it carries files");
    let chunk = Chunk::Withheld { bytes: 5, sha256: Sha256::of(b"") };
    transfer.data(ChannelNo(0), C2T, Default::default(), chunk, &mut found);
    assert!(matches!(&found.files[0].result, FileResult::Unfollowed(why) if why.contains("withheld")));
}
