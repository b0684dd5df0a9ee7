//! Reads stored sessions the plain way, for tests to compare with what was sent: directories, `zstd`, JSON.
//!
//! Deliberately not through the console's reader: two readers that agree are worth more than one.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    Bed,
    wait::{eventually, eventually_within},
};

/// An event with its exact bytes, if it has any.
#[derive(Debug, Clone)]
pub struct Event {
    /// The event's line.
    pub json: Value,
    /// Its bytes, without those that are withheld.
    pub bytes: Vec<u8>,
}

/// A piece of file content that is not in the recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Withheld {
    /// How many bytes.
    pub bytes: u64,
    /// The digest that stands for them.
    pub sha256: String,
}

/// A stored session.
#[derive(Debug, Clone)]
pub struct Recording {
    /// Its directory.
    pub dir: PathBuf,
    /// `manifest.json`.
    pub manifest: Value,
    /// Every event of every segment, in order.
    pub events: Vec<Event>,
}

impl Recording {
    /// Reads a session's directory.
    ///
    /// # Errors
    /// If something in it is not as the format says.
    pub fn read(dir: &Path) -> Result<Self> {
        let manifest: Value = serde_json::from_slice(&fs::read(dir.join("manifest.json"))?)?;
        let mut events = Vec::new();
        for segment in manifest["segments"].as_array().context("manifest without segments")? {
            let name = segment["segment"]["name"].as_str().context("segment without a name")?;
            let bulk = match segment["bulk"]["name"].as_str() {
                Some(name) if name.ends_with(".zst") => unzstd(&dir.join(name))?,
                Some(name) => fs::read(dir.join(name))?,
                None => Vec::new(),
            };
            let text = String::from_utf8(unzstd(&dir.join(name))?)?;
            for line in text.lines().skip(1) {
                let json: Value = serde_json::from_str(line)?;
                let bytes = content(&json, &bulk)?;
                events.push(Event { json, bytes });
            }
        }
        Ok(Self { dir: dir.to_owned(), manifest, events })
    }

    /// The bytes of one stream (`stdin`, `stdout`, `stderr`) of one channel.
    #[must_use]
    pub fn stream(&self, channel: u64, kind: &str) -> Vec<u8> {
        let of_stream = |event: &&Event| event.json["ch"] == channel && event.json["kind"] == kind;
        self.events.iter().filter(of_stream).flat_map(|event| event.bytes.iter().copied()).collect()
    }

    /// What of one stream is not in the recording.
    ///
    /// # Panics
    /// If what stands in its place is not as the format says.
    #[must_use]
    pub fn withheld(&self, kind: &str) -> Vec<Withheld> {
        let events = self.kind(kind).into_iter();
        let parts = events.flat_map(|event| event.json["withheld"].as_array().into_iter().flatten());
        let withheld = parts.filter_map(|part| part.get("withheld")).map(|withheld| Withheld {
            bytes: withheld["bytes"].as_u64().expect("a number"),
            sha256: withheld["sha256"].as_str().expect("a digest").to_owned(),
        });
        withheld.collect()
    }

    /// The events of a kind.
    #[must_use]
    pub fn kind(&self, kind: &str) -> Vec<&Event> {
        self.events.iter().filter(|event| event.json["kind"] == kind).collect()
    }

    /// The command line of the first exec request.
    #[must_use]
    pub fn command(&self) -> Option<String> {
        self.kind("exec").first().map(|event| String::from_utf8_lossy(&event.bytes).into_owned())
    }
}

fn content(json: &Value, bulk: &[u8]) -> Result<Vec<u8>> {
    if let Some(text) = json["text"].as_str() {
        return Ok(text.as_bytes().to_vec());
    }
    if let Some(text) = json["b64"].as_str() {
        return base64(text);
    }
    if let Some(parts) = json["withheld"].as_array() {
        let kept = parts.iter().filter_map(|part| part["kept"].as_str()).map(base64);
        return Ok(kept.collect::<Result<Vec<_>>>()?.concat());
    }
    let (Some(at), Some(bytes)) = (json["bulk"]["at"].as_u64(), json["bulk"]["bytes"].as_u64()) else {
        return Ok(Vec::new());
    };
    let range = usize::try_from(at)?..usize::try_from(at + bytes)?;
    Ok(bulk.get(range).context("an event points outside the bulk")?.to_vec())
}

fn base64(text: &str) -> Result<Vec<u8>> {
    let output = Command::new("sh").args(["-c", "printf %s \"$0\" | base64 -d", text]).output()?;
    ensure!(output.status.success(), "base64 can't read {text:?}");
    Ok(output.stdout)
}

fn unzstd(path: &Path) -> Result<Vec<u8>> {
    zstd::decode_all(fs::File::open(path)?).with_context(|| format!("cannot read {}", path.display()))
}

impl Bed {
    /// Directories of the sessions that are complete in the store, oldest first.
    #[must_use]
    pub fn finished_sessions(&self) -> Vec<PathBuf> {
        let entries = |dir: &Path| -> Vec<PathBuf> {
            fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
        };
        let mut sessions: Vec<_> = entries(&self.store().join("v1"))
            .iter()
            .flat_map(|day| entries(day))
            .filter(|dir| dir.join("SHA256SUMS.sig").exists())
            .collect();
        sessions.sort_by_key(|dir| dir.file_name().map(ToOwned::to_owned));
        sessions
    }

    /// Waits until this many sessions are complete, and reads the last.
    ///
    /// # Panics
    /// If they do not come, or the last can't be read.
    #[must_use]
    pub fn recording(&self, number: usize) -> Recording {
        let dir = eventually_within(
            std::time::Duration::from_secs(60),
            "the session is complete in the store",
            || self.finished_sessions().get(number - 1).cloned(),
        );
        Recording::read(&dir).unwrap_or_else(|error| panic!("{}: {error:#}", dir.display()))
    }

    /// Runs `weir verify` on a session.
    ///
    /// # Panics
    /// If `weir` is missing.
    #[must_use]
    pub fn verify(&self, dir: &Path) -> Output {
        Command::new(self.bin().join("weir"))
            .arg("verify")
            .arg("--allowed-signers")
            .arg(self.allowed_signers())
            .arg(dir)
            .output()
            .expect("weir is built by `cargo xtask test`")
    }

    /// Checks a session with `weir verify`, and with `sha256sum` and `ssh-keygen` alone.
    ///
    /// # Panics
    /// If any of them is not content.
    pub fn assert_verifies(&self, recording: &Recording) {
        let verified = self.verify(&recording.dir);
        assert!(
            verified.status.success(),
            "weir verify: {}\n{}{}",
            verified.status,
            String::from_utf8_lossy(&verified.stdout),
            String::from_utf8_lossy(&verified.stderr)
        );
        let script = "sha256sum --strict --quiet -c SHA256SUMS && \
                      ssh-keygen -Y verify -f \"$0\" -I weir-agent -n weir -s SHA256SUMS.sig < SHA256SUMS";
        let plain = Command::new("sh")
            .args(["-c", script])
            .arg(self.allowed_signers())
            .current_dir(&recording.dir)
            .output()
            .expect("sh is there");
        assert!(plain.status.success(), "{}", String::from_utf8_lossy(&plain.stderr));
    }

    /// Waits until the proxy's log holds this text, and gives the line.
    ///
    /// # Panics
    /// If it does not come.
    #[must_use]
    pub fn proxy_said(&self, text: &str) -> String {
        eventually(&format!("{text:?} in the proxy's log"), || {
            let log = fs::read_to_string(self.path("proxy.log")).unwrap_or_default();
            log.lines().find(|line| line.contains(text)).map(ToOwned::to_owned)
        })
    }
}
