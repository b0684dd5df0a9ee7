//! Bulk data one way through a session without a pty, and what CPU it takes.
//!
//! The data is random, so that nothing gets cheaper by compression. Time runs from the first byte to the last, so
//! that setting up the session is not in it; CPU runs until the session is in the store.

use std::{
    io::{Read, Write},
    path::Path,
    process::{Child, Stdio},
    thread,
    time::Instant,
};

use anyhow::{Context, Result, ensure};
use rand::RngExt;
use sha2::{Digest, Sha256};
use weir_tests::recording::Recording;

use crate::{
    MIB, Scale,
    lab::{Lab, Offer, Route},
    report::{Goal, Row},
    samples::Samples,
    usage::Usage,
};

/// Random bytes.
pub(crate) fn random(bytes: usize) -> Vec<u8> {
    let mut data = vec![0; bytes];
    rand::rng().fill(&mut data[..]);
    data
}

pub(crate) fn download(lab: &mut Lab, scale: &Scale, offer: Offer) -> Result<Vec<Row>> {
    let source = random(scale.bulk_bytes);
    let path = lab.file("random", &source)?;
    let mut measured = Measured::default();
    for round in 0..=scale.rounds {
        eprintln!("download, {}: round {round} of {} (0 warms up)", offer.name(), scale.rounds);
        for route in Route::in_round(round) {
            let before = lab.usage()?;
            let seconds = fetch(lab, route, offer, &path, &source).with_context(|| format!("{route:?}"))?;
            check_recorded(lab, route, round, "stdout", &source)?;
            lab.settle()?;
            if round > 0 {
                measured.push(route, seconds, source.len(), lab.usage()? - before);
            }
        }
    }
    Ok(measured.rows("download", offer, Goal::AtLeastTimes(1.0, Route::Jump)))
}

pub(crate) fn upload(lab: &mut Lab, scale: &Scale, offer: Offer) -> Result<Vec<Row>> {
    let source = random(scale.bulk_bytes);
    let mut measured = Measured::default();
    for round in 0..=scale.rounds {
        eprintln!("upload, {}: round {round} of {} (0 warms up)", offer.name(), scale.rounds);
        for route in Route::in_round(round) {
            let before = lab.usage()?;
            let seconds =
                store(lab, route, offer, round == 0, &source).with_context(|| format!("{route:?}"))?;
            check_recorded(lab, route, round, "stdin", &source)?;
            lab.settle()?;
            if round > 0 {
                measured.push(route, seconds, source.len(), lab.usage()? - before);
            }
        }
    }
    Ok(measured.rows("upload", offer, Goal::AtLeastTimes(1.2, Route::Jump)))
}

fn fetch(lab: &mut Lab, route: Route, offer: Offer, path: &Path, expected: &[u8]) -> Result<f64> {
    let mut child = lab.ssh(route, offer).arg("cat").arg(path).stdout(Stdio::piped()).spawn()?;
    let seconds = receive(&mut child, expected)?;
    ensure!(child.wait()?.success(), "ssh failed");
    Ok(seconds)
}

/// Reads a child's output to its end and compares it, and tells the seconds from the first bytes to the end.
pub(crate) fn receive(child: &mut Child, expected: &[u8]) -> Result<f64> {
    let mut stdout = child.stdout.take().context("its output is piped")?;
    let mut chunk = vec![0; 256 << 10];
    let (mut started, mut received) = (None, 0);
    loop {
        let len = stdout.read(&mut chunk)?;
        let started = started.get_or_insert_with(Instant::now);
        if len == 0 {
            ensure!(received == expected.len(), "{received} bytes arrived of {}", expected.len());
            return Ok(started.elapsed().as_secs_f64());
        }
        let same = expected.get(received..received + len) == Some(&chunk[..len]);
        ensure!(same, "something else than was sent arrived behind {received} bytes");
        received += len;
    }
}

/// Uploads, and tells the seconds from when the target was ready to when it had counted everything.
fn store(lab: &mut Lab, route: Route, offer: Offer, digest: bool, source: &[u8]) -> Result<f64> {
    let command = if digest { "echo go; exec sha256sum" } else { "echo go; exec wc -c" };
    let expected = if digest { format!("{}  -\n", hex(source)) } else { format!("{}\n", source.len()) };
    let mut ssh = lab.ssh(route, offer);
    let mut child = ssh.arg(command).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().context("its input is piped")?;
    let mut stdout = child.stdout.take().context("its output is piped")?;
    let mut ready = [0; 3];
    stdout.read_exact(&mut ready)?;
    let started = Instant::now();
    let mut answer = String::new();
    thread::scope(|scope| {
        let feeder = scope.spawn(move || stdin.write_all(source));
        let read = stdout.read_to_string(&mut answer);
        feeder.join().expect("the feeder does not panic").context("feeding ssh")?;
        read.context("reading from ssh")
    })?;
    let seconds = started.elapsed().as_secs_f64();
    ensure!(child.wait()?.success(), "ssh failed");
    ensure!(answer == expected, "the target received {answer:?} instead of {expected:?}");
    Ok(seconds)
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The recording is read back and compared once, in the round that warms up.
fn check_recorded(lab: &mut Lab, route: Route, round: usize, kind: &str, source: &[u8]) -> Result<()> {
    if route != Route::Weir || round > 0 {
        return Ok(());
    }
    let sessions = lab.stored()?;
    let recording = Recording::read(sessions.first().context("a session is stored")?)?;
    ensure!(recording.stream(0, kind) == source, "the recording holds something else than was sent");
    Ok(())
}

/// Speed and CPU.
#[derive(Default)]
pub(crate) struct Measured {
    mib_s: Samples,
    relay: Samples,
    agent: Samples,
}

impl Measured {
    pub(crate) fn push(&mut self, route: Route, seconds: f64, bytes: usize, used: Usage) {
        let Self { mib_s, relay, agent } = self;
        mib_s.push(route, bytes as f64 / MIB as f64 / seconds);
        let gib = bytes as f64 / (1024.0 * MIB as f64);
        match route {
            Route::Direct => {}
            Route::Jump => relay.push(route, used.jump.as_secs_f64() / gib),
            Route::Weir => {
                relay.push(route, used.proxy.as_secs_f64() / gib);
                agent.push(route, used.agent.as_secs_f64() / gib);
            }
        }
    }

    pub(crate) fn rows(self, what: &str, offer: Offer, goal: Goal) -> Vec<Row> {
        let name = |of: &str| format!("{what}, {}{of}", offer.name());
        let mut rows = vec![
            Row::new(name(""), "MiB/s", self.mib_s).with_goal(goal),
            Row::new(name(": proxy CPU"), "s/GiB", self.relay),
            Row::new(name(": agent CPU"), "s/GiB", self.agent),
        ];
        if offer == Offer::AesGcm {
            let goals = [None, Some(Goal::AtMost(2.5)), Some(Goal::AtMost(2.0))];
            let with_goals = rows.into_iter().zip(goals);
            rows =
                with_goals.map(|(row, goal)| goal.map_or(row.clone(), |goal| row.with_goal(goal))).collect();
        }
        rows
    }
}
