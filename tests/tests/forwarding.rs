//! Forwardings go through the connector when the grant permits them, every byte recorded, and not otherwise.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::net::{UnixListener, UnixStream},
    process::{Child, Command, Stdio},
    thread,
};

use rand::RngExt;
use weir_tests::{Bed, BedOptions, GRANT, Port, eventually};

fn random(bytes: usize) -> Vec<u8> {
    let mut data = vec![0; bytes];
    rand::rng().fill(&mut data[..]);
    data
}

/// A bed whose grant permits this besides a shell and commands.
fn bed_that_permits(permissions: &str) -> Bed {
    let bed = Bed::start(BedOptions::default());
    let file = bed.grant_file(GRANT);
    let grant = fs::read_to_string(&file).expect("there is a grant");
    let permissions = format!("permissions = [\"shell\", \"exec\", {permissions}]\n");
    fs::write(&file, permissions + &grant).expect("written");
    bed
}

/// What a test asks of a TCP or Unix stream.
trait Stream: Read + Write + Send + Sized + 'static {
    fn end_of_data(&self);
}

impl Stream for TcpStream {
    fn end_of_data(&self) {
        self.shutdown(Shutdown::Write).expect("open");
    }
}

impl Stream for UnixStream {
    fn end_of_data(&self) {
        self.shutdown(Shutdown::Write).expect("open");
    }
}

/// A service that reads a request to its end, then answers with it backwards.
fn reverse<S: Stream>(mut stream: S) {
    let mut request = Vec::new();
    stream.read_to_end(&mut request).expect("the request comes");
    request.reverse();
    stream.write_all(&request).expect("the answer goes");
}

/// Serves TCP connections on loopback with [`reverse`]; gives the port.
fn tcp_service() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    thread::spawn(move || {
        listener.incoming().flatten().for_each(|stream| drop(thread::spawn(|| reverse(stream))));
    });
    port
}

/// Sends a request to its end and gives the answer.
fn ask<S: Stream>(mut stream: S, request: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    stream.write_all(request).expect("the request goes");
    stream.end_of_data();
    stream.read_to_end(&mut answer).expect("the answer comes");
    answer
}

fn backwards(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().rev().copied().collect()
}

/// An `ssh` that only forwards, ended with the test.
struct Forwarder(Child);

impl Drop for Forwarder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn forward(bed: &Bed, arguments: &[&str]) -> Forwarder {
    let mut command = bed.ssh();
    command.args(["-N", "-o", "ExitOnForwardFailure=yes"]).args(arguments).stderr(Stdio::piped());
    Forwarder(command.spawn().expect("ssh starts"))
}

fn port() -> Port {
    Port::reserve().expect("one is free")
}

fn connect(port: u16) -> TcpStream {
    eventually("the port is listened on", || TcpStream::connect(("127.0.0.1", port)).ok())
}

#[test]
fn a_local_forwarding_carries_many_connections_and_records_each_by_itself() {
    let bed = bed_that_permits("\"local_forward\"");
    let (service, reserved) = (tcp_service(), port());
    let local = reserved.number();
    let forwarder = forward(&bed, &["-L", &format!("{local}:127.0.0.1:{service}")]);
    drop(connect(local));
    let requests: Vec<_> = (0..8).map(|_| random(300_000)).collect();
    let asking: Vec<_> = requests
        .iter()
        .cloned()
        .map(|request| thread::spawn(move || ask(connect(local), &request)))
        .collect();
    for (request, asked) in requests.iter().zip(asking) {
        assert!(asked.join().expect("no panic") == backwards(request), "an answer is another");
    }
    drop(forwarder);

    let recording = bed.recording(1);
    bed.assert_verifies(&recording);
    let opened = recording.kind("open");
    assert!(opened.iter().all(|open| open.json["channel"]["direct_tcpip"]["to"]["port"] == service));
    let mut seen: Vec<_> = opened
        .iter()
        .filter_map(|open| {
            let channel = open.json["ch"].as_u64().expect("a number");
            let (request, answer) = (recording.stream(channel, "stdin"), recording.stream(channel, "stdout"));
            assert!(answer == backwards(&request), "channel {channel} recorded another's answer");
            (!request.is_empty()).then_some(request)
        })
        .collect();
    let mut sent = requests;
    seen.sort_unstable();
    sent.sort_unstable();
    assert!(seen == sent, "what was recorded is not what was sent");
}

#[test]
fn a_forwarding_whose_server_does_not_answer_holds_up_no_other_channel() {
    let bed = bed_that_permits("\"local_forward\"");
    // Nobody accepts, and the queue is full: the kernel answers no more connections.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    nix::sys::socket::listen(&silent, nix::sys::socket::Backlog::new(0).expect("small")).expect("it listens");
    let address = silent.local_addr().expect("bound");
    let _queued = TcpStream::connect(address).expect("there is room for one");
    let (service, slow, quick) = (tcp_service(), port(), port());
    let forwarder = forward(
        &bed,
        &[
            "-L",
            &format!("{}:127.0.0.1:{}", slow.number(), address.port()),
            "-L",
            &format!("{}:127.0.0.1:{service}", quick.number()),
        ],
    );
    let waiting = connect(slow.number());
    eventually("the target is asked for it", || bed.agent().log().contains("channel=0").then_some(()));
    assert_eq!(ask(connect(quick.number()), b"meanwhile"), backwards(b"meanwhile"));
    drop((waiting, forwarder));
    let recording = bed.recording(1);
    bed.assert_verifies(&recording);
    assert_eq!(recording.stream(1, "stdin"), b"meanwhile");
}

#[test]
fn a_unix_socket_on_the_target_is_reached_by_a_local_forwarding() {
    let bed = bed_that_permits("\"local_forward\"");
    let (service, local) = (bed.path("run/service"), bed.path("run/local"));
    let listener = UnixListener::bind(&service).expect("a socket");
    thread::spawn(move || listener.incoming().flatten().for_each(reverse));
    let forwarder = forward(&bed, &["-L", &format!("{}:{}", local.display(), service.display())]);
    let stream = eventually("the socket is listened on", || UnixStream::connect(&local).ok());
    assert_eq!(ask(stream, b"through a unix socket"), backwards(b"through a unix socket"));
    drop(forwarder);

    let recording = bed.recording(1);
    bed.assert_verifies(&recording);
    let path = &recording.kind("open")[0].json["channel"]["direct_streamlocal"]["path"];
    assert_eq!(path.as_str(), service.to_str());
}

#[test]
fn standard_input_and_output_are_forwarded_as_a_jump_host_does() {
    let bed = bed_that_permits("\"local_forward\"");
    let service = tcp_service();
    let mut ssh = bed
        .ssh()
        .args(["-W", &format!("127.0.0.1:{service}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("ssh starts");
    ssh.stdin.take().expect("piped").write_all(b"jump").expect("ssh takes it");
    assert_eq!(ssh.wait_with_output().expect("ssh ends").stdout, b"pmuj");
    bed.assert_verifies(&bed.recording(1));
}

#[test]
fn a_server_that_refuses_a_forwarded_connection_has_its_refusal_passed_on() {
    let bed = bed_that_permits("\"local_forward\"");
    let closed = port();
    let output =
        bed.ssh().args(["-W", &format!("127.0.0.1:{}", closed.number())]).output().expect("ssh runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("the server refused the channel"), "{said}");
    let recording = bed.recording(1);
    bed.assert_verifies(&recording);
    assert_eq!(recording.kind("open_failure")[0].json["code"], 2);
}

/// The port that the target chose, as `ssh` prints it.
fn allocated_port(forwarder: &mut Forwarder) -> u16 {
    let said = BufReader::new(forwarder.0.stderr.take().expect("piped"));
    let port = said
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("Allocated port ")?.split(' ').next()?.parse().ok());
    port.expect("ssh names the port")
}

#[test]
fn a_remote_forwarding_brings_connections_to_the_client_on_the_port_that_the_target_chose() {
    let bed = bed_that_permits("\"remote_forward\"");
    let service = tcp_service();
    let mut forwarder = forward(&bed, &["-R", &format!("127.0.0.1:0:127.0.0.1:{service}")]);
    let remote = allocated_port(&mut forwarder);
    let request = random(200_000);
    assert!(ask(connect(remote), &request) == backwards(&request), "the answer is another");
    drop(forwarder);

    let recording = bed.recording(1);
    bed.assert_verifies(&recording);
    assert_eq!(recording.kind("tcpip_forward")[0].json["port"], 0);
    assert_eq!(recording.kind("port_bound")[0].json["port"], remote);
    let opened = recording.kind("open");
    let forwarded = opened.iter().find(|open| open.json["dir"] == "t2c").expect("one from the target");
    assert_eq!(forwarded.json["channel"]["forwarded_tcpip"]["listening"]["port"], remote);
    let channel = forwarded.json["ch"].as_u64().expect("a number");
    assert!(recording.stream(channel, "stdout") == request, "another request was recorded");
    assert!(recording.stream(channel, "stdin") == backwards(&request), "another answer was recorded");
}

#[test]
fn a_remote_forwarding_that_is_cancelled_listens_no_more_and_can_be_asked_for_again() {
    let bed = bed_that_permits("\"remote_forward\"");
    let (service, reserved) = (tcp_service(), port());
    let remote = reserved.number();
    let mut master = bed.shared_ssh().args(["-M", "-N"]).spawn().expect("ssh starts");
    eventually("the master listens", || bed.control_path().exists().then_some(()));
    let forwarding = format!("127.0.0.1:{remote}:127.0.0.1:{service}");
    let tell = |order: &str| {
        let output = bed.shared_ssh().args(["-O", order, "-R", &forwarding]).output().expect("ssh runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    for round in 0..2 {
        tell("forward");
        assert_eq!(ask(connect(remote), b"again"), b"niaga", "round {round}");
        tell("cancel");
        eventually("nobody listens", || TcpStream::connect(("127.0.0.1", remote)).is_err().then_some(()));
    }
    master.kill().expect("it runs");
    master.wait().expect("killed");
    let recording = bed.recording(1);
    bed.assert_verifies(&recording);
    assert_eq!(recording.kind("cancel_tcpip_forward").len(), 2);
}

#[test]
fn a_unix_socket_that_the_target_listens_on_leads_to_the_client() {
    let bed = bed_that_permits("\"remote_forward\"");
    let (service, remote) = (tcp_service(), bed.path("run/remote"));
    let forwarder = forward(&bed, &["-R", &format!("{}:127.0.0.1:{service}", remote.display())]);
    let stream = eventually("the socket is listened on", || UnixStream::connect(&remote).ok());
    assert_eq!(ask(stream, b"backwards"), backwards(b"backwards"));
    drop(forwarder);
    let recording = bed.recording(1);
    bed.assert_verifies(&recording);
    assert_eq!(recording.kind("streamlocal_forward")[0].json["path"].as_str(), remote.to_str());
}

/// An authentication agent that holds the bed's user key, ended with the test.
struct Agent(Child, String);

impl Agent {
    fn start(bed: &Bed) -> Self {
        let socket = bed.path("run/agent-of-the-user").display().to_string();
        let agent = Command::new("ssh-agent").args(["-D", "-a", &socket]).stdout(Stdio::null()).spawn();
        let agent = Self(agent.expect("ssh-agent starts"), socket);
        eventually("the agent takes the key", || {
            let key = bed.path("user/key");
            let added = agent.environment(Command::new("ssh-add").arg(key).stderr(Stdio::null())).status();
            added.expect("ssh-add runs").success().then_some(())
        });
        agent
    }

    fn environment<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("SSH_AUTH_SOCK", &self.1)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `ssh` that forwards the agent; the bed's own options keep agents out.
fn ssh_with_agent(bed: &Bed, agent: &Agent) -> Command {
    let mut command = Command::new("ssh");
    command
        .args(["-o", &format!("IdentityAgent={}", agent.1), "-A"])
        .args(bed.ssh_arguments(GRANT, "user/key"));
    agent.environment(&mut command);
    command
}

#[test]
fn the_clients_agent_can_be_used_on_the_target_and_its_use_is_recorded() {
    let bed = bed_that_permits("\"agent_forward\"");
    let agent = Agent::start(&bed);
    let output = ssh_with_agent(&bed, &agent).arg("ssh-add -L").output().expect("ssh runs");
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    let key = bed.public_key("user/key").expect("a key");
    assert!(listed.starts_with(&key), "{listed}{}", String::from_utf8_lossy(&output.stderr));
    let recording = bed.recording(1);
    bed.assert_verifies(&recording);
    assert_eq!(recording.kind("agent_forward").len(), 1);
    let opened = recording.kind("open");
    let used = opened.iter().find(|open| open.json["channel"] == "agent").expect("the agent was used");
    let channel = used.json["ch"].as_u64().expect("a number");
    // SSH_AGENTC_REQUEST_IDENTITIES, draft-miller-ssh-agent section 3.
    assert_eq!(recording.stream(channel, "stdout"), [0, 0, 0, 1, 11]);
}

/// What an X client says first, with the cookie that the forwarding made up.
const X_CLIENT: &str = r#"
import os, socket, struct, subprocess, sys
display = os.environ["DISPLAY"]
host, number = display.rsplit(":", 1)
cookie = bytes.fromhex(subprocess.check_output(["xauth", "list", display], text=True).split()[2])
client = socket.create_connection((host, 6000 + int(number.split(".")[0])))
name = b"MIT-MAGIC-COOKIE-1"
client.sendall(struct.pack("<BxHHHHxx", ord("l"), 11, 0, len(name), len(cookie)) + name + b"\0\0" + cookie)
sys.stdout.write(client.recv(64).decode())
"#;

#[test]
fn x11_comes_to_the_clients_display_and_is_recorded() {
    let bed = bed_that_permits("\"x11_forward\"");
    // Display numbers are ports from 6000 on.
    let (display, listener) = (100..200)
        .find_map(|number| Some((number, TcpListener::bind(("127.0.0.1", 6000 + number)).ok()?)))
        .expect("a free display");
    let served = thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("a client comes");
        let mut hello = [0; 12 + 20 + 16];
        client.read_exact(&mut hello).expect("it says hello");
        client.write_all(b"shown").expect("answered");
        hello
    });
    let mut ssh = bed.ssh();
    ssh.args(["-Y", "-o", "XAuthLocation=/usr/bin/xauth"])
        .env("DISPLAY", format!("127.0.0.1:{display}"))
        .env("XAUTHORITY", bed.path("user/xauthority"))
        .arg(format!("XAUTHORITY=$HOME/.Xauthority python3 -c '{X_CLIENT}'"));
    let output = ssh.output().expect("ssh runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "shown", "{said}");
    let hello = served.join().expect("no panic");
    assert!(hello.starts_with(b"l\0\x0b\0"), "{hello:?}");
    let recording = bed.recording(1);
    bed.assert_verifies(&recording);
    let opened = recording.kind("open");
    let shown = opened.iter().find(|open| open.json["channel"]["x11"].is_object()).expect("X11 was used");
    let channel = shown.json["ch"].as_u64().expect("a number");
    assert_eq!(recording.stream(channel, "stdin"), b"shown");
}

#[test]
fn what_the_grant_does_not_permit_is_refused_and_reaches_neither_tap_nor_target() {
    let bed = Bed::start(BedOptions::default());
    let agent = Agent::start(&bed);
    let service = tcp_service();

    let output = bed.ssh().args(["-W", &format!("127.0.0.1:{service}")]).output().expect("ssh runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("administratively prohibited"), "{said}");

    let mut remote = bed.ssh();
    remote.args(["-N", "-o", "ExitOnForwardFailure=yes", "-R", &format!("0:127.0.0.1:{service}")]);
    let output = remote.output().expect("ssh runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("remote port forwarding failed"), "{said}");

    let output = ssh_with_agent(&bed, &agent).arg("echo agent=$SSH_AUTH_SOCK").output().expect("ssh runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "agent=\n");

    let mut x11 = bed.ssh();
    x11.args(["-Y", "echo display=$DISPLAY"]).env("DISPLAY", "127.0.0.1:99");
    let output = x11.env("XAUTHORITY", bed.path("user/xauthority")).output().expect("ssh runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "display=\n");

    for number in 1..=4 {
        let recording = bed.recording(number);
        bed.assert_verifies(&recording);
        let kinds = recording.events.iter().map(|event| event.json["kind"].as_str().expect("a kind"));
        let forwarding = ["tcpip_forward", "agent_forward", "x11"];
        assert_eq!(kinds.filter(|kind| forwarding.contains(kind)).count(), 0);
        assert!(recording.kind("open").iter().all(|open| open.json["channel"] == "session"));
    }
}
