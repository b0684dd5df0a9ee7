//! `scp -O`: the protocol of rcp.

use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt};

use weir_common::recording::findings::{
    FileOperation::{List, Mkdir, Open},
    FileProtocol, FileResult,
};

use crate::{
    recorded::{C2T, T2C},
    relay::{Bench, bytes, check, only, sha256sum, whole},
};

const LARGE: usize = 3_000_001;

#[test]
fn files_that_go_either_way_have_the_digests_that_sha256sum_prints() {
    let bench = Bench::new();
    fs::write(bench.client("up"), bytes(1, LARGE)).expect("a file");
    let (recorded, status) = bench.scp(&["-O", "-p", "up", "target:new"]);
    assert!(status.success());
    let files = check(&recorded);
    let file = only(&files, Open, "new");
    assert_eq!(
        file.other_path.as_deref(),
        Some("up"),
        "the protocol does not tell whether `new` was a folder"
    );
    assert_eq!((file.written, file.read, file.mode), (Some(whole(&bytes(1, LARGE))), None, Some(0o644)));
    assert_eq!((file.protocol, &file.result), (FileProtocol::Scp, &FileResult::Ok));
    assert_eq!(file.written.expect("just seen").sha256, sha256sum(&bench.target("new")));
    assert_eq!(recorded.content(C2T), bytes(1, LARGE));

    let (recorded, status) = bench.scp(&["-O", "target:new", "down"]);
    assert!(status.success());
    let files = check(&recorded);
    let file = only(&files, Open, "new");
    assert_eq!(
        (file.read, file.written, &file.result),
        (Some(whole(&bytes(1, LARGE))), None, &FileResult::Ok)
    );
    assert_eq!(recorded.content(T2C), bytes(1, LARGE));
}

#[test]
fn folders_go_with_all_that_is_in_them() {
    let bench = Bench::new();
    fs::create_dir_all(bench.client("tree/deep/er")).expect("folders");
    fs::write(bench.client("tree/empty"), "").expect("a file");
    for (seed, name) in [(4, "tree/one"), (5, "tree/deep/two"), (6, "tree/deep/er/three")] {
        fs::write(bench.client(name), bytes(seed, 40_000)).expect("a file");
    }
    let (recorded, status) = bench.scp(&["-O", "-r", "-p", "tree", "target:./"]);
    assert!(status.success());
    let files = check(&recorded);
    for (seed, path) in [(4, "./tree/one"), (5, "./tree/deep/two"), (6, "./tree/deep/er/three")] {
        assert_eq!(only(&files, Open, path).written, Some(whole(&bytes(seed, 40_000))), "{path}");
    }
    assert_eq!(only(&files, Open, "./tree/empty").written, Some(whole(b"")));
    assert_eq!(only(&files, Mkdir, "./tree/deep/er").result, FileResult::Ok);

    let (recorded, status) = bench.scp(&["-O", "-r", "target:tree", "back"]);
    assert!(status.success());
    let files = check(&recorded);
    for (seed, path) in [(4, "tree/one"), (5, "tree/deep/two"), (6, "tree/deep/er/three")] {
        assert_eq!(only(&files, Open, path).read, Some(whole(&bytes(seed, 40_000))), "{path}");
    }
    assert_eq!(only(&files, Open, "tree/empty").read, Some(whole(b"")));
    assert_eq!(only(&files, List, "tree/deep").result, FileResult::Ok);
}

#[test]
fn what_is_refused_is_told_in_the_words_of_who_refused() {
    let bench = Bench::new();
    let (recorded, status) = bench.scp(&["-O", "target:missing", "."]);
    assert!(!status.success());
    let files = check(&recorded);
    let words = FileResult::Failed("scp: missing: No such file or directory".into());
    assert_eq!(only(&files, Open, "missing").result, words);

    // A folder is in the way of the first; the second goes all the same.
    fs::create_dir_all(bench.target("d/a")).expect("a folder");
    for name in ["a", "b"] {
        fs::write(bench.client(name), "content").expect("a file");
    }
    let (recorded, status) = bench.scp(&["-O", "a", "b", "target:d"]);
    assert!(!status.success());
    let files = check(&recorded);
    let refused = only(&files, Open, "d/a");
    assert!(matches!(&refused.result, FileResult::Failed(words) if words.contains("irectory")), "not a file");
    assert_eq!(refused.written, None);
    let file = only(&files, Open, "d/b");
    assert_eq!((&file.result, file.written), (&FileResult::Ok, Some(whole(b"content"))));
}

#[test]
fn odd_names_are_told_as_they_are_and_invalid_bytes_replaced() {
    let bench = Bench::new();
    let names: [&[u8]; 4] =
        ["with spaces".as_bytes(), "quo'te\"s".as_bytes(), "ünïcödé 文".as_bytes(), b"in\xffvalid"];
    for (seed, name) in names.iter().enumerate() {
        fs::write(bench.client(OsStr::from_bytes(name)), bytes(seed as u64, 100)).expect("a file");
    }
    fs::create_dir(bench.target("to here")).expect("a folder");
    let mut arguments: Vec<&OsStr> = vec!["-O".as_ref()];
    arguments.extend(names.iter().map(|name| OsStr::from_bytes(name)));
    arguments.push("target:'to here'".as_ref());
    let (recorded, status) = bench.scp(&arguments);
    assert!(status.success());
    let files = check(&recorded);
    for (seed, name) in ["with spaces", "quo'te\"s", "ünïcödé 文", "in\u{fffd}valid"].iter().enumerate()
    {
        let file = only(&files, Open, &format!("to here/{name}"));
        assert_eq!(file.written, Some(whole(&bytes(seed as u64, 100))), "{name}");
    }
}
