//! Verifies a session's recording and reports everything that is wrong with it, and where.
//!
//! The order: the directory's objects, their digests, the signature over the digests, the manifest, the segments'
//! signatures, every segment, the arithmetic. Of a session that is under way there is a part of that. Each step trusts nothing that an earlier one did not establish, and goes on where an
//! earlier one failed as far as that makes sense: a reviewer wants to know all of it.
//!
//! Only what keeps the recording from being read at all is an error; whatever its content is wrong about is a
//! finding. Reads no clock and no environment.

mod arithmetic;
mod body;
mod chain;
mod manifest;
mod objects;
pub(crate) mod pattern;
pub mod print;
pub mod report;
mod segments;
mod signature;
pub mod signers;
mod streams;
mod withheld;

use jiff::Timestamp;

use crate::store::{SessionDir, StoreError};
use report::{Check, Log, Report, Summary, Unfinished};
use segments::Checked;
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
    let chain = chain::check(session, &objects, manifest.as_ref(), options, &mut log)?;
    let Checked { streams, opened, withheld } =
        segments::check(session, &objects, manifest.as_ref(), &chain, &mut log)?;
    arithmetic::check(manifest.as_ref(), &streams, &mut log);
    let unfinished = objects.is_unfinished().then(|| Unfinished {
        segments: chain.signed.last().copied().unwrap_or_default(),
        until: opened.as_ref().and_then(|opened| opened.clock.at(streams.last_t())),
    });
    if unfinished.is_some() && chain.signer.is_some() {
        log.detail(Check::Signature, format!("valid, of each of {} segments", chain.signed.len()));
    }
    let summary = manifest.as_ref().map(Summary::of).or_else(|| opened.as_deref().map(Summary::of_opened));
    let signer = signer.or(chain.signer);
    let directory = session.path().display().to_string();
    Ok(Report::new(directory, summary, signer, unfinished, streams.gaps(), withheld, log))
}
