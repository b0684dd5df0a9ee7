//! Files and directories that are open.

use serde::{Deserialize, Serialize};
use weir_common::recording::findings::{FileAccess, FileOperation, FileProtocol, FileResult};

use super::pending::FileNumber;
use crate::transfers::{bytes_text, flow::Flow, input::Out, lost::Lost};

/// The most files and directories open at once.
pub(in crate::transfers) const FILES_MAX: usize = 256;

/// The open ones.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Files {
    open: Vec<Open>,
    next: FileNumber,
}

/// One of them.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Open {
    number: FileNumber,
    #[serde(with = "bytes_text")]
    handle: Vec<u8>,
    /// The handle means this one no more: it was asked to be closed.
    closing: bool,
    t: u64,
    operation: FileOperation,
    pub(super) path: String,
    mode: Option<u32>,
    read: Option<Flow>,
    written: Option<Flow>,
    /// The first failure, in the server's words.
    failure: Option<String>,
}

impl Open {
    pub(super) fn new(t: u64, operation: FileOperation, path: String, mode: Option<u32>) -> Self {
        let handle = Vec::new();
        Self {
            number: 0,
            handle,
            closing: false,
            t,
            operation,
            path,
            mode,
            read: None,
            written: None,
            failure: None,
        }
    }

    /// What is read from it.
    pub(super) fn reads(&mut self) -> &mut Flow {
        self.read.get_or_insert_with(|| Flow::new(true))
    }

    /// What is written to it. Where it is appended to, offsets count for nothing, and what goes is not what it holds.
    pub(super) fn writes(&mut self, appends: bool) -> &mut Flow {
        self.written.get_or_insert_with(|| Flow::new(!appends))
    }

    pub(super) fn failed(&mut self, words: String) {
        self.failure.get_or_insert(words);
    }

    /// It is over.
    pub(super) fn say(self, out: &mut Out<'_>, t_end: Option<u64>, result: FileResult) {
        let Self { t, operation, path, mode, read, written, failure, .. } = self;
        let result = match (result, failure) {
            (FileResult::Ok, Some(words)) => FileResult::Failed(words),
            (result, _) => result,
        };
        out.file(t, t_end, |ch, span| FileAccess {
            n: 0,
            ch,
            span,
            protocol: FileProtocol::Sftp,
            operation,
            path,
            other_path: None,
            result,
            mode,
            read: read.as_ref().map(Flow::transferred),
            written: written.as_ref().map(Flow::transferred),
        });
    }
}

impl Files {
    pub(super) fn insert(&mut self, handle: &[u8], mut file: Open) -> Result<(), Lost> {
        if self.open.len() >= FILES_MAX {
            return Err(Lost::Files);
        }
        if self.by_handle(handle).is_some() {
            // Two files with one name: what is done to which cannot be told.
            return Err(Lost::Malformed);
        }
        (file.number, file.handle) = (self.next, handle.to_vec());
        self.next = self.next.wrapping_add(1);
        self.open.push(file);
        Ok(())
    }

    /// The one that a client means by a handle.
    pub(super) fn by_handle(&self, handle: &[u8]) -> Option<FileNumber> {
        self.open.iter().find(|file| !file.closing && file.handle == handle).map(|file| file.number)
    }

    pub(super) fn get(&mut self, number: FileNumber) -> Result<&mut Open, Lost> {
        self.open.iter_mut().find(|file| file.number == number).ok_or(Lost::NotOpen)
    }

    /// From now on, its handle may be another's.
    pub(super) fn closing(&mut self, number: FileNumber) -> Result<(), Lost> {
        self.get(number)?.closing = true;
        Ok(())
    }

    pub(super) fn remove(&mut self, number: FileNumber) -> Result<Open, Lost> {
        let at = self.open.iter().position(|file| file.number == number).ok_or(Lost::NotOpen)?;
        Ok(self.open.remove(at))
    }

    pub(super) fn drain(&mut self) -> impl Iterator<Item = Open> + use<> {
        std::mem::take(&mut self.open).into_iter()
    }

    /// How many bytes of paths it holds.
    pub(super) fn held(&self) -> usize {
        self.open.iter().map(|file| file.path.len()).sum()
    }

    pub(super) fn is_sound(&self) -> bool {
        self.open.len() <= FILES_MAX
    }
}
