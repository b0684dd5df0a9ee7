//! What the agent costs and what it can take: draining, storing, restarting, recovering, memory, and how one
//! session feels another that floods. Run it with `cargo xtask bench agent`; it takes root.
//!
//! Draining and recovery are measured on the agent's own parts inside this process, so that nothing but them is
//! in the numbers; everything else on a real agent, by a proxy's side of control socket and taps. Medians are
//! reported; with `--json` every sample.

mod drain;
mod echo;
mod feeder;
mod idle;
mod node;
#[expect(dead_code, reason = "the tests' proxy does more than the benchmark needs")]
#[path = "../../tests/support/proxy.rs"]
mod proxy;
mod recovery;
mod report;
mod restart;
mod stored;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::{Parser, ValueEnum};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::report::{Machine, Report, Row, load};

/// How long anything may take before the benchmark gives up on it.
const PATIENCE: Duration = Duration::from_secs(120);

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
    Drain,
    Recovery,
    Idle,
    Restart,
    Stored,
    Echo,
}

/// How much of everything.
struct Scale {
    rounds: usize,
    /// Bytes of large records that are drained in a round, over all rings.
    drained_bytes: u64,
    /// Small records that are drained in a round, over all rings.
    drained_records: u64,
    /// Bytes of the spool that is recovered.
    recovered_bytes: u64,
    /// Sessions of `idle` and `restart`.
    sessions: usize,
    /// Bytes of each kind of content that is stored.
    stored_bytes: usize,
    /// Echoes in a round.
    echoes: usize,
}

const MIB: u64 = 1 << 20;

impl Scale {
    fn new(Options { json: _, quick, only: _, rounds }: &Options) -> Self {
        let rounds = rounds.map(usize::from);
        if *quick {
            Self {
                rounds: rounds.unwrap_or(2),
                drained_bytes: 512 * MIB,
                drained_records: 500_000,
                recovered_bytes: 256 * MIB,
                sessions: 200,
                stored_bytes: 8 << 20,
                echoes: 1_000,
            }
        } else {
            Self {
                rounds: rounds.unwrap_or(5),
                drained_bytes: 2048 * MIB,
                drained_records: 3_000_000,
                recovered_bytes: 1024 * MIB,
                sessions: 1_000,
                stored_bytes: 64 << 20,
                echoes: 5_000,
            }
        }
    }
}

fn main() -> Result<()> {
    if recovery::recover_if_asked()? {
        return Ok(());
    }
    let options = Options::parse();
    // A thousand sessions take three thousand descriptors here; the agent inherits the limit.
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;

    let scale = Scale::new(&options);
    let machine = Machine::now()?;
    let (mut rows, mut failures) = (Vec::new(), Vec::new());
    let wanted = |one: &Measurement| options.only.is_empty() || options.only.contains(one);
    for measurement in Measurement::value_variants().iter().copied().filter(wanted) {
        eprintln!("{measurement:?}, load {}", load()?);
        match measure(measurement, &scale) {
            Ok(measured) => rows.extend(measured),
            Err(error) => {
                eprintln!("{measurement:?} failed: {error:#}");
                failures.push(format!("{measurement:?}"));
            }
        }
    }
    let report = Report { machine, load_at_end: load()?, quick: options.quick, rounds: scale.rounds, rows };
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

fn measure(measurement: Measurement, scale: &Scale) -> Result<Vec<Row>> {
    match measurement {
        Measurement::Drain => drain::drained(scale),
        Measurement::Recovery => recovery::recovered(scale),
        Measurement::Idle => idle::memory(scale),
        Measurement::Restart => restart::pauses(scale),
        Measurement::Stored => stored::sizes(scale),
        Measurement::Echo => echo::latency(scale),
    }
}

/// Waits until this is true.
fn wait_until(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_true() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        rest(Duration::from_millis(1));
    }
}

/// Lets others have the processor.
fn rest(pause: Duration) {
    #[expect(clippy::disallowed_methods, reason = "between two looks at a condition, or as a proxy pauses")]
    std::thread::sleep(pause);
}
