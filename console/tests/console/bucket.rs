//! Recordings in a bucket are read as those in a directory, with two permissions.

use std::{
    collections::BTreeSet,
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;
use weir_common::{
    frame::Message,
    recording::{MANIFEST, SIGNATURE, SUMS},
};
use weir_console::{
    recording::{Item, Recording},
    store::{Access, SessionDir, Stores},
};
use weir_store_testing::{ENVIRONMENT, Fault, Server, credentials};

use crate::support::{SHELL, Sealed, T2C, allowed_signers, binary, new_key, sample};

/// A server with a store in it that can only be read.
struct Bucket {
    server: Server,
    root: TempDir,
}

impl Bucket {
    fn start() -> Self {
        let root = tempfile::tempdir().expect("temporary directory");
        let server = Server::start(root.path());
        server.only_reads();
        Self { server, root }
    }

    fn holds(&self, sealed: &Sealed) -> String {
        let dir = sealed.write(&self.server.objects());
        let below = dir.strip_prefix(self.server.objects()).expect("in the store");
        format!("s3://recordings/weir/{}", below.display())
    }

    fn access(&self) -> Access {
        Access {
            region: Some("eu-central-1".into()),
            endpoint: Some(self.server.endpoint()),
            path_style: true,
            profile: None,
        }
    }

    fn session(&self, address: &str) -> SessionDir {
        let stores = Stores::with_credentials(self.access(), credentials());
        stores.session(Path::new(address)).expect("an address")
    }

    /// Runs `weir`; its exit code and what it said.
    fn weir(&self, args: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
        command.args(args).args(["--region", "eu-central-1", "--path-style", "--endpoint"]);
        command.arg(self.server.endpoint()).env_remove("WEIR_ALLOWED_SIGNERS").envs(ENVIRONMENT);
        let output = command.env("HOME", self.root.path()).output().expect("it runs");
        let text = [&output.stdout[..], &output.stderr[..]].concat();
        (output.status.code(), String::from_utf8(text).expect("text"))
    }
}

fn file(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, text).expect("writable");
    path
}

#[test]
fn a_session_in_a_bucket_is_verified_shown_and_played_with_two_operations() {
    let bucket = Bucket::start();
    let key = new_key();
    let mut sealed = sample().seal();
    sealed.reseal(&key);
    let address = bucket.holds(&sealed);
    let signers = file(bucket.root.path(), "allowed_signers", &allowed_signers(&key));

    let signers = signers.to_str().expect("text");
    let (code, text) = bucket.weir(&["verify", "--allowed-signers", signers, &address]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains(&format!("INTACT {address}")), "{text}");
    let (code, text) = bucket.weir(&["show", &address]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("alice@example.com") && text.contains("exec cat backup.tar"), "{text}");
    let (code, text) = bucket.weir(&["play", "--text", &address]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("backup.tar  notes.txt"), "{text}");

    assert_eq!(bucket.server.not_allowed(), Vec::<String>::new());
    let methods: BTreeSet<_> =
        bucket.server.asked().into_iter().map(|asked| asked.method.to_string()).collect();
    assert_eq!(methods, BTreeSet::from(["GET".to_owned()]));
}

#[test]
fn what_is_altered_in_a_bucket_is_found() {
    let bucket = Bucket::start();
    let mut sealed = sample().seal();
    sealed.reseal(&new_key());
    sealed.objects.insert("000002.ndjson.zst".into(), b"other".to_vec());
    let address = bucket.holds(&sealed);
    let (code, text) = bucket.weir(&["verify", &address]);
    assert_eq!(code, Some(1), "{text}");
    let (code, text) = bucket.weir(&["show", &address]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("000002.ndjson.zst does not have the digest"), "{text}");
}

#[test]
fn an_object_of_any_length_is_read_in_bounded_pieces_of_one_content() {
    let bucket = Bucket::start();
    let (first, most) = (64 << 10, 4 << 20);
    let mut sealed = sample().seal();
    for bytes in [0, 1, first - 1, first, first + 1, 5 * first, 6 * most + 7] {
        sealed.objects.insert("object".into(), binary(bytes));
        let session = bucket.session(&bucket.holds(&sealed));
        let mut found = Vec::new();
        let mut object = session.object("object").expect("there");
        object.read_to_end(&mut found).expect("readable");
        assert!(found == sealed.objects["object"], "{bytes} bytes");
    }
    let pieces = bucket.server.asked();
    let ranges: Vec<_> = pieces.iter().filter_map(|asked| asked.header("range")).collect();
    assert_eq!(ranges[0], "bytes=0-65535");
    assert!(ranges.contains(&"bytes=1376256-5570559"), "{ranges:?}");

    let session = bucket.session(&bucket.holds(&sealed));
    let mut object = session.object("object").expect("there");
    sealed.objects.insert("object".into(), vec![0; 6 * most]);
    bucket.holds(&sealed);
    let error = object.read_to_end(&mut Vec::new()).expect_err("another object").to_string();
    assert!(error.contains("replaced while it was read"), "{error}");
}

#[test]
fn each_reason_why_nothing_is_read_has_its_words() {
    let bucket = Bucket::start();
    let address = bucket.holds(&sample().seal());
    let (code, text) = bucket.weir(&["show", &address.replace("recordings", "elsewhere")]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("there is no bucket elsewhere"), "{text}");
    let absent = address.replace("weir/v1", "absent/v1");
    for command in ["show", "verify", "play"] {
        let (code, text) = bucket.weir(&[command, &absent]);
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains(&format!("{absent} has no objects")), "{text}");
    }
    bucket.server.fail(Some(Fault::Status(403, "AccessDenied")), None);
    let (code, text) = bucket.weir(&["show", &address]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("does not allow s3:ListBucket on arn:aws:s3:::recordings"), "{text}");
    bucket.server.fail(Some(Fault::Status(403, "AccessDenied")), Some("manifest.json"));
    let (code, text) = bucket.weir(&["show", &address]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("does not allow s3:GetObject on arn:aws:s3:::recordings/weir/*"), "{text}");
    for name in ["", "..", "../x", "/etc/passwd", "sub/object"] {
        assert!(bucket.session(&address).object(name).is_err(), "{name:?}");
    }
}

fn outputs<'a>(events: impl Iterator<Item = Item> + 'a) -> impl Iterator<Item = u64> + 'a {
    events.map(|item| match item {
        Item::Event(event, _) => event.t,
        Item::Warning(warning) => panic!("{warning}"),
    })
}

#[test]
fn a_running_session_is_followed_from_segment_to_segment_to_its_end() {
    let bucket = Bucket::start();
    let root = tempfile::tempdir().expect("temporary directory");
    let mut draft = sample();
    draft.segment(false);
    draft.frame(500, SHELL, T2C, Message::Stdout("more\r\n".into()));
    let whole = draft.seal();
    let mut sealed = whole.clone();
    let late = ["000003.ndjson.zst", "000003.bin.zst", "000004.ndjson.zst"];
    for name in [MANIFEST, SUMS, SIGNATURE].iter().chain(&late) {
        sealed.objects.remove(*name);
    }
    let address = bucket.holds(&sealed);
    let dir = sealed.write(root.path());
    let mut recordings = [bucket.session(&address), SessionDir::open(&dir).expect("a directory")]
        .map(|session| Recording::open(session).expect("readable"));
    let starts: Vec<_> =
        draft.segments.iter().map(|segment| segment.events.first().map(|event| event.t)).collect();
    for recording in &mut recordings {
        assert_eq!((recording.segment_count(), recording.is_finished()), (2, false));
        let refreshed = recording.refresh().expect("readable");
        assert_eq!((refreshed.segments, refreshed.is_finished), (2..2, false));
    }
    for name in &late[..2] {
        sealed.objects.insert((*name).into(), whole.objects[*name].clone());
    }
    bucket.holds(&sealed);
    sealed.write(root.path());
    for recording in &mut recordings {
        assert_eq!(recording.refresh().expect("readable").segments, 2..3);
        let seen: Vec<_> = outputs(recording.events_from(2)).collect();
        let expected: Vec<_> = draft.segments[2].events.iter().map(|event| event.t).collect();
        assert_eq!(seen, expected);
    }
    bucket.holds(&whole);
    whole.write(root.path());
    for recording in &mut recordings {
        let refreshed = recording.refresh().expect("readable");
        assert_eq!((refreshed.segments, refreshed.is_finished), (3..4, true));
        assert_eq!(recording.manifest.as_ref(), Some(&whole.manifest));
        assert_eq!(outputs(recording.events_from(3)).count(), 1);
        assert_eq!(outputs(recording.events_from(4)).count(), 0);
        let all: usize = draft.segments.iter().map(|segment| segment.events.len()).sum();
        assert_eq!(outputs(recording.events()).count(), all);
        assert_eq!((0..5).map(|k| recording.segment_start(k)).collect::<Vec<_>>()[..4], starts);
        assert!(recording.segment_start(4).is_none() && recording.warnings.is_empty());
        assert!(recording.refresh().expect("readable").segments.is_empty());
    }
}

#[test]
fn digests_are_compared_on_the_way_where_that_is_asked_for() {
    let root = tempfile::tempdir().expect("temporary directory");
    let mut sealed = sample().seal();
    let other = sample().seal();
    sealed.objects.insert("commands.ndjson".into(), b"{}\n".to_vec());
    sealed.write_sums();
    sealed.objects.insert("000001.ndjson.zst".into(), other.objects["000001.ndjson.zst"].clone());
    let dir = sealed.write(root.path());
    let recording =
        Recording::open_unchecked(SessionDir::open(&dir).expect("a directory")).expect("readable");
    assert!(recording.warnings.is_empty(), "{:?}", recording.warnings);
    let warnings: Vec<_> = recording
        .events()
        .filter_map(|item| match item {
            Item::Warning(warning) => Some(warning),
            Item::Event(..) => None,
        })
        .collect();
    assert!(
        warnings.iter().any(|warning| warning.contains("000001.ndjson.zst does not have the digest")),
        "{warnings:?}"
    );
    let listed = |name| recording.listed_object(name).expect("readable");
    let mut text = String::new();
    listed("commands.ndjson").expect("listed").read_to_string(&mut text).expect("readable");
    assert_eq!(text, "{}\n");
    assert!(listed("000001.ndjson.zst").is_none() && listed("files.ndjson").is_none());
}
