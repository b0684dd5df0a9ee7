//! Writes the archive format of an initramfs: cpio, `newc`
//! (<https://docs.kernel.org/driver-api/early-userspace/buffer-format.html>).

use std::io::{self, Write};

use anyhow::{Context, Result};

/// Bits of a mode.
const DIRECTORY: u32 = 0o040_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
const REGULAR: u32 = 0o100_000;
const SYMBOLIC_LINK: u32 = 0o120_000;

/// An archive that is being written. Nothing is in it twice, and folders come before what is in them, if the
/// caller sees to it.
pub(super) struct Archive<W> {
    out: W,
    entries: u32,
}

impl<W: Write> Archive<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, entries: 0 }
    }

    pub(super) fn directory(&mut self, path: &str) -> Result<()> {
        self.entry(path, DIRECTORY | 0o755, (0, 0), &[])
    }

    pub(super) fn file(&mut self, path: &str, permissions: u32, content: &[u8]) -> Result<()> {
        self.entry(path, REGULAR | permissions, (0, 0), content)
    }

    pub(super) fn symbolic_link(&mut self, path: &str, target: &str) -> Result<()> {
        self.entry(path, SYMBOLIC_LINK | 0o777, (0, 0), target.as_bytes())
    }

    pub(super) fn character_device(&mut self, path: &str, major: u32, minor: u32) -> Result<()> {
        self.entry(path, CHARACTER_DEVICE | 0o600, (major, minor), &[])
    }

    /// Ends the archive.
    pub(super) fn finish(mut self) -> Result<()> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        self.out.flush().context("writing the end of the archive")
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) -> Result<()> {
        let name = path.trim_start_matches('/');
        let size = u32::try_from(content.len()).with_context(|| format!("{path} has more than 4 GiB"))?;
        let name_size = u32::try_from(name.len() + 1).with_context(|| format!("{path} is a long name"))?;
        self.entries += 1;
        // inode, mode, owner, group, links, time, size, device (2), device node (2), name's size, checksum
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_size, 0];
        let header = fields.iter().fold("070701".to_owned(), |text, field| text + &format!("{field:08x}"));
        let writing = || format!("writing {path} into the archive");
        self.out.write_all(header.as_bytes()).with_context(writing)?;
        self.out.write_all(name.as_bytes()).with_context(writing)?;
        self.out.write_all(&[0]).with_context(writing)?;
        self.pad(header.len() + name.len() + 1).with_context(writing)?;
        self.out.write_all(content).with_context(writing)?;
        self.pad(content.len()).with_context(writing)
    }

    /// Zeros up to a multiple of four.
    fn pad(&mut self, len: usize) -> io::Result<()> {
        self.out.write_all(&[0; 3][..len.next_multiple_of(4) - len])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_what_cpio_would_write() {
        let mut bytes = Vec::new();
        let mut archive = Archive::new(&mut bytes);
        archive.file("/a", 0o644, b"hello").expect("memory takes everything");
        archive.character_device("dev/console", 5, 1).expect("memory takes everything");
        archive.symbolic_link("/b", "/a").expect("memory takes everything");
        archive.finish().expect("memory takes everything");
        let expected = "070701\
            00000001000081a40000000000000000000000010000000000000005000000000000000000000000000000000000000200000000\
            a\0hello\0\0\0\
            070701\
            00000002000021800000000000000000000000010000000000000000000000000000000000000005000000010000000c00000000\
            dev/console\0\0\0\
            070701\
            000000030000a1ff0000000000000000000000010000000000000002000000000000000000000000000000000000000200000000\
            b\0/a\0\0\
            070701\
            00000004000000000000000000000000000000010000000000000000000000000000000000000000000000000000000b00000000\
            TRAILER!!!\0\0\0\0";
        assert_eq!(String::from_utf8_lossy(&bytes), expected);
    }
}
