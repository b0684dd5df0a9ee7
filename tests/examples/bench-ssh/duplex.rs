//! Bulk both ways through `cat`, with a reader that starts when nothing moves any more.
//!
//! Time runs from when the reader starts.

use std::{
    io::Write,
    process::Stdio,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use weir_tests::eventually;

use crate::{
    MIB, Scale, bulk,
    lab::{Lab, Offer, Route},
    report::Row,
    samples::Samples,
};

pub(crate) fn both_ways(lab: &mut Lab, scale: &Scale) -> Result<Vec<Row>> {
    let source = bulk::random(scale.duplex_bytes);
    let mut seconds = Samples::default();
    for round in 0..=scale.rounds {
        eprintln!("duplex: round {round} of {} (0 warms up)", scale.rounds);
        for route in Route::in_round(round) {
            let took = there_and_back(lab, route, &source).with_context(|| format!("{route:?}"))?;
            lab.settle()?;
            if round > 0 {
                seconds.push(route, took);
            }
        }
    }
    let what = format!("duplex: {} MiB both ways", scale.duplex_bytes / MIB);
    Ok(vec![Row::new(what, "s", seconds)])
}

fn there_and_back(lab: &mut Lab, route: Route, source: &[u8]) -> Result<f64> {
    let mut ssh = lab.ssh(route, Offer::Default);
    let mut child = ssh.arg("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().context("its input is piped")?;
    let fed = &AtomicUsize::new(0);
    let seconds = thread::scope(|scope| {
        let feeder = scope.spawn(move || {
            source.chunks(64 << 10).try_for_each(|chunk| {
                fed.fetch_add(chunk.len(), Ordering::Relaxed);
                stdin.write_all(chunk)
            })
        });
        wait_until_stuck(fed);
        let started = Instant::now();
        let received = bulk::receive(&mut child, source);
        let seconds = started.elapsed().as_secs_f64();
        feeder.join().expect("the feeder does not panic").context("feeding ssh")?;
        received.map(|_| seconds)
    })?;
    ensure!(child.wait()?.success(), "ssh failed");
    Ok(seconds)
}

/// Every buffer on the way and back is full.
fn wait_until_stuck(fed: &AtomicUsize) {
    let mut last = 0;
    eventually("nothing more can be sent while nobody reads", || {
        #[expect(clippy::disallowed_methods, reason = "the interval over which nothing may move")]
        thread::sleep(Duration::from_millis(300));
        let now = fed.load(Ordering::Relaxed);
        (std::mem::replace(&mut last, now) == now && now >= MIB).then_some(())
    });
}
