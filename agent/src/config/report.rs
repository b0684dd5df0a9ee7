//! `[report]`: where session reports go.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::Url;
use serde::Deserialize;

use super::{ConfigError, absolute, value, within};
use crate::report::ReportOptions;

/// The table, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawReport {
    url: String,
    token_file: PathBuf,
    ca_file: Option<PathBuf>,
    #[serde(default = "timeout_ms")]
    timeout_ms: u64,
    #[serde(default = "reports_max")]
    reports_max: usize,
}

fn timeout_ms() -> u64 {
    10_000
}

fn reports_max() -> usize {
    100_000
}

impl RawReport {
    /// `store` is what the configuration calls the store.
    pub(super) fn validate(self, store: &str) -> Result<ReportOptions, ConfigError> {
        let Self { url, token_file, ca_file, timeout_ms, reports_max } = self;
        absolute("report.token_file", &token_file)?;
        ca_file.as_deref().map_or(Ok(()), |path: &Path| absolute("report.ca_file", path))?;
        within("report.timeout_ms", timeout_ms, 1, 300_000)?;
        within("report.reports_max", reports_max as u64, 1, 1_000_000)?;
        Ok(ReportOptions {
            url: receiver(&url)?,
            token_file,
            ca_file,
            timeout: Duration::from_millis(timeout_ms),
            reports_max,
            store: store.to_owned(),
        })
    }
}

fn receiver(text: &str) -> Result<Url, ConfigError> {
    let wrong = |problem: &str| value("report.url", problem);
    let url = Url::parse(text).map_err(|error| wrong(&format!("not a URL: {error}")))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("has a user or password in it; the token belongs into report.token_file"));
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        "http" => Err(wrong("http sends the token in the clear; write https, or a loopback address")),
        _ => Err(wrong("must begin with https://")),
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}
