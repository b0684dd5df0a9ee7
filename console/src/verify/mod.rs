//! Verifies a session's recording and reports everything that is wrong with it, and where.
//!
//! The order: the directory's objects, their digests, the signature over the digests, the manifest, every
//! segment, the arithmetic. Each step trusts nothing that an earlier one did not establish, and goes on where an
//! earlier one failed as far as that makes sense: a reviewer wants to know all of it.
//!
//! Only what keeps the recording from being read at all is an error; whatever its content is wrong about is a
//! finding. Reads no clock and no environment.

mod arithmetic;
mod body;
mod manifest;
mod objects;
mod pattern;
pub mod print;
pub mod report;
mod segments;
mod signature;
pub mod signers;
mod streams;

use jiff::Timestamp;

use crate::store::{SessionDir, StoreError};
use report::{Log, Report, Summary};
use signers::AllowedSigners;

/// What to hold a recording against.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Who may sign; `None` if that is not known, and then no signer is trusted.
    pub signers: Option<&'a AllowedSigners>,
    /// As whom the signer must be listed.
    pub identity: &'a str,
    /// The time at which the signer's key must be valid.
    pub now: Timestamp,
}

/// Verifies one session.
///
/// # Errors
/// If objects can't be read for a reason that is not in the recording: the disk, or permissions.
pub fn verify(session: &SessionDir, options: &Options<'_>) -> Result<Report, StoreError> {
    let mut log = Log::default();
    let objects = objects::check(session, &mut log)?;
    let signer = signature::check(session, &objects, options, &mut log)?;
    let manifest = manifest::check(session, &objects, &mut log)?;
    let streams = segments::check(session, &objects, manifest.as_ref(), &mut log)?;
    arithmetic::check(manifest.as_ref(), &streams, &mut log);
    let summary = manifest.as_ref().map(Summary::of);
    Ok(Report::new(session.path().display().to_string(), summary, signer, streams.gaps(), log))
}
