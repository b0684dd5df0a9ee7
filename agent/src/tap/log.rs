//! The program's own diagnostics, on their way to `tracing`.
//!
//! They come through a ring of their own, which the kernel fills only with rare events (a message tossed for
//! its size). When nobody reads it, it fills up and further diagnostics are dropped; captures don't notice. It is
//! pinned like the other maps: sockets that an agent before armed go on writing into it.
//!
//! Whoever holds a tap can bring such events about as often as they like. So only so many lines a time reach the
//! log; how many were left out is a line of its own.

use std::{
    io,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Level, Log, Metadata, Record};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::MissedTickBehavior,
};

use super::TapError;
use crate::metrics::metrics;

/// Name of the map that the diagnostics come through; aya-log chose it.
pub(super) const LOG_MAP: &str = "AYA_LOGS";
/// The most lines in an [`INTERVAL`].
const LINES: u64 = 20;
const INTERVAL: Duration = Duration::from_secs(10);

/// Forwards what the program logs to `tracing`.
pub struct ProgramLog {
    logger: EbpfLogger<&'static ToTracing>,
    lines: &'static ToTracing,
}

impl ProgramLog {
    pub(super) fn take(object: &mut Ebpf) -> Result<Option<Self>, TapError> {
        // The logger keeps what it is given to itself, and what was left out has to be told when it is silent, too.
        static LINES: ToTracing = ToTracing(Mutex::new(Budget::new()));
        match EbpfLogger::init_with_logger(object, &LINES) {
            Ok(logger) => Ok(Some(Self { logger, lines: &LINES })),
            Err(aya_log::Error::MapNotFound) => Ok(None),
            Err(source) => Err(TapError::Load { op: "opening its log", source: source.into() }),
        }
    }

    /// Forwards for ever; drop the future to stop. Needs a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// If the runtime can't wait for the log's descriptor.
    pub async fn run(self) -> io::Result<()> {
        let Self { logger, lines } = self;
        // SAFETY: the descriptor is the logger's own and stays the same and open until the logger is dropped.
        let mut logger = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) }?;
        let mut interval = tokio::time::interval(INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                ready = logger.readable_mut() => {
                    let mut ready = ready?;
                    ready.get_inner_mut().flush();
                    ready.clear_ready();
                }
                _ = interval.tick() => lines.tell_left_out(Instant::now()),
            }
        }
    }
}

/// A `log::Log` whose records are tracing events, if they are not too many.
struct ToTracing(Mutex<Budget>);

/// How many lines of this interval are logged, and how many were left out.
#[derive(Debug)]
struct Budget {
    since: Option<Instant>,
    lines: u64,
    left_out: u64,
}

impl Budget {
    const fn new() -> Self {
        Self { since: None, lines: 0, left_out: 0 }
    }

    /// Whether another line may be logged.
    fn take(&mut self, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= INTERVAL) {
            (self.since, self.lines) = (Some(now), 0);
        }
        let room = self.lines < LINES;
        if room {
            self.lines += 1;
        } else {
            self.left_out += 1;
        }
        room
    }

    /// How many were left out, once the interval in which they were is over.
    fn settle(&mut self, now: Instant) -> Option<u64> {
        let over = self.since.is_some_and(|since| now.saturating_duration_since(since) >= INTERVAL);
        (over && self.left_out > 0).then(|| std::mem::take(&mut self.left_out))
    }
}

impl ToTracing {
    fn tell_left_out(&self, now: Instant) {
        let left_out = self.0.lock().unwrap_or_else(PoisonError::into_inner).settle(now);
        if let Some(lines) = left_out {
            tracing::warn!(target: "weir_tap", lines, "further diagnostics of the BPF program were left out");
        }
    }
}

impl Log for ToTracing {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let now = Instant::now();
        self.tell_left_out(now);
        let logged = self.0.lock().unwrap_or_else(PoisonError::into_inner).take(now);
        metrics().program_log(logged, 1);
        if !logged {
            return;
        }
        let message = record.args();
        match record.level() {
            Level::Error => tracing::error!(target: "weir_tap", "{message}"),
            Level::Warn => tracing::warn!(target: "weir_tap", "{message}"),
            Level::Info => tracing::info!(target: "weir_tap", "{message}"),
            Level::Debug => tracing::debug!(target: "weir_tap", "{message}"),
            Level::Trace => tracing::trace!(target: "weir_tap", "{message}"),
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_lines_becomes_a_few_and_the_number_of_the_others() {
        let (mut budget, begin) = (Budget::new(), Instant::now());
        let logged = (0..100_000).filter(|_| budget.take(begin)).count() as u64;
        assert_eq!(logged, LINES);
        assert_eq!(budget.settle(begin), None, "more may come");
        assert_eq!(budget.settle(begin + INTERVAL), Some(100_000 - LINES));
        assert_eq!(budget.settle(begin + INTERVAL), None, "it was told");
        assert!(budget.take(begin + INTERVAL));
    }
}
