//! What a client asks for.

use weir_common::recording::findings::{FileOperation, PATH_BYTES_MAX};

use super::{
    Sftp,
    pending::Request,
    wire::{self, Fields, Packet},
};
use crate::{
    text::lossy,
    transfers::{HELD_BYTES_MAX, input::Out, lost::Lost},
};

/// `SSH_FXF_READ`.
const FLAG_READ: u32 = 1;
/// `SSH_FXF_WRITE`.
const FLAG_WRITE: u32 = 2;
/// `SSH_FXF_APPEND`.
const FLAG_APPEND: u32 = 4;
/// `SSH_FILEXFER_ATTR_SIZE`, 8 bytes.
const ATTRIBUTE_SIZE: u32 = 1;
/// `SSH_FILEXFER_ATTR_UIDGID`, twice 4 bytes.
const ATTRIBUTE_OWNER: u32 = 2;
/// `SSH_FILEXFER_ATTR_PERMISSIONS`, 4 bytes.
const ATTRIBUTE_PERMISSIONS: u32 = 4;
/// Permission bits without the file's type.
const MODE: u32 = 0o7777;
/// The version that OpenSSH speaks. Attributes and flags of open look otherwise in later ones.
const VERSION: u32 = 3;

impl Sftp {
    pub(super) fn request(&mut self, packet: &Packet, out: &mut Out<'_>) -> Result<(), Lost> {
        let mut fields = packet.fields();
        let id = fields.u32()?;
        if packet.kind == wire::INIT {
            return Ok(());
        }
        let request = self.read_request(packet, &mut fields)?;
        if request.held() > 0 && self.held() + request.held() > HELD_BYTES_MAX {
            return Err(Lost::Held);
        }
        self.pending.push(id, out.now().unwrap_or(0), request)
    }

    fn read_request(&mut self, packet: &Packet, fields: &mut Fields<'_>) -> Result<Request, Lost> {
        use FileOperation as Operation;
        Ok(match packet.kind {
            wire::OPEN => self.open(fields)?,
            wire::OPENDIR => Request::Open {
                operation: Operation::List,
                path: path(fields)?,
                reads: false,
                writes: false,
                appends: false,
                mode: None,
            },
            wire::READ => match self.files.by_handle(fields.handle()?) {
                Some(file) => Request::Read { file, offset: fields.u64()?, len: fields.u32()? },
                None => Request::NotOpen,
            },
            wire::WRITE => self.write(packet, fields)?,
            wire::READDIR => match self.files.by_handle(fields.handle()?) {
                Some(file) => Request::List { file },
                None => Request::NotOpen,
            },
            wire::CLOSE => match self.files.by_handle(fields.handle()?) {
                Some(file) => {
                    self.files.closing(file)?;
                    Request::Close { file }
                }
                None => Request::NotOpen,
            },
            wire::SETSTAT => self.with_attributes(Operation::SetAttributes, path(fields)?, fields),
            wire::MKDIR => self.with_attributes(Operation::Mkdir, path(fields)?, fields),
            wire::FSETSTAT => match self.files.by_handle(fields.handle()?) {
                Some(file) => {
                    let path = self.files.get(file)?.path.clone();
                    self.with_attributes(Operation::SetAttributes, path, fields)
                }
                None => Request::NotOpen,
            },
            wire::REMOVE => once(Operation::Remove, path(fields)?, None),
            wire::RMDIR => once(Operation::Rmdir, path(fields)?, None),
            wire::RENAME => rename(fields)?,
            wire::SYMLINK => {
                // The draft has the link first, then what it points to. OpenSSH's server and client have it the other
                // way round (its PROTOCOL, 4.1), and so have those that want to get on with them.
                let to = path(fields)?;
                once(Operation::Symlink, path(fields)?, Some(to))
            }
            wire::LINK => {
                let (link, to) = (path(fields)?, path(fields)?);
                once(Operation::Link, link, Some(to))
            }
            wire::EXTENDED => self.extended(fields)?,
            _ => Request::Other,
        })
    }

    fn open(&self, fields: &mut Fields<'_>) -> Result<Request, Lost> {
        let path = path(fields)?;
        let flags = self.is_openssh_like().then(|| fields.u32().ok()).flatten().unwrap_or(0);
        Ok(Request::Open {
            operation: FileOperation::Open,
            path,
            reads: flags & FLAG_READ != 0,
            writes: flags & FLAG_WRITE != 0,
            appends: flags & FLAG_APPEND != 0,
            mode: self.mode(fields),
        })
    }

    fn write(&mut self, packet: &Packet, fields: &mut Fields<'_>) -> Result<Request, Lost> {
        self.writing = self.files.by_handle(fields.handle()?);
        let Some(file) = self.writing else { return Ok(Request::NotOpen) };
        let offset = fields.u64()?;
        if packet.content > 0 {
            self.files.get(file)?.writes(false).at(offset);
        }
        Ok(Request::Write { file })
    }

    /// OpenSSH's extensions (its PROTOCOL, 4), as far as they change files.
    fn extended(&mut self, fields: &mut Fields<'_>) -> Result<Request, Lost> {
        Ok(match fields.string()? {
            b"posix-rename@openssh.com" => rename(fields)?,
            b"hardlink@openssh.com" => {
                let to = path(fields)?;
                once(FileOperation::Link, path(fields)?, Some(to))
            }
            b"lsetstat@openssh.com" => {
                self.with_attributes(FileOperation::SetAttributes, path(fields)?, fields)
            }
            b"copy-data" => {
                let from = self.files.by_handle(fields.handle()?);
                let _ = (fields.u64()?, fields.u64()?);
                match from.zip(self.files.by_handle(fields.handle()?)) {
                    Some((from, to)) => {
                        let from = self.files.get(from)?.path.clone();
                        once(FileOperation::Copy, from, Some(self.files.get(to)?.path.clone()))
                    }
                    None => Request::NotOpen,
                }
            }
            // fsync, limits, statvfs, fstatvfs, expand-path, home-directory, users-groups-by-id and what is unknown.
            _ => Request::Other,
        })
    }

    fn with_attributes(&self, operation: FileOperation, path: String, fields: &mut Fields<'_>) -> Request {
        Request::Once { operation, path, other_path: None, mode: self.mode(fields) }
    }

    /// The permissions among attributes (draft, 5).
    fn mode(&self, fields: &mut Fields<'_>) -> Option<u32> {
        let flags = self.is_openssh_like().then(|| fields.u32().ok()).flatten()?;
        if flags & ATTRIBUTE_SIZE != 0 {
            fields.u64().ok()?;
        }
        if flags & ATTRIBUTE_OWNER != 0 {
            fields.u64().ok()?;
        }
        (flags & ATTRIBUTE_PERMISSIONS != 0).then(|| fields.u32().ok()).flatten().map(|mode| mode & MODE)
    }

    fn is_openssh_like(&self) -> bool {
        self.version <= VERSION
    }
}

fn rename(fields: &mut Fields<'_>) -> Result<Request, Lost> {
    let from = path(fields)?;
    Ok(once(FileOperation::Rename, from, Some(path(fields)?)))
}

fn once(operation: FileOperation, path: String, other_path: Option<String>) -> Request {
    Request::Once { operation, path, other_path, mode: None }
}

fn path(fields: &mut Fields<'_>) -> Result<String, Lost> {
    fields.string().map(|path| lossy(path, PATH_BYTES_MAX))
}
