//! New keys in the middle of a transfer, asked for by anyone, on either leg: nothing is lost, nothing is twice.

use std::{
    io::{Read, Write},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use rand::RngExt;
use sha2::{Digest, Sha256};
use weir_tests::{Bed, BedOptions, eventually};

const MIB: usize = 1 << 20;

/// What is to be seen in the logs of the user's client and of the target.
#[derive(Default)]
struct Exchanges {
    client: usize,
    target: usize,
}

/// Sends random bytes through `cat` and back while keys change; checks them at the user's end and in the recording.
/// With a pace, each mebibyte waits that long.
fn both_ways(options: BedOptions, ssh_options: &[&str], bytes: usize, pace: Option<Duration>) -> Exchanges {
    let extra_target_config = format!("LogLevel DEBUG1\n{}", options.extra_target_config);
    let bed = Bed::start(BedOptions { extra_target_config, ..options });
    let mut sent = vec![0; bytes];
    rand::rng().fill(&mut sent[..]);
    let expected = Sha256::digest(&sent);
    let mut ssh = bed.ssh();
    ssh.arg("-v").args(ssh_options).arg("cat");
    let mut child =
        ssh.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("ssh starts");
    let mut stdin = child.stdin.take().expect("piped");
    let feeder = thread::spawn(move || {
        for chunk in sent.chunks(MIB) {
            stdin.write_all(chunk).expect("ssh takes its input");
            #[expect(
                clippy::disallowed_methods,
                reason = "the transfer has to last, for keys to grow old in it"
            )]
            pace.into_iter().for_each(thread::sleep);
        }
    });
    let mut stderr = child.stderr.take().expect("piped");
    let complaints = thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).expect("text");
        text
    });
    let mut received = Vec::new();
    child.stdout.take().expect("piped").read_to_end(&mut received).expect("ssh's output");
    feeder.join().expect("the feeder does not panic");
    let said = complaints.join().expect("the reader does not panic");
    assert!(child.wait().expect("ssh ends").success(), "{said}");
    assert_eq!(Sha256::digest(&received), expected, "what came back is not what was sent");

    let recording = bed.recording(1);
    bed.assert_verifies(&recording);
    assert_eq!(Sha256::digest(recording.stream(0, "stdin")), expected);
    assert_eq!(Sha256::digest(recording.stream(0, "stdout")), expected);
    let exchanges = |log: &str| log.matches("SSH2_MSG_NEWKEYS received").count();
    Exchanges { client: exchanges(&said), target: exchanges(&bed.target_log()) }
}

fn proxy(extra: &str) -> BedOptions {
    BedOptions { proxy_settings: extra.to_owned(), ..Default::default() }
}

#[test]
fn the_users_client_asks_by_volume() {
    let seen = both_ways(BedOptions::default(), &["-o", "RekeyLimit=1M"], 24 * MIB, None);
    assert!(seen.client > 20 && seen.target == 1, "{} and {}", seen.client, seen.target);
}

#[test]
fn the_target_asks_by_volume() {
    let options = BedOptions { extra_target_config: "RekeyLimit 1M".to_owned(), ..Default::default() };
    let seen = both_ways(options, &[], 24 * MIB, None);
    assert!(seen.target > 20 && seen.client == 1, "{} and {}", seen.client, seen.target);
}

#[test]
fn the_connector_asks_by_volume_on_both_legs() {
    let seen = both_ways(proxy("rekey_bytes = 1048576\n"), &[], 24 * MIB, None);
    assert!(seen.client > 10 && seen.target > 10, "{} and {}", seen.client, seen.target);
}

#[test]
fn the_connector_asks_by_time_on_both_legs() {
    let seen = both_ways(proxy("rekey_seconds = 1\n"), &[], 10 * MIB, Some(Duration::from_millis(500)));
    assert!(seen.client > 3 && seen.target > 3, "{} and {}", seen.client, seen.target);
}

#[test]
fn client_and_target_ask_by_time() {
    let options =
        BedOptions { extra_target_config: "RekeyLimit default 1s".to_owned(), ..Default::default() };
    let seen =
        both_ways(options, &["-o", "RekeyLimit=default 1s"], 10 * MIB, Some(Duration::from_millis(500)));
    assert!(seen.client > 3 && seen.target > 3, "{} and {}", seen.client, seen.target);
}

#[test]
fn everybody_asks_at_once() {
    let options = BedOptions {
        extra_target_config: "RekeyLimit 1M 1s".to_owned(),
        ..proxy("rekey_bytes = 1048576\nrekey_seconds = 1\n")
    };
    let seen = both_ways(options, &["-o", "RekeyLimit=1M 1s"], 48 * MIB, None);
    assert!(seen.client > 20 && seen.target > 20, "{} and {}", seen.client, seen.target);
}

#[test]
fn both_legs_rekey_while_nobody_reads_and_the_transfer_completes_afterwards() {
    let bed = Bed::start(proxy("rekey_bytes = 1048576\nrekey_seconds = 1\n"));
    let mut sent = vec![0; 48 * MIB];
    rand::rng().fill(&mut sent[..]);
    let expected = Sha256::digest(&sent);
    let mut child =
        bed.ssh().arg("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("ssh starts");
    let mut stdin = child.stdin.take().expect("piped");
    let fed = Arc::new(AtomicUsize::new(0));
    let feeder = thread::spawn({
        let fed = fed.clone();
        move || {
            for chunk in sent.chunks(64 << 10) {
                stdin.write_all(chunk).expect("ssh takes its input");
                fed.fetch_add(chunk.len(), Ordering::Relaxed);
            }
        }
    });
    let mut last = 0;
    eventually("every buffer on the way and back is full, for several lifetimes of a key", || {
        #[expect(clippy::disallowed_methods, reason = "the interval over which nothing may move")]
        thread::sleep(Duration::from_secs(4));
        let now = fed.load(Ordering::Relaxed);
        // A gate that is shut is probed, for the answer that new keys need: a little gets through.
        let before = std::mem::replace(&mut last, now);
        println!("{} KiB were taken, {} KiB of them just now", now >> 10, (now - before) >> 10);
        (now - before < MIB / 4 && now > MIB).then_some(())
    });
    let peak = bed.proxy().peak_memory_bytes();
    assert!(peak < 64 << 20, "the proxy held {peak} bytes");
    let mut received = Vec::new();
    child.stdout.take().expect("piped").read_to_end(&mut received).expect("ssh's output");
    feeder.join().expect("the feeder does not panic");
    assert!(child.wait().expect("ssh ends").success());
    assert_eq!(Sha256::digest(&received), expected);
    let recording = bed.recording(1);
    bed.assert_verifies(&recording);
    assert_eq!(Sha256::digest(recording.stream(0, "stdout")), expected);
}

#[test]
fn new_keys_while_many_channels_have_more_under_way_than_their_targets_take() {
    const CHANNELS: usize = 8;
    let bed = Bed::start(proxy("rekey_seconds = 1\n"));
    let mut master = bed.shared_ssh().args(["-M", "-N"]).spawn().expect("ssh starts");
    eventually("the master listens", || bed.control_path().exists().then_some(()));
    let uploads: Vec<_> = (0..CHANNELS)
        .map(|_| {
            let mut command = bed.shared_ssh();
            command.arg("sleep 5; sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped());
            thread::spawn(move || {
                let mut data = vec![0; 12 * MIB];
                rand::rng().fill(&mut data[..]);
                let expected =
                    Sha256::digest(&data).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
                let mut child = command.spawn().expect("ssh starts");
                let mut stdin = child.stdin.take().expect("piped");
                let fed = stdin.write_all(&data);
                drop(stdin);
                let output = child.wait_with_output().expect("ssh ends");
                fed.expect("ssh takes its input");
                assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{expected}  -\n"));
            })
        })
        .collect();
    for upload in uploads {
        upload.join().expect("the upload completes");
    }
    bed.shared_ssh().args(["-O", "exit"]).stderr(Stdio::null()).status().expect("ssh runs");
    master.wait().expect("the master ends");
    bed.assert_verifies(&bed.recording(1));
}
