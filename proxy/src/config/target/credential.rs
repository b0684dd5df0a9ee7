//! How the connector logs in on a target: exactly one way each.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use ssh_key::{PrivateKey, PublicKey};
use weir_common::session::TargetCredential;
use zeroize::Zeroizing;

use super::super::{
    ConfigError,
    secret::{self, IfOpen},
    value,
};

/// What the connector logs in with. It has no `Debug`, so that it reaches no log.
#[derive(Clone)]
pub enum Credential {
    /// A private key.
    PrivateKey(Arc<PrivateKey>),
    /// A password.
    Password(Arc<Zeroizing<String>>),
    /// A key that an authentication agent holds.
    Agent {
        /// The agent's socket.
        socket: PathBuf,
        /// Which of its keys; without, it must hold exactly one.
        key: Option<PublicKey>,
    },
    /// A key and a certificate that are made for each session; this authority's key signs them.
    CertificateAuthority(Arc<PrivateKey>),
}

impl Credential {
    /// What the manifest says of it.
    #[must_use]
    pub fn kind(&self) -> TargetCredential {
        match self {
            Self::PrivateKey(_) => TargetCredential::PrivateKey,
            Self::Password(_) => TargetCredential::Password,
            Self::Agent { .. } => TargetCredential::Agent,
            Self::CertificateAuthority(_) => TargetCredential::Certificate,
        }
    }
}

/// The keys of a resource that say how to log in.
#[derive(Default)]
pub(super) struct RawCredential {
    pub(super) private_key: Option<PathBuf>,
    pub(super) password_file: Option<PathBuf>,
    pub(super) agent_socket: Option<PathBuf>,
    pub(super) agent_key: Option<String>,
    pub(super) certificate_authority: Option<PathBuf>,
}

impl RawCredential {
    /// Whether any of them is there.
    pub(super) fn is_given(&self) -> bool {
        let Self { private_key, password_file, agent_socket, agent_key, certificate_authority } = self;
        agent_key.is_some()
            || [private_key, password_file, agent_socket, certificate_authority]
                .iter()
                .any(|path| path.is_some())
    }

    pub(super) fn validate(self, field: impl Fn(&str) -> String) -> Result<Credential, ConfigError> {
        let Self { private_key, password_file, agent_socket, agent_key, certificate_authority } = self;
        if agent_key.is_some() && agent_socket.is_none() {
            return Err(value(
                &field("agent_key"),
                "chooses a key of an agent, but there is no agent_socket",
            ));
        }
        match (private_key, password_file, agent_socket, certificate_authority) {
            (Some(path), None, None, None) => {
                // Configurations from before modes were checked go on working.
                key(&path, &field("private_key"), IfOpen::Warn).map(Credential::PrivateKey)
            }
            (None, Some(path), None, None) => password(&path, &field("password_file")),
            (None, None, Some(socket), None) => {
                let key =
                    agent_key.map(|text| PublicKey::from_openssh(&text)).transpose().map_err(|error| {
                        value(
                            &field("agent_key"),
                            &format!("{error}; expected a line as `ssh-add -L` prints it"),
                        )
                    })?;
                Ok(Credential::Agent { socket, key })
            }
            (None, None, None, Some(path)) => key(&path, &field("certificate_authority"), IfOpen::Refuse)
                .map(Credential::CertificateAuthority),
            _ => Err(value(
                &field("credential"),
                "exactly one of private_key, password_file, agent_socket and certificate_authority is needed",
            )),
        }
    }
}

fn key(path: &Path, field: &str, if_open: IfOpen) -> Result<Arc<PrivateKey>, ConfigError> {
    let key = PrivateKey::from_openssh(secret::read(path, field, if_open)?.as_bytes())
        .map_err(|error| value(field, &format!("{}: {error}", path.display())))?;
    if key.is_encrypted() {
        return Err(value(field, "has a passphrase; the connector needs one without"));
    }
    Ok(Arc::new(key))
}

fn password(path: &Path, field: &str) -> Result<Credential, ConfigError> {
    let text = secret::read(path, field, IfOpen::Refuse)?;
    // What an editor or `echo` leaves behind is not part of it.
    let password =
        text.strip_suffix('\n').map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    if password.is_empty() || password.contains('\n') {
        return Err(value(field, &format!("{} must hold one line, the password", path.display())));
    }
    Ok(Credential::Password(Arc::new(Zeroizing::new(password.to_owned()))))
}
