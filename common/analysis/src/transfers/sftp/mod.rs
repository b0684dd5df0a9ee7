//! SFTP version 3 (draft-ietf-secsh-filexfer-02) as OpenSSH speaks it, and as much of later versions as is alike.
//!
//! Requests and answers are followed together: what was asked for says what an answer is about, and an answer which
//! handle means which file. Content is hashed as it comes; of a packet only the beginning is ever held.

mod files;
mod pending;
mod reply;
mod request;
mod wire;

use serde::{Deserialize, Serialize};
use weir_common::{
    frame::Direction,
    recording::findings::{FileAccess, FileProtocol, FileResult},
};

pub(super) use self::{files::FILES_MAX, pending::PENDING_MAX, wire::HANDLE_BYTES_MAX};
use self::{
    files::Files,
    pending::{Asked, FileNumber, Pending, Request},
    wire::Packets,
};
use super::{
    HELD_BYTES_MAX,
    input::{Input, Out},
    lost::Lost,
};

/// Follows both directions of one channel.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Sftp {
    /// As agreed; 0 as long as nothing is.
    version: u32,
    requests: Packets,
    replies: Packets,
    /// Whose content the request is in; none if its file is not open.
    writing: Option<FileNumber>,
    /// Whose content the reply is in.
    reading: Option<FileNumber>,
    pending: Pending,
    files: Files,
}

impl Sftp {
    pub(super) fn feed(
        &mut self,
        direction: Direction,
        input: &mut Input<'_>,
        out: &mut Out<'_>,
    ) -> Result<(), Lost> {
        let from_client = direction == Direction::ClientToTarget;
        loop {
            let packets = if from_client { &mut self.requests } else { &mut self.replies };
            if let Some(left) = packets.content_left() {
                let went = self.content(from_client, left, input, out)?;
                let packets = if from_client { &mut self.requests } else { &mut self.replies };
                packets.content_went(went);
                if went == 0 && left > 0 {
                    return Ok(());
                }
                continue;
            }
            match packets.next(direction, input)? {
                None if input.is_empty() => return Ok(()),
                None => {}
                Some(packet) if from_client => self.request(&packet, out)?,
                Some(packet) => self.reply(&packet, out)?,
            }
        }
    }

    fn content(
        &mut self,
        from_client: bool,
        left: u32,
        input: &mut Input<'_>,
        out: &mut Out<'_>,
    ) -> Result<u64, Lost> {
        match if from_client { self.writing } else { self.reading } {
            // A write that has to fail, because its file is not open.
            None => Ok(input.protocol(left as usize)?.len() as u64),
            Some(number) => {
                let file = self.files.get(number)?;
                let flow = if from_client { file.writes(false) } else { file.reads() };
                input.content(u64::from(left), flow, out)
            }
        }
    }

    /// Nothing comes any more: says what is under way.
    pub(super) fn end(&mut self, out: &mut Out<'_>, t_end: Option<u64>) {
        for file in self.files.drain() {
            file.say(out, t_end, FileResult::Unknown);
        }
        for Asked { t, request, .. } in self.pending.drain() {
            say(out, t, t_end, request, FileResult::Unknown);
        }
    }

    pub(super) fn is_sound(&self) -> bool {
        self.requests.is_sound()
            && self.replies.is_sound()
            && self.pending.is_sound()
            && self.files.is_sound()
            && self.held() <= HELD_BYTES_MAX
    }

    fn held(&self) -> usize {
        self.files.held() + self.pending.iter().map(|asked| asked.request.held()).sum::<usize>()
    }
}

/// Says what became of a request that is over.
fn say(out: &mut Out<'_>, t: u64, t_end: Option<u64>, request: Request, result: FileResult) {
    let (operation, path, other_path, mode) = match request {
        Request::Open { operation, path, mode, .. } => (operation, path, None, mode),
        Request::Once { operation, path, other_path, mode } => (operation, path, other_path, mode),
        _ => return,
    };
    out.file(t, t_end, |ch, span| FileAccess {
        n: 0,
        ch,
        span,
        protocol: FileProtocol::Sftp,
        operation,
        path,
        other_path,
        result,
        mode,
        read: None,
        written: None,
    });
}
