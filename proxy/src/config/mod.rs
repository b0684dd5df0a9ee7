//! The proxy's configuration: a TOML file, checked as a whole before anything starts.

mod auth;
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

use self::{auth::RawAuth, target::RawResource};
pub use self::{
    auth::{AuthOptions, authorities},
    target::Target,
};
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
    /// How users log in.
    pub auth: AuthOptions,
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
    user_ca: Option<PathBuf>,
    revoked_keys: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    #[serde(default = "default_login_failures_max")]
    login_failures_max: u32,
    #[serde(default = "default_login_failures_window_ms")]
    login_failures_window_ms: u64,
    #[serde(default)]
    login_exempt: Vec<String>,
    #[serde(default = "default_max_unauthenticated_per_source")]
    max_unauthenticated_per_source: usize,
    #[serde(default = "default_grants_unreadable_timeout_ms")]
    grants_unreadable_timeout_ms: u64,
    #[serde(default)]
    resources: Vec<RawResource>,
}

fn default_login_failures_max() -> u32 {
    5
}

fn default_login_failures_window_ms() -> u64 {
    60_000
}

fn default_max_unauthenticated_per_source() -> usize {
    20
}

fn default_grants_unreadable_timeout_ms() -> u64 {
    60_000
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
        let raw = toml::from_str(&read(path)?)
            .map_err(|source| ConfigError::Toml { path: path.to_owned(), source: Box::new(source) })?;
        Self::validate(raw)
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
            user_ca,
            revoked_keys,
            state_dir,
            login_failures_max,
            login_failures_window_ms,
            login_exempt,
            max_unauthenticated_per_source,
            grants_unreadable_timeout_ms,
            resources,
        } = raw;
        let places = [("max_connections", max_connections), ("max_unauthenticated", max_unauthenticated)];
        if let Some((field, _)) = places.into_iter().find(|&(_, number)| number == 0) {
            return Err(value(field, "must be at least 1"));
        }
        let mut targets = HashMap::new();
        for raw in resources {
            let target = Target::validate(raw)?;
            let name = target.resource.name.clone();
            if targets.insert(name.clone(), Arc::new(target)).is_some() {
                return Err(value("resources", &format!("{name:?} is there twice")));
            }
        }
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
            auth: AuthOptions::validate(RawAuth {
                user_ca,
                revoked_keys,
                state_dir,
                login_failures_max,
                login_failures_window_ms,
                login_exempt,
                max_unauthenticated_per_source,
                grants_unreadable_timeout_ms,
            })?,
            targets,
        })
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
        let sources = &config.auth.sources;
        assert_eq!((sources.failures_max, sources.unauthenticated_max), (5, 20));
        assert!(config.auth.user_ca.is_none() && config.auth.state_dir.is_none());
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
            (format!("user_ca = \"DIR/key\"\n{}", good()), "user_ca"),
            (format!("user_ca = \"DIR/noca\"\n{}", good()), "noca"),
            (format!("login_exempt = [\"10.0.0.1/8\"]\n{}", good()), "login_exempt"),
            (format!("login_failures_window_ms = 0\n{}", good()), "login_failures_window_ms"),
            (format!("max_unauthenticated_per_source = 0\n{}", good()), "max_unauthenticated_per_source"),
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
