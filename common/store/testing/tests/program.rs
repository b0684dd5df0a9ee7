//! The server as a program: what it has taken is there after a restart, and is not replaced.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use weir_common::digest::Sha256;
use weir_store::{S3Options, S3Store, Store, StoreError};
use weir_store_testing::{BUCKET, PREFIX, credentials, options_for};

/// A running server, and its address.
fn start(root: &Path) -> (Child, String) {
    let mut server = Command::new(env!("CARGO_BIN_EXE_weir-s3"))
        .arg("--root")
        .arg(root)
        .args(["--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it is built with this test");
    let mut line = String::new();
    BufReader::new(server.stdout.take().expect("piped")).read_line(&mut line).expect("text");
    let endpoint = line.rsplit(' ').next().expect("an address").trim().to_owned();
    (server, endpoint)
}

fn store(endpoint: &str) -> S3Store {
    let patience = Duration::from_secs(10);
    let options = S3Options {
        connect_timeout: patience,
        request_timeout: patience,
        ..options_for(endpoint.to_owned())
    };
    S3Store::with_credentials(options, credentials())
}

#[tokio::test]
async fn what_was_put_before_a_kill_is_there_afterwards_and_is_not_replaced() {
    let root = tempfile::tempdir().expect("a directory");
    let (first, other) = (Bytes::from_static(b"evidence"), Bytes::from_static(b"something else"));
    let (mut server, endpoint) = start(root.path());
    store(&endpoint).put("v1/a", first.clone(), Sha256::of(&first)).await.expect("stored");
    server.kill().expect("killed");
    server.wait().expect("gone");

    let (mut server, endpoint) = start(root.path());
    let again = store(&endpoint);
    again.put("v1/a", first.clone(), Sha256::of(&first)).await.expect("it is there already");
    let refused = again.put("v1/a", other.clone(), Sha256::of(&other)).await.expect_err("it is there");
    assert!(matches!(refused, StoreError::Conflict { .. }), "{refused}");
    assert_eq!(again.get("v1/a", 100).await.expect("it is there"), first);
    let file = root.path().join(BUCKET).join(PREFIX).join("v1/a");
    assert_eq!(std::fs::read(file).expect("objects are files"), first);
    server.kill().expect("killed");
    server.wait().expect("gone");
}
