//! The program's own diagnostics, on their way to `tracing`.
//!
//! They come through a ring of their own, which the kernel fills only with rare events (a message tossed for
//! its size). When nobody reads it, it fills up and further diagnostics are dropped; captures don't notice.

use std::io;

use aya::Ebpf;
use aya_log::EbpfLogger;
use log::{Level, Log, Metadata, Record};
use tokio::io::{Interest, unix::AsyncFd};

use super::TapError;

/// Forwards what the program logs to `tracing`.
pub struct ProgramLog {
    logger: EbpfLogger<ToTracing>,
}

impl ProgramLog {
    pub(super) fn take(object: &mut Ebpf) -> Result<Option<Self>, TapError> {
        match EbpfLogger::init_with_logger(object, ToTracing) {
            Ok(logger) => Ok(Some(Self { logger })),
            Err(aya_log::Error::MapNotFound) => Ok(None),
            Err(source) => Err(TapError::Load { op: "opening its log", source: source.into() }),
        }
    }

    /// Forwards for ever; drop the future to stop. Needs a tokio runtime with I/O.
    ///
    /// # Errors
    /// If the runtime can't wait for the log's descriptor.
    pub async fn run(self) -> io::Result<()> {
        // SAFETY: the descriptor is the logger's own and stays the same and open until the logger is dropped.
        let mut logger = unsafe { AsyncFd::register_with_interest(self.logger, Interest::READABLE) }?;
        loop {
            let mut ready = logger.readable_mut().await?;
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    }
}

/// A `log::Log` whose records are tracing events.
struct ToTracing;

impl Log for ToTracing {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
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
