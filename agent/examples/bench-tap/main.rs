//! What capturing costs: CPU per message and throughput of one tap with capture off and on, and how much of
//! the ring is content. Run it with `cargo xtask bench tap`; it takes root.
//!
//! Off and on alternate round by round in one run, so that what else the machine does hits both; medians are
//! reported. CPU is the whole process's: sender, receiver and, with capture on, the drain that copies every
//! record out of the ring as the agent's does.

mod round;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde::Serialize;
use weir_agent::tap::{Ring, RingPlace, Rings, TapOptions, Taps};

use crate::round::{Capture, Measured, measure};

#[derive(Parser)]
struct Options {
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// Fewer and shorter rounds.
    #[arg(long)]
    quick: bool,
}

/// The medians for one size of body.
#[derive(Serialize)]
struct Row {
    body_bytes: usize,
    messages: u64,
    rounds: usize,
    off_cpu_us: f64,
    on_cpu_us: f64,
    added_cpu_us: f64,
    off_mb_s: f64,
    on_mb_s: f64,
    usable_percent: f64,
    /// How often the sender had to wait for the drain, over all rounds: the machine was busy with other things.
    waits: u64,
}

const BODIES: [usize; 4] = [64, 1024, 8192, 32 * 1024];
const RING_BYTES: u32 = 64 << 20;

fn main() -> Result<()> {
    let options = Options::parse();
    let dir = tempfile::tempdir().context("a directory to mount on")?;
    mount(Some("bpf"), dir.path(), Some("bpf"), MsFlags::empty(), None::<&str>)
        .context("mounting a bpffs; the benchmark takes root")?;
    let rows =
        run(&options, &TapOptions { bpf_dir: dir.path().into(), ring_bytes: RING_BYTES, max_taps: 64 });
    umount2(dir.path(), MntFlags::MNT_DETACH).context("unmounting")?;
    let rows = rows?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    } else {
        print_table(&rows);
    }
    Ok(())
}

fn run(options: &Options, tap_options: &TapOptions) -> Result<Vec<Row>> {
    let (mut taps, mut ring) = Rings::open(tap_options)?.open_ring(RingPlace::current(0))?;
    BODIES.iter().map(|&body| row(body, options.quick, &mut taps, &mut ring)).collect()
}

fn row(body: usize, quick: bool, taps: &mut Taps, ring: &mut Ring) -> Result<Row> {
    let (rounds, bytes) = if quick { (3, 64 << 20) } else { (9, 1 << 30) };
    let messages = (bytes / body as u64).min(if quick { 40_000 } else { 250_000 });
    let (mut off, mut on) = (Vec::new(), Vec::new());
    // One round of each to warm up.
    for round in 0..=rounds {
        let order = if round % 2 == 0 { [false, true] } else { [true, false] };
        for capture in order {
            let (capture, into) =
                if capture { (Some(Capture { taps, ring }), &mut on) } else { (None, &mut off) };
            let measured = measure(body, messages, capture)?;
            if round > 0 {
                into.push(measured);
            }
        }
    }
    let cpu = |measured: &Measured| measured.cpu.as_secs_f64() * 1e6 / messages as f64;
    let mb_s = |measured: &Measured| (body as u64 * messages) as f64 / 1e6 / measured.wall.as_secs_f64();
    let usable = |measured: &Measured| 100.0 * (body as u64 * messages) as f64 / measured.ring_bytes as f64;
    let added = off.iter().zip(&on).map(|(off, on)| cpu(on) - cpu(off));
    Ok(Row {
        body_bytes: body,
        messages,
        rounds,
        off_cpu_us: median(off.iter().map(cpu))?,
        on_cpu_us: median(on.iter().map(cpu))?,
        added_cpu_us: median(added)?,
        off_mb_s: median(off.iter().map(mb_s))?,
        on_mb_s: median(on.iter().map(mb_s))?,
        usable_percent: median(on.iter().map(usable))?,
        waits: on.iter().map(|measured| measured.waits).sum(),
    })
}

fn median(values: impl Iterator<Item = f64>) -> Result<f64> {
    let mut values: Vec<_> = values.collect();
    ensure!(!values.is_empty(), "no rounds");
    values.sort_by(f64::total_cmp);
    Ok(values[values.len() / 2])
}

fn print_table(rows: &[Row]) {
    println!(
        "{:>7} {:>9} {:>7} {:>11} {:>11} {:>11} {:>10} {:>10} {:>8} {:>6}",
        "body", "messages", "rounds", "CPU off", "CPU on", "added", "MB/s off", "MB/s on", "usable", "waits"
    );
    for row in rows {
        println!(
            "{:>7} {:>9} {:>7} {:>8.2} µs {:>8.2} µs {:>8.2} µs {:>10.0} {:>10.0} {:>6.1} % {:>6}",
            row.body_bytes,
            row.messages,
            row.rounds,
            row.off_cpu_us,
            row.on_cpu_us,
            row.added_cpu_us,
            row.off_mb_s,
            row.on_mb_s,
            row.usable_percent,
            row.waits
        );
    }
}
