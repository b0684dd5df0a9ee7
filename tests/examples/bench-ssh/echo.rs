//! How long one byte takes to the target and back.

use std::{
    io::{Read, Write},
    process::{Child, ChildStdin, ChildStdout, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};

use crate::{
    Scale,
    lab::{Lab, Offer, Route},
    report::{Goal, Row},
    samples::{Samples, quantile},
};

pub(crate) fn latency(lab: &mut Lab, scale: &Scale) -> Result<Vec<Row>> {
    let measured = measure(lab, scale, "echo")?;
    lab.settle()?;
    Ok(vec![
        Row::new("echo p50", "µs", measured.p50).with_goal(Goal::AtMostOver(150.0, Route::Direct)),
        Row::new("echo p99", "µs", measured.p99),
    ])
}

/// Both in microseconds, a sample a round.
pub(crate) struct Measured {
    pub(crate) p50: Samples,
    pub(crate) p99: Samples,
}

/// Echoes in blocks, over sessions of all routes that are open together.
pub(crate) fn measure(lab: &mut Lab, scale: &Scale, what: &str) -> Result<Measured> {
    let mut measured = Measured { p50: Samples::default(), p99: Samples::default() };
    for round in 0..=scale.rounds {
        eprintln!("{what}: round {round} of {} (0 warms up)", scale.rounds);
        let sessions =
            Route::in_round(round).map(|route| Ok((route, Session::open(lab, route)?, Vec::new())));
        let mut sessions = sessions.collect::<Result<Vec<_>>>()?;
        for _ in 0..scale.echoes / BLOCK {
            for (route, session, latencies) in &mut sessions {
                for _ in 0..BLOCK {
                    latencies.push(session.echo().with_context(|| format!("{route:?}"))?);
                }
            }
        }
        for (route, session, latencies) in sessions {
            session.close()?;
            if round > 0 {
                measured.p50.push(route, quantile(&latencies, 0.5).context("some echoes")?);
                measured.p99.push(route, quantile(&latencies, 0.99).context("some echoes")?);
            }
        }
    }
    Ok(measured)
}

/// Echoes in a row before the next route has its turn.
const BLOCK: usize = 100;

/// `ssh` with `cat` on a raw pty at the other end.
struct Session {
    child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
}

impl Session {
    fn open(lab: &mut Lab, route: Route) -> Result<Self> {
        let mut ssh = lab.ssh(route, Offer::Default);
        ssh.args(["-tt", "stty raw -echo; echo go; exec cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = ssh.spawn()?;
        let stdin = child.stdin.take().context("its input is piped")?;
        let mut stdout = child.stdout.take().context("its output is piped")?;
        let mut ready = [0; 3];
        stdout.read_exact(&mut ready).with_context(|| format!("{route:?} does not come up"))?;
        Ok(Self { child, stdin, stdout })
    }

    /// In microseconds.
    fn echo(&mut self) -> Result<f64> {
        let started = Instant::now();
        self.stdin.write_all(b"x")?;
        let mut answer = [0];
        self.stdout.read_exact(&mut answer)?;
        let took = started.elapsed();
        ensure!(answer == *b"x", "{answer:?} came back");
        Ok(took.as_secs_f64() * 1e6)
    }

    /// `cat` on a raw terminal has no end of its own.
    fn close(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}
