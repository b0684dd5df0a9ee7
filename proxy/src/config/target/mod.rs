//! A resource in the configuration: where it is, how it is known, how the connector logs in there.

mod credential;
mod ec2;
mod host_keys;

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::Deserialize;
use weir_common::session::{Integration, Resource};

pub(super) use self::ec2::Clients;
pub use self::{
    credential::Credential,
    ec2::{AddressKind, Ec2Instance},
    host_keys::HostKeys,
};
use self::{
    credential::RawCredential,
    ec2::RawEc2,
    host_keys::{HostKeyPolicy, RawHostKeys},
};
use super::{ConfigError, value};

/// A resource and how the connector gets into it.
#[derive(Clone)]
pub struct Target {
    /// The resource.
    pub resource: Resource,
    /// The logins that grants may name; any, if there is none.
    pub logins: Vec<String>,
    /// What administrators sort resources by.
    pub tags: BTreeMap<String, String>,
    /// Why its host key is trusted.
    pub host_keys: HostKeys,
    /// The way in.
    pub access: Access,
}

/// The way into a target.
#[derive(Clone)]
pub enum Access {
    /// Integration `ssh`: it is where the resource says.
    Ssh(Credential),
    /// Integration `aws-ec2-ssh`: it is where EC2 says, and takes the key that is pushed there.
    Ec2(Ec2Instance),
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource, logins: _, tags: _, host_keys: _, access: _ } = self;
        f.debug_struct("Target").field("resource", resource).finish_non_exhaustive()
    }
}

impl fmt::Display for Target {
    /// One line for `--check`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource, logins, tags, host_keys, access } = self;
        let Resource { name, integration, host, port } = resource;
        let way_in = match access {
            Access::Ssh(Credential::PrivateKey(_)) => "private key",
            Access::Ssh(Credential::Password(_)) => "password",
            Access::Ssh(Credential::Agent { .. }) => "agent",
            Access::Ssh(Credential::CertificateAuthority(_)) => "certificate per session",
            Access::Ec2(_) => "EC2 Instance Connect",
        };
        let trust = [
            (!host_keys.pinned.is_empty(), "pinned"),
            (!host_keys.authorities.is_empty(), "certified"),
            (host_keys.known_hosts.is_some(), "known_hosts"),
            (host_keys.learned.is_some(), "LEARNED at first use, nobody vouches for it"),
        ];
        let trust: Vec<_> = trust.iter().filter(|(given, _)| *given).map(|&(_, what)| what).collect();
        write!(f, "{name}: {integration} {host}:{port}, {way_in}, host key {}", trust.join(" or "))?;
        if !logins.is_empty() {
            write!(f, ", logins {}", logins.join(" "))?;
        }
        tags.iter().try_for_each(|(key, value)| write!(f, ", {key}={value}"))
    }
}

/// A resource as a file says it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawResource {
    name: String,
    integration: Integration,
    host: Option<String>,
    #[serde(default = "default_port")]
    port: u16,
    user: Option<String>,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    tags: BTreeMap<String, String>,

    host_key: Option<String>,
    #[serde(default)]
    host_keys: Vec<String>,
    host_ca: Option<String>,
    #[serde(default)]
    host_cas: Vec<String>,
    known_hosts: Option<PathBuf>,
    #[serde(default)]
    host_key_policy: HostKeyPolicy,
    learned_hosts: Option<PathBuf>,

    private_key: Option<PathBuf>,
    password_file: Option<PathBuf>,
    agent_socket: Option<PathBuf>,
    agent_key: Option<String>,
    certificate_authority: Option<PathBuf>,

    instance_id: Option<String>,
    region: Option<String>,
    endpoint_url: Option<String>,
    address: Option<AddressKind>,
}

fn default_port() -> u16 {
    22
}

impl Target {
    /// Checks a resource. EC2 clients are shared through `ec2`.
    pub(super) fn validate(raw: RawResource, ec2: &mut Clients) -> Result<Self, ConfigError> {
        let RawResource { name, integration, host, port, user, users, tags, .. } = &raw;
        let (name, integration, port) = (name.clone(), *integration, *port);
        let field = |field: &str| format!("resource {name:?}, {field}");
        if name.trim().is_empty() {
            return Err(value("resource", "name is empty"));
        }
        if port == 0 {
            return Err(value(&field("port"), "must be between 1 and 65535"));
        }
        let logins: Vec<_> = user.iter().chain(users).cloned().collect();
        if logins.iter().any(|login| !is_plain(login)) {
            return Err(value(
                &field("users"),
                "a login is empty, or has spaces or control characters in it",
            ));
        }
        check_tags(tags, &field("tags"))?;
        let (tags, host) = (tags.clone(), host.clone());
        let (raw_host_keys, raw_credential, raw_ec2) = raw.split();

        let (host, access) = match integration {
            Integration::Ssh => {
                if raw_ec2.is_given() {
                    let reason = "instance_id, region, endpoint_url and address go with aws-ec2-ssh only";
                    return Err(value(&field("integration"), reason));
                }
                let host = host.ok_or_else(|| value(&field("host"), "is missing"))?;
                (host, Access::Ssh(raw_credential.validate(field)?))
            }
            Integration::AwsEc2Ssh => {
                if host.is_some() || raw_credential.is_given() {
                    let reason = "host and credential of an aws-ec2-ssh resource come from EC2: instance_id is \
                                  all it needs";
                    return Err(value(&field("integration"), reason));
                }
                let instance = raw_ec2.validate(field, ec2)?;
                (instance.id.clone(), Access::Ec2(instance))
            }
        };
        if !is_plain(&host) {
            return Err(value(&field("host"), "is empty, or has spaces or control characters in it"));
        }
        let host_keys = raw_host_keys.validate(&host, port, field)?;
        let resource = Resource { name: name.clone(), integration, host, port };
        Ok(Self { resource, logins, tags, host_keys, access })
    }

    /// Whether a grant may name this login.
    #[must_use]
    pub fn admits(&self, login: &str) -> bool {
        self.logins.is_empty() || self.logins.iter().any(|admitted| admitted == login)
    }
}

impl RawResource {
    /// The parts that are checked by themselves.
    fn split(self) -> (RawHostKeys, RawCredential, RawEc2) {
        let Self {
            host_key, host_keys, host_ca, host_cas, known_hosts, host_key_policy, learned_hosts, ..
        } = self;
        let host_keys = RawHostKeys {
            host_key,
            host_keys,
            host_ca,
            host_cas,
            known_hosts,
            host_key_policy,
            learned_hosts,
        };
        let Self { private_key, password_file, agent_socket, agent_key, certificate_authority, .. } = self;
        let credential =
            RawCredential { private_key, password_file, agent_socket, agent_key, certificate_authority };
        let Self { instance_id, region, endpoint_url, address, .. } = self;
        (host_keys, credential, RawEc2 { instance_id, region, endpoint_url, address })
    }
}

fn is_plain(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(|c| c.is_whitespace() || c.is_control())
}

fn check_tags(tags: &BTreeMap<String, String>, field: &str) -> Result<(), ConfigError> {
    let printable = |text: &str| text.len() <= MAX_TAG_BYTES && !text.chars().any(char::is_control);
    if tags.len() > MAX_TAGS {
        return Err(value(field, &format!("there are more than {MAX_TAGS}")));
    }
    match tags.iter().find(|(key, value)| key.trim().is_empty() || !printable(key) || !printable(value)) {
        Some((key, _)) => {
            let reason = format!(
                "{key:?}: a tag has a name, no control characters, and at most {MAX_TAG_BYTES} bytes each side"
            );
            Err(value(field, &reason))
        }
        None => Ok(()),
    }
}

/// As many as EC2 lets a resource have.
const MAX_TAGS: usize = 50;
const MAX_TAG_BYTES: usize = 256;
