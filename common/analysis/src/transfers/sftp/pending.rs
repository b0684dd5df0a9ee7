//! Requests that were not answered yet.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use weir_common::recording::findings::FileOperation;

use crate::transfers::lost::Lost;

/// The most requests under way: requests for consecutive parts of one file, as clients send them, count as one.
/// OpenSSH's client has 64 under way, others ask for a whole file at once.
pub(in crate::transfers) const PENDING_MAX: usize = 1024;

/// A number of our own for a file: servers use handles again.
pub(super) type FileNumber = u32;

/// Requests in the order in which they came. Several may have the same id; they are answered in turn.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Pending(VecDeque<Asked>);

/// A request, or several that follow each other in everything.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Asked {
    /// Of the first one.
    id: u32,
    count: u32,
    /// Kernel time of the first one.
    pub(super) t: u64,
    pub(super) request: Request,
}

/// What was asked for.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Request {
    Open {
        operation: FileOperation,
        path: String,
        reads: bool,
        writes: bool,
        appends: bool,
        mode: Option<u32>,
    },
    Read {
        file: FileNumber,
        offset: u64,
        len: u32,
    },
    Write {
        file: FileNumber,
    },
    List {
        file: FileNumber,
    },
    Close {
        file: FileNumber,
    },
    /// Something that is done once.
    Once {
        operation: FileOperation,
        path: String,
        other_path: Option<String>,
        mode: Option<u32>,
    },
    /// Something to a file that is not open as far as was seen: it has to fail.
    NotOpen,
    /// Something that does nothing to any file.
    Other,
}

impl Pending {
    pub(super) fn push(&mut self, id: u32, t: u64, request: Request) -> Result<(), Lost> {
        if let Some(last) = self.0.back_mut()
            && id == last.id.wrapping_add(last.count)
            && last.count < u32::MAX
            && last.request.nth(last.count).is_some_and(|next| next == request)
        {
            last.count += 1;
            return Ok(());
        }
        if self.0.len() >= PENDING_MAX {
            return Err(Lost::Pending);
        }
        self.0.push_back(Asked { id, count: 1, t, request });
        Ok(())
    }

    /// The request that is answered.
    pub(super) fn take(&mut self, id: u32) -> Result<Asked, Lost> {
        let covers = |asked: &Asked| id.wrapping_sub(asked.id) < asked.count;
        let at = self.0.iter().position(covers).ok_or(Lost::Unasked)?;
        let mut before = self.0.remove(at).ok_or(Lost::Unasked)?;
        let nth = id.wrapping_sub(before.id);
        let part = |from: u32, count: u32| {
            let request = before.request.nth(from)?;
            (count > 0).then(|| Asked { id: before.id.wrapping_add(from), count, t: before.t, request })
        };
        let answered = part(nth, 1).ok_or(Lost::Malformed)?;
        let behind = nth.checked_add(1).and_then(|from| part(from, before.count.saturating_sub(from)));
        before.count = nth;
        let parts = [Some(before).filter(|before| before.count > 0), behind];
        for part in parts.into_iter().rev().flatten() {
            if self.0.len() >= PENDING_MAX {
                return Err(Lost::Pending);
            }
            self.0.insert(at, part);
        }
        Ok(answered)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Asked> {
        self.0.iter()
    }

    pub(super) fn drain(&mut self) -> impl Iterator<Item = Asked> + use<> {
        std::mem::take(&mut self.0).into_iter()
    }

    pub(super) fn is_sound(&self) -> bool {
        self.0.len() <= PENDING_MAX
            && self
                .0
                .iter()
                .all(|asked| asked.count == 1 || asked.count > 1 && asked.request.nth(1).is_some())
    }
}

impl Request {
    /// What the nth request of a row that begins with this one asks for; none if it begins no row.
    fn nth(&self, nth: u32) -> Option<Self> {
        match self {
            Self::Read { file, offset, len } => {
                let offset = offset.checked_add(u64::from(nth) * u64::from(*len))?;
                Some(Self::Read { file: *file, offset, len: *len })
            }
            Self::Write { .. } | Self::NotOpen | Self::Other => Some(self.clone()),
            _ => (nth == 0).then(|| self.clone()),
        }
    }

    /// How many bytes of paths it holds.
    pub(super) fn held(&self) -> usize {
        match self {
            Self::Open { path, .. } => path.len(),
            Self::Once { path, other_path, .. } => path.len() + other_path.as_ref().map_or(0, String::len),
            _ => 0,
        }
    }
}
