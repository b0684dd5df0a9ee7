//! From the ring to the spool, sustained: how fast, and at how much CPU.
//!
//! One process is all of it: a thread a ring sends and takes frames, and a core a ring drains them, as the agent's
//! does. Nothing is sealed, so that only the drain is in the numbers; each sender stays within half its ring, so that
//! nothing is tossed. A round ends when the last record is in the spool, and again when all of it is flushed, which is what
//! the disk's own speed is to be compared with. Afterwards the spool is read back and counted.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::Path,
    sync::{Arc, mpsc as std_mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tokio::{
    runtime::Runtime,
    sync::{mpsc, watch},
};
use weir_agent::{
    core::{Ask, ConnectionId, Core, CoreHandle, CoreOptions, LaneNo, Roster, SessionLimits},
    journal::{Journal, entry_bytes},
    session::{SealLimits, Session},
    spool::{Space, SpaceLimits, SpoolOptions},
    tap::{RingPlace, Rings, TapOptions},
};
use weir_common::{
    abi::{FRAME_HEADER_LEN, RECORD_HEADER_LEN},
    control::Reply,
    frame::Direction,
    recording::Recorder,
    session::{ChannelNo, Outcome},
};

use crate::{
    MIB, PATIENCE, Scale,
    feeder::{Feeder, stdout_frame},
    node::Place,
    proxy::meta,
    report::{Goal, Row, thread_cpu_time},
    rest,
};

const LARGE: usize = 32 * 1024;
const SMALL: usize = 64;
/// As large as busy nodes have it.
const RING_BYTES: u32 = 64 << 20;
const FLUSH_INTERVAL: Duration = Duration::from_millis(200);

/// What a round took.
struct Round {
    /// Until the last record was in the spool, as far as other processes see: what sessions wait for.
    wall: Duration,
    /// Until it was flushed to the disk as well: what can be kept up.
    flushed: Duration,
    /// Of the draining threads together.
    cpu: Duration,
}

pub(crate) fn drained(scale: &Scale) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    // One to warm up, as the drain has: it would pay for the first touch of the machine's memory.
    disk_mb_s(scale.drained_bytes)?;
    let disk: Vec<_> = (0..scale.rounds).map(|_| disk_mb_s(scale.drained_bytes)).collect::<Result<_>>()?;
    let disk_row = Row::new("the disk's own, written in one stream", "MB/s", disk.clone());
    let disk = crate::report::quantile(&disk, 0.5).context("a round")?;
    for rings in [1, 2] {
        let of = if rings == 1 { "1 ring".to_owned() } else { format!("{rings} rings") };
        let records = scale.drained_bytes / LARGE as u64;
        let rounds = take(scale, rings, LARGE, records)?;
        let megabytes = (records * LARGE as u64) as f64 / 1e6;
        let rate = rounds.iter().map(|round| megabytes / round.wall.as_secs_f64()).collect();
        rows.push(Row::new(format!("drain to spool, 32 KiB records, {of}"), "MB/s", rate));
        let rate = rounds.iter().map(|round| megabytes / round.flushed.as_secs_f64()).collect();
        let row = Row::new(format!("the same until it is flushed, {of}"), "MB/s", rate);
        rows.push(row.with_goal(Goal::LeastOrDisk(1000.0, disk)));
        let cpu = rounds.iter().map(|round| round.cpu.as_secs_f64() * 1e3 / megabytes).collect();
        rows.push(Row::new(format!("its CPU, 32 KiB records, {of}"), "ms/MB", cpu));
        let records = scale.drained_records;
        let rounds = take(scale, rings, SMALL, records)?;
        let rate = rounds.iter().map(|round| records as f64 / round.wall.as_secs_f64()).collect();
        let row = Row::new(format!("drain to spool, 64 B records, {of}"), "records/s", rate);
        rows.push(row.with_goal(Goal::Least(500_000.0)));
        // The senders share the processors with the drain, so the rate may be theirs.
        let cpu = rounds.iter().map(|round| round.cpu.as_secs_f64() * 1e6 / records as f64).collect();
        rows.push(Row::new(format!("its CPU, 64 B records, {of}"), "µs/record", cpu));
    }
    rows.push(disk_row);
    Ok(rows)
}

fn take(scale: &Scale, rings: u16, body: usize, records: u64) -> Result<Vec<Round>> {
    // One to warm up.
    round(rings, body, records / 4)?;
    (0..scale.rounds).map(|_| round(rings, body, records)).collect()
}

/// A ring with its core.
struct Lane {
    handle: CoreHandle,
    space: Arc<Space>,
    thread: thread::JoinHandle<Result<Duration>>,
}

fn round(rings: u16, body: usize, records: u64) -> Result<Round> {
    let place = Place::new()?;
    let options = TapOptions { bpf_dir: place.path("bpf"), ring_bytes: RING_BYTES, max_taps: 16 };
    let opened = Rings::open(&options)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    let mut lanes = Vec::new();
    let each = records / u64::from(rings);
    // Nothing is stored, so the session may use all of what it sends; from half of it on the core weighs it with each file.
    let share = entry_bytes(RECORD_HEADER_LEN + FRAME_HEADER_LEN + body) * each + MIB;
    for ring in 0..rings {
        lanes.push(lane(&opened, &place.path(&format!("spool-{ring}")), ring, share)?);
    }
    let (begin, started) = (Instant::now(), &runtime);
    let sessions = thread::scope(|scope| {
        let senders: Vec<_> =
            lanes.iter().map(|lane| scope.spawn(move || feed(started, lane, body, each))).collect();
        senders.into_iter().map(|sender| sender.join().expect("no panic")).collect::<Result<Vec<_>>>()
    })?;
    let wall = sessions.iter().max().context("a ring")?.saturating_duration_since(begin);
    let mut cpu = Duration::ZERO;
    for lane in lanes {
        runtime.block_on(lane.handle.stop());
        cpu += lane.thread.join().expect("no panic")?;
    }
    let flushed = begin.elapsed();
    for ring in 0..rings {
        let spool = place.path(&format!("spool-{ring}"));
        let journal = Journal::open(&spool, spool_options())?;
        let found: u64 = journal.ledger().sessions().map(Session::accepted_records).sum();
        ensure!(found == each, "{found} of {each} records are in the spool of ring {ring}");
    }
    Ok(Round { wall, flushed, cpu })
}

fn spool_options() -> SpoolOptions {
    SpoolOptions { file_bytes: 64 * MIB, max_bytes: u64::MAX, flush_interval: FLUSH_INTERVAL }
}

fn lane(rings: &Rings, spool: &Path, ring: u16, share: u64) -> Result<Lane> {
    let limits = SpaceLimits {
        max_bytes: u64::MAX,
        refuse_bytes: u64::MAX,
        disk_reserve_bytes: 0,
        disk_refuse_bytes: 0,
    };
    let space = Space::new(limits);
    let journal = Journal::open_in(spool, spool_options(), Arc::clone(&space))?;
    let (taps, ring) = rings.open_ring(RingPlace::current(ring))?;
    let options = CoreOptions {
        reports: None,
        outage: watch::channel(None).1,
        lane: LaneNo(0),
        stays: true,
        roster: Arc::new(Roster::new(SessionLimits { open: 16, unstored: 16 })),
        session_max_bytes: share,
        seal: SealLimits { max_bytes: u64::MAX, max_records: u64::MAX, max_age_ns: u64::MAX },
        reattach_timeout: PATIENCE,
        recorder: Recorder { agent: "bench".into(), abi: 0, node: "n".into(), kernel: "k".into() },
    };
    let (tell, told) = std_mpsc::channel();
    let thread = thread::Builder::new().name("drain".to_owned()).spawn(move || {
        // Nobody takes the jobs, so the closed sessions stay in the spool.
        let (jobs, _untaken) = mpsc::channel(1);
        let (core, handle) = Core::new(ring, taps, journal, jobs, options)?;
        tell.send(handle)?;
        let before = thread_cpu_time()?;
        core.run()?;
        Ok(thread_cpu_time()?.saturating_sub(before))
    })?;
    Ok(Lane { handle: told.recv().context("the core starts")?, space, thread })
}

/// Sends so many records through a lane and says when the last one was in the spool.
fn feed(runtime: &Runtime, lane: &Lane, body: usize, records: u64) -> Result<Instant> {
    let ask = |ask| runtime.block_on(lane.handle.ask(ConnectionId::new(1), ask));
    let opened = ask(Ask::Open { resume: false, meta: Box::new(meta()) });
    ensure!(opened == Reply::Opened, "not opened: {opened:?}");
    let mut feeder = Feeder::new()?;
    let mut frame = stdout_frame(&vec![b'x'; body]);
    let [client, target] = feeder.descriptors_cloned()?;
    let armed = ask(Ask::Arm { channel: ChannelNo(0), client, target });
    ensure!(matches!(armed, Reply::Armed { .. }), "not armed: {armed:?}");
    let entry = entry_bytes(RECORD_HEADER_LEN + frame.len());
    let before = lane.space.used();
    // A record takes at most half as much again in the ring as it has bytes.
    let window = u64::from(RING_BYTES) / 2 / (2 * frame.len() as u64 + 64);
    let drained = || (lane.space.used() - before) / entry;
    for number in 0..records {
        if number.is_multiple_of(16) {
            while number.saturating_sub(drained()) > window {
                rest(Duration::from_micros(100));
            }
        }
        ensure!(feeder.try_pass(Direction::TargetToClient, &mut frame)?, "a record was tossed");
    }
    let closed = ask(Ask::Close { outcome: Outcome::Completed });
    ensure!(closed == Reply::Closed, "not closed: {closed:?}");
    Ok(Instant::now())
}

/// What the disk takes when it is written in one stream and flushed as the spool is: every interval, beside the
/// writing, and once more at the end.
fn disk_mb_s(bytes: u64) -> Result<f64> {
    let dir = tempfile::tempdir()?;
    let file = File::create(dir.path().join("stream"))?;
    let piece = vec![0x5a; 4 << 20];
    let begin = Instant::now();
    thread::scope(|scope| {
        let (stop, stopped) = std_mpsc::channel::<()>();
        let flushing = scope.spawn(|| {
            let stopped = stopped;
            while stopped.recv_timeout(FLUSH_INTERVAL) == Err(std_mpsc::RecvTimeoutError::Timeout) {
                file.sync_data()?;
            }
            file.sync_data()
        });
        let written = (0..bytes).step_by(piece.len()).try_for_each(|at| file.write_all_at(&piece, at));
        drop(stop);
        flushing.join().expect("no panic").and(written)
    })?;
    let written = bytes.next_multiple_of(piece.len() as u64);
    Ok(written as f64 / 1e6 / begin.elapsed().as_secs_f64())
}
