//! Connecting, running `true` and closing: how long, how many a second, and what CPU it takes.
//!
//! With OpenSSH's own offer two OpenSSH agree on a post-quantum key exchange that takes most of the time. So it is
//! measured again with the same key exchange on every connection.

use std::{process::Command, thread, time::Instant};

use anyhow::{Context, Result, ensure};

use crate::{
    Scale,
    lab::{Lab, Offer, Route},
    report::{Goal, Row},
    samples::{Samples, quantile},
};

pub(crate) fn set_up(lab: &mut Lab, scale: &Scale, offer: Offer) -> Result<Vec<Row>> {
    let (mut latency, mut rate) = (Samples::default(), Samples::default());
    let (mut both, mut proxy, mut agent) = (Samples::default(), Samples::default(), Samples::default());
    for round in 0..=scale.rounds {
        eprintln!("connect, {}: round {round} of {} (0 warms up)", offer.name(), scale.rounds);
        let before = lab.usage()?;
        let latencies = one_by_one(lab, scale, offer, round)?;
        lab.settle()?;
        let used = lab.usage()? - before;
        let rates = concurrently(lab, scale, offer, round)?;
        lab.settle()?;
        if round == 0 {
            continue;
        }
        for (route, latencies) in latencies {
            latency.push(route, quantile(&latencies, 0.5).context("some connections")?);
        }
        rates.into_iter().for_each(|(route, sample)| rate.push(route, sample));
        let each = |seconds: f64| seconds * 1e3 / scale.connects as f64;
        both.push(Route::Weir, each((used.proxy + used.agent).as_secs_f64()));
        proxy.push(Route::Weir, each(used.proxy.as_secs_f64()));
        agent.push(Route::Weir, each(used.agent.as_secs_f64()));
        proxy.push(Route::Jump, each(used.jump.as_secs_f64()));
    }
    let name = |what: &str| format!("connect, {}: {what}", offer.name());
    Ok(vec![
        Row::new(name("p50"), "ms", latency).with_goal(Goal::Below(Route::Direct)),
        Row::new(name(&format!("rate of {CLIENTS} clients")), "1/s", rate),
        Row::new(name("CPU each"), "ms", both).with_goal(Goal::AtMost(5.0)),
        Row::new(name("proxy CPU each"), "ms", proxy),
        Row::new(name("agent CPU each"), "ms", agent),
    ])
}

/// How many connect at once.
const CLIENTS: usize = 8;

/// Milliseconds by route; the routes take turns.
fn one_by_one(lab: &mut Lab, scale: &Scale, offer: Offer, round: usize) -> Result<Vec<(Route, Vec<f64>)>> {
    let mut latencies: Vec<_> = Route::in_round(round).map(|route| (route, Vec::new())).collect();
    for _ in 0..scale.connects {
        for (route, latencies) in &mut latencies {
            let mut ssh = lab.ssh(*route, offer);
            let started = Instant::now();
            run(ssh.arg("true")).with_context(|| format!("{route:?}"))?;
            latencies.push(started.elapsed().as_secs_f64() * 1e3);
        }
    }
    Ok(latencies)
}

/// Connections a second by route.
fn concurrently(lab: &mut Lab, scale: &Scale, offer: Offer, round: usize) -> Result<Vec<(Route, f64)>> {
    Route::in_round(round)
        .map(|route| {
            let mut clients: Vec<Vec<_>> = Vec::new();
            for _ in 0..CLIENTS {
                clients.push((0..scale.concurrent_connects).map(|_| lab.ssh(route, offer)).collect());
            }
            let started = Instant::now();
            thread::scope(|scope| {
                let clients: Vec<_> = clients
                    .into_iter()
                    .map(|client| {
                        scope.spawn(|| client.into_iter().try_for_each(|mut ssh| run(ssh.arg("true"))))
                    })
                    .collect();
                clients.into_iter().try_for_each(|client| client.join().expect("a client does not panic"))
            })
            .with_context(|| format!("{route:?}, {CLIENTS} clients"))?;
            let connections = (CLIENTS * scale.concurrent_connects) as f64;
            Ok((route, connections / started.elapsed().as_secs_f64()))
        })
        .collect()
}

fn run(ssh: &mut Command) -> Result<()> {
    let status = ssh.status()?;
    ensure!(status.success(), "ssh: {status}");
    Ok(())
}
