//! What a client says message by message, with russh in the place of OpenSSH's client: the answers to requests,
//! signals, terminal modes, and what is refused.

use std::sync::Arc;

use russh::{
    Channel, ChannelMsg, Disconnect, Pty, Sig,
    client::{self, Handle, Msg},
    keys::{PrivateKeyWithHashAlg, PublicKeyOrCertificate, load_secret_key},
};
use weir_tests::{Bed, BedOptions, GRANT, TARGET_USER};

struct TrustingClient;

impl client::Handler for TrustingClient {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }
}

async fn log_in(bed: &Bed) -> Handle<TrustingClient> {
    let address = ("127.0.0.1", bed.proxy_port());
    let mut handle = client::connect(Arc::default(), address, TrustingClient).await.expect("connected");
    let key = load_secret_key(bed.path("user/key"), None).expect("the user's key");
    let key = PrivateKeyWithHashAlg::new(Arc::new(key), None);
    assert!(handle.authenticate_publickey(GRANT, key).await.expect("asked").success());
    handle
}

async fn log_out(handle: Handle<TrustingClient>) {
    handle.disconnect(Disconnect::ByApplication, "", "").await.expect("sent");
}

/// The answer to the oldest request that wanted one.
async fn answer(channel: &mut Channel<Msg>) -> bool {
    loop {
        match channel.wait().await.expect("an answer") {
            ChannelMsg::Success => return true,
            ChannelMsg::Failure => return false,
            _ => {}
        }
    }
}

/// Everything until the channel is closed: standard output and how the program ended.
async fn ending(mut channel: Channel<Msg>) -> (String, Option<ChannelMsg>) {
    let (mut output, mut end) = (Vec::new(), None);
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Data { data } => output.extend_from_slice(&data),
            ChannelMsg::ExitStatus { .. } | ChannelMsg::ExitSignal { .. } => end = Some(message),
            _ => {}
        }
    }
    (String::from_utf8_lossy(&output).into_owned(), end)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_answered_as_the_target_answers_them() {
    let bed = Bed::start(BedOptions::default());
    let handle = log_in(&bed).await;
    let mut channel = handle.channel_open_session().await.expect("a channel");
    channel.request_subsystem(true, "no-such-subsystem").await.expect("sent");
    assert!(!answer(&mut channel).await, "the target has no such subsystem");
    channel.set_env(true, "LC_WEIR", "yes").await.expect("sent");
    assert!(answer(&mut channel).await, "the target accepts it");
    channel.set_env(true, "LD_PRELOAD", "/tmp/x.so").await.expect("sent");
    assert!(!answer(&mut channel).await, "the connector does not let it through");
    channel.exec(true, "echo $LC_WEIR").await.expect("sent");
    assert!(answer(&mut channel).await, "the target runs it");
    let (output, end) = ending(channel).await;
    assert_eq!(output, "yes\n");
    assert!(matches!(end, Some(ChannelMsg::ExitStatus { exit_status: 0 })), "{end:?}");
    log_out(handle).await;

    let recording = bed.recording(1);
    bed.assert_verifies(&recording);
    assert_eq!((recording.kind("failure").len(), recording.kind("success").len()), (1, 2));
    assert!(recording.kind("env").iter().all(|env| env.json["name"] != "LD_PRELOAD"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_reaches_the_program_and_the_signal_that_ended_it_reaches_the_client() {
    let bed = Bed::start(BedOptions::default());
    // sshd refuses to signal the programs of a login that it has not given its privileges up for.
    let grant = std::fs::read_to_string(bed.grant_file(GRANT)).expect("a grant");
    let grant = grant.replace("target_login = \"root\"", &format!("target_login = \"{TARGET_USER}\""));
    std::fs::write(bed.grant_file(GRANT), grant).expect("written");
    let handle = log_in(&bed).await;
    let mut channel = handle.channel_open_session().await.expect("a channel");
    channel.exec(true, "echo on; exec sleep 1000").await.expect("sent");
    assert!(answer(&mut channel).await);
    // The answer comes before there is a program.
    let said = loop {
        if let ChannelMsg::Data { data } = channel.wait().await.expect("it says that it runs") {
            break data;
        }
    };
    assert_eq!(&said[..], b"on\n");
    channel.signal(Sig::TERM).await.expect("sent");
    let (_, end) = ending(channel).await;
    assert!(matches!(end, Some(ChannelMsg::ExitSignal { signal_name: Sig::TERM, .. })), "{end:?}");
    log_out(handle).await;

    let recording = bed.recording(1);
    bed.assert_verifies(&recording);
    assert_eq!(recording.kind("signal")[0].json["signal"], "TERM");
    assert_eq!(recording.kind("exit_signal")[0].json["signal"], "TERM");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terminal_modes_are_set_as_the_client_asks() {
    let bed = Bed::start(BedOptions::default());
    let handle = log_in(&bed).await;
    let mut channel = handle.channel_open_session().await.expect("a channel");
    let modes = [(Pty::ECHO, 0), (Pty::VERASE, 8), (Pty::TTY_OP_OSPEED, 9600), (Pty::TTY_OP_ISPEED, 9600)];
    channel.request_pty(true, "vt100", 132, 50, 0, 0, &modes).await.expect("sent");
    assert!(answer(&mut channel).await);
    channel.exec(true, "echo $TERM; stty -a").await.expect("sent");
    let (output, _) = ending(channel).await;
    for setting in ["vt100", "rows 50; columns 132", "erase = ^H", " -echo ", "speed 9600"] {
        assert!(output.contains(setting), "no {setting:?} in {output}");
    }
    log_out(handle).await;
    bed.assert_verifies(&bed.recording(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn global_requests_that_nobody_knows_are_refused_and_the_connection_goes_on() {
    let bed = Bed::start(BedOptions::default());
    let handle = log_in(&bed).await;
    let asked = handle.send_global_request("no-such-request@example.com", b"data", true).await;
    assert!(matches!(asked, Err(russh::Error::RequestDenied)), "{:?}", asked.map(drop));
    handle.no_more_sessions(true).await.expect("sent");
    handle.send_ping().await.expect("answered");
    let mut channel = handle.channel_open_session().await.expect("a channel");
    channel.exec(true, "echo on").await.expect("sent");
    assert!(answer(&mut channel).await);
    assert_eq!(ending(channel).await.0, "on\n");
    log_out(handle).await;
    bed.assert_verifies(&bed.recording(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channels_that_only_a_server_opens_are_refused_to_a_client() {
    let bed = Bed::start(BedOptions::default());
    let handle = log_in(&bed).await;
    let x11 = handle.channel_open_x11("127.0.0.1", 4000).await;
    assert!(matches!(x11, Err(russh::Error::ChannelOpenFailure(_))), "{:?}", x11.map(drop));
    let mut channel = handle.channel_open_session().await.expect("a channel");
    channel.exec(true, "echo on").await.expect("sent");
    assert!(answer(&mut channel).await);
    assert_eq!(ending(channel).await.0, "on\n");
}
