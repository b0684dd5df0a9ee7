//! Whether the host key that a target presents is one to trust. Never blindly: there is always a source that says so,
//! and if that is only "the first one seen", the manifest says that.

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use russh::keys::PublicKeyOrCertificate;
use ssh_key::{Algorithm, Certificate, Fingerprint, HashAlg, PublicKey, certificate::CertType};
use weir_common::session::HostKeyTrust;

use super::{
    known_hosts::{Known, KnownHosts, KnownHostsError},
    learned::{self, LearnError},
};
use crate::config::HostKeys;

/// What is known of a target's host key before it is asked.
#[derive(Clone, Debug)]
pub(super) struct Expectation {
    host: String,
    pinned: Vec<PublicKey>,
    /// From a `known_hosts` file, or from the file of those learned.
    known: Known,
    /// Both the configuration's and the `known_hosts` file's.
    authorities: Vec<PublicKey>,
    learned: Option<(PathBuf, u16)>,
}

/// A host key that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    pub(super) fingerprint: Fingerprint,
    pub(super) trust: HostKeyTrust,
}

/// Why a host key was refused. For the log: it names keys.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// There is a key to expect, and it is another.
    #[error("the target presents {presented}; expected: {expected}")]
    Changed {
        /// The key presented.
        presented: Presented,
        /// The fingerprints of those that would have done.
        expected: String,
    },
    /// Nothing is known of this host.
    #[error("the target presents {presented}, and nothing is known of this host")]
    Unknown {
        /// The key presented.
        presented: Presented,
    },
    /// The key, or the authority that certified it, is revoked.
    #[error("the target presents {presented}, which is revoked")]
    Revoked {
        /// The key presented.
        presented: Presented,
    },
    /// A certificate that a trusted authority signed, but not for this, or not for now.
    #[error("the target presents {presented}, which is no good: {reason}")]
    Certificate {
        /// The key presented.
        presented: Presented,
        /// Why not.
        reason: &'static str,
    },
    /// It could not be kept, and so not be trusted.
    #[error("the target presents {presented}, which can't be kept: {source}")]
    Learn {
        /// The key presented.
        presented: Presented,
        /// Why not.
        source: LearnError,
    },
}

/// A key as the log names it: by its fingerprint, and by that of the authority that certified it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presented(String);

impl fmt::Display for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&PublicKeyOrCertificate> for Presented {
    fn from(presented: &PublicKeyOrCertificate) -> Self {
        let key = presented.public_key().fingerprint(HashAlg::Sha256);
        Self(match presented.certificate() {
            Some(certificate) => {
                format!(
                    "{key} with a certificate of {}",
                    certificate.signature_key().fingerprint(HashAlg::Sha256)
                )
            }
            None => key.to_string(),
        })
    }
}

impl Expectation {
    /// Gathers what is known, from files too: they are read anew for every session. It blocks.
    ///
    /// # Errors
    /// [`KnownHostsError`]: a file that can't be read trusts nobody.
    pub(super) fn gather(host_keys: &HostKeys) -> Result<Self, KnownHostsError> {
        let HostKeys { host, port, pinned, authorities, known_hosts, learned } = host_keys;
        let known = match (known_hosts, learned) {
            (Some(path), _) => KnownHosts::read(path)?.lookup(host, *port),
            (None, Some(path)) => learned::read(path)?.lookup_exact(host, *port),
            (None, None) => Known::default(),
        };
        // What was learned says nothing of authorities.
        let more = if known_hosts.is_some() { known.authorities.clone() } else { Vec::new() };
        Ok(Self {
            host: host.clone(),
            pinned: pinned.clone(),
            authorities: [authorities.clone(), more].concat(),
            known,
            learned: learned.clone().map(|path| (path, *port)),
        })
    }

    /// The algorithms of the keys that are known, so that the target presents one of them.
    pub(super) fn algorithms(&self) -> Vec<Algorithm> {
        self.pinned.iter().chain(&self.known.keys).map(PublicKey::algorithm).collect()
    }

    /// Whether a certificate would help.
    pub(super) fn wants_certificate(&self) -> bool {
        !self.authorities.is_empty()
    }

    /// Judges what a target presents, which has proved to have the key.
    ///
    /// A certificate that does not convince still shows a key, and that may be a known one: as for `ssh`.
    fn judge(&self, presented: &PublicKeyOrCertificate, now: Timestamp) -> Result<HostKeyTrust, Refusal> {
        let key = presented.public_key();
        let is = |known: &PublicKey| known.key_data() == key.key_data();
        let signed = |known: &PublicKey| {
            presented.certificate().is_some_and(|certificate| certificate.signature_key() == known.key_data())
        };
        if self.known.revoked.iter().any(|revoked| is(revoked) || signed(revoked)) {
            return Err(Refusal::Revoked { presented: presented.into() });
        }
        let certified = match presented.certificate() {
            Some(certificate) if self.authorities.iter().any(signed) => {
                Some(check(certificate, &self.host, now))
            }
            _ => None,
        };
        if let Some(Ok(())) = certified {
            return Ok(HostKeyTrust::CertAuthority);
        }
        if self.pinned.iter().any(is) {
            return Ok(HostKeyTrust::Pinned);
        }
        if self.known.keys.iter().any(is) {
            return Ok(if self.learned.is_some() { HostKeyTrust::Learned } else { HostKeyTrust::KnownHosts });
        }
        if let Some(Err(reason)) = certified {
            return Err(Refusal::Certificate { presented: presented.into(), reason });
        }
        let expected = self.expected();
        if expected.is_empty() {
            return Err(Refusal::Unknown { presented: presented.into() });
        }
        Err(Refusal::Changed { presented: presented.into(), expected })
    }

    fn expected(&self) -> String {
        let keys = self.pinned.iter().chain(&self.known.keys);
        let keys = keys.map(|key| key.fingerprint(HashAlg::Sha256).to_string());
        let authorities = self
            .authorities
            .iter()
            .map(|key| format!("a certificate of {}", key.fingerprint(HashAlg::Sha256)));
        keys.chain(authorities).collect::<Vec<_>>().join(", ")
    }
}

/// Checks what the signature does not: that the certificate is a host's, for this host, now, without conditions that
/// nobody here could keep (PROTOCOL.certkeys of OpenSSH). The signature is checked too; that the key which made it
/// is trusted is the caller's to know.
fn check(certificate: &Certificate, host: &str, now: Timestamp) -> Result<(), &'static str> {
    if certificate.cert_type() != CertType::Host {
        return Err("it is not a host's");
    }
    if certificate.signature().algorithm() == (Algorithm::Rsa { hash: None }) {
        return Err("it is signed with SHA-1");
    }
    if !certificate.valid_principals().iter().any(|name| name.eq_ignore_ascii_case(host)) {
        return Err("it is not for this host name");
    }
    if !certificate.critical_options().is_empty() {
        return Err("it has critical options");
    }
    let now = u64::try_from(now.as_second()).unwrap_or(0);
    if now < certificate.valid_after() {
        return Err("it is not valid yet");
    }
    if now >= certificate.valid_before() {
        return Err("it has expired");
    }
    let authority = certificate.signature_key().fingerprint(HashAlg::Sha256);
    certificate.validate_at(now, [&authority]).map_err(|_| "its signature is wrong")
}

/// Checks the host key of one connection and keeps what came of it.
#[derive(Clone)]
pub(super) struct HostKeyCheck {
    expectation: Arc<Expectation>,
    verdict: Arc<Mutex<Option<Result<Accepted, Refusal>>>>,
}

impl HostKeyCheck {
    pub(super) fn new(expectation: Expectation) -> Self {
        Self { expectation: Arc::new(expectation), verdict: Arc::default() }
    }

    /// Says whether the target is the one that is meant.
    pub(super) async fn accepts(&self, presented: &PublicKeyOrCertificate) -> bool {
        let verdict = match self.expectation.judge(presented, Timestamp::now()) {
            Err(Refusal::Unknown { .. }) if self.expectation.learned.is_some() => self.learn(presented).await,
            verdict => verdict,
        };
        let fingerprint = presented.public_key().fingerprint(HashAlg::Sha256);
        let verdict = verdict.map(|trust| Accepted { fingerprint, trust });
        let accepted = verdict.is_ok();
        *self.verdict.lock().unwrap_or_else(PoisonError::into_inner) = Some(verdict);
        accepted
    }

    /// What came of it; nothing, if the key exchange did not get that far.
    pub(super) fn verdict(&self) -> Option<Result<Accepted, Refusal>> {
        self.verdict.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    async fn learn(&self, presented: &PublicKeyOrCertificate) -> Result<HostKeyTrust, Refusal> {
        let Some((path, port)) = self.expectation.learned.clone() else {
            return Err(Refusal::Unknown { presented: presented.into() });
        };
        let (host, key) = (self.expectation.host.clone(), presented.public_key());
        let kept = tokio::task::spawn_blocking(move || learned::keep(&path, &host, port, &key)).await;
        match kept.unwrap_or_else(|panic| Err(std::io::Error::other(panic).into())) {
            Ok(()) => {
                tracing::warn!(host = self.expectation.host, key = %Presented::from(presented),
                    "this host key was learned: it is trusted from now on, and nobody has vouched for it");
                Ok(HostKeyTrust::Learned)
            }
            Err(LearnError::Other { known }) => {
                Err(Refusal::Changed { presented: presented.into(), expected: known.to_string() })
            }
            Err(source) => Err(Refusal::Learn { presented: presented.into(), source }),
        }
    }
}

#[cfg(test)]
mod tests;
