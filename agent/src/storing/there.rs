//! Segments of which file content is left out, and that another version of the agent has stored already.
//!
//! That version was stopped before it noted what it had stored, and what it left out is not quite what this one leaves out: it
//! followed the transfer further, or less far. What is stored is never overwritten, so it is taken as it is, if it is the same
//! evidence ([`agreement`]). Where digests of what is left out cannot be told to be right, nobody but an agent with this node's
//! key may have written the segment; else it is a conflict.

mod agreement;

use bytes::Bytes;
use tracing::warn;
use weir_common::{
    digest::Sha256,
    recording::{
        SEGMENT_NDJSON_MAX, SegmentEntry, SegmentHeader, StoredObject, bulk_name, segment_name,
        signature_name,
    },
};

use self::agreement::{Agreement, Compared};
use super::{StoringError, Worker, described, session_of};
use crate::{
    segment::{self, EncodedSegment, SegmentError, SegmentSource},
    signing::{SIGNATURE_MAX, signed_by},
    store::StoreError,
    stored_lines::Lines,
    withholding::Carried,
};

/// The segment as this version stores it, and with nothing left out.
struct Ours {
    segment: EncodedSegment,
    whole: EncodedSegment,
}

impl Ours {
    fn encode(source: &SegmentSource) -> Result<Self, SegmentError> {
        let whole = segment::encode(&SegmentSource { withhold: None, ..source.clone() })?;
        Ok(Self { segment: segment::encode(source)?, whole })
    }
}

impl Worker {
    /// The segment that the store has already, in other bytes and with the same evidence; `None` if there is none, or the very
    /// one that is to be stored.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if it is other evidence; whatever keeps it from being read.
    pub(super) async fn segment_there(
        &self,
        dir: &str,
        source: &SegmentSource,
    ) -> Result<Option<(SegmentEntry, Carried)>, StoringError> {
        let index = source.header.index;
        let path = format!("{dir}/{}", segment_name(index));
        let theirs = match self.store.get(&path, most_bytes(source)).await {
            Err(StoreError::Missing { .. }) => return Ok(None),
            theirs => theirs?,
        };
        let again = source.clone();
        let Ours { segment, whole } = self.compute(move || Ours::encode(&again)).await??;
        if theirs == segment.segment {
            return Ok(None);
        }
        let (expected, found) = (segment.entry.segment.sha256, Sha256::of(&theirs));
        let conflict = || StoringError::Store(StoreError::Conflict { path: path.clone(), expected, found });
        let header = header(theirs.clone()).ok_or_else(conflict)?;
        let without_bulk = |header: &SegmentHeader| SegmentHeader { bulk: None, ..header.clone() };
        if without_bulk(&header) != without_bulk(&source.header) {
            return Err(conflict());
        }
        let bulk = match &header.bulk {
            Some(object) => Some(self.bulk_there(dir, index, object).await?.ok_or_else(conflict)?),
            None => None,
        };
        let (events, carried) = (segment.entry.events, segment.carried.clone());
        let compared =
            Compared { ours: segment.segment, whole, theirs: theirs.clone(), their_bulk: bulk.clone() };
        let agreement = self.compute(move || compared.agreement()).await?;
        let name = segment_name(index);
        match agreement.map_err(|source| StoringError::Compare { name: name.clone(), source })? {
            Agreement::Whole => {}
            Agreement::ButDigests if self.has_signed(dir, index, &theirs).await? => {}
            Agreement::ButDigests | Agreement::None => return Err(conflict()),
        }
        warn!(
            session = session_of(dir),
            dir,
            name,
            "the store has it already, from a version that leaves other parts of the files' content out"
        );
        let signature = self.put_signature(dir, &signature_name(index), theirs.clone()).await?;
        let segment = described(name, &theirs);
        let entry = SegmentEntry { index, events, segment, bulk: header.bulk, signature: Some(signature) };
        self.at_hand.keep(dir, &entry, &theirs, bulk.as_ref().map(|(_, body)| body));
        Ok(Some((entry, carried)))
    }

    /// The bulk that a segment names, if the store has it as it is named.
    async fn bulk_there(
        &self,
        dir: &str,
        index: u32,
        object: &StoredObject,
    ) -> Result<Option<(String, Bytes)>, StoreError> {
        let StoredObject { name, bytes, .. } = object;
        if ![true, false].map(|compressed| bulk_name(index, compressed)).contains(name) {
            return Ok(None);
        }
        let body = match self.store.get(&format!("{dir}/{name}"), (*bytes).min(SEGMENT_NDJSON_MAX)).await {
            Err(StoreError::Missing { .. } | StoreError::TooLarge { .. }) => return Ok(None),
            body => body?,
        };
        Ok((described(name.clone(), &body) == *object).then(|| (name.clone(), body)))
    }

    /// Whether an agent with this one's key has signed the segment.
    async fn has_signed(&self, dir: &str, index: u32, segment: &Bytes) -> Result<bool, StoreError> {
        match self.store.get(&format!("{dir}/{}", signature_name(index)), SIGNATURE_MAX).await {
            Ok(signature) => Ok(signed_by(&signature, segment) == Some(self.key.fingerprint())),
            Err(StoreError::Missing { .. } | StoreError::TooLarge { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn header(segment: Bytes) -> Option<SegmentHeader> {
    let mut lines = Lines::new(segment).ok()?;
    let (_, line) = lines.next().ok()??;
    serde_json::from_slice(line).ok()
}

/// The most bytes that any version's segment of these records may have: digests in the place of every few bytes.
fn most_bytes(source: &SegmentSource) -> u64 {
    let total = source.records.total();
    let lines = total.records.saturating_add(1).saturating_mul(4096);
    total.bytes.saturating_mul(16).saturating_add(lines).min(SEGMENT_NDJSON_MAX)
}

#[cfg(test)]
mod tests;
