//! The agent's configuration: a TOML file, read once.
//!
//! What is in the file becomes [`Config`] only if all of it makes sense; nothing else in the agent checks
//! values again. Every bound of the agent is here, with its default.

mod findings;
mod lanes;
mod observe;
mod report;
mod s3;
mod space;

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use weir_analysis::masking::{Masking, MaskingConfig, MaskingError};

use self::{
    findings::RawFindings,
    report::RawReport,
    space::{DISK_REFUSE_BYTES, RawSpace},
};
pub use self::{
    lanes::{CpuGroup, LANES_MAX},
    observe::ObserveConfig,
    space::SpaceConfig,
};
use crate::{
    core::SessionLimits,
    findings::FindingsOptions,
    report::ReportOptions,
    session::SealLimits,
    spool::{DISK_RESERVE_BYTES, SpoolOptions},
    storing::Parallelism,
    tap::{MIN_RING_BYTES, TapOptions},
};

use self::s3::RawS3;
pub use weir_store::{Encryption, LockMode, ObjectLock, S3Options};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

/// The most records of a segment: it bounds the uncompressed size that many short frames add up to.
pub const SEGMENT_MAX_RECORDS: u64 = 65_536;

/// Connections beyond a session's own: takeovers, and those that are about to be refused.
const SPARE_CONNECTIONS: usize = 64;

/// A configuration that makes sense.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where proxies connect.
    pub control: ControlConfig,
    /// Where the agent keeps what must survive it.
    pub state_dir: PathBuf,
    /// Where recordings go.
    pub store: StoreLocation,
    /// The signing key's file.
    pub signing_key: PathBuf,
    /// The node's name in manifests; none for the host name.
    pub node: Option<String>,
    /// The tap's kernel objects.
    pub tap: TapOptions,
    /// A lane each: a ring, a thread that drains it on these CPUs, a spool.
    pub cpu_groups: Vec<CpuGroup>,
    /// The most sessions that are open, and the most that have ended and are not stored.
    pub sessions: SessionLimits,
    /// The spool's bounds.
    pub spool: SpoolOptions,
    /// The space for records.
    pub space: SpaceConfig,
    /// When records become a segment.
    pub seal: SealLimits,
    /// How many segments are encoded, and how many are on their way into the store, at a time.
    pub parallel: Parallelism,
    /// How long a session waits for its proxy after the agent started.
    pub reattach_timeout: Duration,
    /// What the agent shows to machines.
    pub observe: ObserveConfig,
    /// Where session reports go; none for nowhere.
    pub report: Option<ReportOptions>,
    /// What is made of a session when it is over; none for nothing.
    pub findings: Option<FindingsOptions>,
}

/// The control socket.
#[derive(Clone, Debug)]
pub struct ControlConfig {
    /// Its path.
    pub path: PathBuf,
    /// The group that may connect besides the agent's own user.
    pub group: Option<String>,
    /// The users that may connect, whatever the file mode lets through.
    pub allowed_uids: Vec<u32>,
    /// More of them by their names on this node; looked up when the agent starts.
    pub allowed_users: Vec<String>,
    /// The most connections.
    pub max_connections: usize,
    /// How long a connection may take to say which session it is about.
    pub open_timeout: Duration,
}

/// Where recordings go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreLocation {
    /// A directory on this node.
    Directory(PathBuf),
    /// A bucket.
    S3(Box<S3Options>),
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is no TOML, or has keys that do not exist.
    #[error("{}: {source}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<toml::de::Error>,
    },
    /// A value that makes no sense.
    #[error("{key}: {problem}")]
    Value {
        /// The key.
        key: &'static str,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// The rules of what is secret.
    #[error("masking: {0}")]
    Masking(#[from] MaskingError),
}

/// The file, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Raw {
    control_socket: PathBuf,
    control_group: Option<String>,
    allowed_uids: Vec<u32>,
    allowed_users: Vec<String>,
    open_timeout_ms: u64,
    state_dir: PathBuf,
    store: String,
    s3: Option<RawS3>,
    signing_key: Option<PathBuf>,
    node: Option<String>,
    bpf_dir: PathBuf,
    ring_bytes: u32,
    max_taps: u32,
    cpu_groups: Vec<String>,
    max_sessions: usize,
    max_unstored_sessions: usize,
    spool_max_bytes: u64,
    spool_refuse_bytes: Option<u64>,
    session_spool_max_bytes: Option<u64>,
    disk_reserve_bytes: u64,
    disk_refuse_bytes: u64,
    spool_file_bytes: u64,
    flush_interval_ms: u64,
    segment_max_bytes: u64,
    segment_max_age_ms: u64,
    seal_parallelism: usize,
    upload_parallelism: usize,
    reattach_timeout_ms: u64,
    metrics_listen: Option<SocketAddr>,
    ready_store_failing_ms: u64,
    ready_store_idle_ms: u64,
    report: Option<RawReport>,
    findings: RawFindings,
    masking: MaskingConfig,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            control_socket: "/run/weir/agent.sock".into(),
            control_group: None,
            allowed_uids: Vec::new(),
            allowed_users: Vec::new(),
            open_timeout_ms: 5_000,
            state_dir: "/var/lib/weir".into(),
            store: "file:///var/lib/weir/store".into(),
            s3: None,
            signing_key: None,
            node: None,
            bpf_dir: "/sys/fs/bpf".into(),
            ring_bytes: 16 * 1024 * 1024,
            max_taps: 16_384,
            cpu_groups: Vec::new(),
            max_sessions: 4_096,
            max_unstored_sessions: 1 << 16,
            spool_max_bytes: 8 * GIB,
            spool_refuse_bytes: None,
            session_spool_max_bytes: None,
            disk_reserve_bytes: DISK_RESERVE_BYTES,
            disk_refuse_bytes: DISK_REFUSE_BYTES,
            spool_file_bytes: 64 * MIB,
            flush_interval_ms: 200,
            segment_max_bytes: 8 * MIB,
            segment_max_age_ms: 30_000,
            seal_parallelism: 2,
            upload_parallelism: 8,
            reattach_timeout_ms: 15_000,
            metrics_listen: None,
            ready_store_failing_ms: 60_000,
            ready_store_idle_ms: 300_000,
            report: None,
            findings: RawFindings::default(),
            masking: MaskingConfig::default(),
        }
    }
}

impl Config {
    /// Reads the file.
    ///
    /// # Errors
    /// [`ConfigError`], naming the file or the key.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read { path: path.to_owned(), source };
        Self::parse(path, &fs::read_to_string(path).map_err(read)?)
    }

    /// Reads a file's text; `path` is for messages.
    ///
    /// # Errors
    /// [`ConfigError`], naming the file or the key.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let parse = |source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) };
        toml::from_str::<Raw>(text).map_err(parse)?.validate()
    }
}

impl Raw {
    fn validate(self) -> Result<Config, ConfigError> {
        if self.allowed_uids.is_empty() && self.allowed_users.is_empty() {
            let right =
                "name the user that the proxy runs as, e.g. [\"weir-proxy\"], or its id in allowed_uids";
            return Err(value("allowed_users", right));
        }
        absolute("control_socket", &self.control_socket)?;
        absolute("state_dir", &self.state_dir)?;
        absolute("bpf_dir", &self.bpf_dir)?;
        if !self.ring_bytes.is_power_of_two() || self.ring_bytes < MIN_RING_BYTES {
            return Err(value("ring_bytes", format!("must be a power of two, at least {MIN_RING_BYTES}")));
        }
        within("ready_store_idle_ms", self.ready_store_idle_ms, 10, 86_400_000)?;
        within("open_timeout_ms", self.open_timeout_ms, 1, 3_600_000)?;
        within("max_taps", self.max_taps.into(), 2, 1 << 20)?;
        within("max_sessions", self.max_sessions as u64, 1, 1 << 16)?;
        within("max_unstored_sessions", self.max_unstored_sessions as u64, 1, 1 << 20)?;
        within("seal_parallelism", self.seal_parallelism as u64, 1, 64)?;
        within("upload_parallelism", self.upload_parallelism as u64, 1, 256)?;
        within("segment_max_bytes", self.segment_max_bytes, 1, 64 * MIB)?;
        within("segment_max_age_ms", self.segment_max_age_ms, 1, 3_600_000)?;
        within("flush_interval_ms", self.flush_interval_ms, 1, 60_000)?;
        within("spool_file_bytes", self.spool_file_bytes, 64 * KIB, GIB)?;
        within("spool_max_bytes", self.spool_max_bytes, self.spool_file_bytes.saturating_mul(2), u64::MAX)?;
        let space = RawSpace {
            spool_max_bytes: self.spool_max_bytes,
            spool_refuse_bytes: self.spool_refuse_bytes,
            session_spool_max_bytes: self.session_spool_max_bytes,
            disk_reserve_bytes: self.disk_reserve_bytes,
            disk_refuse_bytes: self.disk_refuse_bytes,
        };
        let space = space.validate()?;
        let report = self.report.map(|report| report.validate(&self.store)).transpose()?;
        let store = store_location(&self.store, self.s3)?;
        Ok(Config {
            control: ControlConfig {
                path: self.control_socket,
                group: self.control_group,
                allowed_uids: self.allowed_uids,
                allowed_users: self.allowed_users,
                max_connections: self.max_sessions + SPARE_CONNECTIONS,
                open_timeout: Duration::from_millis(self.open_timeout_ms),
            },
            signing_key: self.signing_key.unwrap_or_else(|| self.state_dir.join("signing_key")),
            state_dir: self.state_dir,
            store,
            node: self.node,
            tap: TapOptions { bpf_dir: self.bpf_dir, ring_bytes: self.ring_bytes, max_taps: self.max_taps },
            cpu_groups: lanes::cpu_groups(&self.cpu_groups)?,
            sessions: SessionLimits { open: self.max_sessions, unstored: self.max_unstored_sessions },
            spool: SpoolOptions {
                file_bytes: self.spool_file_bytes,
                max_bytes: self.spool_max_bytes,
                flush_interval: Duration::from_millis(self.flush_interval_ms),
            },
            space,
            seal: SealLimits {
                max_bytes: self.segment_max_bytes,
                max_records: SEGMENT_MAX_RECORDS,
                max_age_ns: self.segment_max_age_ms.saturating_mul(1_000_000),
            },
            parallel: Parallelism { encoding: self.seal_parallelism, uploading: self.upload_parallelism },
            reattach_timeout: Duration::from_millis(self.reattach_timeout_ms),
            observe: ObserveConfig {
                listen: self.metrics_listen,
                store_patience: Duration::from_millis(self.ready_store_failing_ms),
                store_idle: Duration::from_millis(self.ready_store_idle_ms),
            },
            report,
            findings: self.findings.validate(Masking::from_rules(&self.masking)?)?,
        })
    }
}

fn value(key: &'static str, problem: impl Into<String>) -> ConfigError {
    ConfigError::Value { key, problem: problem.into() }
}

fn absolute(key: &'static str, path: &Path) -> Result<(), ConfigError> {
    match path.is_absolute() {
        true => Ok(()),
        false => Err(value(key, format!("{} is not an absolute path", path.display()))),
    }
}

fn within(key: &'static str, found: u64, least: u64, most: u64) -> Result<(), ConfigError> {
    if (least..=most).contains(&found) {
        return Ok(());
    }
    Err(value(key, format!("{found} is not between {least} and {most}")))
}

fn store_location(text: &str, s3: Option<RawS3>) -> Result<StoreLocation, ConfigError> {
    if let Some(place) = text.strip_prefix("s3://") {
        return Ok(StoreLocation::S3(Box::new(s3.unwrap_or_default().validate(place)?)));
    }
    if s3.is_some() {
        return Err(value("s3", "counts only with store = \"s3://bucket/prefix\""));
    }
    if let Some(path) = text.strip_prefix("file://") {
        absolute("store", Path::new(path))?;
        return Ok(StoreLocation::Directory(path.into()));
    }
    Err(value("store", format!("{text:?} is not a store; write s3://bucket/prefix or file:///path")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(Path::new("agent.toml"), text)
    }

    fn problem(text: &str) -> String {
        parse(text).expect_err("does not make sense").to_string()
    }

    #[test]
    fn only_the_allowed_users_need_to_be_said() {
        let config = parse("allowed_uids = [990]").expect("the rest has defaults");
        assert_eq!(config.control.allowed_uids, [990]);
        let config = parse("allowed_users = ['weir-proxy']").expect("names will do");
        assert_eq!(config.control.allowed_users, ["weir-proxy"]);
        assert_eq!(config.store, StoreLocation::Directory("/var/lib/weir/store".into()));
        assert_eq!(config.signing_key, Path::new("/var/lib/weir/signing_key"));
        assert_eq!(config.seal.max_age_ns, 30_000_000_000);
        assert_eq!(config.parallel, Parallelism { encoding: 2, uploading: 8 });
    }

    #[test]
    fn each_nonsense_is_refused_by_the_name_of_its_key() {
        for (text, key) in [
            ("", "allowed_users"),
            ("allowed_users = []\nallowed_uids = []", "allowed_uids"),
            ("allowed_users = [990]", "allowed_users"),
            ("allowed_uids = [1]\nstate_dir = 'x'", "state_dir"),
            ("allowed_uids = [1]\nstore = 's3://b'", "store"),
            ("allowed_uids = [1]\n[s3]\nregion = 'eu-central-1'", "s3"),
            ("allowed_uids = [1]\nstore = '/x'", "store"),
            ("allowed_uids = [1]\nstore = 'file://x'", "store"),
            ("allowed_uids = [1]\nsegment_max_age_ms = 0", "segment_max_age_ms"),
            ("allowed_uids = [1]\nring_bytes = 1000000", "ring_bytes"),
            ("allowed_uids = [1]\nspool_max_bytes = 67108864", "spool_max_bytes"),
            ("allowed_uids = [1]\nspool_refuse_bytes = 0", "spool_refuse_bytes"),
            ("allowed_uids = [1]\nmax_session = 1", "max_session"),
            ("allowed_uids = [1]\nmetrics_listen = 'x'", "metrics_listen"),
            ("allowed_uids = [1]\nreport.url = 'https://x/'", "token_file"),
            ("allowed_uids = [1]\nreport = { url = 'https://x/', token_file = 't' }", "report.token_file"),
            ("allowed_uids = [1]\nreport = { url = 'http://192.0.2.1/', token_file = '/t' }", "report.url"),
            ("allowed_uids = [1]\nreport = { url = 'https://a:b@x/', token_file = '/t' }", "report.url"),
            ("allowed_uids = [1]\nreport = { url = 'ftp://x/', token_file = '/t' }", "report.url"),
            (
                "allowed_uids = [1]\nreport = { url = 'https://x/', token_file = '/t', timeout_ms = 0 }",
                "report.timeout_ms",
            ),
            ("allowed_uids = [1]\nreport = { url = 'https://x/', token_file = '/t', ca = 1 }", "ca"),
            ("allowed_uids = [1]\nfindings.transcript_max_bytes = 5", "findings.transcript_max_bytes"),
            ("allowed_uids = [1]\nfindings.time_max_ms = 0", "findings.time_max_ms"),
            ("allowed_uids = [1]\nfindings.maximum = 1", "maximum"),
            ("allowed_uids = [1]\n[[masking.rule]]\nname = 'bad'\npattern = '('", "masking"),
        ] {
            let problem = problem(text);
            assert!(problem.contains(key), "{text:?}: {problem}");
        }
    }

    #[test]
    fn findings_are_made_unless_they_are_not_wanted_and_keys_have_the_bounds_that_are_said() {
        let findings =
            |text: &str| parse(&format!("allowed_uids = [1]\n{text}")).expect("makes sense").findings;
        let (usual, default) = (findings("").expect("they are made"), FindingsOptions::default());
        assert_eq!((usual.bounds, usual.time_max), (default.bounds, default.time_max));
        let small = findings("[findings]\ncommands_max_bytes = 2048\ntime_max_ms = 1500").expect("made");
        assert_eq!((small.bounds.commands, small.time_max.as_millis()), (2048, 1500));
        assert!(findings("[findings]\nenabled = false").is_none());
    }

    #[test]
    fn a_store_in_s3_has_a_table_of_its_own() {
        let config = parse("allowed_uids = [1]\nstore = 's3://bucket/p'\n[s3]\nregion = 'eu-central-1'");
        match config.expect("makes sense").store {
            StoreLocation::S3(options) => {
                let S3Options { bucket, prefix, region, .. } = *options;
                assert_eq!((&*bucket, &*prefix, region.as_deref()), ("bucket", "p", Some("eu-central-1")));
            }
            StoreLocation::Directory(path) => panic!("a directory: {}", path.display()),
        }
    }

    #[test]
    fn reports_go_over_tls_or_stay_on_the_node() {
        for url in [
            "https://console.example/api/v1/reports",
            "http://127.0.0.1:8080/",
            "http://[::1]/",
            "http://localhost:1/",
        ] {
            let text = format!("allowed_uids = [1]\nreport = {{ url = '{url}', token_file = '/t' }}");
            let report = parse(&text).expect("makes sense").report.expect("is there");
            assert_eq!((report.url.as_str(), report.reports_max), (url, 100_000));
            assert_eq!(report.store, "file:///var/lib/weir/store");
        }
    }
}
