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
    /// An EC2 instance: its address is looked up, and a key of this one session pushed with EC2 Instance Connect.
    #[serde(rename = "aws-ec2-ssh")]
    AwsEc2Ssh,
}

impl fmt::Display for Integration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ssh => "ssh",
            Self::AwsEc2Ssh => "aws-ec2-ssh",
        })
    }
}

/// The server a session goes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resource {
    /// Its name, as reviewers know it.
    pub name: String,
    /// How it is reached.
    pub integration: Integration,
    /// Host name or address; for `aws-ec2-ssh` the instance id.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// What a grant allows in a session. A shell, a command and a subsystem are allowed unless the grant lists less;
/// forwarding is refused unless the grant lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permission {
    /// A login shell.
    Shell,
    /// A command, which is also what `scp -O`, `rsync` and `git` need.
    Exec,
    /// A subsystem, such as `sftp`.
    Subsystem,
    /// Connections from the client's side into the target's network (`ssh -L`, `-D`, `-W`, `-J`).
    LocalForward,
    /// Connections from the target's side into the client's network (`ssh -R`).
    RemoteForward,
    /// The use of the client's authentication agent on the target (`ssh -A`).
    AgentForward,
    /// X11 (`ssh -X`).
    X11Forward,
}

/// What happens to a session's traffic where the kernel has no room to record it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CapturePolicy {
    /// It stops until there is room. Nothing passes unrecorded.
    #[default]
    FailClosed,
    /// It goes on; what passes unrecorded is counted by the kernel, and the gap recorded with its size and cause.
    BestEffort,
}

/// How a user proved who they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Proof {
    /// By a key that the grant lists.
    PublicKey {
        /// Its fingerprint (`SHA256:…`).
        fingerprint: String,
    },
    /// By a certificate of a trusted authority.
    Certificate {
        /// Fingerprint of the key that is certified.
        fingerprint: String,
        /// The certificate's key id.
        key_id: String,
        /// Its serial number.
        serial: u64,
        /// Fingerprint of the authority's key.
        ca_fingerprint: String,
    },
    /// By a secret that was good for one login.
    OneTimeSecret,
}

/// Why the connector trusts the target's host key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostKeyTrust {
    /// It is the one in the configuration.
    Pinned,
    /// It is in a `known_hosts` file.
    KnownHosts,
    /// A trusted authority has certified it.
    CertAuthority,
    /// Nobody has vouched for it: it was the first one seen, and has been the same since.
    Learned,
}

/// How the connector logged in on the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TargetCredential {
    /// With a private key.
    PrivateKey,
    /// With a password.
    Password,
    /// With a key that an authentication agent holds.
    Agent,
    /// With a certificate made for this session; its key id is the session id.
    Certificate,
    /// With a key made for this session, pushed with EC2 Instance Connect.
    Ec2InstanceConnect,
}

/// The target as the connector found it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetPeer {
    /// The address that answered.
    pub address: SocketAddr,
    /// Fingerprint of the host key it proved to have (`SHA256:…`).
    pub host_key: String,
    /// Why that key is trusted.
    pub host_key_trust: HostKeyTrust,
    /// How the connector logged in.
    pub credential: TargetCredential,
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
    /// What the grant allows.
    pub permissions: Vec<Permission>,
    /// How the user proved who they are.
    pub proof: Proof,
    /// Where the user's client connected from.
    pub client_address: SocketAddr,
    /// What the client says it is (RFC 4253 section 4.2).
    pub client_version: String,
    /// When the grant expires.
    pub expires_at: Timestamp,
    /// What happens where there is no room to record.
    #[serde(default)]
    pub capture_policy: CapturePolicy,
    /// Whether the content of files that go through `sftp`, `scp` and `rsync` is kept in the recording; size and digest
    /// are in any case.
    #[serde(default = "yes")]
    pub record_file_content: bool,
}

fn yes() -> bool {
    true
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
