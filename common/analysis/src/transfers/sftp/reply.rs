//! What a server answers.

use weir_common::recording::findings::FileResult;

use super::{
    Sftp,
    files::Open,
    pending::{Asked, Request},
    say,
    wire::{self, Fields, Packet},
};
use crate::{
    text::lossy,
    transfers::{WORDS_BYTES_MAX, input::Out, lost::Lost},
};

/// `SSH_FX_OK`.
const OK: u32 = 0;
/// `SSH_FX_EOF`.
const EOF: u32 = 1;

impl Sftp {
    pub(super) fn reply(&mut self, packet: &Packet, out: &mut Out<'_>) -> Result<(), Lost> {
        let mut fields = packet.fields();
        let id = fields.u32()?;
        if packet.kind == wire::VERSION {
            self.version = id;
            return Ok(());
        }
        let asked = self.pending.take(id)?;
        match packet.kind {
            wire::STATUS => self.status(asked, &mut fields, out),
            wire::HANDLE => self.opened(asked, fields.handle()?),
            wire::DATA => self.data(&asked.request, packet.content),
            // Names, attributes, replies to extensions: nothing that is told.
            _ => match asked.request {
                Request::List { .. } | Request::Other => Ok(()),
                Request::NotOpen => Err(Lost::NotOpen),
                _ => Err(Lost::Malformed),
            },
        }
    }

    fn status(&mut self, asked: Asked, fields: &mut Fields<'_>, out: &mut Out<'_>) -> Result<(), Lost> {
        let code = fields.u32()?;
        let result = if code == OK { FileResult::Ok } else { FileResult::Failed(words(code, fields)) };
        let Asked { t, request, .. } = asked;
        match (request, result) {
            (Request::Other, _) | (Request::NotOpen, FileResult::Failed(_)) => {}
            (Request::NotOpen, _) => return Err(Lost::NotOpen),
            (Request::Open { .. }, FileResult::Ok) => return Err(Lost::Malformed),
            (Request::Close { file }, result) => {
                self.files.remove(file)?.say(out, out.now(), result);
            }
            (Request::Read { file, .. } | Request::List { file } | Request::Write { file }, result) => {
                if let FileResult::Failed(words) = result
                    && code != EOF
                {
                    self.files.get(file)?.failed(words);
                }
            }
            (request, result) => say(out, t, out.now(), request, result),
        }
        Ok(())
    }

    fn opened(&mut self, asked: Asked, handle: &[u8]) -> Result<(), Lost> {
        let Asked { t, request: Request::Open { operation, path, reads, writes, appends, mode }, .. } = asked
        else {
            return Err(if asked.request == Request::NotOpen { Lost::NotOpen } else { Lost::Malformed });
        };
        let mut file = Open::new(t, operation, path, mode);
        if reads {
            file.reads();
        }
        if writes || appends {
            file.writes(appends);
        }
        self.files.insert(handle, file)
    }

    fn data(&mut self, request: &Request, content: u32) -> Result<(), Lost> {
        match request {
            Request::Read { file, offset, .. } => {
                let flow = self.files.get(*file)?.reads();
                if content > 0 {
                    flow.at(*offset);
                }
                self.reading = Some(*file);
                Ok(())
            }
            Request::NotOpen => Err(Lost::NotOpen),
            _ => Err(Lost::Malformed),
        }
    }
}

/// Why something was refused: the server's words, or the draft's where it says none (version 2).
fn words(code: u32, fields: &mut Fields<'_>) -> String {
    match fields.string() {
        Ok(words @ [_, ..]) => lossy(words, WORDS_BYTES_MAX),
        _ => match code {
            EOF => "End of file".to_owned(),
            2 => "No such file".to_owned(),
            3 => "Permission denied".to_owned(),
            4 => "Failure".to_owned(),
            5 => "Bad message".to_owned(),
            6 => "No connection".to_owned(),
            7 => "Connection lost".to_owned(),
            8 => "Operation unsupported".to_owned(),
            code => format!("Error {code}"),
        },
    }
}
