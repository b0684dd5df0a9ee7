//! `known_hosts` files as OpenSSH writes them (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"): plain and hashed names,
//! wildcards and negation, ports, `@cert-authority` and `@revoked`.
//!
//! What can't be understood trusts nobody: such a line is left out, with a warning. The one exception is a line
//! that revokes: without it more would be trusted than was meant, so the whole file is refused.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use ssh_key::PublicKey;

use crate::limits;

/// A file's lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KnownHosts {
    lines: Vec<Line>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    marker: Marker,
    hosts: Hosts,
    key: PublicKey,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Marker {
    None,
    CertAuthority,
    Revoked,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hosts {
    Patterns(Vec<String>),
    Hashed { salt: Vec<u8>, hash: Vec<u8> },
}

/// What a file says of one host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// The keys it may have.
    pub(crate) keys: Vec<PublicKey>,
    /// Who may certify its key.
    pub(crate) authorities: Vec<PublicKey>,
    /// The keys that neither it nor an authority may have.
    pub(crate) revoked: Vec<PublicKey>,
}

/// Why a file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KnownHostsError {
    /// It can't be read.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// It is too long.
    #[error("is longer than {} MiB", limits::KNOWN_HOSTS_BYTES >> 20)]
    Length,
    /// It revokes a key, but which one can't be understood.
    #[error("line {line} revokes a key that can't be understood: {reason}")]
    Revoked {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl KnownHosts {
    /// Reads a file.
    ///
    /// # Errors
    /// [`KnownHostsError`].
    pub(crate) fn read(path: &Path) -> Result<Self, KnownHostsError> {
        Self::read_from(File::open(path)?)
    }

    /// Reads an open file from where it stands.
    ///
    /// # Errors
    /// [`KnownHostsError`].
    pub(crate) fn read_from(file: impl Read) -> Result<Self, KnownHostsError> {
        let mut bytes = Vec::new();
        file.take(limits::KNOWN_HOSTS_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limits::KNOWN_HOSTS_BYTES {
            return Err(KnownHostsError::Length);
        }
        Self::parse(&String::from_utf8_lossy(&bytes))
    }

    /// Parses a file's text.
    ///
    /// # Errors
    /// [`KnownHostsError::Revoked`].
    pub(crate) fn parse(text: &str) -> Result<Self, KnownHostsError> {
        let mut lines = Vec::new();
        for (number, text) in (1..).zip(text.lines()) {
            match Line::parse(text) {
                Ok(line) => lines.extend(line),
                Err(reason) if text.trim_start().starts_with(REVOKED) => {
                    return Err(KnownHostsError::Revoked { line: number, reason });
                }
                Err(reason) => tracing::warn!(line = number, reason, "a known_hosts line is left out"),
            }
        }
        Ok(Self { lines })
    }

    /// What is known of a host.
    ///
    /// With another port than 22 a host is known as `[host]:port`. If the file does not know it so, what it says of
    /// the host without a port counts, as it does for `ssh`. What is revoked is revoked under either name.
    #[must_use]
    pub(crate) fn lookup(&self, host: &str, port: u16) -> Known {
        let host = host.to_ascii_lowercase();
        let with_port = self.find(&host_name(&host, port));
        if port == DEFAULT_PORT {
            return with_port;
        }
        let plain = self.find(&host);
        let revoked = [with_port.revoked, plain.revoked].concat();
        let known = if with_port.keys.is_empty() { plain.keys } else { with_port.keys };
        let authorities =
            if with_port.authorities.is_empty() { plain.authorities } else { with_port.authorities };
        Known { keys: known, authorities, revoked }
    }

    /// What is known of a host under exactly this port.
    #[must_use]
    pub(crate) fn lookup_exact(&self, host: &str, port: u16) -> Known {
        self.find(&host_name(&host.to_ascii_lowercase(), port))
    }

    fn find(&self, name: &str) -> Known {
        let mut known = Known::default();
        for line in self.lines.iter().filter(|line| line.hosts.matches(name)) {
            let keys = match line.marker {
                Marker::None => &mut known.keys,
                Marker::CertAuthority => &mut known.authorities,
                Marker::Revoked => &mut known.revoked,
            };
            keys.push(line.key.clone());
        }
        known
    }
}

/// The name under which a host is known: with a port other than 22 `[host]:port`.
#[must_use]
pub(crate) fn host_name(host: &str, port: u16) -> String {
    if port == DEFAULT_PORT { host.to_owned() } else { format!("[{host}]:{port}") }
}

impl Line {
    /// Nothing for an empty line and a comment.
    fn parse(text: &str) -> Result<Option<Self>, &'static str> {
        let mut words = text.split_ascii_whitespace();
        let Some(first) = words.next() else { return Ok(None) };
        let marker = match first {
            "@cert-authority" => Marker::CertAuthority,
            REVOKED => Marker::Revoked,
            comment if comment.starts_with('#') => return Ok(None),
            other if other.starts_with('@') => return Err("unknown marker"),
            _ => Marker::None,
        };
        let hosts = if marker == Marker::None { Some(first) } else { words.next() };
        let hosts = Hosts::parse(hosts.ok_or("no host")?)?;
        let (Some(kind), Some(blob)) = (words.next(), words.next()) else { return Err("no key") };
        let key =
            PublicKey::from_openssh(&format!("{kind} {blob}")).map_err(|_| "not a key that is known here")?;
        Ok(Some(Self { marker, hosts, key }))
    }
}

impl Hosts {
    fn parse(text: &str) -> Result<Self, &'static str> {
        let Some(hashed) = text.strip_prefix("|1|") else {
            return Ok(Self::Patterns(text.to_ascii_lowercase().split(',').map(str::to_owned).collect()));
        };
        let decode = |text: &str| STANDARD.decode(text).map_err(|_| "a hashed name that is not base64");
        let (salt, hash) = hashed.split_once('|').ok_or("a hashed name without a hash")?;
        Ok(Self::Hashed { salt: decode(salt)?, hash: decode(hash)? })
    }

    /// Whether this is the name, which is in lower case.
    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Patterns(patterns) => {
                let mut matched = false;
                for pattern in patterns {
                    match pattern.strip_prefix('!') {
                        Some(negated) if matches(negated.as_bytes(), name.as_bytes()) => return false,
                        Some(_) => {}
                        None => matched |= matches(pattern.as_bytes(), name.as_bytes()),
                    }
                }
                matched
            }
            Self::Hashed { salt, hash } => Hmac::<Sha1>::new_from_slice(salt)
                .is_ok_and(|mac| mac.chain_update(name).verify_slice(hash).is_ok()),
        }
    }
}

/// Whether a text matches a pattern, in which `*` stands for any bytes and `?` for one. The time it takes is at most
/// the product of both lengths: only the last `*` is ever tried again.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut last_star = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                last_star = Some((p, t));
                p += 1;
            }
            Some(&byte) if byte == b'?' || byte == text[t] => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((star, taken)) = last_star else { return false };
                last_star = Some((star, taken + 1));
                p = star + 1;
                t = taken + 1;
            }
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

const DEFAULT_PORT: u16 = 22;
const REVOKED: &str = "@revoked";

#[cfg(test)]
mod tests;
