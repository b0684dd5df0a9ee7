//! What the agent shows to machines, as they ask for it.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use super::{Agent, wait_until};

/// The setting by which it listens.
pub(crate) const LISTEN: &str = "metrics_listen = \"127.0.0.1:0\"\n";

/// Where it listens.
pub(crate) fn address(agent: &Agent) -> SocketAddr {
    let line = agent.wait_for_log("serving metrics and health");
    let address = line.split("metrics_listen=").nth(1).and_then(|rest| rest.split_whitespace().next());
    address.expect("it is said").parse().expect("an address")
}

/// The status and the body of an answer.
pub(crate) fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, body.to_owned())
}

/// Everything that is exposed.
pub(crate) fn exposition(address: SocketAddr) -> String {
    let (status, text) = get(address, "/metrics");
    assert_eq!(status, 200);
    text
}

/// The value of a series.
pub(crate) fn value(address: SocketAddr, series: &str) -> f64 {
    let text = exposition(address);
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {series} in\n{text}"))
}

/// Waits until a series has this value.
pub(crate) fn becomes(address: SocketAddr, series: &str, expected: f64) {
    wait_until(series, || value(address, series) == expected);
}

/// Waits until the agent is not ready for a reason that has these words.
pub(crate) fn not_ready(address: SocketAddr, words: &str) {
    wait_until(words, || {
        let (status, text) = get(address, "/ready");
        status == 503 && text.starts_with("not ready: ") && text.contains(words)
    });
}
