//! Recordings as they are in the store: fetched, read, and verified on the store machine.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io::Write,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;
use weir_tests::recording::Recording;

use crate::{
    bed::{ALLOWED_SIGNERS, OBJECTS, WEIR},
    machine::Machine,
    shell::quote,
    wait::until,
};

/// A session that is complete in the store.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    /// Its directory, below the store's prefix: `v1/dt=…/<session id>`.
    pub(crate) name: String,
    /// What is in it.
    pub(crate) recording: Recording,
}

impl Stored {
    /// How the session ended: the outcome's kind, and the reason if there is one.
    pub(crate) fn outcome(&self) -> (&str, &str) {
        let outcome = &self.recording.manifest["outcome"];
        (outcome["kind"].as_str().unwrap_or_default(), outcome["reason"].as_str().unwrap_or_default())
    }

    /// The lines of a findings object; none if there is none.
    pub(crate) fn findings(&self, object: &str) -> Result<Vec<Value>> {
        let Ok(text) = std::fs::read_to_string(self.recording.dir.join(object)) else {
            return Ok(Vec::new());
        };
        text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    /// Every stream's times run forwards, by the kernel's clock. Gives how many seconds lie between the first event and the
    /// last.
    pub(crate) fn seconds_by_the_kernel(&self) -> Result<f64> {
        let mut last: BTreeMap<(u64, String), u64> = BTreeMap::new();
        let mut all = Vec::new();
        for event in &self.recording.events {
            let t = event.json["t"].as_u64().context("an event without a time")?;
            let stream = (event.json["ch"].as_u64().unwrap_or_default(), event.json["dir"].to_string());
            let before = last.insert(stream, t).unwrap_or_default();
            ensure!(before <= t, "an event's time is before that of the event before it: {t} after {before}");
            all.push(t);
        }
        let (first, last) = (all.iter().min().context("no events")?, all.iter().max().context("no events")?);
        Ok(Duration::from_nanos(last - first).as_secs_f64())
    }
}

/// The store, from outside of Weir.
pub(crate) struct Store {
    /// What was there before the scenario began: people may have tried the machines.
    others: Vec<String>,
    copies: TempDir,
    /// What has been fetched: nothing in a store ever changes.
    fetched: RefCell<BTreeMap<String, Stored>>,
}

impl Store {
    pub(crate) fn new(machine: &Machine<'_>) -> Result<Self> {
        let others = list(machine, "v1/dt=*/*")?;
        Ok(Self { others, copies: TempDir::new()?, fetched: RefCell::default() })
    }

    /// Every session of the scenario that has something in the store, in the order in which they began.
    pub(crate) fn sessions(&self, machine: &Machine<'_>) -> Result<Vec<String>> {
        let mut sessions = list(machine, "v1/dt=*/*")?;
        sessions.retain(|session| !self.others.contains(session));
        Ok(sessions)
    }

    /// Those that are complete.
    fn complete(&self, machine: &Machine<'_>) -> Result<Vec<String>> {
        let signatures = list(machine, "v1/dt=*/*/SHA256SUMS.sig")?;
        let mut sessions: Vec<_> = signatures
            .iter()
            .filter_map(|path| path.strip_suffix("/SHA256SUMS.sig"))
            .map(str::to_owned)
            .collect();
        sessions.retain(|session| !self.others.contains(session));
        Ok(sessions)
    }

    /// Objects of a session.
    pub(crate) fn objects(machine: &Machine<'_>, session: &str) -> Result<Vec<String>> {
        let listed = machine.run(&format!("ls -1 {OBJECTS}/{session}"))?;
        Ok(listed.lines().map(str::to_owned).collect())
    }

    /// Waits until a session is complete of which this holds, and fetches it.
    pub(crate) fn wait_for(
        &self,
        machine: &Machine<'_>,
        what: &str,
        patience: Duration,
        is_it: impl Fn(&Recording) -> bool,
    ) -> Result<Stored> {
        until(&format!("{what} is complete in the store"), patience, || {
            for name in self.complete(machine)? {
                let stored = self.fetch(machine, &name)?;
                if is_it(&stored.recording) {
                    return Ok(Some(stored));
                }
            }
            Ok(None)
        })
    }

    fn fetch(&self, machine: &Machine<'_>, name: &str) -> Result<Stored> {
        if let Some(stored) = self.fetched.borrow().get(name) {
            return Ok(stored.clone());
        }
        let archive = machine.output(&format!("tar -C {OBJECTS} -c {name}"))?;
        ensure!(archive.status.success(), "reading {name} from the store");
        let mut tar = Command::new("tar");
        let mut tar = tar.arg("-C").arg(self.copies.path()).arg("-x").stdin(Stdio::piped()).spawn()?;
        tar.stdin.take().context("piped")?.write_all(&archive.stdout)?;
        ensure!(tar.wait()?.success(), "unpacking {name}");
        let recording =
            Recording::read(&self.copies.path().join(name)).with_context(|| format!("reading {name}"))?;
        let stored = Stored { name: name.to_owned(), recording };
        self.fetched.borrow_mut().insert(name.to_owned(), stored.clone());
        Ok(stored)
    }
}

/// What lies in the store by such a name.
fn list(machine: &Machine<'_>, pattern: &str) -> Result<Vec<String>> {
    let listed = machine.run(&format!("shopt -s nullglob; cd {OBJECTS}; printf '%s\\n' {pattern}"))?;
    let mut paths: Vec<_> = listed.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
    // Session ids begin with their time; a day's name does, too, but a clock may jump.
    paths.sort_by_key(|path| path.split('/').nth(2).map(str::to_owned));
    Ok(paths)
}

/// What `weir verify` says of a session in the bucket: its exit status and its report.
pub(crate) fn verify(machine: &Machine<'_>, session: &str) -> Result<(i32, Value)> {
    let output = machine.output(&format!(
        "{WEIR} verify --json --allowed-signers {ALLOWED_SIGNERS} s3://recordings/weir/{session}"
    ))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let report = serde_json::from_str(&text)
        .with_context(|| format!("weir verify: {text}{}", String::from_utf8_lossy(&output.stderr)))?;
    Ok((output.status.code().unwrap_or(-1), report))
}

/// Verifies a complete session with `weir verify`, and with `sha256sum` and `ssh-keygen` alone. Gives whether the kernel's own
/// counts were all there (`complete`).
pub(crate) fn assert_intact(machine: &Machine<'_>, stored: &Stored) -> Result<bool> {
    let (status, report) = verify(machine, &stored.name)?;
    ensure!(status == 0 && report["verdict"] == "intact", "weir verify says {status}: {report:#}");
    machine.run(&format!(
        "cd {OBJECTS}/{}; sha256sum --strict --quiet -c SHA256SUMS; ssh-keygen -Y verify -f {ALLOWED_SIGNERS} \
         -I weir-agent -n weir -s SHA256SUMS.sig < SHA256SUMS",
        quote(&stored.name)
    ))?;
    report["complete"].as_bool().context("a report says whether it is complete")
}
