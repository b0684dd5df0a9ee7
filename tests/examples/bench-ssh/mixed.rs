//! 64 KiB typed while 8 MiB are printed on a pty.

use std::{
    io::{Read, Write},
    process::Stdio,
    thread,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::{
    MIB, Scale,
    lab::{Lab, Offer, Route},
    report::Row,
    samples::Samples,
};

const TYPED: usize = 64 << 10;
const PRINTED: usize = 8 * MIB;
/// Bytes of a stroke: somebody pastes.
const STROKE: usize = 16;

pub(crate) fn typing(lab: &mut Lab, scale: &Scale) -> Result<Vec<Row>> {
    let typed: Vec<u8> = b"abcdefghijklmnopqrstuvwxyz\n".iter().copied().cycle().take(TYPED).collect();
    let mut seconds = Samples::default();
    for round in 0..=scale.rounds {
        eprintln!("mixed: round {round} of {} (0 warms up)", scale.rounds);
        for route in Route::in_round(round) {
            let took = type_and_print(lab, route, &typed).with_context(|| format!("{route:?}"))?;
            lab.settle()?;
            if round > 0 {
                seconds.push(route, took);
            }
        }
    }
    let what = format!("mixed: {} KiB typed, {} MiB printed", TYPED >> 10, PRINTED / MIB);
    Ok(vec![Row::new(what, "s", seconds)])
}

fn type_and_print(lab: &mut Lab, route: Route, typed: &[u8]) -> Result<f64> {
    // A shell gives what runs in the background no standard input but what it is given by number.
    let script = format!(
        "stty raw -echo; exec 3<&0; echo go; (head -c {TYPED} <&3 | sha256sum) & \
         yes 0123456789abcdef | head -c {PRINTED}; wait"
    );
    let mut ssh = lab.ssh(route, Offer::Default);
    let mut child = ssh.arg("-tt").arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().context("its input is piped")?;
    let mut stdout = child.stdout.take().context("its output is piped")?;
    let mut ready = [0; 3];
    stdout.read_exact(&mut ready)?;
    let started = Instant::now();
    let mut shown = Vec::with_capacity(PRINTED + 128);
    thread::scope(|scope| {
        let feeder = scope.spawn(|| {
            let fed = typed.chunks(STROKE).try_for_each(|keys| stdin.write_all(keys));
            // Its end would be a hang-up to what runs there.
            (fed, stdin)
        });
        let read = stdout.read_to_end(&mut shown);
        let (fed, _stdin) = feeder.join().expect("the feeder does not panic");
        fed.context("feeding ssh")?;
        read.context("reading from ssh")
    })?;
    let seconds = started.elapsed().as_secs_f64();
    ensure!(child.wait()?.success(), "ssh failed");
    let digest: String = Sha256::digest(typed).iter().map(|byte| format!("{byte:02x}")).collect();
    let digest = format!("{digest}  -\n");
    ensure!(shown.len() == PRINTED + digest.len(), "{} bytes were printed", shown.len());
    let found = shown.windows(digest.len()).any(|window| window == digest.as_bytes());
    ensure!(found, "the target read something else than was typed");
    Ok(seconds)
}
