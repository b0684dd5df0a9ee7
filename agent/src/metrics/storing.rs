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

    /// There was an attempt to put several objects of these many bytes one after the other. If one failed, it is not known
    /// what became of the others, and the attempt counts as one.
    pub fn put_all(&self, bytes: &[u64], begun: Instant, outcome: &Result<Vec<Put>, StoreError>) {
        self.took.observe(begun.elapsed().as_secs_f64());
        match outcome {
            Ok(puts) => puts.iter().zip(bytes).for_each(|(&put, &bytes)| self.is_there(put, bytes)),
            Err(_) => {
                self.puts.get_or_create(&[("result", "failed")]).inc();
            }
        }
    }

    /// There was an attempt to put an object of this many bytes.
    pub fn put(&self, bytes: u64, begun: Instant, outcome: &Result<Put, StoreError>) {
        self.took.observe(begun.elapsed().as_secs_f64());
        match outcome {
            Ok(put) => self.is_there(*put, bytes),
            Err(_) => {
                self.puts.get_or_create(&[("result", "failed")]).inc();
            }
        }
    }

    /// An object of this many bytes is in the store now. What was there already was not put again.
    fn is_there(&self, put: Put, bytes: u64) {
        let result = match put {
            Put::Stored => "stored",
            Put::AlreadyThere => "already_there",
        };
        self.puts.get_or_create(&[("result", result)]).inc();
        if put == Put::Stored {
            self.bytes.inc_by(bytes);
        }
        metrics().health.store_works(Instant::now());
    }

    /// A segment or manifest was not stored, and will be tried again.
    pub fn failed(&self, error: &StoringError) {
        let class = class(error);
        self.failures.get_or_create(&[("class", class)]).inc();
        self.retries.inc();
        if matches!(error, StoringError::Store(error) if may_be_the_stores(error)) {
            metrics().health.store_refuses(Instant::now());
        }
    }
}

/// Whether others' objects may fail the same, though the breaker does not take it for that: it has to be sure, or nobody would try
/// any more.
fn may_be_the_stores(error: &StoreError) -> bool {
    match error {
        // Where something else is in the place of a session's directory, it is that session's trouble.
        StoreError::Io { source, .. } => !matches!(
            source.kind(),
            std::io::ErrorKind::NotADirectory
                | std::io::ErrorKind::IsADirectory
                | std::io::ErrorKind::AlreadyExists
                | std::io::ErrorKind::NotFound
        ),
        StoreError::Refused { .. } | StoreError::Altered { .. } => true,
        _ => false,
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
