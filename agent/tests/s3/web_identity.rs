//! Credentials for a service account's token (IRSA), from an STS that checks role and token and gives credentials that
//! end: with any others the server of the bucket takes nothing.

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use hyper::Request;
use jiff::Timestamp;
use reqwest::Url;
use weir_common::session::{ChannelNo, Outcome};

use crate::{
    check,
    credentials::{NONE, works},
    fake::Fake,
    faults::{C2T, Session, T2C},
    server::{ACCESS_KEY, SECRET_KEY, Server},
    support::{Node, stored::verify, wait_until},
};

const ROLE: &str = "arn:aws:iam::123456789012:role/weir-agent";
/// What a service account has, and what its token is replaced by after a while.
const TOKENS: [&str; 2] = ["eyJhbGciOiJub25lIn0.e30.1", "eyJhbGciOiJub25lIn0.e30.2"];

/// An STS for one role.
struct Sts {
    fake: Fake,
    /// The tokens that were shown and taken.
    taken: Arc<Mutex<Vec<String>>>,
}

impl Sts {
    /// One whose credentials last so long.
    fn start(lifetime_seconds: i64) -> Self {
        let taken = Arc::<Mutex<Vec<String>>>::default();
        let noted = Arc::clone(&taken);
        let fake = Fake::start(move |request| match role_is_assumed(request) {
            Ok(token) => {
                noted.lock().expect("no panic in between").push(token);
                (200, given(lifetime_seconds))
            }
            Err(code) => (400, refused(code)),
        });
        Self { fake, taken }
    }

    fn has_taken(&self, token: &str) -> bool {
        self.taken.lock().expect("no panic in between").iter().any(|taken| taken == token)
    }
}

/// The token, if everything is right. <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html>
fn role_is_assumed(request: &Request<Bytes>) -> Result<String, &'static str> {
    let form = String::from_utf8_lossy(request.body());
    let form = Url::parse(&format!("form:?{form}")).map_err(|_| "MalformedInput")?;
    let field =
        |name: &str| form.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    if field("Action").as_deref() != Some("AssumeRoleWithWebIdentity") {
        return Err("InvalidAction");
    }
    if field("RoleArn").as_deref() != Some(ROLE) || field("RoleSessionName").as_deref() != Some("weir") {
        return Err("AccessDenied");
    }
    field("WebIdentityToken").filter(|token| TOKENS.contains(&&**token)).ok_or("InvalidIdentityToken")
}

fn given(lifetime_seconds: i64) -> String {
    let until = Timestamp::now().as_second() + lifetime_seconds;
    let expiration = Timestamp::from_second(until).expect("a time");
    format!(
        "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
         <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{ACCESS_KEY}</AccessKeyId>\
         <SecretAccessKey>{SECRET_KEY}</SecretAccessKey><SessionToken>a-session-token-until-{until}</SessionToken>\
         <Expiration>{expiration}</Expiration></Credentials>\
         <AssumedRoleUser><Arn>{ROLE}/weir</Arn><AssumedRoleId>AROATEST:weir</AssumedRoleId></AssumedRoleUser>\
         </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
    )
}

fn refused(code: &str) -> String {
    format!(
        "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
         <Code>{code}</Code><Message>as the test wants it</Message></Error></ErrorResponse>"
    )
}

/// Whether credentials with this session token have not ended.
fn is_good(token: &str) -> bool {
    let until = token.strip_prefix("a-session-token-until-").and_then(|until| until.parse().ok());
    until.is_some_and(|until: i64| Timestamp::now().as_second() < until)
}

/// A node with a bucket, and a file for its service account's token.
struct Place {
    node: Node,
    server: Server,
    sts: Sts,
    token: PathBuf,
}

impl Place {
    fn new(settings: &str, lifetime_seconds: i64) -> Self {
        let mut node = Node::new(settings);
        let server = Server::start(&node.path("s3"));
        server.admit_tokens(is_good);
        node.configure(&server.settings());
        let token = node.path("token");
        Self { node, server, sts: Sts::start(lifetime_seconds), token }
    }

    /// What EKS puts into the environment, and where the STS is.
    fn environment(&self, role: &str) -> Vec<(&'static str, String)> {
        let file = self.token.to_str().expect("text").to_owned();
        let ours = [
            ("AWS_WEB_IDENTITY_TOKEN_FILE", file),
            ("AWS_ROLE_ARN", role.to_owned()),
            ("AWS_ROLE_SESSION_NAME", "weir".to_owned()),
            ("AWS_ENDPOINT_URL_STS", self.sts.fake.url("")),
            ("AWS_REGION", "eu-central-1".to_owned()),
        ];
        NONE.into_iter().map(|(name, value)| (name, value.to_owned())).chain(ours).collect()
    }

    fn check(&self, role: &str) -> check::Checked {
        let variables = self.environment(role);
        let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, &**value)).collect();
        check::run(&self.node, &variables)
    }

    /// The session tokens of everything that was put, in order.
    fn shown(&self) -> Vec<String> {
        let puts = self.server.asked().into_iter().filter(|asked| asked.method == "PUT");
        puts.filter_map(|put| put.header("x-amz-security-token").map(str::to_owned)).collect()
    }
}

#[test]
fn a_web_identity_of_a_service_account_is_exchanged_for_its_role() {
    let place = Place::new("", 3_600);
    let checked = place.check(ROLE);
    assert!(checked.text("usable").contains("no credentials"), "no token yet: {}", checked.stdout);
    for (token, role) in
        [("another service account", ROLE), (TOKENS[0], "arn:aws:iam::123456789012:role/another")]
    {
        fs::write(&place.token, token).expect("writable");
        let checked = place.check(role);
        assert_eq!((checked.code, checked.level("usable")), (1, "problem"), "{token}: {}", checked.stdout);
        for secret in TOKENS {
            assert!(!checked.stdout.contains(secret) && !checked.stderr.contains(secret));
        }
    }
    assert!(place.server.asked().is_empty(), "nothing was sent");
    works(&place.check(ROLE));
    assert!(!place.shown().is_empty(), "with the session token");
    assert_eq!(place.server.not_allowed(), [""; 0]);
}

#[test]
fn credentials_are_renewed_while_the_agent_runs_and_no_put_fails() {
    // The SDK asks for others five to ten seconds before the end: some of these are renewed at the next request.
    let mut place = Place::new("segment_max_bytes = 60000\nsegment_max_age_ms = 50\n", 8);
    std::os::unix::fs::symlink(place.server.objects(), place.node.path("store")).expect("not there yet");
    for (name, value) in place.environment(ROLE) {
        place.node.environment(&[(name, &value)]);
    }
    fs::write(&place.token, TOKENS[0]).expect("writable");
    let agent = place.node.start();
    let mut session = Session::begin(&place.node);
    wait_until("something is stored", || !place.shown().is_empty());
    let first = place.shown().remove(0);
    // As kubelet does before the first ends.
    fs::write(place.node.path("next"), TOKENS[1]).expect("writable");
    fs::rename(place.node.path("next"), &place.token).expect("on the same disk");
    wait_until("the first credentials have ended, and puts go on with others", || {
        session.talk(1);
        !is_good(&first) && place.shown().last().is_some_and(|token| is_good(token))
    });
    session.close();
    let recording = verify(&place.node, session.meta.session_id);
    assert_eq!(recording.manifest.outcome, Outcome::Completed);
    for direction in [C2T, T2C] {
        assert_eq!(recording.frames[&(ChannelNo(0), direction)], session.tap.sent(direction), "{direction}");
    }
    assert_eq!(place.server.not_allowed(), [""; 0], "nobody came with credentials that had ended");
    assert!(TOKENS.iter().all(|token| place.sts.has_taken(token)), "the file is read again");
    let log = agent.log();
    for trouble in ["the store does not answer", "no credentials", SECRET_KEY, "a-session-token", TOKENS[0]] {
        assert!(!log.contains(trouble), "{trouble:?} is in the log");
    }
    agent.stop();
}
