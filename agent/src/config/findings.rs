//! `[findings]`: what is made of a session when it is over.

use std::time::Duration;

use serde::Deserialize;
use weir_analysis::{lines::Bounds, masking::Masking};

use super::{ConfigError, KIB, MIB, within};
use crate::findings::{FindingsOptions, OBJECT_MAX_BYTES};

/// The table, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawFindings {
    enabled: bool,
    commands_max_bytes: u64,
    files_max_bytes: u64,
    forwards_max_bytes: u64,
    transcript_max_bytes: u64,
    time_max_ms: u64,
}

impl Default for RawFindings {
    fn default() -> Self {
        Self {
            enabled: true,
            commands_max_bytes: 16 * MIB,
            files_max_bytes: 16 * MIB,
            forwards_max_bytes: 4 * MIB,
            transcript_max_bytes: 64 * MIB,
            time_max_ms: 600_000,
        }
    }
}

impl RawFindings {
    /// None where there are to be none.
    pub(super) fn validate(self, masking: Masking) -> Result<Option<FindingsOptions>, ConfigError> {
        let bound = |key, bytes| {
            within(key, bytes, KIB, OBJECT_MAX_BYTES)?;
            Ok::<_, ConfigError>(usize::try_from(bytes).unwrap_or(usize::MAX))
        };
        let bounds = Bounds {
            commands: bound("findings.commands_max_bytes", self.commands_max_bytes)?,
            files: bound("findings.files_max_bytes", self.files_max_bytes)?,
            forwards: bound("findings.forwards_max_bytes", self.forwards_max_bytes)?,
            transcript: bound("findings.transcript_max_bytes", self.transcript_max_bytes)?,
        };
        within("findings.time_max_ms", self.time_max_ms, 1, 86_400_000)?;
        let time_max = Duration::from_millis(self.time_max_ms);
        Ok(self.enabled.then_some(FindingsOptions { bounds, time_max, masking }))
    }
}
