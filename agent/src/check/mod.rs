//! What `weir-agent check` finds: whether the agent could work here, in plain sentences.
//!
//! Nothing is changed but for one small object in the bucket, which `weir` takes no notice of; what is tried of the kernel
//! is gone when the process is. So an agent may be at work meanwhile. Not here: whether the configuration is well-formed
//! (`--check`).

mod bpffs;
pub mod idle;
mod kernel;
mod local;
mod print;
mod store;

use serde::Serialize;

pub use self::{local::local, print::print, store::bucket};
use crate::{
    config::{Config, StoreLocation},
    store::S3Store,
};

/// How good or bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It could not be seen.
    CannotTell,
    /// It works, but somebody should look at it.
    Warning,
    /// It does not work, or recordings are in danger.
    Problem,
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at; the same word every time.
    pub about: &'static str,
    /// How good or bad it is.
    pub level: Level,
    /// What was found, in a sentence.
    pub text: String,
    /// What to do about it, if anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

impl Finding {
    fn new(about: &'static str, level: Level, text: impl Into<String>) -> Self {
        Self { about, level, text: text.into(), advice: None }
    }

    fn ok(about: &'static str, text: impl Into<String>) -> Self {
        Self::new(about, Level::Ok, text)
    }

    fn cannot_tell(about: &'static str, text: impl Into<String>) -> Self {
        Self::new(about, Level::CannotTell, text)
    }

    fn warning(about: &'static str, text: impl Into<String>) -> Self {
        Self::new(about, Level::Warning, text)
    }

    fn problem(about: &'static str, text: impl Into<String>) -> Self {
        Self::new(about, Level::Problem, text)
    }

    fn advice(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }
}

/// Looks at everything.
pub async fn all(config: &Config, node: &str) -> Vec<Finding> {
    let mut findings = tap(config);
    findings.extend(local(config));
    if let StoreLocation::S3(options) = &config.store {
        findings.extend(bucket(&S3Store::new((**options).clone()), node).await);
    }
    findings
}

/// Looks at what the tap needs: the kernel, the process's rights, the BPF file system.
#[must_use]
pub fn tap(config: &Config) -> Vec<Finding> {
    let mut findings = kernel::kernel(config);
    findings.extend(bpffs::bpffs(&config.tap.bpf_dir));
    findings
}

/// Logs why the tap cannot be had on this node, as far as a look tells, for an agent that could not start.
pub fn log_refusal(config: &Config) {
    let is_problem = |finding: &Finding| finding.level == Level::Problem;
    for Finding { about, level: _, text, advice } in tap(config).into_iter().filter(is_problem) {
        match advice {
            Some(advice) => tracing::error!("{about}: {text}. What to do: {advice}"),
            None => tracing::error!("{about}: {text}"),
        }
    }
}

/// Whether there is a problem among the findings.
#[must_use]
pub fn has_problem(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.level == Level::Problem)
}

/// Looks at the bucket, logs what was found, and says it. A store that is down is no reason not to start.
pub async fn log_bucket(store: &S3Store, node: &str) -> Vec<Finding> {
    let findings = bucket(store, node).await;
    for Finding { about, level, text, advice } in &findings {
        let advice = advice.as_deref().unwrap_or_default();
        match level {
            Level::Ok => tracing::info!(about, advice, "store check: {text}"),
            Level::CannotTell | Level::Warning => tracing::warn!(about, advice, "store check: {text}"),
            Level::Problem => tracing::error!(about, advice, "store check: {text}"),
        }
    }
    findings
}
