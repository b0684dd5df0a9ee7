//! Operating the proxy: stop, reload, health, metrics, banner, idle sessions.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use weir_tests::{Bed, BedOptions, eventually, started};

const METRICS: &str = "metrics_listen = \"127.0.0.1:0\"\n";

fn bed(proxy_settings: &str) -> Bed {
    Bed::start(BedOptions { proxy_settings: proxy_settings.to_owned(), ..Default::default() })
}

fn echo(child: &mut Child, what: &[u8]) {
    child.stdin.as_mut().expect("piped").write_all(what).expect("the session takes input");
    let mut back = vec![0; what.len()];
    child.stdout.as_mut().expect("piped").read_exact(&mut back).expect("the session answers");
    assert_eq!(back, what);
}

fn said(child: &mut Child) -> String {
    let mut text = String::new();
    child.stderr.as_mut().expect("piped").read_to_string(&mut text).expect("text");
    text
}

fn metrics_address(bed: &Bed) -> SocketAddr {
    let line = bed.proxy_said("metrics_listen=");
    let address = line.split("metrics_listen=").nth(1).and_then(|rest| rest.split_whitespace().next());
    address.and_then(|address| address.parse().ok()).expect("an address")
}

/// The status and the body of what a GET gives.
fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("connected");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: weir\r\nConnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an HTTP answer");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, body.to_owned())
}

/// The value of one series, 0 if it is not there yet.
fn series(address: SocketAddr, name: &str) -> f64 {
    let (status, text) = get(address, "/metrics");
    assert_eq!(status, 200);
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.map_or(0.0, |value| value.parse().expect("a number"))
}

#[test]
fn sigterm_refuses_new_connections_and_lets_a_session_finish_within_the_grace() {
    let mut bed = bed("shutdown_grace_ms = 60000\n");
    let mut session = started(bed.ssh().arg("echo started; cat"));
    let proxy = bed.take_proxy();
    proxy.signal(Signal::SIGTERM);
    let _ = bed.proxy_said("stopping: no new connections");
    eventually("the port is closed", || {
        TcpStream::connect(("127.0.0.1", bed.proxy_port())).is_err().then_some(())
    });
    let _ = bed.proxy_said("stopping: sessions are still running sessions=1");
    echo(&mut session, b"still here");
    drop(session.stdin.take());
    assert!(session.wait().expect("ssh ends").success());
    assert!(proxy.wait().success());
    let recording = bed.recording(1);
    bed.assert_verifies(&recording);
    assert_eq!(recording.manifest["outcome"]["kind"], "completed");
    assert_eq!(recording.stream(0, "stdin"), b"still here");
}

#[test]
fn sessions_that_outlast_the_grace_end_with_the_reason_told_and_recorded_and_the_exit_is_clean() {
    let mut bed = bed("shutdown_grace_ms = 500\n");
    let mut sessions: Vec<_> = (0..3).map(|_| started(bed.ssh().arg("echo started; cat"))).collect();
    // One that never says a word must not delay the exit, either.
    let silent = TcpStream::connect(("127.0.0.1", bed.proxy_port())).expect("connected");
    let began = Instant::now();
    let status = bed.take_proxy().stop();
    assert!(status.success(), "{status}");
    assert!(began.elapsed() < Duration::from_secs(8), "the exit took {:?}", began.elapsed());
    for session in &mut sessions {
        assert_eq!(session.wait().expect("ssh ends").code(), Some(255));
        let said = said(session);
        assert!(said.contains("the connector is shutting down; the session was closed"), "{said}");
    }
    for number in 1..=3 {
        let recording = bed.recording(number);
        bed.assert_verifies(&recording);
        let outcome = &recording.manifest["outcome"];
        assert_eq!(outcome["kind"], "ended");
        assert!(outcome["reason"].as_str().expect("a reason").starts_with("the connector is shutting down"));
    }
    drop(silent);
}

#[test]
fn a_second_sigterm_cuts_the_sessions_at_once() {
    let mut bed = bed("shutdown_grace_ms = 60000\n");
    let mut session = started(bed.ssh().arg("echo started; cat"));
    let proxy = bed.take_proxy();
    proxy.signal(Signal::SIGTERM);
    let _ = bed.proxy_said("stopping: no new connections");
    proxy.signal(Signal::SIGTERM);
    assert!(proxy.wait().success());
    assert_eq!(session.wait().expect("ssh ends").code(), Some(255));
    let recording = bed.recording(1);
    bed.assert_verifies(&recording);
    assert_eq!(recording.manifest["outcome"]["kind"], "connector_lost");
}

#[test]
fn sighup_puts_a_changed_configuration_in_force_for_new_sessions_and_leaves_running_ones_alone() {
    let mut bed = bed("");
    let mut running = started(bed.ssh().arg("echo started; cat"));
    let notice = bed.path("notice");
    fs::write(&notice, "Only with approval.\n\u{1b}[31mRecorded.\n").expect("written");
    let banner = format!("banner = \"{}\"\nidle_timeout_ms = 1000\nlisten_backlog = 1\n", notice.display());

    bed.reconfigure_proxy(&banner).expect("written");
    bed.proxy().signal(Signal::SIGHUP);
    let _ = bed.proxy_said("NOT reloaded");
    let _ = bed.proxy_said("unknown field `listen_backlog`");
    let before = bed.ssh().arg("echo as before").output().expect("ssh runs");
    assert_eq!((&before.stdout[..], &before.stderr[..]), (&b"as before\n"[..], &b""[..]));

    bed.reconfigure_proxy(&banner.replace("listen_backlog = 1", "metrics_listen = \"127.0.0.1:0\""))
        .expect("written");
    bed.proxy().signal(Signal::SIGHUP);
    let _ = bed.proxy_said("reloaded: in force for new connections");
    let line = bed.proxy_said("this can't be changed while the connector runs");
    assert!(line.contains("metrics_listen"), "{line}");

    // The new one reads the banner, without its control characters, and is idle for too long.
    let output = bed.ssh().arg("sleep 60").output().expect("ssh runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("Only with approval.\r\n[31mRecorded.\r\n"), "{said:?}");
    assert!(said.contains("nothing was sent or received for 1 s"), "{said:?}");
    // The old one has been idle for longer, and goes on.
    echo(&mut running, b"undisturbed");
    drop(running.stdin.take());
    assert!(running.wait().expect("ssh ends").success());
}

#[test]
fn an_idle_session_ends_with_the_reason_and_a_busy_one_does_not() {
    let bed = bed("idle_timeout_ms = 4500\n");
    let busy = bed.ssh().arg("for i in $(seq 10); do echo tick; sleep 0.5; done").output().expect("ssh runs");
    assert_eq!(busy.stdout, b"tick\n".repeat(10));
    let mut idle = started(bed.ssh().arg("echo started; cat"));
    // `wait` would close it.
    let _stdin = idle.stdin.take();
    assert_eq!(idle.wait().expect("ssh ends").code(), Some(255));
    let said = said(&mut idle);
    assert!(said.contains("nothing was sent or received for 4.5 s; the session was closed"), "{said}");
    let recording = bed.recording(2);
    bed.assert_verifies(&recording);
    assert_eq!(recording.manifest["outcome"]["kind"], "ended");
}

#[test]
fn metrics_count_what_happened_and_name_nobody() {
    let bed = bed(METRICS);
    let address = metrics_address(&bed);
    let output = bed.ssh().arg("head -c 100000 /dev/zero; cat > /dev/null").stdin(Stdio::null()).output();
    assert_eq!(output.expect("ssh runs").stdout.len(), 100_000);
    let refused = bed.ssh_as("nobody", "user/key").args(["-o", "BatchMode=yes", "true"]).output();
    assert_eq!(refused.expect("ssh runs").status.code(), Some(255));
    let mut running = started(bed.ssh().arg("echo started; cat"));
    let table = [
        ("weir_proxy_connections_accepted_total", 3.0),
        ("weir_proxy_connections", 1.0),
        ("weir_proxy_connections_unauthenticated", 0.0),
        ("weir_proxy_logins_total{result=\"accepted\",method=\"publickey\"}", 2.0),
        ("weir_proxy_logins_total{result=\"refused\",method=\"publickey\"}", 1.0),
        ("weir_proxy_sessions", 1.0),
        ("weir_proxy_sessions_opened_total", 2.0),
        ("weir_proxy_sessions_ended_total{cause=\"completed\"}", 1.0),
        ("weir_proxy_session_setup_seconds_count{part=\"agent\"}", 2.0),
        ("weir_proxy_session_setup_seconds_count{part=\"target\"}", 2.0),
        ("weir_proxy_session_setup_seconds_count{part=\"total\"}", 2.0),
        ("weir_proxy_channels_opened_total{type=\"session\"}", 2.0),
        ("weir_proxy_delivered_bytes_total{direction=\"to_client\"}", 100_008.0),
        ("weir_proxy_held_bytes", 0.0),
        ("weir_proxy_taps_stalled", 0.0),
    ];
    for (name, expected) in table {
        eventually(&format!("{name} is {expected}"), || (series(address, name) == expected).then_some(()));
    }
    let (_, text) = get(address, "/metrics");
    for secret in ["ada@", "REQ-1042", "grace@", weir_tests::GRANT, "127.0.0.1"] {
        assert!(!text.contains(secret), "{secret:?} is in\n{text}");
    }
    assert!(series(address, "process_resident_memory_bytes") > 1e6);
    drop(running.stdin.take());
    assert!(running.wait().expect("ssh ends").success());
    eventually("it has ended", || (series(address, "weir_proxy_sessions") == 0.0).then_some(()));
}

#[test]
fn a_stall_shows_in_the_metrics_while_it_lasts() {
    let bed = Bed::start(BedOptions {
        ring_bytes: 256 << 10,
        proxy_settings: METRICS.to_owned(),
        ..Default::default()
    });
    let address = metrics_address(&bed);
    let mut upload = started(bed.ssh().arg("echo started; cat > /dev/null"));
    let mut stdin = upload.stdin.take().expect("piped");
    bed.agent().signal(Signal::SIGSTOP);
    let feeder =
        std::thread::spawn(move || (0..2048).for_each(|_| stdin.write_all(&[0; 4096]).expect("taken")));
    eventually("the tap stalls", || (series(address, "weir_proxy_taps_stalled") == 1.0).then_some(()));
    assert!(series(address, "weir_proxy_held_bytes") > 0.0);
    bed.agent().signal(Signal::SIGCONT);
    feeder.join().expect("the feeder does not panic");
    assert!(upload.wait().expect("ssh ends").success());
    assert_eq!(series(address, "weir_proxy_taps_stalled"), 0.0);
    assert_eq!(series(address, "weir_proxy_held_bytes"), 0.0);
    assert!(series(address, "weir_proxy_frames_resent_total") > 0.0);
}

#[test]
fn ready_says_no_without_an_agent_at_the_limit_and_while_stopping_and_health_says_alive() {
    let mut bed = bed(&format!("{METRICS}max_connections = 1\nshutdown_grace_ms = 60000\n"));
    let address = metrics_address(&bed);
    let answers = |status: u16, text: &str| {
        eventually(&format!("/ready says {status} {text}"), || {
            (get(address, "/ready") == (status, text.to_owned())).then_some(())
        });
        assert_eq!(get(address, "/health"), (200, "alive\n".to_owned()));
    };
    answers(200, "ready\n");
    bed.take_agent().kill();
    answers(503, "not ready: the agent does not answer\n");
    bed.start_agent().expect("the next agent starts");
    answers(200, "ready\n");
    let mut session = started(bed.ssh().arg("echo started; cat"));
    answers(503, "not ready: max_connections reached\n");
    bed.proxy().signal(Signal::SIGTERM);
    answers(503, "not ready: stopping\n");
    drop(session.stdin.take());
    assert!(session.wait().expect("ssh ends").success());
    assert!(bed.take_proxy().wait().success());
}
