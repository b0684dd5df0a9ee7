//! The proxy's configuration: a TOML file, checked as a whole before anything starts.

mod auth;
mod banner;
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
use tracing_subscriber::EnvFilter;

use self::{auth::RawAuth, target::RawResource};
pub use self::{
    auth::{AuthOptions, authorities},
    target::{Access, AddressKind, Credential, Ec2Instance, HostKeys, Target},
};
use crate::{agent::AgentOptions, connections::Admission};

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
    /// How many connections there may be.
    pub admission: Admission,
    /// How connections to users are kept up.
    pub client_transport: Transport,
    /// How connections to targets are kept up.
    pub target_transport: Transport,
    /// How long a session may go without data either way; for ever, if there is none.
    pub idle_timeout: Option<Duration>,
    /// What a user reads before the login.
    pub banner: Option<Arc<str>>,
    /// How long sessions may go on once the proxy was told to stop.
    pub shutdown_grace: Duration,
    /// Where metrics and health are served.
    pub metrics_listen: Option<SocketAddr>,
    /// The filter of the log.
    pub log: Option<String>,
    /// How users log in.
    pub auth: AuthOptions,
    /// The resources, by name.
    pub targets: HashMap<String, Arc<Target>>,
}

/// How an SSH connection is kept up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transport {
    /// Bytes in one direction after which there are new keys.
    pub rekey_bytes: usize,
    /// Time after which there are new keys.
    pub rekey_after: Duration,
    /// How often a peer that says nothing is asked whether it is there.
    pub keepalive: Duration,
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
    #[serde(default = "default_max_unauthenticated_per_source")]
    max_unauthenticated_per_source: usize,
    #[serde(default = "default_shutdown_grace_ms")]
    shutdown_grace_ms: u64,
    #[serde(default = "default_rekey_bytes")]
    rekey_bytes: usize,
    #[serde(default = "default_rekey_seconds")]
    rekey_seconds: u64,
    #[serde(default = "default_client_keepalive_ms")]
    client_keepalive_ms: u64,
    #[serde(default = "default_target_keepalive_ms")]
    target_keepalive_ms: u64,
    idle_timeout_ms: Option<u64>,
    banner: Option<PathBuf>,
    metrics_listen: Option<SocketAddr>,
    log: Option<String>,
    user_ca: Option<PathBuf>,
    revoked_keys: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    #[serde(default = "default_login_failures_max")]
    login_failures_max: u32,
    #[serde(default = "default_login_failures_window_ms")]
    login_failures_window_ms: u64,
    #[serde(default)]
    login_exempt: Vec<String>,
    #[serde(default = "default_grants_unreadable_timeout_ms")]
    grants_unreadable_timeout_ms: u64,
    #[serde(default)]
    resources: Vec<RawResource>,
    resources_file: Option<PathBuf>,
}

fn default_login_failures_max() -> u32 {
    5
}

fn default_login_failures_window_ms() -> u64 {
    60_000
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

fn default_max_unauthenticated_per_source() -> usize {
    50
}

/// Kubernetes and ECS kill 30 s after SIGTERM, and ending what is left takes some of that.
fn default_shutdown_grace_ms() -> u64 {
    20_000
}

/// RFC 4253 section 9.
fn default_rekey_bytes() -> usize {
    REKEY_BYTES.1
}

/// RFC 4253 section 9.
fn default_rekey_seconds() -> u64 {
    3_600
}

fn default_client_keepalive_ms() -> u64 {
    30_000
}

fn default_target_keepalive_ms() -> u64 {
    60_000
}

/// The least and the most bytes between two key exchanges. Less is only exchanges; more russh refuses.
const REKEY_BYTES: (usize, usize) = (64 << 10, 1 << 30);

impl Config {
    /// What a running proxy can't change, made as it is in `running`; the names of what differed.
    pub fn keep_fixed(&mut self, running: &Self) -> Vec<&'static str> {
        let mut kept = Vec::new();
        let mut keep = |differs: bool, field| {
            if differs {
                kept.push(field);
            }
        };
        keep(self.listen != running.listen, "listen");
        keep(self.host_key != running.host_key, "host_key");
        keep(self.agent.socket != running.agent.socket, "agent_socket");
        keep(self.metrics_listen != running.metrics_listen, "metrics_listen");
        self.listen = running.listen;
        self.host_key.clone_from(&running.host_key);
        self.agent.socket.clone_from(&running.agent.socket);
        self.metrics_listen = running.metrics_listen;
        kept
    }

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
            max_unauthenticated_per_source,
            shutdown_grace_ms,
            rekey_bytes,
            rekey_seconds,
            client_keepalive_ms,
            target_keepalive_ms,
            idle_timeout_ms,
            banner,
            metrics_listen,
            log,
            user_ca,
            revoked_keys,
            state_dir,
            login_failures_max,
            login_failures_window_ms,
            login_exempt,
            grants_unreadable_timeout_ms,
            resources,
            resources_file,
        } = raw;
        let places = [
            ("max_connections", max_connections),
            ("max_unauthenticated", max_unauthenticated),
            ("max_unauthenticated_per_source", max_unauthenticated_per_source),
        ];
        if let Some((field, _)) = places.into_iter().find(|&(_, number)| number == 0) {
            return Err(value(field, "must be at least 1"));
        }
        if !(REKEY_BYTES.0..=REKEY_BYTES.1).contains(&rekey_bytes) {
            return Err(value("rekey_bytes", "must be between 65536 and 1073741824"));
        }
        if let Some(Err(error)) = log.as_deref().map(str::parse::<EnvFilter>) {
            return Err(value("log", &error.to_string()));
        }
        let rekey_after = millis("rekey_seconds", rekey_seconds.saturating_mul(1_000))?;
        let transport = |keepalive| Transport { rekey_bytes, rekey_after, keepalive };
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
            admission: Admission { max_connections, max_unauthenticated, max_unauthenticated_per_source },
            client_transport: transport(millis("client_keepalive_ms", client_keepalive_ms)?),
            target_transport: transport(millis("target_keepalive_ms", target_keepalive_ms)?),
            idle_timeout: idle_timeout_ms.map(|ms| millis("idle_timeout_ms", ms)).transpose()?,
            banner: banner.map(|path| banner::load(&path)).transpose()?,
            shutdown_grace: millis("shutdown_grace_ms", shutdown_grace_ms)?,
            metrics_listen,
            log,
            auth: AuthOptions::validate(RawAuth {
                user_ca,
                revoked_keys,
                state_dir,
                login_failures_max,
                login_failures_window_ms,
                login_exempt,
                grants_unreadable_timeout_ms,
            })?,
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
        let sources = &config.auth.sources;
        assert_eq!(sources.failures_max, 5);
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
            (good().replace("grants_dir", "rekey_bytes = 1\ngrants_dir"), "rekey_bytes"),
            (good().replace("grants_dir", "log = \"=\"\ngrants_dir"), "log"),
            (good().replace("grants_dir", "banner = \"DIR/none\"\ngrants_dir"), "none"),
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
    fn what_a_running_proxy_cannot_change_is_kept_and_named() {
        let running = load(&good()).expect("a good configuration");
        let mut new = Config {
            listen: ([127, 0, 0, 1], 1).into(),
            metrics_listen: Some(([127, 0, 0, 1], 2).into()),
            login_timeout: Duration::from_secs(1),
            ..running.clone()
        };
        assert_eq!(new.keep_fixed(&running), ["listen", "metrics_listen"]);
        assert_eq!((new.listen, new.metrics_listen), (running.listen, None));
        assert_eq!(new.login_timeout, Duration::from_secs(1), "what can change has changed");
    }

    #[test]
    fn debug_output_shows_no_private_key() {
        let shown = format!("{:?}", load(&good()).expect("a good configuration"));
        assert!(!shown.contains("PRIVATE") && !shown.contains("private_key"), "{shown}");
    }
}
