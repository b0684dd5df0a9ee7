//! How users log in, in the configuration.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;
use ssh_key::{PublicKey, public::KeyData};

use super::{ConfigError, millis, read, value};
use crate::auth::{certificate::network, sources::SourceLimits, usable};

/// How users log in.
#[derive(Debug, Clone)]
pub struct AuthOptions {
    /// The file of the authorities whose user certificates are accepted: see [`authorities`].
    pub user_ca: Option<PathBuf>,
    /// The file of what is revoked.
    pub revoked_keys: Option<PathBuf>,
    /// Where it is remembered which one-time secrets were spent; without it there are none.
    pub state_dir: Option<PathBuf>,
    /// How often one source may try.
    pub sources: SourceLimits,
    /// How long sessions go on whose grants can't be read.
    pub grants_unreadable_timeout: Duration,
}

/// The same as the file has it.
pub(super) struct RawAuth {
    pub(super) user_ca: Option<PathBuf>,
    pub(super) revoked_keys: Option<PathBuf>,
    pub(super) state_dir: Option<PathBuf>,
    pub(super) login_failures_max: u32,
    pub(super) login_failures_window_ms: u64,
    pub(super) login_exempt: Vec<String>,
    pub(super) grants_unreadable_timeout_ms: u64,
}

impl AuthOptions {
    pub(super) fn validate(raw: RawAuth) -> Result<Self, ConfigError> {
        let RawAuth {
            user_ca,
            revoked_keys,
            state_dir,
            login_failures_max,
            login_failures_window_ms,
            login_exempt,
            grants_unreadable_timeout_ms,
        } = raw;
        if let Some(path) = &user_ca {
            authorities(path)?;
        }
        Ok(Self {
            user_ca,
            revoked_keys,
            state_dir,
            sources: SourceLimits {
                failures_max: login_failures_max,
                window: millis("login_failures_window_ms", login_failures_window_ms)?,
                exempt: exempt(&login_exempt)?,
            },
            grants_unreadable_timeout: millis("grants_unreadable_timeout_ms", grants_unreadable_timeout_ms)?,
        })
    }
}

fn exempt(texts: &[String]) -> Result<Vec<IpNet>, ConfigError> {
    let each = texts.iter().map(|text| {
        let reason = format!("{text:?} is not an address or a network like 10.0.0.0/8");
        network(text).ok_or_else(|| value("login_exempt", &reason))
    });
    each.collect()
}

/// Reads a file of authorities: one public key a line; what begins with `#` says nothing. Blocks.
///
/// # Errors
/// [`ConfigError`] names the line that is wrong.
pub fn authorities(path: &Path) -> Result<Vec<KeyData>, ConfigError> {
    let text = read(path)?;
    let wrong = |number: usize, reason: String| {
        value("user_ca", &format!("{}, line {}: {reason}", path.display(), number + 1))
    };
    let mut keys = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let key = PublicKey::from_openssh(line).map_err(|error| wrong(number, error.to_string()))?;
        usable(key.key_data()).map_err(|error| wrong(number, error.to_string()))?;
        keys.push(key.key_data().clone());
    }
    if keys.is_empty() {
        return Err(value("user_ca", &format!("{} holds no key", path.display())));
    }
    Ok(keys)
}
