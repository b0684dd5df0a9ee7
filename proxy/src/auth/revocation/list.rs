//! Reads revoked keys as text: the specification that `ssh-keygen -k` makes a KRL of (ssh-keygen(1), KEY REVOCATION LISTS).
//!
//! One a line: a public key; or `serial: 5`, `serial: 5-9`, `id: NAME`, `key: KEY`, `sha1: KEY`, `sha256: KEY`,
//! `hash: SHA256:…`. Serial numbers and key ids are those of any authority. A certificate in the place of a key is revoked
//! by its serial number, or its key id if it has none. What stands behind a `#` says nothing.

use sha2::{Digest, Sha256};
use ssh_key::{Certificate, Fingerprint, PublicKey};

use super::{Certificates, Revoked, blob};

/// Reads a list.
pub(super) fn parse(text: &str) -> Result<Revoked, String> {
    let mut revoked = Revoked { certificates: vec![Certificates::default()], ..Revoked::default() };
    for (number, line) in text.lines().enumerate() {
        // As ssh-keygen does, wherever it stands.
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        add(&mut revoked, line).map_err(|reason| format!("line {}: {reason}", number + 1))?;
    }
    Ok(revoked)
}

fn add(revoked: &mut Revoked, line: &str) -> Result<(), String> {
    let (word, rest) = line.split_once(':').map_or(("key", line), |(word, rest)| (word.trim(), rest.trim()));
    // A key line holds no colon before its comment.
    if word.contains(char::is_whitespace) {
        return add_key(revoked, line);
    }
    match word {
        "serial" => {
            let (first, last) = serials(rest)?;
            any_authority(revoked).serials.push((first, last));
        }
        "id" if !rest.is_empty() => {
            any_authority(revoked).key_ids.insert(rest.as_bytes().to_vec());
        }
        "id" => return Err("the key id is empty".to_owned()),
        "key" => add_key(revoked, rest)?,
        "sha1" => {
            let hash = sha1::Sha1::digest(blob(key(rest)?.key_data()));
            revoked.sha1.insert(hash.to_vec());
        }
        "sha256" => {
            let hash = Sha256::digest(blob(key(rest)?.key_data()));
            revoked.sha256.insert(hash.to_vec());
        }
        "hash" => match rest.parse() {
            Ok(Fingerprint::Sha256(hash)) => {
                revoked.sha256.insert(hash.to_vec());
            }
            _ => return Err("expected a fingerprint like SHA256:…".to_owned()),
        },
        _ => return Err(format!("{word:?} is not serial, id, key, sha1, sha256 or hash")),
    }
    Ok(())
}

/// The first of them is the one for any authority: see [`parse`].
fn any_authority(revoked: &mut Revoked) -> &mut Certificates {
    &mut revoked.certificates[0]
}

fn add_key(revoked: &mut Revoked, text: &str) -> Result<(), String> {
    let Ok(certificate) = Certificate::from_openssh(text) else {
        revoked.keys.insert(blob(key(text)?.key_data()));
        return Ok(());
    };
    let mut some =
        Certificates { authority: Some(blob(certificate.signature_key())), ..Certificates::default() };
    match certificate.serial() {
        0 => {
            some.key_ids.insert(certificate.key_id().as_bytes().to_vec());
        }
        serial => some.serials.push((serial, serial)),
    }
    revoked.certificates.push(some);
    Ok(())
}

fn key(text: &str) -> Result<PublicKey, String> {
    PublicKey::from_openssh(text).map_err(|error| format!("not a public key: {error}"))
}

fn serials(text: &str) -> Result<(u64, u64), String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| {
        let text = text.trim();
        match text.strip_prefix("0x") {
            Some(hexadecimal) => u64::from_str_radix(hexadecimal, 16),
            // ssh-keygen takes it for octal.
            None if text.len() > 1 && text.starts_with('0') => {
                return Err(format!("{text:?} begins with 0: write it decimal, or with 0x"));
            }
            None => text.parse(),
        }
        .map_err(|error| format!("{text:?} is not a serial number: {error}"))
    };
    let (first, last) = (number(first)?, number(last)?);
    if first == 0 {
        return Err("serial number 0 stands for none and can't be revoked".to_owned());
    }
    if first > last {
        return Err(format!("{first}-{last} is not a range"));
    }
    Ok((first, last))
}
