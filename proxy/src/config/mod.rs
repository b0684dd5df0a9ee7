//! The proxy's configuration: a TOML file, checked as a whole before anything starts.

mod resources;
mod secret;
mod target;

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::Deserialize;

use self::target::RawResource;
pub use self::target::{Access, AddressKind, Credential, Ec2Instance, HostKeys, Target};
use crate::agent::AgentOptions;

/// A configuration that can be run.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where users connect.
    pub listen: SocketAddr,
    /// The connector's own host key file; made at the first start.
    pub host_key: PathBuf,
    /// The directory of grant files.
    pub grants_dir: PathBuf,
    /// How the agent is reached.
    pub agent: AgentOptions,
    /// How long a connection to a target may take, login included.
    pub target_connect_timeout: Duration,
    /// How long a user may take to log in.
    pub login_timeout: Duration,
    /// The most connections at once.
    pub max_connections: usize,
    /// The most connections at once whose users have not logged in yet.
    pub max_unauthenticated: usize,
    /// The resources, by name.
    pub targets: HashMap<String, Arc<Target>>,
}

/// Why a configuration can't be run.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file can't be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not the TOML that is expected.
    #[error("{path}: {source}")]
    Toml {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<toml::de::Error>,
    },
    /// The file is not the JSON that is expected.
    #[error("{path}: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<serde_json::Error>,
    },
    /// A value can't be used.
    #[error("{field}: {reason}")]
    Value {
        /// Which.
        field: String,
        /// Why not.
        reason: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    #[serde(default = "default_listen")]
    listen: SocketAddr,
    host_key: PathBuf,
    grants_dir: PathBuf,
    #[serde(default = "default_agent_socket")]
    agent_socket: PathBuf,
    #[serde(default = "default_agent_connect_timeout_ms")]
    agent_connect_timeout_ms: u64,
    #[serde(default = "default_stall_timeout_ms")]
    stall_timeout_ms: u64,
    #[serde(default = "default_target_connect_timeout_ms")]
    target_connect_timeout_ms: u64,
    #[serde(default = "default_login_timeout_ms")]
    login_timeout_ms: u64,
    #[serde(default = "default_max_connections")]
    max_connections: usize,
    #[serde(default = "default_max_unauthenticated")]
    max_unauthenticated: usize,
    #[serde(default)]
    resources: Vec<RawResource>,
    resources_file: Option<PathBuf>,
}

fn default_listen() -> SocketAddr {
    ([0, 0, 0, 0], 10022).into()
}

fn default_agent_socket() -> PathBuf {
    "/run/weir/agent.sock".into()
}

fn default_agent_connect_timeout_ms() -> u64 {
    2_000
}

fn default_stall_timeout_ms() -> u64 {
    60_000
}

fn default_target_connect_timeout_ms() -> u64 {
    15_000
}

fn default_login_timeout_ms() -> u64 {
    30_000
}

fn default_max_connections() -> usize {
    1_000
}

fn default_max_unauthenticated() -> usize {
    100
}

impl Config {
    /// Reads and checks a configuration file.
    ///
    /// # Errors
    /// [`ConfigError`] names the file or the value that is wrong.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::validate(RawConfig::read(path)?)
    }

    /// Reads only the resources of a configuration file, those in its `resources_file` included.
    ///
    /// # Errors
    /// [`ConfigError`] names the file or the value that is wrong.
    pub fn load_resources(path: &Path) -> Result<HashMap<String, Arc<Target>>, ConfigError> {
        let RawConfig { resources, resources_file, .. } = RawConfig::read(path)?;
        resources::load(resources, resources_file.as_deref())
    }

    fn validate(raw: RawConfig) -> Result<Self, ConfigError> {
        let RawConfig {
            listen,
            host_key,
            grants_dir,
            agent_socket,
            agent_connect_timeout_ms,
            stall_timeout_ms,
            target_connect_timeout_ms,
            login_timeout_ms,
            max_connections,
            max_unauthenticated,
            resources,
            resources_file,
        } = raw;
        let places = [("max_connections", max_connections), ("max_unauthenticated", max_unauthenticated)];
        if let Some((field, _)) = places.into_iter().find(|&(_, number)| number == 0) {
            return Err(value(field, "must be at least 1"));
        }
        let targets = resources::load(resources, resources_file.as_deref())?;
        Ok(Self {
            listen,
            host_key,
            grants_dir,
            agent: AgentOptions {
                socket: agent_socket,
                connect_timeout: millis("agent_connect_timeout_ms", agent_connect_timeout_ms)?,
                stall_timeout: millis("stall_timeout_ms", stall_timeout_ms)?,
            },
            target_connect_timeout: millis("target_connect_timeout_ms", target_connect_timeout_ms)?,
            login_timeout: millis("login_timeout_ms", login_timeout_ms)?,
            max_connections,
            max_unauthenticated,
            targets,
        })
    }
}

impl RawConfig {
    fn read(path: &Path) -> Result<Self, ConfigError> {
        toml::from_str(&read(path)?)
            .map_err(|source| ConfigError::Toml { path: path.to_owned(), source: Box::new(source) })
    }
}

fn value(field: &str, reason: &str) -> ConfigError {
    ConfigError::Value { field: field.to_owned(), reason: reason.to_owned() }
}

fn millis(field: &str, ms: u64) -> Result<Duration, ConfigError> {
    if (1..=86_400_000).contains(&ms) {
        Ok(Duration::from_millis(ms))
    } else {
        Err(value(field, "must be between 1 ms and a day"))
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use ssh_key::PrivateKey;

    use super::*;

    const HOST_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBVnCHT1mUGFW9MPVYvJ2CLS5gHQ3MzQbXxcKu4m6rVp";

    fn load(text: &str) -> Result<Config, String> {
        let dir = tempfile::tempdir().expect("a directory");
        let key = PrivateKey::random(&mut rand::rng(), ssh_key::Algorithm::Ed25519)
            .expect("a key")
            .to_openssh(ssh_key::LineEnding::LF)
            .expect("its text");
        std::fs::write(dir.path().join("key"), key.as_bytes()).expect("written");
        let path = dir.path().join("proxy.toml");
        let text = text.replace("DIR", dir.path().to_str().expect("UTF-8"));
        std::fs::write(&path, text).expect("written");
        Config::load(&path).map_err(|error| error.to_string())
    }

    fn good() -> String {
        format!(
            r#"
            host_key = "DIR/host"
            grants_dir = "DIR"
            [[resources]]
            name = "web-1"
            integration = "ssh"
            host = "10.0.0.1"
            host_key = "{HOST_KEY}"
            private_key = "DIR/key"
            "#
        )
    }

    #[test]
    fn a_minimal_configuration_has_the_documented_defaults() {
        let config = load(&good()).expect("a good configuration");
        assert_eq!(config.listen.port(), 10022);
        assert_eq!(config.agent.stall_timeout, Duration::from_secs(60));
        assert_eq!(config.targets["web-1"].resource.port, 22);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let table = [
            (good().replace("grants_dir", "grant_dir"), "unknown field `grant_dir`"),
            (
                good().replace("grants_dir = \"DIR\"", "grants_dir = \"DIR\"\nlogin_timeout_ms = 0"),
                "login_timeout_ms",
            ),
            (good().replace("DIR/key", "DIR/nokey"), "nokey"),
            (good().replace(HOST_KEY, "ssh-ed25519 AAAA"), "resource \"web-1\", host_key"),
            (good().replace("10.0.0.1", " "), "resource \"web-1\", host"),
            (format!("{}{}", good(), &good()[good().find("[[").expect("there")..]), "twice"),
        ];
        for (text, expected) in table {
            let error = load(&text).expect_err(expected);
            assert!(error.contains(expected), "{error} should name {expected}");
        }
    }

    #[test]
    fn debug_output_shows_no_private_key() {
        let shown = format!("{:?}", load(&good()).expect("a good configuration"));
        assert!(!shown.contains("PRIVATE") && !shown.contains("private_key"), "{shown}");
    }
}
