//! Why a target's host key is trusted: what the configuration says of it.

use std::path::PathBuf;

use serde::Deserialize;
use ssh_key::PublicKey;

use super::super::{ConfigError, value};
use crate::{algorithms, target_leg::known_hosts::KnownHosts};

/// Where trust in a target's host key comes from. Each that is there is enough; there is always one.
#[derive(Clone, Debug)]
pub struct HostKeys {
    /// The name and the port that the host is known by.
    pub host: String,
    /// See `host`.
    pub port: u16,
    /// The keys it may have.
    pub pinned: Vec<PublicKey>,
    /// Who may certify its key.
    pub authorities: Vec<PublicKey>,
    /// A `known_hosts` file, read anew for every session.
    pub known_hosts: Option<PathBuf>,
    /// Where the first key seen is kept. It is never there beside another source.
    pub learned: Option<PathBuf>,
}

/// What to do with a host key that nothing is known of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum HostKeyPolicy {
    #[default]
    Strict,
    Learn,
}

/// The keys of a resource that say why its host key is trusted.
#[derive(Default)]
pub(super) struct RawHostKeys {
    pub(super) host_key: Option<String>,
    pub(super) host_keys: Vec<String>,
    pub(super) host_ca: Option<String>,
    pub(super) host_cas: Vec<String>,
    pub(super) known_hosts: Option<PathBuf>,
    pub(super) host_key_policy: HostKeyPolicy,
    pub(super) learned_hosts: Option<PathBuf>,
}

impl RawHostKeys {
    pub(super) fn validate(
        self,
        host: &str,
        port: u16,
        field: impl Fn(&str) -> String,
    ) -> Result<HostKeys, ConfigError> {
        let Self { host_key, host_keys, host_ca, host_cas, known_hosts, host_key_policy, learned_hosts } =
            self;
        let pinned = keys(host_key, "host_key", host_keys, "host_keys", &field)?;
        if let Some(key) = pinned.iter().find(|key| !algorithms::is_offered(&key.algorithm())) {
            let reason = format!("{} is not offered by this connector", key.algorithm());
            return Err(value(&field("host_key"), &reason));
        }
        let authorities = keys(host_ca, "host_ca", host_cas, "host_cas", &field)?;
        if let Some(path) = &known_hosts {
            KnownHosts::read(path)
                .map_err(|error| value(&field("known_hosts"), &format!("{}: {error}", path.display())))?;
        }
        let given = !pinned.is_empty() || !authorities.is_empty() || known_hosts.is_some();
        match (host_key_policy, &learned_hosts) {
            (HostKeyPolicy::Strict, None) if given => {}
            (HostKeyPolicy::Learn, Some(_)) if !given => {}
            (HostKeyPolicy::Strict, None) => {
                return Err(value(&field("host_key"), &nothing_given(host, port)));
            }
            (HostKeyPolicy::Strict, Some(_)) => {
                return Err(value(
                    &field("learned_hosts"),
                    "is of use only with host_key_policy = \"learn\"",
                ));
            }
            (HostKeyPolicy::Learn, None) => {
                let reason = "\"learn\" needs learned_hosts, the file that keeps the first key seen";
                return Err(value(&field("host_key_policy"), reason));
            }
            (HostKeyPolicy::Learn, Some(_)) => {
                let reason = "\"learn\" trusts whoever answers first; it can't stand beside host_key, host_ca \
                              or known_hosts, which would then count for nothing";
                return Err(value(&field("host_key_policy"), reason));
            }
        }
        let host = host.to_ascii_lowercase();
        Ok(HostKeys { host, port, pinned, authorities, known_hosts, learned: learned_hosts })
    }
}

fn keys(
    one: Option<String>,
    one_field: &str,
    more: Vec<String>,
    more_field: &str,
    field: impl Fn(&str) -> String,
) -> Result<Vec<PublicKey>, ConfigError> {
    let named = one.into_iter().map(|text| (one_field, text));
    let named = named.chain(more.into_iter().map(|text| (more_field, text)));
    named
        .map(|(name, text)| {
            PublicKey::from_openssh(&text).map_err(|error| {
                let reason =
                    format!("{error}; expected the key as `ssh-keyscan` prints it, without the host");
                value(&field(name), &reason)
            })
        })
        .collect()
}

fn nothing_given(host: &str, port: u16) -> String {
    format!(
        "nothing says which host key to trust. Add host_key, host_ca or known_hosts. \
         `ssh-keyscan -p {port} {host}` prints the keys that whoever answers there has: compare them with the \
         server's own /etc/ssh/ssh_host_*_key.pub before you trust them"
    )
}
