//! Reads OpenSSH key revocation lists (OpenSSH's PROTOCOL.krl).
//!
//! What it does not know it refuses, as OpenSSH does, except extensions that say they may be ignored. Nothing is
//! allocated that the file does not hold.

use super::{Bitmap, Certificates, Revoked};

/// What a list begins with.
pub(super) const MAGIC: &[u8; 8] = b"SSHKRL\n\0";

const FORMAT_VERSION: u32 = 1;

const CERTIFICATES: u8 = 1;
const EXPLICIT_KEY: u8 = 2;
const FINGERPRINT_SHA1: u8 = 3;
const SIGNATURE: u8 = 4;
const FINGERPRINT_SHA256: u8 = 5;
const EXTENSION: u8 = 255;

const SERIAL_LIST: u8 = 0x20;
const SERIAL_RANGE: u8 = 0x21;
const SERIAL_BITMAP: u8 = 0x22;
const KEY_ID: u8 = 0x23;
const CERTIFICATES_EXTENSION: u8 = 0x39;

/// Reads a list.
pub(super) fn parse(bytes: &[u8]) -> Result<Revoked, String> {
    let mut rest = Wire(bytes.strip_prefix(MAGIC).ok_or("not a KRL")?);
    let version = rest.u32()?;
    if version != FORMAT_VERSION {
        return Err(format!("its format version is {version}, only {FORMAT_VERSION} is known"));
    }
    // Its own version, when it was made, flags of which none is defined.
    for _ in 0..3 {
        rest.u64()?;
    }
    // Reserved, and a comment.
    for _ in 0..2 {
        rest.string()?;
    }
    let mut revoked = Revoked::default();
    while !rest.is_empty() {
        let kind = rest.u8()?;
        let mut section = Wire(rest.string()?);
        match kind {
            CERTIFICATES => revoked.certificates.push(certificates(&mut section)?),
            EXPLICIT_KEY => section.strings(|key| revoked.keys.insert(key.to_vec()))?,
            FINGERPRINT_SHA1 => section.strings(|hash| revoked.sha1.insert(hash.to_vec()))?,
            FINGERPRINT_SHA256 => section.strings(|hash| revoked.sha256.insert(hash.to_vec()))?,
            EXTENSION => extension(&mut section)?,
            SIGNATURE => return Err("it is signed, which is not supported".to_owned()),
            _ => return Err(format!("section of unknown kind {kind}")),
        }
    }
    Ok(revoked)
}

fn certificates(section: &mut Wire<'_>) -> Result<Certificates, String> {
    let authority = section.string()?;
    let _reserved = section.string()?;
    let mut some = Certificates {
        authority: (!authority.is_empty()).then(|| authority.to_vec()),
        ..Certificates::default()
    };
    while !section.is_empty() {
        let kind = section.u8()?;
        let mut part = Wire(section.string()?);
        match kind {
            SERIAL_LIST => {
                while !part.is_empty() {
                    let serial = part.u64()?;
                    some.serials.push((serial, serial));
                }
            }
            SERIAL_RANGE => {
                some.serials.push((part.u64()?, part.u64()?));
                part.end()?;
            }
            SERIAL_BITMAP => {
                let (offset, bytes) = (part.u64()?, part.string()?);
                if bytes.first().is_some_and(|&byte| byte & 0x80 != 0) {
                    return Err("a bitmap of serial numbers is negative".to_owned());
                }
                some.bitmaps.push(Bitmap { offset, bytes: bytes.to_vec() });
                part.end()?;
            }
            KEY_ID => part.strings(|id| some.key_ids.insert(id.to_vec()))?,
            CERTIFICATES_EXTENSION => extension(&mut part)?,
            _ => return Err(format!("certificate section of unknown kind {kind:#x}")),
        }
    }
    Ok(some)
}

/// Passes over an extension that may be ignored.
fn extension(section: &mut Wire<'_>) -> Result<(), String> {
    let name = String::from_utf8_lossy(section.string()?).into_owned();
    let critical = section.u8()? != 0;
    section.string()?;
    section.end()?;
    if critical { Err(format!("critical extension {name:?} is not supported")) } else { Ok(()) }
}

/// What is left of the bytes (RFC 4251 section 5).
struct Wire<'a>(&'a [u8]);

impl<'a> Wire<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or("it is cut off")?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (taken, rest) = self.0.split_first_chunk().ok_or("it is cut off")?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, String> {
        self.array().map(u8::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_be_bytes)
    }

    fn string(&mut self) -> Result<&'a [u8], String> {
        let length = usize::try_from(self.u32()?).map_err(|_| "it is cut off")?;
        self.take(length)
    }

    fn strings(&mut self, mut each: impl FnMut(&'a [u8]) -> bool) -> Result<(), String> {
        while !self.is_empty() {
            // Whether it was there before does not matter.
            let _new = each(self.string()?);
        }
        Ok(())
    }

    fn end(&self) -> Result<(), String> {
        if self.is_empty() { Ok(()) } else { Err("a section is longer than it should be".to_owned()) }
    }
}
