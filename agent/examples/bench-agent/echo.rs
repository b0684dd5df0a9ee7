//! A frame there and one back through the taps of one session, alone and beside a session that floods small records as
//! fast as it can.
//!
//! One thread sends and takes both frames, so that no scheduling of legs is in it, nor a network: it shows what
//! tosses cost, pauses until a tossed frame is sent again included. `bench ssh` has the echo of the whole path.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Instant,
};

use anyhow::Result;
use weir_common::frame::Direction;

use crate::{
    Scale,
    feeder::{stdin_frame, stdout_frame},
    node::{Node, Session},
    report::{Row, quantile},
};

pub(crate) fn latency(scale: &Scale) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (rings, extra) in [(1, ""), (2, "cpu_groups = ['0', '1']\n")] {
        for flooded in [false, true] {
            let (mut p50, mut p99, mut flood) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..scale.rounds {
                let (micros, rate) = round(scale, extra, flooded)?;
                p50.extend(quantile(&micros, 0.5));
                p99.extend(quantile(&micros, 0.99));
                flood.push(rate);
            }
            let beside = if flooded { "beside one that floods" } else { "alone" };
            rows.push(Row::new(format!("taps there and back, {beside}, p50, {rings} ring(s)"), "µs", p50));
            rows.push(Row::new(format!("taps there and back, {beside}, p99, {rings} ring(s)"), "µs", p99));
            if flooded {
                rows.push(Row::new(format!("records of the flood, {rings} ring(s)"), "records/s", flood));
            }
        }
    }
    Ok(rows)
}

/// The echoes in microseconds, and the records a second of the flood.
fn round(scale: &Scale, extra: &str, flooded: bool) -> Result<(Vec<f64>, f64)> {
    let node = Node::start(extra)?;
    // With two rings they are in different ones.
    let (mut quiet, mut noisy) = (node.session()?, node.session()?);
    let enough = &AtomicBool::new(!flooded);
    let (micros, rate) = thread::scope(|scope| {
        let flood = scope.spawn(move || flood(&mut noisy, enough).map(|rate| (rate, noisy)));
        let micros = echoes(&mut quiet, scale.echoes);
        enough.store(true, Ordering::Relaxed);
        let (rate, noisy) = flood.join().expect("no panic")?;
        noisy.close()?;
        anyhow::Ok((micros?, rate))
    })?;
    quiet.close()?;
    Ok((micros, rate))
}

fn echoes(session: &mut Session, count: usize) -> Result<Vec<f64>> {
    let (mut key, mut echo) = (stdin_frame(b"k"), stdout_frame(b"k"));
    let mut echo_one = || {
        let begin = Instant::now();
        session.feeder.pass(Direction::ClientToTarget, &mut key)?;
        session.feeder.pass(Direction::TargetToClient, &mut echo)?;
        Ok(begin.elapsed().as_secs_f64() * 1e6)
    };
    // As a person types, not as fast as it goes: the flood is to get in between.
    (0..count)
        .map(|_| {
            crate::rest(std::time::Duration::from_micros(200));
            echo_one()
        })
        .collect()
}

fn flood(session: &mut Session, enough: &AtomicBool) -> Result<f64> {
    let mut frame = stdout_frame(&[b'x'; 64]);
    let (begin, mut passed) = (Instant::now(), 0_u64);
    while !enough.load(Ordering::Relaxed) {
        // Tossed or not, it goes on.
        passed += u64::from(session.feeder.try_pass(Direction::TargetToClient, &mut frame)?);
    }
    Ok(passed as f64 / begin.elapsed().as_secs_f64())
}
