//! Channels made by hand: packets of SFTP.

use weir_common::frame::Direction;

use crate::recorded::{C2T, Recorded, T2C, Wanted};

pub(crate) const OPEN: u8 = 3;
pub(crate) const CLOSE: u8 = 4;
pub(crate) const READ: u8 = 5;
pub(crate) const WRITE: u8 = 6;
pub(crate) const FSETSTAT: u8 = 10;
pub(crate) const REMOVE: u8 = 13;
pub(crate) const SYMLINK: u8 = 20;
pub(crate) const EXTENDED: u8 = 200;
pub(crate) const STATUS: u8 = 101;
pub(crate) const HANDLE: u8 = 102;
pub(crate) const DATA: u8 = 103;

pub(crate) const FOR_READING: u32 = 1;
pub(crate) const FOR_WRITING: u32 = 2;
pub(crate) const FOR_APPENDING: u32 = 6;

/// A string as SFTP has it.
pub(crate) fn string(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).expect("short").to_be_bytes()[..], bytes].concat()
}

pub(crate) fn packet(kind: u8, id: u32, fields: &[u8]) -> Vec<u8> {
    string(&[&[kind][..], &id.to_be_bytes(), fields].concat())
}

/// A client and a server that talk.
#[derive(Clone)]
pub(crate) struct Talk {
    data: Vec<(Direction, Vec<u8>)>,
    id: u32,
}

impl Talk {
    /// They have agreed on the version.
    pub(crate) fn new() -> Self {
        Self::of_version(3)
    }

    pub(crate) fn of_version(version: u32) -> Self {
        let data = vec![(C2T, packet(1, version, &[])), (T2C, packet(2, version, &[]))];
        Self { data, id: 7 }
    }

    /// The client asks; this is the request's id.
    pub(crate) fn ask(&mut self, kind: u8, fields: &[&[u8]]) -> u32 {
        self.id += 1;
        self.data.push((C2T, packet(kind, self.id, &fields.concat())));
        self.id
    }

    /// The same with an id of one's own.
    pub(crate) fn ask_as(&mut self, id: u32, kind: u8, fields: &[&[u8]]) {
        self.data.push((C2T, packet(kind, id, &fields.concat())));
    }

    pub(crate) fn answer(&mut self, id: u32, kind: u8, fields: &[&[u8]]) {
        self.data.push((T2C, packet(kind, id, &fields.concat())));
    }

    pub(crate) fn status(&mut self, id: u32, code: u32, words: &str) {
        self.answer(id, STATUS, &[&code.to_be_bytes(), &string(words.as_bytes()), &string(b"")]);
    }

    pub(crate) fn open(&mut self, path: &[u8], flags: u32, handle: &[u8]) {
        let id = self.ask(OPEN, &[&string(path), &flags.to_be_bytes(), &0_u32.to_be_bytes()]);
        self.answer(id, HANDLE, &[&string(handle)]);
    }

    pub(crate) fn ask_write(&mut self, handle: &[u8], offset: u64, content: &[u8]) -> u32 {
        self.ask(WRITE, &[&string(handle), &offset.to_be_bytes(), &string(content)])
    }

    pub(crate) fn write(&mut self, handle: &[u8], offset: u64, content: &[u8]) {
        let id = self.ask_write(handle, offset, content);
        self.status(id, 0, "Success");
    }

    pub(crate) fn ask_read(&mut self, handle: &[u8], offset: u64, len: u32) -> u32 {
        self.ask(READ, &[&string(handle), &offset.to_be_bytes(), &len.to_be_bytes()])
    }

    pub(crate) fn answer_read(&mut self, id: u32, content: &[u8]) {
        self.answer(id, DATA, &[&string(content)]);
    }

    pub(crate) fn close(&mut self, handle: &[u8]) {
        let id = self.ask(CLOSE, &[&string(handle)]);
        self.status(id, 0, "Success");
    }

    pub(crate) fn recorded(self) -> Recorded {
        Recorded { wanted: Wanted::Subsystem("sftp".into()), data: self.data }
    }
}
