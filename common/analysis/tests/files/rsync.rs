//! `rsync`.

use std::fs;

use weir_common::{
    digest::Sha256,
    recording::findings::{FileAccess, FileOperation::Transfer, FileProtocol, FileResult},
};

use crate::{
    recorded::{C2T, Recorded, T2C},
    relay::{Bench, bytes, check},
};

/// Behind the four bytes of the greeting.
fn stream(recorded: &Recorded, direction: weir_common::frame::Direction) -> Vec<u8> {
    let data = recorded.data.iter().filter(|(way, _)| *way == direction);
    data.flat_map(|(_, bytes)| bytes.clone()).skip(4).collect()
}

fn only(files: &[FileAccess]) -> &FileAccess {
    let [file] = files else { panic!("one entry, not {}", files.len()) };
    assert_eq!((file.protocol, file.operation), (FileProtocol::Rsync, Transfer));
    assert_eq!(file.result, FileResult::Unknown, "the protocol does not tell");
    file
}

#[test]
fn a_run_is_one_entry_with_its_paths_and_its_streams() {
    let bench = Bench::new();
    fs::create_dir(bench.client("tree")).expect("a folder");
    for (seed, name) in [(1, "tree/one"), (2, "tree/two")] {
        fs::write(bench.client(name), bytes(seed, 700_001)).expect("a file");
    }
    let (recorded, status) = bench.rsync(&["-a", "tree", "target:copied to"]);
    assert!(status.success());
    let files = check(&recorded);
    let file = only(&files);
    assert_eq!(file.path, "copied to");
    for (transferred, direction) in [(file.written, C2T), (file.read, T2C)] {
        let transferred = transferred.expect("it went");
        let stream = stream(&recorded, direction);
        assert_eq!((transferred.bytes, transferred.sha256), (stream.len() as u64, Sha256::of(&stream)));
        assert!(!transferred.in_order, "it is no file's digest");
        assert_eq!(recorded.content(direction), stream);
    }
    assert_eq!(fs::read(bench.target("copied to/tree/two")).expect("it went"), bytes(2, 700_001));
}

#[test]
fn a_command_line_that_goes_as_data_is_read_too() {
    let bench = Bench::new();
    fs::write(bench.target("a file"), bytes(3, 50_000)).expect("a file");
    let (recorded, status) = bench.rsync(&["-s", "target:a file", "here"]);
    assert!(status.success());
    assert_eq!(fs::read(bench.client("here")).expect("it went"), bytes(3, 50_000));
    assert_eq!(only(&check(&recorded)).path, "a file");
}
