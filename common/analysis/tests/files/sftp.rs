//! `sftp`, and `scp` over SFTP.

use std::{fs, os::unix::ffi::OsStrExt};

use weir_common::recording::findings::{
    FileOperation::{self, List, Mkdir, Open, Remove, Rename, Rmdir, SetAttributes, Symlink},
    FileProtocol, FileResult,
};

use crate::{
    recorded::{C2T, T2C},
    relay::{Bench, bytes, check, only, sha256sum, whole},
};

/// Larger than a packet, an event and what a client has under way, and no multiple of anything.
const LARGE: usize = 5_000_003;

#[test]
fn files_that_are_put_and_fetched_have_the_digests_that_sha256sum_prints() {
    let bench = Bench::new();
    fs::write(bench.client("up"), bytes(1, LARGE)).expect("a file");
    fs::write(bench.target("down"), bytes(2, LARGE)).expect("a file");
    let (recorded, status) = bench.sftp(&[], b"put up\nget down\n");
    assert!(status.success());
    let files = check(&recorded);

    let (up, down) = (only_ending(&files, Open, "/up"), only_ending(&files, Open, "/down"));
    assert_eq!(up.written, Some(whole(&bytes(1, LARGE))));
    assert_eq!(up.written.expect("just seen").sha256, sha256sum(&bench.target("up")));
    assert_eq!((up.read, up.mode, &up.result), (None, Some(0o644), &FileResult::Ok));
    assert_eq!(down.read, Some(whole(&bytes(2, LARGE))));
    assert_eq!(down.read.expect("just seen").sha256, sha256sum(&bench.client("down")));
    assert_eq!((down.written, &down.result), (None, &FileResult::Ok));
    assert!(up.span.t_end.expect("it was closed") <= down.span.t, "one after the other");
    assert_eq!(recorded.content(C2T), bytes(1, LARGE));
    assert_eq!(recorded.content(T2C), bytes(2, LARGE));
}

#[test]
fn what_is_done_to_files_and_folders_is_told_with_its_result() {
    let bench = Bench::new();
    fs::write(bench.target("a"), "a").expect("a file");
    let commands = b"mkdir d\nrename a b\nchmod 640 b\nln -s b s\nln b h\nls d\nrm s\nrmdir d\n-rm missing\n-get missing\n-mkdir /sys/weir\n";
    let (recorded, status) = bench.sftp(&[], commands);
    assert!(status.success());
    let files = check(&recorded);

    for (operation, end) in [(Mkdir, "/d"), (Remove, "/s"), (Rmdir, "/d"), (List, "/d/")] {
        assert_eq!(only_ending(&files, operation, end).result, FileResult::Ok);
    }
    let renamed = only_ending(&files, Rename, "/a");
    assert!(renamed.other_path.as_ref().is_some_and(|path| path.ends_with("/b")));
    assert_eq!(only_ending(&files, SetAttributes, "/b").mode, Some(0o640));
    let link = only_ending(&files, Symlink, "/s");
    assert_eq!(link.other_path.as_deref(), Some("b"), "what it points to");
    let link = only_ending(&files, FileOperation::Link, "/h");
    assert!(link.other_path.as_ref().is_some_and(|path| path.ends_with("/b")));
    let failed = |words: &str| FileResult::Failed(words.to_owned());
    assert_eq!(only_ending(&files, Remove, "/missing").result, failed("No such file"));
    assert!(
        matches!(&only_ending(&files, Mkdir, "/sys/weir").result, FileResult::Failed(words) if !words.is_empty())
    );
    assert!(
        fs::read_link(bench.target("s")).is_err() && bench.target("h").exists() && bench.target("b").exists()
    );
}

#[test]
fn a_download_that_is_resumed_tells_what_went_and_that_it_is_not_the_whole() {
    let bench = Bench::new();
    let content = bytes(3, LARGE);
    fs::write(bench.target("f"), &content).expect("a file");
    fs::write(bench.client("f"), &content[..LARGE / 2]).expect("a file");
    fs::write(bench.client("g"), &content).expect("a file");
    fs::write(bench.target("g"), &content[..LARGE / 3]).expect("a file");
    let (recorded, status) = bench.sftp(&[], b"reget f\nreput g\n");
    assert!(status.success());
    let files = check(&recorded);

    let rest = |from: usize| weir_common::recording::findings::Transferred {
        in_order: false,
        ..whole(&content[from..])
    };
    assert_eq!(only_ending(&files, Open, "/f").read, Some(rest(LARGE / 2)));
    assert_eq!(only_ending(&files, Open, "/g").written, Some(rest(LARGE / 3)));
    assert_eq!(sha256sum(&bench.client("f")), sha256sum(&bench.target("g")));
}

#[test]
fn folders_go_with_all_that_is_in_them() {
    let bench = Bench::new();
    fs::create_dir_all(bench.client("tree/deep/er")).expect("folders");
    fs::write(bench.client("tree/empty"), "").expect("a file");
    for (seed, name) in [(4, "tree/one"), (5, "tree/deep/two"), (6, "tree/deep/er/three")] {
        fs::write(bench.client(name), bytes(seed, 40_000)).expect("a file");
    }
    let (recorded, status) = bench.scp(&["-s", "-r", "-p", "tree", "target:copy"]);
    assert!(status.success());
    let files = check(&recorded);
    for (seed, end) in [(4, "copy/one"), (5, "copy/deep/two"), (6, "copy/deep/er/three")] {
        assert_eq!(only_ending(&files, Open, end).written, Some(whole(&bytes(seed, 40_000))), "{end}");
    }
    assert_eq!(only_ending(&files, Open, "copy/empty").written, Some(whole(b"")));
    assert!(files.iter().any(|file| file.operation == Mkdir && file.path.ends_with("copy/deep/er")));

    let (recorded, status) = bench.scp(&["-s", "-r", "target:copy", "back"]);
    assert!(status.success());
    let files = check(&recorded);
    for (seed, end) in [(4, "copy/one"), (5, "copy/deep/two"), (6, "copy/deep/er/three")] {
        assert_eq!(only_ending(&files, Open, end).read, Some(whole(&bytes(seed, 40_000))), "{end}");
    }
    assert_eq!(only_ending(&files, Open, "copy/empty").read, Some(whole(b"")));
    assert!(files.iter().all(|file| file.protocol == FileProtocol::Sftp));
}

#[test]
fn odd_names_are_told_as_they_are_and_invalid_bytes_replaced() {
    let bench = Bench::new();
    let names: [&[u8]; 4] =
        ["with spaces".as_bytes(), "quo'te\"s".as_bytes(), "ünïcödé 文".as_bytes(), b"in\xffvalid"];
    for (seed, name) in names.iter().enumerate() {
        fs::write(bench.client(std::ffi::OsStr::from_bytes(name)), bytes(seed as u64, 100)).expect("a file");
    }
    fs::write(bench.client("new\nline"), bytes(9, 100)).expect("a file");
    let mut arguments: Vec<&std::ffi::OsStr> = vec!["-s".as_ref()];
    arguments.extend(names.iter().map(|name| std::ffi::OsStr::from_bytes(name)));
    arguments.extend(["new\nline".as_ref(), std::ffi::OsStr::new("target:.")]);
    let (recorded, status) = bench.scp(&arguments);
    assert!(status.success());
    let files = check(&recorded);
    for (seed, name) in
        [(0, "with spaces"), (1, "quo'te\"s"), (2, "ünïcödé 文"), (3, "in\u{fffd}valid"), (9, "new\nline")]
    {
        assert_eq!(
            only_ending(&files, Open, &format!("/{name}")).written,
            Some(whole(&bytes(seed, 100))),
            "{name}"
        );
    }
}

#[test]
fn a_client_with_many_and_small_requests_under_way_is_followed() {
    let bench = Bench::new();
    fs::write(bench.target("f"), bytes(7, 300_001)).expect("a file");
    fs::write(bench.client("g"), bytes(8, 300_001)).expect("a file");
    let (recorded, status) = bench.sftp(&["-B", "100", "-R", "1000"], b"get f\nput g\n");
    assert!(status.success());
    let files = check(&recorded);
    assert_eq!(only_ending(&files, Open, "/f").read, Some(whole(&bytes(7, 300_001))));
    assert_eq!(only_ending(&files, Open, "/g").written, Some(whole(&bytes(8, 300_001))));
}

#[test]
fn a_server_that_is_started_as_a_command_is_followed_too() {
    let bench = Bench::new();
    fs::write(bench.target("f"), "content").expect("a file");
    let (recorded, status) = bench.sftp(&["-s", "/usr/lib/openssh/sftp-server"], b"get f\n");
    assert!(status.success());
    assert_eq!(only_ending(&check(&recorded), Open, "/f").read, Some(whole(b"content")));
}

#[track_caller]
fn only_ending<'a>(
    files: &'a [weir_common::recording::findings::FileAccess],
    operation: FileOperation,
    end: &str,
) -> &'a weir_common::recording::findings::FileAccess {
    let ends = |path: &str| path.ends_with(end) || path == end.trim_start_matches('/');
    let path = files.iter().find(|file| file.operation == operation && ends(&file.path));
    let path = path.map_or_else(|| end.to_owned(), |file| file.path.clone());
    only(files, operation, &path)
}
