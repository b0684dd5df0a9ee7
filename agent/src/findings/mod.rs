//! What a session amounts to, made from its segments as the store has them.
//!
//! Owns what may not happen for the sake of an index: that evidence waits for it, that it takes memory or time without
//! bound, and that anything of a session reaches the log. Whatever is wrong with findings is said in the log and counted,
//! and the session is completed without. What is found is `weir-analysis`'s; when, and what becomes of the objects, is
//! `storing`'s.

mod at_hand;
mod pass;
mod quiet;

use std::time::{Duration, Instant};

use bytes::Bytes;
use weir_analysis::{
    Analysis,
    lines::{Bounds, Made, Objects},
    masking::Masking,
};
use weir_common::recording::Manifest;

pub(crate) use self::at_hand::{AtHand, Kept};
use self::{pass::Pass, quiet::Quietly};
pub use self::{pass::PassError, quiet::hide_content_in_panics};
use crate::store::StoreError;

/// The most bytes of an object that may be configured: it is in memory as a whole.
pub(crate) const OBJECT_MAX_BYTES: u64 = 256 << 20;

/// What is made, and how much of it.
#[derive(Clone, Debug)]
pub struct FindingsOptions {
    /// The most bytes of each object.
    pub bounds: Bounds,
    /// The most time the analysis of a session may take, by the clock. The store's time to give segments back is not in it.
    pub time_max: Duration,
    /// What is secret.
    pub masking: Masking,
}

impl Default for FindingsOptions {
    fn default() -> Self {
        const MIB: usize = 1 << 20;
        let bounds = Bounds { commands: 16 * MIB, files: 16 * MIB, forwards: 4 * MIB, transcript: 64 * MIB };
        Self { bounds, time_max: Duration::from_secs(600), masking: Masking::default() }
    }
}

/// Why there are no findings of a session.
#[derive(Debug, thiserror::Error)]
pub enum FindingsError {
    /// The store does not give a segment back.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store's segment is not what was stored.
    #[error("{name} in the store is not what was put there")]
    Damaged {
        /// The object.
        name: String,
    },
    /// It is, and cannot be read.
    #[error("{name}: {source}")]
    Read {
        /// The object.
        name: String,
        /// Why not.
        source: PassError,
    },
    /// It took too long.
    #[error("it took more than {} s (findings.time_max_ms)", .0.as_secs())]
    TooLong(Duration),
    /// A bug. What it said may be the session's content.
    #[error("the analysis panicked")]
    Panicked,
}

impl FindingsError {
    /// The class, one of [`crate::metrics::FINDINGS_FAILURE_CLASSES`].
    pub(crate) fn class(&self) -> &'static str {
        match self {
            Self::Store(_) => "store",
            Self::Damaged { .. } | Self::Read { .. } => "unreadable",
            Self::TooLong(_) => "too_long",
            Self::Panicked => "panicked",
        }
    }
}

/// Findings that are being made. Goes from one computation to the next; between these the store is asked for what comes
/// next.
pub(crate) struct Making {
    analysis: Analysis,
    objects: Objects,
    time_max: Duration,
    spent: Duration,
    pass: Option<Pass>,
}

/// What a computation came to.
pub(crate) enum Step {
    /// The segment's bulk is needed to go on.
    NeedsBulk(Box<Making>),
    /// The segment is done.
    Next(Box<Making>),
    /// All of them are.
    Done(Made),
}

impl Making {
    pub(crate) fn new(manifest: &Manifest, options: &FindingsOptions) -> Self {
        let FindingsOptions { bounds, time_max, masking } = options;
        let clock = Some(manifest.clock);
        Self {
            analysis: Analysis::new(clock, masking.clone()),
            objects: Objects::new(clock, *bounds),
            time_max: *time_max,
            spent: Duration::ZERO,
            pass: None,
        }
    }

    /// The segment to go on with.
    pub(crate) fn begin(&mut self, segment: Bytes) -> Result<(), PassError> {
        self.pass = Some(Pass::new(segment)?);
        Ok(())
    }

    /// The bulk of that segment.
    pub(crate) fn give_bulk(&mut self, name: &str, bulk: Bytes) -> Result<(), PassError> {
        self.pass.as_mut().map_or(Ok(()), |pass| pass.give_bulk(name, bulk))
    }

    /// Goes on to the segment's end. Blocks, and takes processor time. `last` says that there is no other segment.
    pub(crate) fn run(mut self: Box<Self>, name: &str, last: bool) -> Result<Step, FindingsError> {
        let _quietly = Quietly::begin();
        let (begun, left) = (Instant::now(), self.time_max.saturating_sub(self.spent));
        if let Some(pass) = &mut self.pass {
            let read = |source| FindingsError::Read { name: name.to_owned(), source };
            match pass.run(&mut self.analysis, &mut self.objects, begun + left).map_err(read)? {
                pass::Stop::TooLong => return Err(FindingsError::TooLong(self.time_max)),
                pass::Stop::NeedsBulk => {
                    self.spent += begun.elapsed();
                    return Ok(Step::NeedsBulk(self));
                }
                pass::Stop::End => self.pass = None,
            }
        }
        self.spent += begun.elapsed();
        if !last {
            return Ok(Step::Next(self));
        }
        let Self { analysis, mut objects, .. } = *self;
        analysis.finish(&mut objects);
        Ok(Step::Done(objects.finish()))
    }
}
