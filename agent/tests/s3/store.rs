//! What a put and a get are, on the wire and to the caller.

use std::{fs, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use hyper::Method;
use tempfile::TempDir;
use weir_agent::{
    config::{Encryption, LockMode, ObjectLock, S3Options},
    store::{Put, S3Store, Store, StoreError},
};
use weir_common::digest::Sha256;

use crate::{
    fake::Fake,
    server::{BUCKET, Fault, PREFIX, Server, credentials},
};

const PATH: &str = "v1/dt=2026-11-23/0199/000001.ndjson.zst";
const BODY: &[u8] = b"evidence";

fn server() -> (TempDir, Server) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(dir.path());
    (dir, server)
}

fn store(server: &Server) -> S3Store {
    S3Store::with_credentials(server.options(), credentials())
}

async fn put(store: &S3Store, body: &'static [u8]) -> Result<Put, StoreError> {
    store.put(PATH, Bytes::from_static(body), Sha256::of(body)).await
}

/// Runs outside of the server's runtime.
pub(crate) fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

#[test]
fn an_object_is_stored_under_the_prefix_and_read_back() {
    let (_dir, server) = server();
    let store = store(&server);
    run(async {
        assert_eq!(put(&store, BODY).await.expect("stored"), Put::Stored);
        assert_eq!(fs::read(server.objects().join(PATH)).expect("is there"), BODY);
        assert_eq!(store.get(PATH, 8).await.expect("is there"), BODY);
        let error = store.get(PATH, 7).await.expect_err("too large");
        assert!(matches!(error, StoreError::TooLarge { max_bytes: 7, .. }), "{error}");
        let error = store.get("v1/none", 7).await.expect_err("not there");
        assert!(matches!(error, StoreError::Missing { .. }), "{error}");
    });
    assert_eq!(server.not_allowed(), [""; 0]);
}

#[test]
fn the_same_bytes_again_are_done_and_other_bytes_are_a_conflict_that_touches_nothing() {
    let (_dir, server) = server();
    let store = store(&server);
    run(async {
        put(&store, BODY).await.expect("stored");
        assert_eq!(put(&store, BODY).await.expect("the same"), Put::AlreadyThere);
        let error = put(&store, b"forgery!").await.expect_err("another");
        let StoreError::Conflict { expected, found, .. } = &error else { panic!("{error}") };
        assert_eq!((*expected, *found), (Sha256::of(b"forgery!"), Sha256::of(BODY)));
        assert!(!error.is_store_wide());
        assert_eq!(fs::read(server.objects().join(PATH)).expect("is there"), BODY);
    });
}

#[test]
fn an_object_without_a_checksum_of_the_stores_is_compared_by_its_bytes() {
    let (_dir, server) = server();
    let store = store(&server);
    let object = server.objects().join(PATH);
    fs::create_dir_all(object.parent().expect("a directory")).expect("writable");
    fs::write(&object, BODY).expect("writable");
    run(async {
        assert_eq!(put(&store, BODY).await.expect("the same"), Put::AlreadyThere);
        assert!(matches!(put(&store, b"other").await, Err(StoreError::Conflict { .. })));
    });
}

#[test]
fn what_is_acknowledged_without_a_checksum_is_read_back_before_it_counts_as_stored() {
    let methods =
        |server: &Server| server.asked().iter().map(|asked| asked.method.clone()).collect::<Vec<_>>();
    let (_dir, server) = server();
    let store = store(&server);
    run(async {
        assert_eq!(put(&store, BODY).await.expect("stored"), Put::Stored);
        assert_eq!(methods(&server), [Method::PUT], "the checksum is in the answer");
        fs::remove_file(server.objects().join(PATH)).expect("is there");
        server.fail(Some(Fault::NoChecksum), None);
        assert_eq!(put(&store, BODY).await.expect("stored"), Put::Stored);
        assert_eq!(methods(&server), [Method::PUT, Method::PUT, Method::GET]);
        assert_eq!(put(&store, BODY).await.expect("the same"), Put::AlreadyThere);
        fs::remove_file(server.objects().join(PATH)).expect("is there");
        server.fail(Some(Fault::Forgetting), None);
        let error = put(&store, BODY).await.expect_err("it was not kept");
        assert!(matches!(error, StoreError::Missing { .. }), "{error}");
        server.fail(None, None);
        assert_eq!(put(&store, BODY).await.expect("it is well again"), Put::Stored);
    });
    assert_eq!(server.not_allowed(), [""; 0]);
}

#[test]
fn a_store_that_keeps_other_bytes_than_it_was_sent_is_found_out() {
    let fake = Fake::start(|request| match *request.method() {
        Method::GET => (200, "ev1dence".to_owned()),
        _ => (200, String::new()),
    });
    let (_dir, server) = server();
    let options = S3Options { endpoint: Some(fake.url("")), ..server.options() };
    let error = run(put(&S3Store::with_credentials(options, credentials()), BODY)).expect_err("altered");
    assert!(matches!(error, StoreError::Altered { .. }) && !error.is_store_wide(), "{error}");
}

#[test]
fn a_put_says_what_it_is_and_is_hashed_once() {
    let (_dir, server) = server();
    let options = S3Options {
        encryption: Encryption::Kms(Some("alias/weir".into())),
        lock: Some(ObjectLock { mode: LockMode::Governance, days: 30 }),
        tags: [("team".to_owned(), "sec ops".to_owned())].into(),
        storage_class: Some("STANDARD".into()),
        ..server.options()
    };
    let store = S3Store::with_credentials(options, credentials());
    run(put(&store, BODY)).expect("stored");
    let asked = server.asked();
    let put = asked.iter().find(|asked| asked.method == Method::PUT).expect("it was put");
    assert_eq!(put.uri.path(), format!("/{BUCKET}/{PREFIX}/{PATH}").replace('=', "%3D"));
    let digest = Sha256::of(BODY);
    for (name, value) in [
        ("x-amz-checksum-sha256", BASE64_STANDARD.encode(digest.as_bytes())),
        ("x-amz-sdk-checksum-algorithm", "SHA256".into()),
        ("x-amz-content-sha256", digest.to_string()),
        ("if-none-match", "*".into()),
        ("content-length", BODY.len().to_string()),
        ("x-amz-server-side-encryption", "aws:kms".into()),
        ("x-amz-server-side-encryption-aws-kms-key-id", "alias/weir".into()),
        ("x-amz-object-lock-mode", "GOVERNANCE".into()),
        ("x-amz-tagging", "team=sec%20ops".into()),
        ("x-amz-storage-class", "STANDARD".into()),
    ] {
        assert_eq!(put.header(name), Some(&*value), "{name}");
    }
    assert_eq!(put.body, BODY, "as it is, in no chunks");
    let until: jiff::Timestamp =
        put.header("x-amz-object-lock-retain-until-date").expect("locked").parse().expect("a time");
    let days = (until.as_second() - jiff::Timestamp::now().as_second()) / 86_400;
    assert_eq!(days, 30);
    let signed = put.header("authorization").expect("signed");
    for name in ["if-none-match", "x-amz-checksum-sha256", "x-amz-object-lock-mode", "x-amz-tagging"] {
        assert!(signed.contains(name), "the signature covers {name}: {signed}");
    }
    assert!(put.headers.keys().filter(|name| name.as_str().starts_with("x-amz-checksum-")).count() == 1);
}

#[test]
fn a_plain_put_asks_for_nothing_special() {
    let (_dir, server) = server();
    run(put(&store(&server), BODY)).expect("stored");
    let asked = server.asked();
    for name in asked[0].headers.keys() {
        let name = name.as_str();
        assert!(
            !["encryption", "lock", "tagging", "storage-class"].iter().any(|part| name.contains(part)),
            "{name}"
        );
    }
}

#[test]
fn other_bytes_than_were_signed_for_are_not_stored() {
    let (_dir, server) = server();
    let store = store(&server);
    let error = run(store.put(PATH, Bytes::from_static(b"altered"), Sha256::of(BODY))).expect_err("refused");
    assert!(!matches!(error, StoreError::Conflict { .. }), "{error}");
}

#[test]
fn what_fails_is_told_apart() {
    for (fault, is_meant) in [
        (
            Fault::Status(503, "SlowDown"),
            (|e| matches!(e, StoreError::Unavailable { .. })) as fn(&StoreError) -> bool,
        ),
        (Fault::Status(500, "InternalError"), |e| matches!(e, StoreError::Unavailable { .. })),
        (Fault::Status(409, "ConditionalRequestConflict"), |e| matches!(e, StoreError::Unavailable { .. })),
        (Fault::Status(403, "AccessDenied"), |e| {
            matches!(e, StoreError::Denied { action: "s3:PutObject", .. })
        }),
        (Fault::Status(403, "RequestTimeTooSkewed"), |e| e.to_string().contains("clock")),
        (Fault::Status(404, "NoSuchBucket"), |e| e.to_string().contains("there is no bucket recordings")),
        (Fault::Status(301, "PermanentRedirect"), |e| e.to_string().contains("region")),
        (Fault::Status(400, "InvalidArgument"), |e| matches!(e, StoreError::Refused { .. })),
        (Fault::BrokenError, |e| matches!(e, StoreError::Unavailable { .. })),
        (Fault::CutRequest, |e| matches!(e, StoreError::Unavailable { .. })),
        (Fault::Hanging, |e| matches!(e, StoreError::Unavailable { .. })),
    ] {
        let (_dir, server) = server();
        server.fail(Some(fault), None);
        let error = run(put(&store(&server), BODY)).expect_err("it fails");
        assert!(is_meant(&error), "{fault:?}: {error:?}");
        let (shown, debug) = (error.to_string(), format!("{error:?}"));
        for secret in [crate::server::SECRET_KEY, crate::server::ACCESS_KEY, "Signature="] {
            assert!(!shown.contains(secret) && !debug.contains(secret), "{fault:?}: {debug}");
        }
        server.fail(None, None);
        assert_eq!(run(put(&store(&server), BODY)).expect("it is well again"), Put::Stored);
    }
}

#[test]
fn an_answer_that_is_lost_after_the_object_was_stored_is_recognised_as_done() {
    let (_dir, server) = server();
    server.fail(Some(Fault::LostAnswer), None);
    assert_eq!(run(put(&store(&server), BODY)).expect("done"), Put::AlreadyThere);
    assert_eq!(fs::read(server.objects().join(PATH)).expect("is there"), BODY);
}

#[test]
fn a_server_that_hangs_holds_a_put_for_its_time_and_no_longer() {
    let (_dir, server) = server();
    server.fail(Some(Fault::Hanging), None);
    let options = S3Options { request_timeout: Duration::from_millis(300), ..server.options() };
    let hasty = S3Store::with_credentials(options, credentials());
    let begun = std::time::Instant::now();
    let error = run(put(&hasty, BODY)).expect_err("nobody answers");
    assert!(begun.elapsed() < Duration::from_secs(10), "{error}");
    server.fail(Some(Fault::Slow(Duration::from_millis(50))), None);
    assert_eq!(run(put(&store(&server), BODY)).expect("slow, but in time"), Put::Stored);
}

#[test]
fn what_is_asked_is_three_operations_and_nothing_else() {
    let (_dir, server) = server();
    let store = store(&server);
    run(async {
        put(&store, BODY).await.expect("stored");
        put(&store, BODY).await.expect("the same");
        store.get(PATH, 100).await.expect("is there");
        store.look(PATH).await.expect("is there");
        store.list().await.expect("permitted");
        store.read_as_stranger(PATH).await.expect("asked");
        store.list_as_stranger().await.expect("asked");
    });
    assert_eq!(server.not_allowed(), [""; 0]);
    assert!(server.asked().len() >= 8);
}
