//! A resource in the configuration: where it is, how it is known, how the connector logs in there.

use std::{path::PathBuf, sync::Arc};

use serde::Deserialize;
use ssh_key::{PrivateKey, PublicKey};
use weir_common::session::{Integration, Resource};

use super::{ConfigError, read, value};

/// A resource and how the connector gets into it.
#[derive(Clone)]
pub struct Target {
    /// The resource.
    pub resource: Resource,
    /// The host key it must have.
    pub host_key: PublicKey,
    /// The key the connector logs in with.
    pub private_key: Arc<PrivateKey>,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { resource, host_key: _, private_key: _ } = self;
        f.debug_struct("Target").field("resource", resource).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawResource {
    name: String,
    integration: Integration,
    host: String,
    #[serde(default = "default_port")]
    port: u16,
    host_key: String,
    private_key: PathBuf,
}

fn default_port() -> u16 {
    22
}

impl Target {
    pub(super) fn validate(raw: RawResource) -> Result<Self, ConfigError> {
        let RawResource { name, integration, host, port, host_key, private_key } = raw;
        let field = |field: &str| format!("resource {name:?}, {field}");
        if name.trim().is_empty() {
            return Err(value("resource", "name is empty"));
        }
        if host.trim().is_empty() {
            return Err(value(&field("host"), "is empty"));
        }
        let host_key = PublicKey::from_openssh(&host_key).map_err(|error| {
            value(
                &field("host_key"),
                &format!("{error}; expected the key as `ssh-keyscan` prints it, without the host"),
            )
        })?;
        let key = PrivateKey::from_openssh(read(&private_key)?)
            .map_err(|error| value(&field("private_key"), &format!("{}: {error}", private_key.display())))?;
        if key.is_encrypted() {
            return Err(value(&field("private_key"), "has a passphrase; the connector needs one without"));
        }
        let resource = Resource { name, integration, host, port };
        Ok(Self { resource, host_key, private_key: Arc::new(key) })
    }
}
