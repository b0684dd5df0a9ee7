//! Reads the manifest, and knows the limits and names of the objects around it.
//!
//! Whether a manifest is right is not judged here.

use weir_common::recording::{FORMAT_VERSION, Manifest, segment_name};

/// The most bytes of a manifest: enough for some 60,000 segments.
pub const MANIFEST_MAX: u64 = 32 << 20;
/// The most bytes of `SHA256SUMS`.
pub const SUMS_MAX: u64 = 32 << 20;

/// Why something is not a manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not the JSON that is expected.
    #[error("is not a manifest: {source}")]
    Malformed {
        /// What is wrong.
        source: serde_json::Error,
    },
    /// Written by a later version of Weir.
    #[error(
        "is in version {found} of the format, and this program knows {FORMAT_VERSION}; use a newer `weir`"
    )]
    Version {
        /// The version it has.
        found: u32,
    },
}

/// Reads a manifest.
///
/// # Errors
/// A [`ManifestError`].
pub fn parse_manifest(bytes: &[u8]) -> Result<Manifest, ManifestError> {
    /// The one field that every version has.
    #[derive(serde::Deserialize)]
    struct Versioned {
        weir: u32,
    }
    match (serde_json::from_slice::<Manifest>(bytes), serde_json::from_slice::<Versioned>(bytes)) {
        (_, Ok(Versioned { weir: found })) if found != FORMAT_VERSION => {
            Err(ManifestError::Version { found })
        }
        (Ok(manifest), _) => Ok(manifest),
        (Err(source), _) => Err(ManifestError::Malformed { source }),
    }
}

/// The segment's number in an object name; `None` for other objects.
#[must_use]
pub fn segment_index(name: &str) -> Option<u32> {
    let index = name.strip_suffix(".ndjson.zst")?.parse().ok()?;
    (segment_name(index) == name).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_of_a_later_version_is_told_apart_from_a_broken_one() {
        let error = |text: &str| parse_manifest(text.as_bytes()).expect_err("no manifest").to_string();
        assert!(error(r#"{"weir":2,"something":"new"}"#).contains("version 2 of the format"));
        assert!(error(r#"{"weir":1}"#).contains("is not a manifest"));
        assert!(error(&"[".repeat(100_000)).contains("is not a manifest"));
        assert!(parse_manifest(b"\xff\xfe").is_err());
    }

    #[test]
    fn only_the_names_that_segments_really_have_are_segments() {
        assert_eq!(segment_index("000012.ndjson.zst"), Some(12));
        assert_eq!(segment_index("1000000.ndjson.zst"), Some(1_000_000));
        for name in
            ["12.ndjson.zst", "+00012.ndjson.zst", "000001.bin", "000001.ndjson", "4294967296.ndjson.zst"]
        {
            assert_eq!(segment_index(name), None, "{name}");
        }
    }
}
