//! The SDK's default chain, link by link, each in a process of its own: `weir-agent check` stores an object with what
//! it finds. The server knows one key and its secret only.

use std::fs;

use hyper::{Request, body::Incoming};
use serde_json::json;

use crate::{
    check::{self, Checked},
    fake::Fake,
    moto::Moto,
    server::{ACCESS_KEY, SECRET_KEY, Server},
    support::Node,
};

const NONE: [(&str, &str); 3] = [
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

fn works(checked: &Checked) {
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
fn the_containers_endpoint_of_ecs_and_eks_pod_identity() {
    let (node, _server) = place();
    let is_asked_well = |request: &Request<Incoming>| {
        request.headers().get("authorization").is_some_and(|token| token == "let me")
    };
    let fake =
        Fake::start(move |request| if is_asked_well(request) { (200, given()) } else { (403, "{}".into()) });
    let url = fake.url("/role");
    let variables =
        [("AWS_CONTAINER_CREDENTIALS_FULL_URI", &*url), ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "let me")];
    works(&check::run(&node, &[&NONE[..], &variables].concat()));
    assert!(fake.was_asked("GET /role"));
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

#[test]
fn a_web_identity_of_a_service_account() {
    let moto = Moto::start();
    moto.run("bucket", &["recordings"]);
    let mut node = Node::new("");
    node.configure(&moto.settings(""));
    let token = node.path("token");
    let (file, sts) = (token.to_str().expect("text").to_owned(), moto.endpoint());
    let variables = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", &*file),
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/weir-agent"),
        ("AWS_ROLE_SESSION_NAME", "weir"),
        ("AWS_ENDPOINT_URL_STS", &sts),
        ("AWS_REGION", "eu-central-1"),
    ];
    let variables = [&NONE[..], &variables].concat();
    let checked = check::run(&node, &variables);
    assert!(checked.text("usable").contains("no credentials"), "no token yet: {}", checked.stdout);
    fs::write(&token, "eyJhbGciOiJub25lIn0.e30.").expect("writable");
    works(&check::run(&node, &variables));
}
