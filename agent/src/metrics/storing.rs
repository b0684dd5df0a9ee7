//! Objects on their way into the store.

use std::time::Instant;

use prometheus_client::{
    metrics::{counter::Counter, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::{ByOne, begin, by_one, counter, metrics};
use crate::{
    store::{Put, StoreError},
    storing::StoringError,
};

/// The classes of failures.
pub const FAILURE_CLASSES: [&str; 10] = [
    "denied",
    "unavailable",
    "timeout",
    "no_space",
    "conflict",
    "too_large",
    "encoding",
    "read_back",
    "report",
    "other",
];

/// What became of objects on their way into the store.
#[derive(Debug)]
pub struct Uploads {
    puts: ByOne,
    bytes: Counter,
    took: Histogram,
    retries: Counter,
    failures: ByOne,
}

impl Uploads {
    pub(super) fn register(agent: &mut Registry) -> Self {
        let puts = by_one(agent, "uploads", "Attempts to put an object into the store, by result");
        begin(&puts, "result", &["stored", "already_there", "failed"]);
        let failures =
            by_one(agent, "storing_failures", "Segments and manifests not stored at a try, by class");
        begin(&failures, "class", &FAILURE_CLASSES);
        let (bytes, took) = (Counter::default(), Histogram::new(UPLOAD_SECONDS));
        agent.register_with_unit(
            "uploaded",
            "Bytes of objects put into the store",
            Unit::Bytes,
            bytes.clone(),
        );
        let help = "Time an attempt to put an object took";
        agent.register_with_unit("upload", help, Unit::Seconds, took.clone());
        let retries = counter(agent, "storing_retries", "Tries to store a segment or manifest once more");
        Self { puts, bytes, took, retries, failures }
    }

    /// There was an attempt to put several objects one after the other, of this many bytes together. Whether they were
    /// there already is not known, and if one failed, how many did not.
    pub fn put_all(&self, count: usize, bytes: u64, begun: Instant, outcome: &Result<(), StoreError>) {
        let Ok(()) = outcome else {
            self.puts.get_or_create(&[("result", "failed")]).inc();
            return self.took.observe(begun.elapsed().as_secs_f64());
        };
        self.puts.get_or_create(&[("result", "stored")]).inc_by(count as u64);
        self.took.observe(begun.elapsed().as_secs_f64());
        self.bytes.inc_by(bytes);
        metrics().health.store_works();
    }

    /// There was an attempt to put an object of this many bytes, which took so long.
    pub fn put(&self, bytes: u64, begun: Instant, outcome: &Result<Put, StoreError>) {
        let result = match outcome {
            Ok(Put::Stored) => "stored",
            Ok(Put::AlreadyThere) => "already_there",
            Err(_) => "failed",
        };
        self.puts.get_or_create(&[("result", result)]).inc();
        self.took.observe(begun.elapsed().as_secs_f64());
        if let Ok(put) = outcome {
            metrics().health.store_works();
            if *put == Put::Stored {
                self.bytes.inc_by(bytes);
            }
        }
    }

    /// A segment or manifest was not stored, and will be tried again.
    pub fn failed(&self, error: &StoringError) {
        let class = class(error);
        self.failures.get_or_create(&[("class", class)]).inc();
        self.retries.inc();
        if matches!(error, StoringError::Store(error) if may_be_the_stores(error)) {
            metrics().health.store_fails(Instant::now());
        }
    }
}

/// Whether others' objects are likely to fail the same. More than what the breaker goes by, since a success ends it.
fn may_be_the_stores(error: &StoreError) -> bool {
    match error {
        StoreError::Io { source, .. } => source.kind() != std::io::ErrorKind::NotADirectory,
        StoreError::Refused { .. } | StoreError::Altered { .. } => true,
        error => error.is_store_wide(),
    }
}

/// The class of a failure, one of [`FAILURE_CLASSES`].
fn class(error: &StoringError) -> &'static str {
    match error {
        StoringError::Store(error) => store_class(error),
        StoringError::ReadBack(_) => "read_back",
        StoringError::Segment(_) | StoringError::Signing(_) | StoringError::Compare { .. } => "encoding",
        StoringError::Report(_) => "report",
        StoringError::Manifest(_) | StoringError::Interrupted(_) => "other",
    }
}

fn store_class(error: &StoreError) -> &'static str {
    match error {
        StoreError::Conflict { .. } => "conflict",
        StoreError::TooLarge { .. } => "too_large",
        StoreError::Io { source, .. } => match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => "no_space",
            std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => "denied",
            std::io::ErrorKind::TimedOut => "timeout",
            _ => "unavailable",
        },
        StoreError::Denied { .. } | StoreError::Setup { .. } => "denied",
        StoreError::Unavailable { .. } => "unavailable",
        StoreError::Refused { .. }
        | StoreError::Missing { .. }
        | StoreError::Altered { .. }
        | StoreError::Interrupted { .. } => "other",
    }
}

/// From a local disk to a bucket that is far away and slow.
const UPLOAD_SECONDS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];
