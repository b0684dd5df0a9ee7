//! Who and what a session is about: the identifiers and the access context that every part carries along.

use std::{fmt, net::SocketAddr, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One SSH connection by one user to one resource. A UUIDv7, so that ids sort by start time.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(Uuid);

impl SessionId {
    /// A new id.
    #[must_use]
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.hyphenated(), f)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SessionId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::try_parse(text).map(Self)
    }
}

/// A channel's number within its session, counted by the connector from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChannelNo(pub u32);

impl fmt::Display for ChannelNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The kernel's cookie of a socket (`SO_COOKIE`): unique on a node until it reboots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SocketCookie(pub u64);

/// How the target is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Integration {
    /// A host and port that speak SSH.
    #[serde(rename = "ssh")]
    Ssh,
}

/// The server a session goes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resource {
    /// Its name, as reviewers know it.
    pub name: String,
    /// How it is reached.
    pub integration: Integration,
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// The access context of a session: everything a reviewer needs to know besides what happened in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionMeta {
    /// The session.
    pub session_id: SessionId,
    /// The person, as the grant names them.
    pub user: String,
    /// The grant that allowed it.
    pub grant_id: String,
    /// The access request behind the grant.
    pub request_id: String,
    /// Who approved the access request.
    pub approvers: Vec<String>,
    /// The access flow it went through.
    pub access_flow: String,
    /// The server.
    pub resource: Resource,
    /// The login on the server.
    pub target_login: String,
    /// Fingerprint of the host key that the connector insists on (`SHA256:…`).
    pub target_host_key: String,
    /// Fingerprint of the key by which the user proved who they are (`SHA256:…`).
    pub user_key: String,
    /// Where the user's client connected from.
    pub client_address: SocketAddr,
    /// What the client says it is (RFC 4253 section 4.2).
    pub client_version: String,
    /// When the grant expires.
    pub expires_at: Timestamp,
}

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Outcome {
    /// User and target were done with it, or one of them hung up.
    Completed,
    /// The connector ended it.
    Ended {
        /// Why, as the user was told.
        reason: String,
    },
    /// The connector went away without saying how the session ended.
    ConnectorLost,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Completed => f.write_str("completed"),
            Self::Ended { reason } => write!(f, "ended by the connector: {reason}"),
            Self::ConnectorLost => f.write_str("ended abnormally: the connector was lost"),
        }
    }
}
