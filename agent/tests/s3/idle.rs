//! A bucket to which nothing goes: what it is asked, and what becomes known when it is gone.

use weir_common::{control::Reply, session::Outcome};

use crate::{
    server::{ENVIRONMENT, Fault, Server},
    support::{
        Agent, Node,
        proxy::{Control, meta},
        scrape::{LISTEN, address, get, not_ready, value},
        wait_until,
    },
};

fn place() -> (Node, Server, Agent) {
    let mut node = Node::new(&format!("{LISTEN}ready_store_failing_ms = 100\nready_store_idle_ms = 50\n"));
    let server = Server::start(&node.path("s3"));
    node.configure(&server.settings());
    node.environment(&ENVIRONMENT);
    let agent = node.start();
    agent.wait_for_log("a stranger cannot list the bucket");
    (node, server, agent)
}

#[test]
fn an_idle_node_asks_its_bucket_little_and_says_when_it_is_away_or_refuses() {
    let (_node, mut server, agent) = place();
    let address = address(&agent);
    let asked_at_start = server.asked().len();
    wait_until("it is looked at", || server.asked().len() >= asked_at_start + 3);
    for asked in &server.asked()[asked_at_start..] {
        assert_eq!((asked.method.as_str(), asked.body.len()), ("GET", 0), "{}", asked.uri);
        assert!(asked.uri.path().contains("/v1/check/"), "{}", asked.uri);
    }
    let is_ready = || get(address, "/ready").0 == 200;
    assert!(is_ready());
    server.refuse_connections();
    not_ready(address, "the store has taken nothing for");
    assert_eq!(value(address, "weir_agent_store_answers"), 0.0);
    assert_eq!(value(address, "weir_agent_storing_retries_total"), 0.0, "nothing was to be stored");
    server.listen();
    wait_until("it is ready again", is_ready);
    server.fail(Some(Fault::Status(403, "AccessDenied")), None);
    not_ready(address, "the store has taken nothing for");
    server.fail(None, None);
    wait_until("it is ready again", is_ready);
    assert_eq!(server.not_allowed(), Vec::<String>::new());
}

#[test]
fn one_session_that_is_refused_does_not_keep_an_idle_node_from_being_ready() {
    let (node, server, agent) = place();
    let (address, meta, control) = (address(&agent), meta(), Control::connect(&node.socket()));
    server.fail(Some(Fault::Status(403, "AccessDenied")), Some(&meta.session_id.to_string()));
    assert_eq!(control.open(&meta, false), Some(Reply::Opened));
    assert_eq!(control.close(Outcome::Completed), Some(Reply::Closed));
    // To everybody who has something to store that is an outage.
    agent.wait_for_log("the store does not answer");
    wait_until("it is tried again", || server.failed("") > 3);
    wait_until("the bucket takes another object", || get(address, "/ready").0 == 200);
    assert_eq!(value(address, "weir_agent_store_answers"), 1.0);
    assert!(value(address, "weir_agent_storing_failures_total{class=\"denied\"}") >= 1.0);
    server.fail(None, None);
    wait_until("it is stored", || value(address, "weir_agent_sessions_stored_total") == 1.0);
}
