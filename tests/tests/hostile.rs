//! Peers that break the rules, or keep them in bad faith: memory stays bounded, others are not disturbed, and whoever
//! comes after them finds everything in order.

use std::{
    fs,
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rand::RngExt;
use russh::{
    client,
    keys::{PrivateKeyWithHashAlg, load_secret_key, ssh_key},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use weir_tests::{Bed, BedOptions, GRANT, eventually, eventually_within, recording::Recording, started};

/// An idle proxy has 12 MiB, and none of these made it more than 18.
const MEMORY_BYTES: u64 = 48 << 20;

const VERSION: &[u8] = b"SSH-2.0-hostile\r\n";

fn bed(proxy_settings: &str) -> Bed {
    let options = BedOptions { login_timeout_ms: 6_000, ..Default::default() };
    Bed::start(BedOptions { proxy_settings: proxy_settings.to_owned(), ..options })
}

fn connect(bed: &Bed) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", bed.proxy_port())).expect("connected");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
    stream
}

fn descriptors(bed: &Bed) -> usize {
    fs::read_dir(format!("/proc/{}/fd", bed.proxy().pid())).expect("it runs").count()
}

/// Whatever was done to the proxy, a normal session works and verifies, nothing panicked, and memory stayed bounded.
fn assert_well(bed: &Bed) {
    let output = bed.ssh().arg("echo all is well").output().expect("ssh runs");
    assert_eq!(output.stdout, b"all is well\n", "{}", String::from_utf8_lossy(&output.stderr));
    let recording = eventually("the session is complete in the store", || {
        let sessions = bed.finished_sessions().into_iter().rev();
        let mut sessions = sessions.map(|dir| Recording::read(&dir).expect("readable"));
        sessions.find(|recording| recording.command().as_deref() == Some("echo all is well"))
    });
    bed.assert_verifies(&recording);
    let log = bed.proxy().log();
    assert!(!log.contains("panicked"), "{log}");
    let peak = bed.proxy().peak_memory_bytes();
    println!("the proxy's memory peaked at {} MiB", peak >> 20);
    assert!(peak < MEMORY_BYTES, "the proxy held {peak} bytes");
}

/// Sends what it can, and waits until the proxy hangs up.
fn send_and_be_hung_up_on(mut stream: TcpStream, what: &[u8]) {
    // The proxy may hang up in the middle.
    let _ = stream.write_all(what);
    let mut sink = [0; 4096];
    loop {
        match stream.read(&mut sink) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => {
                assert_ne!(
                    error.kind(),
                    ErrorKind::WouldBlock,
                    "the proxy still listens to {:?}",
                    &what[..what.len().min(20)]
                );
                return;
            }
        }
    }
}

#[test]
fn half_open_connections_keep_nobody_else_out_and_are_gone_in_time() {
    let bed = bed("max_unauthenticated = 40\nmax_unauthenticated_per_source = 20\n");
    assert_well(&bed);
    let before = eventually("the first session's descriptors are closed", || {
        Some(descriptors(&bed)).filter(|&now| now < 30)
    });
    let silent: Vec<_> = (0..120).map(|_| connect(&bed)).collect();
    let _ = bed.proxy_said("limit=max_unauthenticated_per_source");
    let mut said = String::new();
    let _ = connect(&bed).read_to_string(&mut said);
    assert!(said.starts_with("weir: this connector has too many connections"), "{said:?}");
    // From another address one gets in although they are all still there.
    let output = bed.ssh().args(["-b", "127.0.0.2", "echo from elsewhere"]).output().expect("ssh runs");
    assert_eq!(output.stdout, b"from elsewhere\n", "{}", String::from_utf8_lossy(&output.stderr));
    for stream in silent {
        send_and_be_hung_up_on(stream, b"");
    }
    eventually("the descriptors are closed", || (descriptors(&bed) <= before).then_some(()));
    assert_well(&bed);
}

#[test]
fn garbage_of_every_kind_is_hung_up_on() {
    let bed = bed("");
    let endless_banner = [&[b'x'; 1 << 20][..], b"\r\n"].concat();
    let many_lines = b"not ssh\r\n".repeat(100_000);
    let packet = |length: u32, rest: &[u8]| [VERSION, &length.to_be_bytes(), rest].concat();
    let cases: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\nHost: weir\r\n\r\n".to_vec(),
        b"SSH-1.5-ancient\r\n".to_vec(),
        b"\0\0\0\0".to_vec(),
        endless_banner,
        many_lines,
        VERSION.to_vec(),
        packet(u32::MAX, &[0; 64]),
        packet(0x7fff_ffff, &[0; 64]),
        packet(262_145, &[0; 300_000]),
        packet(262_144, &[0; 300_000]),
        packet(0, &[0; 64]),
        packet(1, &[0xff; 64]),
        packet(12, &[0xff; 64]),
        // KEXINIT with lists that are longer than the packet.
        packet(28, &[&[10, 20][..], &[7; 16], &[0xff; 16]].concat()),
        // A channel request, a login and new keys before any key.
        packet(12, &[4, 98, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        packet(12, &[4, 50, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        packet(12, &[10, 21, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ];
    for case in &cases {
        send_and_be_hung_up_on(connect(&bed), case);
    }
    assert_well(&bed);
}

#[test]
fn random_bytes_never_panic_the_proxy() {
    let bed = bed("max_unauthenticated_per_source = 100\n");
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let streams: Vec<_> = (0..25).map(|_| connect(&bed)).collect();
            thread::spawn(move || {
                for (number, mut stream) in streams.into_iter().enumerate() {
                    let mut bytes = vec![0; rand::rng().random_range(1..2000)];
                    rand::rng().fill(&mut bytes[..]);
                    if number % 4 > 0 {
                        let _ = stream.write_all(VERSION);
                    }
                    if number % 4 > 1 {
                        // A length that makes it a packet, so that it is read as one.
                        let length = u32::try_from(bytes.len() - 1).unwrap_or(1);
                        let _ = stream.write_all(&length.to_be_bytes());
                        bytes[0] = 4;
                    }
                    if number % 4 > 2 && bytes.len() > 2 {
                        bytes[1] = [1, 2, 3, 4, 5, 6, 20, 21, 30, 31, 50][number % 11];
                    }
                    let _ = stream.write_all(&bytes);
                    let _ = stream.shutdown(Shutdown::Write);
                    send_and_be_hung_up_on(stream, b"");
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
    assert_well(&bed);
}

#[test]
fn a_client_that_dribbles_bytes_is_cut_off_at_the_login_timeout() {
    let bed = bed("");
    let began = Instant::now();
    let mut stream = connect(&bed);
    for byte in b"SSH-2.0-slow".iter().chain(std::iter::repeat(&b'w')).take(200) {
        if stream.write_all(&[*byte]).is_err() {
            break;
        }
        #[expect(clippy::disallowed_methods, reason = "the pace of a slow attack")]
        thread::sleep(Duration::from_millis(100));
    }
    assert!(began.elapsed() < Duration::from_secs(15), "it could go on for {:?}", began.elapsed());
    send_and_be_hung_up_on(stream, b"");
    assert_well(&bed);
}

#[test]
fn connections_that_are_reset_at_once_leave_nothing_behind() {
    let bed = bed("");
    assert_well(&bed);
    let before = eventually("descriptors settle", || Some(descriptors(&bed)).filter(|&now| now < 30));
    for _ in 0..500 {
        // Closing with bytes unread resets the connection.
        let stream = connect(&bed);
        let _ = stream.peek(&mut [0]);
        drop(stream);
    }
    eventually("the descriptors are closed", || (descriptors(&bed) <= before).then_some(()));
    assert_well(&bed);
}

#[test]
fn a_client_that_says_goodbye_and_does_not_hang_up_is_hung_up_on() {
    let options = BedOptions { login_timeout_ms: 600_000, ..Default::default() };
    let bed = Bed::start(options);
    let mut stream = connect(&bed);
    // SSH_MSG_DISCONNECT (RFC 4253 section 11.1) by application, without a description or a language.
    let payload = [&[1, 0, 0, 0, 11][..], &[0; 8]].concat();
    let padding = 6;
    let length = u32::try_from(1 + payload.len() + padding).expect("small");
    let packet = [&length.to_be_bytes()[..], &[6], &payload, &[0; 6]].concat();
    stream.write_all(VERSION).expect("sent");
    send_and_be_hung_up_on(stream, &packet);
    assert_well(&bed);
}

/// Accepts whatever host key there is: it is the connector that is tested.
struct Anyone;

impl client::Handler for Anyone {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        _: &russh::keys::PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        Ok(true)
    }
}

async fn logged_in(bed: &Bed) -> client::Handle<Anyone> {
    let address = ("127.0.0.1", bed.proxy_port());
    let mut handle = client::connect(Arc::default(), address, Anyone).await.expect("connected");
    log_in(bed, &mut handle).await;
    handle
}

async fn log_in(bed: &Bed, handle: &mut client::Handle<Anyone>) {
    let key = load_secret_key(bed.path("user/key"), None).expect("a key");
    let key = PrivateKeyWithHashAlg::new(Arc::new(key), None::<ssh_key::HashAlg>);
    assert!(handle.authenticate_publickey(GRANT, key).await.expect("answered").success());
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// A connection whose end its owner never announces.
struct NeverShut(tokio::net::TcpStream);

impl AsyncRead for NeverShut {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for NeverShut {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn a_session_whose_client_says_goodbye_and_does_not_hang_up_is_over() {
    let bed = bed("max_connections = 1\n");
    let mut kept = connect(&bed);
    runtime().block_on(async {
        let ours = kept.try_clone().expect("duplicated");
        ours.set_nonblocking(true).expect("set");
        let stream = NeverShut(tokio::net::TcpStream::from_std(ours).expect("registered"));
        let mut handle = client::connect_stream(Arc::default(), stream, Anyone).await.expect("connected");
        log_in(&bed, &mut handle).await;
        let channel = handle.channel_open_session().await.expect("opened");
        channel.exec(true, "cat").await.expect("sent");
        handle.disconnect(russh::Disconnect::ByApplication, "bye", "").await.expect("said");
        // Returns when russh has said it.
        let _ = handle.await;
    });
    bed.assert_verifies(&bed.recording(1));
    kept.set_nonblocking(false).expect("set");
    let _ = kept.read_to_end(&mut Vec::new());
    // There is one place only.
    assert_well(&bed);
}

#[test]
fn of_ten_thousand_channels_a_client_gets_what_one_may_have_and_others_notice_nothing() {
    // More than the connector allows, so that it is the connector that refuses.
    let extra_target_config = "MaxSessions 1000".to_owned();
    let bed = Bed::start(BedOptions { extra_target_config, ..Default::default() });
    let mut bystander = started(bed.ssh().arg("echo started; cat"));
    let (opened, refused) = runtime().block_on(async {
        let handle = logged_in(&bed).await;
        let (mut opened, mut refused) = (Vec::new(), 0);
        for _ in 0..10_000 {
            match handle.channel_open_session().await {
                Ok(channel) => opened.push(channel),
                Err(russh::Error::ChannelOpenFailure(failure)) => {
                    assert_eq!(failure.code(), 4, "SSH_OPEN_RESOURCE_SHORTAGE");
                    refused += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
        (opened.len(), refused)
    });
    assert_eq!((opened, refused), (64, 9_936));
    bystander.stdin.as_mut().expect("piped").write_all(b"still").expect("taken");
    let mut back = [0; 5];
    bystander.stdout.as_mut().expect("piped").read_exact(&mut back).expect("echoed");
    drop(bystander.stdin.take());
    assert!(bystander.wait().expect("ssh ends").success());
    assert_well(&bed);
}

#[test]
fn a_flood_of_tiny_requests_is_bounded_and_the_session_goes_on() {
    let bed = bed("");
    runtime().block_on(async {
        let handle = logged_in(&bed).await;
        let mut channel = handle.channel_open_session().await.expect("opened");
        for number in 0..5_000 {
            channel.set_env(false, format!("LC_{number}"), "C".repeat(100)).await.expect("sent");
        }
        let absurd = "x".repeat(1_000);
        channel.request_pty(true, &absurd, 80, 24, 0, 0, &[]).await.expect("sent");
        channel.request_pty(true, "xterm", 80, 24, 0, 0, &[]).await.expect("sent");
        channel.exec(true, "env | grep -c ^LC_; cat").await.expect("sent");
        for number in 0..50_000 {
            channel.window_change(80 + number % 10, 24, 0, 0).await.expect("sent");
        }
        for _ in 0..5_000 {
            channel.signal(russh::Sig::Custom("WINCH".to_owned())).await.expect("sent");
        }
        let mut answers = Vec::new();
        let mut shown = String::new();
        while answers.len() < 3 || !shown.contains("\r\n") {
            match channel.wait().await.expect("the channel lasts") {
                russh::ChannelMsg::Success => answers.push(true),
                russh::ChannelMsg::Failure => answers.push(false),
                russh::ChannelMsg::Data { data } => shown.push_str(&String::from_utf8_lossy(&data)),
                _ => {}
            }
        }
        assert_eq!(answers, [false, true, true], "the absurd terminal is refused, the rest is not");
        assert!(shown.trim().parse::<u32>().expect("a number") <= 128, "{shown}");
    });
    assert_well(&bed);
}

/// Waits until a number has not changed for a while.
fn settled(what: &str, patience: Duration, mut read: impl FnMut() -> u64) -> u64 {
    let mut last = u64::MAX;
    eventually_within(patience, what, || {
        #[expect(clippy::disallowed_methods, reason = "the interval over which nothing may move")]
        thread::sleep(Duration::from_secs(1));
        let now = read();
        (std::mem::replace(&mut last, now) == now).then_some(now)
    })
}

#[test]
fn a_client_that_never_reads_costs_bounded_memory_and_may_go_on_later() {
    let bed = bed("");
    let mut child = started(bed.ssh().arg("echo started; head -c 4G /dev/zero"));
    let sent_to_client = || {
        let io = fs::read_to_string(format!("/proc/{}/io", bed.proxy().pid())).expect("root reads it");
        let wchar: Option<u64> = io.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse().ok());
        // Whole mebibytes: wake-ups of the proxy's own threads count as writes, too.
        wchar.expect("Linux says so") >> 20
    };
    settled("nothing more is sent to who does not read", Duration::from_secs(60), sent_to_client);
    let peak = bed.proxy().peak_memory_bytes();
    assert!(peak < MEMORY_BYTES, "the proxy held {peak} bytes");
    let mut stdout = child.stdout.take().expect("piped");
    let mut some = vec![0xff; 16 << 20];
    stdout.read_exact(&mut some).expect("it goes on");
    assert!(some.iter().all(|&byte| byte == 0));
    child.kill().expect("killed");
    child.wait().expect("reaped");
    drop(stdout);
    assert_well(&bed);
}

#[test]
fn a_target_that_never_reads_costs_bounded_memory_and_others_go_on() {
    let bed = bed("");
    let mut child = started(bed.ssh().arg("echo started; sleep 1000"));
    let mut stdin = child.stdin.take().expect("piped");
    let taken = Arc::new(AtomicU64::new(0));
    let feeder = thread::spawn({
        let taken = taken.clone();
        move || {
            while stdin.write_all(&[0; 64 << 10]).is_ok() {
                taken.fetch_add(64 << 10, Ordering::Relaxed);
            }
        }
    });
    let read = || taken.load(Ordering::Relaxed);
    let held = settled("nothing more is taken for who does not read", Duration::from_secs(60), read);
    println!("{} MiB were taken for a target that reads nothing", held >> 20);
    assert_well(&bed);
    child.kill().expect("killed");
    child.wait().expect("reaped");
    feeder.join().expect("no panic");
}

#[test]
fn a_client_that_dies_silently_is_given_up() {
    let bed = bed("client_keepalive_ms = 1000\n");
    let child = started(bed.ssh().arg("echo started; cat"));
    let pid = Pid::from_raw(child.id().try_into().expect("positive"));
    kill(pid, Signal::SIGSTOP).expect("stopped");
    let recording = bed.recording(1);
    bed.assert_verifies(&recording);
    assert_eq!(recording.stream(0, "stdout"), b"started\n");
    let outcome = &recording.manifest["outcome"];
    assert_eq!(
        (&outcome["kind"], &outcome["reason"]),
        (&"ended".into(), &"the connection to the client was lost".into())
    );
    kill(pid, Signal::SIGKILL).expect("killed");
    let mut child = child;
    child.wait().expect("reaped");
    assert_well(&bed);
}

#[test]
fn a_target_that_dies_silently_is_given_up_with_the_reason() {
    let bed = bed("target_keepalive_ms = 200\n");
    let mut child = started(bed.ssh().arg("echo started; echo $PPID; read go; kill -STOP $PPID; sleep 1000"));
    let (mut line, mut byte) = (String::new(), [0]);
    while byte != *b"\n" {
        child.stdout.as_mut().expect("piped").read_exact(&mut byte).expect("it says its process");
        line.push(char::from(byte[0]));
    }
    let sshd: i32 = line.trim().parse().expect("a process id");
    child.stdin.as_mut().expect("piped").write_all(b"go\n").expect("taken");
    let status = eventually("the session ends", || child.try_wait().expect("our child"));
    kill(Pid::from_raw(sshd), Signal::SIGKILL).expect("killed");
    assert_eq!(status.code(), Some(255));
    let mut said = String::new();
    child.stderr.as_mut().expect("piped").read_to_string(&mut said).expect("text");
    assert!(said.contains("the connection to the server was lost"), "{said}");
    let recording = bed.recording(1);
    bed.assert_verifies(&recording);
    assert_eq!(recording.manifest["outcome"]["kind"], "ended");
    assert_well(&bed);
}
