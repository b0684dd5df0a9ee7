//! The SDK's default chain, link by link, each in a process of its own: `weir-agent check` stores an object with what
//! it finds. The server knows one key and its secret only. Web identities are in `web_identity`.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    process::Command,
    thread,
};

use bytes::Bytes;
use hyper::{Request, header::HeaderValue};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;

use crate::{
    check::{self, Checked},
    fake::Fake,
    server::{ACCESS_KEY, SECRET_KEY, Server},
    support::Node,
};

pub(crate) const NONE: [(&str, &str); 3] = [
    ("AWS_CONFIG_FILE", "/nonexistent"),
    ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent"),
    ("AWS_EC2_METADATA_DISABLED", "true"),
];

fn place() -> (Node, Server) {
    let mut node = Node::new("");
    let server = Server::start(&node.path("s3"));
    node.configure(&check::patient(&server));
    (node, server)
}

pub(crate) fn works(checked: &Checked) {
    assert_eq!(checked.level("writable"), "ok", "{}{}", checked.stdout, checked.stderr);
    for secret in [SECRET_KEY, "a-session-token", "Signature="] {
        assert!(!checked.stdout.contains(secret) && !checked.stderr.contains(secret), "{secret}");
    }
}

/// What services that give out credentials say.
fn given() -> String {
    json!({
        "Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2026-01-01T00:00:00Z", "Expiration": "2099-01-01T00:00:00Z",
        "AccessKeyId": ACCESS_KEY, "SecretAccessKey": SECRET_KEY, "Token": "a-session-token",
    })
    .to_string()
}

/// The same for who asks for this with this token; an empty one stands for none.
fn gives(request: &Request<Bytes>, path: &str, token: &str) -> (u16, String) {
    let shown = request.headers().get("authorization").map_or(&b""[..], HeaderValue::as_bytes);
    let is_right = request.uri().path() == path && shown == token.as_bytes();
    if is_right { (200, given()) } else { (403, "{}".into()) }
}

/// Runs this in a network of its own, where this address, on which AWS keeps a service, is ours.
fn with_address(address: &str, work: impl FnOnce(SocketAddr) + Send) {
    let ip = |arguments: &[&str]| {
        let status = Command::new("ip").args(arguments).status().expect("iproute2 is installed");
        assert!(status.success(), "ip {}", arguments.join(" "));
    };
    thread::scope(|scope| {
        // Of a thread, and of what it starts.
        let inside = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("root may");
            ip(&["link", "set", "lo", "up"]);
            ip(&["address", "add", &format!("{address}/32"), "dev", "lo"]);
            work((address.parse::<IpAddr>().expect("an address"), 80).into());
        });
        inside.join().expect("what is done there succeeds");
    });
}

#[test]
fn without_any_the_reader_is_told_where_they_come_from() {
    let (node, server) = place();
    let checked = check::run(&node, &NONE);
    assert_eq!((checked.code, checked.level("usable")), (1, "problem"), "{}", checked.stdout);
    assert!(checked.text("usable").contains("no credentials"), "{}", checked.stdout);
    assert!(server.asked().is_empty(), "nothing was sent");
}

#[test]
fn keys_in_the_environment() {
    let (node, _server) = place();
    let keys = [("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY)];
    works(&check::run(&node, &[&NONE[..], &keys].concat()));
    let wrong = [("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", "another")];
    let checked = check::run(&node, &[&NONE[..], &wrong].concat());
    assert!(checked.text("usable").contains("does not know these credentials"), "{}", checked.stdout);
}

#[test]
fn a_profile_in_the_shared_files() {
    let (mut node, _server) = place();
    node.configure("profile = \"recorder\"\n");
    let file = node.path("credentials");
    let text =
        format!("[recorder]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n");
    fs::write(&file, text).expect("writable");
    let file = file.to_str().expect("text");
    works(&check::run(&node, &[("AWS_SHARED_CREDENTIALS_FILE", file), NONE[0], NONE[2]]));
}

#[test]
fn a_containers_endpoint_named_in_full() {
    let (node, _server) = place();
    let fake = Fake::start(|request| gives(request, "/role", "let me"));
    let url = fake.url("/role");
    let variables =
        [("AWS_CONTAINER_CREDENTIALS_FULL_URI", &*url), ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "let me")];
    works(&check::run(&node, &[&NONE[..], &variables].concat()));
    assert!(fake.was_asked("GET /role"));
}

#[test]
fn the_endpoint_of_an_ecs_task() {
    // The SDK knows its address, and none that it could be told instead.
    with_address("169.254.170.2", |address| {
        let (node, _server) = place();
        let fake = Fake::start_at(address, |request| gives(request, "/v2/credentials/task", ""));
        let uri = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/task");
        works(&check::run(&node, &[&NONE[..], &[uri]].concat()));
        assert!(fake.was_asked("GET /v2/credentials/task"));
    });
}

#[test]
fn eks_pod_identity_with_a_token_in_a_file() {
    with_address("169.254.170.23", |address| {
        let (node, _server) = place();
        let fake = Fake::start_at(address, |request| gives(request, "/v1/credentials", "a service account"));
        let (url, token) = (fake.url("/v1/credentials"), node.path("token"));
        let file = token.to_str().expect("text");
        let variables =
            [("AWS_CONTAINER_CREDENTIALS_FULL_URI", &*url), ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file)];
        let variables = [&NONE[..], &variables].concat();
        fs::write(&token, "another service account").expect("writable");
        let checked = check::run(&node, &variables);
        assert_eq!((checked.code, checked.level("usable")), (1, "problem"), "{}", checked.stdout);
        fs::write(&token, "a service account").expect("writable");
        works(&check::run(&node, &variables));
    });
}

#[test]
fn the_instances_metadata_service() {
    let (node, _server) = place();
    let fake = Fake::start(|request| match (request.method().as_str(), request.uri().path()) {
        ("PUT", "/latest/api/token") => (200, "a-metadata-token".into()),
        _ if request.headers().get("x-aws-ec2-metadata-token").is_none() => (401, String::new()),
        (_, "/latest/meta-data/iam/security-credentials/") => (200, "recorder".into()),
        (_, "/latest/meta-data/iam/security-credentials/recorder") => (200, given()),
        _ => (404, String::new()),
    });
    let url = fake.url("");
    works(&check::run(&node, &[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &url), NONE[0], NONE[1]]));
    assert!(fake.was_asked("security-credentials/recorder"));
}
