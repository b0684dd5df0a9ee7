//! OpenSSH user certificates (OpenSSH's PROTOCOL.certkeys): whether one is good for a login now, and what it takes away.
//!
//! Pure: the time and the client's address are arguments. That the client has the certified key is proved before,
//! by its signature; whether the certificate was revoked is [`super::revocation`]'s business.

use std::net::IpAddr;

use ipnet::IpNet;
use jiff::Timestamp;
use ssh_key::{Algorithm, Certificate, certificate::CertType, public::KeyData};
use weir_common::{
    frame::{Env, Message},
    session::Permission,
};

use super::{KeyError, fingerprint, on_authenticator, usable};
use crate::policy::Rights;

/// What a certificate leaves of a grant's rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restrictions {
    /// Extension `permit-pty`.
    pub pty: bool,
    /// Extension `permit-port-forwarding`.
    pub port_forwarding: bool,
    /// Extension `permit-agent-forwarding`.
    pub agent_forwarding: bool,
    /// Extension `permit-X11-forwarding`.
    pub x11_forwarding: bool,
    /// Critical option `force-command`: what runs instead of any shell, command or subsystem.
    pub force_command: Option<String>,
}

impl Restrictions {
    /// Of a proof that is no certificate.
    #[must_use]
    pub fn none() -> Self {
        Self {
            pty: true,
            port_forwarding: true,
            agent_forwarding: true,
            x11_forwarding: true,
            force_command: None,
        }
    }

    /// What is left of these rights.
    #[must_use]
    pub fn apply(&self, mut rights: Rights) -> Rights {
        let Self { pty, port_forwarding, agent_forwarding, x11_forwarding, force_command: _ } = self;
        let taken = [
            (*port_forwarding, Permission::LocalForward),
            (*port_forwarding, Permission::RemoteForward),
            (*agent_forwarding, Permission::AgentForward),
            (*x11_forwarding, Permission::X11Forward),
        ];
        for (kept, permission) in taken {
            if !kept {
                rights.permissions = rights.permissions.without(permission);
            }
        }
        rights.pty &= pty;
        rights
    }

    /// What becomes of a request: a forced command runs instead of any shell, command or subsystem. What was asked for
    /// goes before it as `SSH_ORIGINAL_COMMAND`, as with sshd, if it is plain text; the target may not accept it.
    #[must_use]
    pub fn forced(&self, request: Message) -> (Option<Message>, Message) {
        let Some(command) = &self.force_command else { return (None, request) };
        let original = match &request {
            Message::Shell => None,
            Message::Exec(original) => std::str::from_utf8(original).ok().map(str::to_owned),
            Message::Subsystem(name) => Some(name.clone()),
            _ => return (None, request),
        };
        let plain = |text: &String| text.len() <= ORIGINAL_BYTES && !text.contains(char::is_control);
        let original = original
            .filter(plain)
            .map(|value| Message::Env(Env { name: "SSH_ORIGINAL_COMMAND".to_owned(), value }));
        (original, Message::Exec(command.clone().into_bytes()))
    }
}

/// Of a command that is told to the forced one.
const ORIGINAL_BYTES: usize = 4096;

/// Why a certificate is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Signed by nobody we know.
    #[error("the certificate's authority {fingerprint} is not in user_ca")]
    Authority {
        /// The authority's key.
        fingerprint: String,
    },
    /// The authority's signature is wrong.
    #[error("the authority's signature on the certificate is wrong")]
    Signature,
    /// The authority signed with an algorithm that is not good any more.
    #[error("the authority signed the certificate with {algorithm}, which is not accepted")]
    SignatureAlgorithm {
        /// The algorithm.
        algorithm: String,
    },
    /// The certified key is of no use.
    #[error("the certified key can't be used: {0}")]
    Key(#[from] KeyError),
    /// It is a host's.
    #[error("the certificate is a host certificate")]
    Type,
    /// Too early.
    #[error("the certificate is not valid yet")]
    NotYetValid,
    /// Too late.
    #[error("the certificate has expired")]
    Expired,
    /// Not for this grant.
    #[error("the certificate's principals are {listed:?}; the grant accepts {accepted:?}")]
    Principal {
        /// In the certificate.
        listed: Vec<String>,
        /// By the grant.
        accepted: Vec<String>,
    },
    /// Not from there.
    #[error("the certificate's source-address {allowed:?} does not cover {source_ip}")]
    SourceAddress {
        /// As the certificate says it.
        allowed: String,
        /// Where the client is.
        source_ip: IpAddr,
    },
    /// Something we must understand, and don't.
    #[error("the certificate has the critical option {name:?}, which is not supported")]
    CriticalOption {
        /// Its name.
        name: String,
    },
    /// A touch that can't be checked.
    #[error(
        "the certificate is for a FIDO key and lacks the extension no-touch-required; \
         that the key was touched can't be checked"
    )]
    Touch,
}

/// Checks a certificate for a login now, from there, under a grant that accepts these principals.
///
/// # Errors
/// [`CertificateError`] names the first thing that is wrong.
pub fn check(
    certificate: &Certificate,
    authorities: &[KeyData],
    principals: &[String],
    source: IpAddr,
    now: Timestamp,
) -> Result<Restrictions, CertificateError> {
    let authority = certificate.signature_key();
    if !authorities.contains(authority) {
        return Err(CertificateError::Authority { fingerprint: fingerprint(authority) });
    }
    let algorithm = certificate.signature().algorithm();
    if matches!(algorithm, Algorithm::Rsa { hash: None } | Algorithm::Dsa) {
        return Err(CertificateError::SignatureAlgorithm { algorithm: algorithm.to_string() });
    }
    certificate.verify_signature().map_err(|_| CertificateError::Signature)?;
    if certificate.cert_type() != CertType::User {
        return Err(CertificateError::Type);
    }
    usable(certificate.public_key())?;
    // Before 1970 nothing is valid.
    let now = u64::try_from(now.as_second()).unwrap_or(0);
    if now < certificate.valid_after() {
        return Err(CertificateError::NotYetValid);
    }
    if now >= certificate.valid_before() {
        return Err(CertificateError::Expired);
    }
    principal(certificate, principals)?;
    let force_command = critical_options(certificate, source)?;
    let has = |name: &str| certificate.extensions().contains_key(name);
    if on_authenticator(certificate.public_key()) && !has("no-touch-required") {
        return Err(CertificateError::Touch);
    }
    Ok(Restrictions {
        pty: has("permit-pty"),
        port_forwarding: has("permit-port-forwarding"),
        agent_forwarding: has("permit-agent-forwarding"),
        x11_forwarding: has("permit-X11-forwarding"),
        force_command,
    })
}

/// Checks that one of the certificate's principals is among the accepted ones. A certificate without principals is
/// good for everybody to who made it, and so for nobody here, as with sshd.
///
/// # Errors
/// [`CertificateError::Principal`].
pub fn principal(certificate: &Certificate, accepted: &[String]) -> Result<(), CertificateError> {
    let listed = certificate.valid_principals();
    if listed.iter().any(|principal| accepted.contains(principal)) {
        return Ok(());
    }
    Err(CertificateError::Principal { listed: listed.to_vec(), accepted: accepted.to_vec() })
}

/// The forced command, if there is one.
fn critical_options(certificate: &Certificate, source: IpAddr) -> Result<Option<String>, CertificateError> {
    let mut force_command = None;
    for (name, value) in certificate.critical_options().iter() {
        match name.as_str() {
            "force-command" => force_command = Some(value.clone()),
            "source-address" if covers(value, source) => {}
            "source-address" => {
                return Err(CertificateError::SourceAddress { allowed: value.clone(), source_ip: source });
            }
            _ => return Err(CertificateError::CriticalOption { name: name.clone() }),
        }
    }
    Ok(force_command)
}

/// Whether a list of addresses and networks, separated by commas, covers the address. One that can't be read covers
/// nothing at all, and neither does a network whose host bits are set: as with sshd.
fn covers(list: &str, source: IpAddr) -> bool {
    let networks: Option<Vec<_>> = list.split(',').map(network).collect();
    networks.is_some_and(|networks| networks.iter().any(|network| network.contains(&source.to_canonical())))
}

/// A network as `address/bits`, or an address.
#[must_use]
pub fn network(text: &str) -> Option<IpNet> {
    let text = text.trim();
    let network = text.parse::<IpNet>().ok().or_else(|| Some(text.parse::<IpAddr>().ok()?.into()))?;
    (network.trunc() == network).then_some(network)
}

#[cfg(test)]
mod tests;
