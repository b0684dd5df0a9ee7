//! scp and rsync as no client here speaks them: without waiting, at their bounds, hostile.

use weir_common::recording::findings::{
    FileAccess,
    FileOperation::{Mkdir, Open, Transfer},
    FileResult,
};

use crate::{
    recorded::{C2T, Recorded, T2C, Wanted},
    relay::{bytes, check, only, whole},
};

fn said(command: &str, data: &[(bool, &[u8])]) -> Recorded {
    let direction = |up| if up { C2T } else { T2C };
    let data = data.iter().map(|(up, bytes)| (direction(*up), bytes.to_vec())).collect();
    Recorded { wanted: Wanted::Command(command.into()), data }
}

/// Why it was not followed to its end, and what was found besides.
#[track_caller]
fn unfollowed(recorded: &Recorded) -> (String, Vec<FileAccess>) {
    let mut files = recorded.files();
    match files.pop().map(|file| file.result) {
        Some(FileResult::Unfollowed(why)) => (why, files),
        _ => panic!("followed to its end"),
    }
}

#[test]
fn a_sender_that_does_not_wait_for_answers_is_followed() {
    let all = [b"T1 0 1 0\nC0600 5 a\nhello\0C0644 0 b\n\0", &b"D0755 0 d\nC0644 2 c\nhi\0E\n"[..]].concat();
    for answers_first in [true, false] {
        let sent = (true, &all[..]);
        let answers = (false, &[0; 9][..]);
        // The receiver begins; nine answers are for what is sent.
        let data = if answers_first {
            vec![(false, &[0][..]), sent, answers]
        } else {
            vec![sent, answers, (false, &[0])]
        };
        let files = check(&said("scp -r -p -d -t /x", &data));
        for (path, content, mode) in
            [("/x/a", &b"hello"[..], 0o600), ("/x/b", b"", 0o644), ("/x/d/c", b"hi", 0o644)]
        {
            let file = only(&files, Open, path);
            assert_eq!(
                (file.written, file.mode, &file.result),
                (Some(whole(content)), Some(mode), &FileResult::Ok)
            );
        }
        assert_eq!(only(&files, Mkdir, "/x/d").mode, Some(0o755));
    }
}

#[test]
fn who_does_not_wait_and_is_refused_is_not_followed() {
    let refusal = b"\x01scp: /x/a: Permission denied\n";
    let start: (bool, &[u8]) = (false, &[0]);
    let (_, files) = unfollowed(&said("scp -t /x/", &[start, (true, b"C0644 5 a\nhe"), (false, refusal)]));
    assert_eq!(only(&files, Open, "/x/a").result, FileResult::Unknown);
    unfollowed(&said("scp -t /x/", &[start, (true, b"C0644 5 a\nhello\0C06"), (false, refusal)]));
    unfollowed(&said("scp -r -t /x/", &[start, (true, b"D0755 0 a\nC06"), (false, refusal)]));
    // Who waits is.
    let files = check(&said(
        "scp -r -t /x/",
        &[
            start,
            (true, b"D0755 0 a\n"),
            (false, refusal),
            (true, b"C0644 5 b\n"),
            (false, b"\x01scp: no\n"),
            (true, b"C0644 0 c\n"),
            (false, b"\0"),
            (true, b"\0"),
            (false, b"\0"),
        ],
    ));
    let failed = |words: &str| FileResult::Failed(words.to_owned());
    assert_eq!(only(&files, Mkdir, "/x/a").result, failed("scp: /x/a: Permission denied"));
    assert_eq!(
        (&only(&files, Open, "/x/b").result, only(&files, Open, "/x/b").written),
        (&failed("scp: no"), None)
    );
    assert_eq!(only(&files, Open, "/x/c").written, Some(whole(b"")));
}

#[test]
fn a_failure_of_the_sender_is_the_files_result() {
    let content = bytes(1, 100);
    let data: [(bool, &[u8]); 7] = [
        (true, b"\0"),
        (false, b"C0644 100 f\n"),
        (true, b"\0"),
        (false, &content),
        (false, b"\x01scp: f: Input/output error\n"),
        (true, b"\0"),
        (false, b"\x01scp: g: No such file or directory\n"),
    ];
    let files = check(&said("scp -f /srv/f", &data));
    let [file, other] = &files[..] else { panic!("two entries, not {}", files.len()) };
    let failed = |words: &str| FileResult::Failed(words.to_owned());
    assert_eq!((&file.path[..], file.read), ("/srv/f", Some(whole(&content))));
    assert_eq!(file.result, failed("scp: f: Input/output error"));
    assert_eq!((&other.path[..], &other.result), ("/srv/f", &failed("scp: g: No such file or directory")));
}

#[test]
fn a_file_that_is_cut_off_says_how_much_of_it_went() {
    let data: [(bool, &[u8]); 4] =
        [(false, b"\0"), (true, b"C0644 100 f\n"), (false, b"\0"), (true, b"some")];
    let files = check(&said("scp -t /x/", &data));
    let file = only(&files, Open, "/x/f");
    assert_eq!((&file.result, file.written), (&FileResult::Unknown, Some(whole(b"some"))));
}

#[test]
fn what_is_under_way_is_bounded() {
    let start: (bool, &[u8]) = (false, &[0]);
    let sent = |bytes: &[u8]| unfollowed(&said("scp -r -t /x/", &[start, (true, bytes)])).0;
    assert!(sent(&b"T1 0 1 0\n".repeat(33)).contains("32 lines"));
    assert!(sent(&[b'T'; 8192]).contains("not of the protocol"));
    let folder = [(true, &b"D0755 0 d\n"[..]), (false, &b"\0"[..])];
    let mut folders = vec![start];
    folders.extend(folder.iter().cycle().take(2 * 257));
    assert!(unfollowed(&said("scp -r -t /x/", &folders)).0.contains("256 folders"));
    assert!(
        unfollowed(&said("rsync --server -s", &[(true, &[b'x'; 70_000])])).0.contains("not of the protocol")
    );
}

#[test]
fn bytes_that_are_of_neither_protocol_end_the_following() {
    for sent in
        [&b"X\n"[..], b"E\n", b"C0644 5\n", b"C064 5 f\n", b"C0644 -5 f\n", b"C0644 5 \n", b"\n", b"\0\n"]
    {
        unfollowed(&said("scp -t /x/", &[(false, &[0]), (true, sent)]));
    }
    unfollowed(&said("scp -t /x/", &[(false, b"hello")]));
    unfollowed(&said("scp -t /x/", &[(false, &[0, 0])]));
    // What says that it is rsync and is none: a shell that greets, for one.
    let shell = said("rsync --server . x", &[(true, &[31, 0, 0, 0]), (false, b"Welcome!\n$ ")]);
    let (_, files) = unfollowed(&shell);
    assert_eq!(only(&files, Transfer, "x").read, None);
    assert!(shell.content(T2C).is_empty(), "it stays in the recording");
}

#[test]
fn of_a_program_in_a_folder_of_the_users_own_nothing_is_content() {
    let data: [(bool, &[u8]); 6] = [
        (false, b"\0"),
        (true, b"C0644 2 f\n"),
        (false, b"\0"),
        (true, b"hi"),
        (true, b"\0"),
        (false, b"\0"),
    ];
    let own = said("/tmp/scp -t /x/", &data);
    assert_eq!(only(&own.files(), Open, "/x/f").written, Some(whole(b"hi")));
    assert!(own.content(C2T).is_empty());
    assert_eq!(said("/usr/bin/scp -t /x/", &data).content(C2T), b"hi");
}
