//! The whole path measured: `ssh` to a target directly, through a second `sshd` with `ssh -J`, and through Weir
//! with capture on. Run it with `cargo xtask bench ssh`; it takes root.
//!
//! The routes alternate within every round of one run, so that what else the machine does hits them alike;
//! medians are reported. What arrives is compared with what was sent, byte by byte, and a route that fails, or a
//! session that does not get into the store, fails the benchmark.

mod bulk;
mod connect;
mod crowd;
mod duplex;
mod echo;
mod idle;
mod lab;
mod mixed;
mod pty;
mod report;
mod samples;
mod usage;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::{
    lab::{Lab, Offer},
    report::{Machine, Report, Row},
};

#[derive(Parser)]
struct Options {
    /// Print JSON, with every sample, instead of a table.
    #[arg(long)]
    json: bool,
    /// Fewer and smaller rounds.
    #[arg(long)]
    quick: bool,
    /// Only these measurements.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Measurement>,
    /// How many rounds to take medians of.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..1000))]
    rounds: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Measurement {
    Download,
    Upload,
    Pty,
    Echo,
    Connect,
    Duplex,
    Mixed,
    Idle,
}

/// How much of everything.
struct Scale {
    rounds: usize,
    bulk_bytes: usize,
    pty_bytes: usize,
    duplex_bytes: usize,
    /// Echoes of a route in a round.
    echoes: usize,
    /// Connections of a route in a round, one after the other.
    connects: usize,
    /// Connections of each of the concurrent clients in a round.
    concurrent_connects: usize,
    /// Numbers of idle sessions.
    idle: [usize; 2],
}

const MIB: usize = 1 << 20;

impl Scale {
    fn new(options: &Options) -> Self {
        let Options { json: _, quick, only: _, rounds } = options;
        let rounds = rounds.map(usize::from);
        if *quick {
            Self {
                rounds: rounds.unwrap_or(2),
                bulk_bytes: 64 * MIB,
                pty_bytes: 8 * MIB,
                duplex_bytes: 32 * MIB,
                echoes: 300,
                connects: 5,
                concurrent_connects: 3,
                idle: [50, 100],
            }
        } else {
            Self {
                rounds: rounds.unwrap_or(5),
                bulk_bytes: 256 * MIB,
                pty_bytes: 64 * MIB,
                duplex_bytes: 128 * MIB,
                echoes: 2_000,
                connects: 20,
                concurrent_connects: 10,
                idle: [500, 1_000],
            }
        }
    }
}

fn main() -> Result<()> {
    let options = Options::parse();
    // A thousand sessions take six thousand descriptors of the proxy, which inherits the limit.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;

    let scale = Scale::new(&options);
    let machine = Machine::now()?;
    let (mut rows, mut failures) = (Vec::new(), Vec::new());
    let wanted = |one: &Measurement| options.only.is_empty() || options.only.contains(one);
    for measurement in Measurement::value_variants().iter().copied().filter(wanted) {
        eprintln!("{measurement:?}, load {}", usage::load()?);
        match measure(measurement, &scale) {
            Ok(measured) => rows.extend(measured),
            Err(error) => {
                eprintln!("{measurement:?} failed: {error:#}");
                failures.push(format!("{measurement:?}"));
            }
        }
    }
    let report =
        Report { machine, load_at_end: usage::load()?, quick: options.quick, rounds: scale.rounds, rows };
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        report.print();
    }
    if !failures.is_empty() {
        bail!("failed: {}", failures.join(", "));
    }
    Ok(())
}

/// One measurement on a Weir of its own, so that none inherits the memory and the files of another.
fn measure(measurement: Measurement, scale: &Scale) -> Result<Vec<Row>> {
    let mut lab = Lab::start(&binaries()?)?;
    use Offer::{AesGcm, Curve25519, Default};
    match measurement {
        Measurement::Download => both([Default, AesGcm], |offer| bulk::download(&mut lab, scale, offer)),
        Measurement::Upload => both([Default, AesGcm], |offer| bulk::upload(&mut lab, scale, offer)),
        Measurement::Connect => both([Default, Curve25519], |offer| connect::set_up(&mut lab, scale, offer)),
        Measurement::Pty => pty::output(&mut lab, scale),
        Measurement::Echo => echo::latency(&mut lab, scale),
        Measurement::Duplex => duplex::both_ways(&mut lab, scale),
        Measurement::Mixed => mixed::typing(&mut lab, scale),
        Measurement::Idle => idle::crowded(&mut lab, scale),
    }
}

fn both(offers: [Offer; 2], measure: impl FnMut(Offer) -> Result<Vec<Row>>) -> Result<Vec<Row>> {
    Ok(offers.into_iter().map(measure).collect::<Result<Vec<_>>>()?.concat())
}

/// Where agent and proxy of the same build are.
fn binaries() -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let dir = exe.parent().and_then(|examples| examples.parent());
    dir.map(ToOwned::to_owned).context("an example lies in the target directory")
}
