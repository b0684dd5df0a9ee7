//! What scenarios work on: the three machines, the user's sessions, the recordings.

use std::{cell::RefCell, fs, path::Path, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use weir_tests::recording::Recording;

use crate::{
    Options,
    kernel_log::{self, Sign},
    lab::{Lab, MACHINES},
    machine::Machine,
    session::{Ended, Session},
    shell::quote,
    stored::{self, Store, Stored},
    wait::PATIENCE,
};

/// The target's address.
pub(crate) const TARGET: &str = "10.57.2.20";
/// The connector's address on the targets' side.
pub(crate) const CONNECTOR_TO_TARGETS: &str = "10.57.2.2";
/// The store machine's address, which is the user's, too.
pub(crate) const USER: &str = "10.57.1.10";
/// The unit of the S3 server.
pub(crate) const S3: &str = "weir-s3";
/// The units on the connector.
pub(crate) const AGENT: &str = "weir-agent";
/// See [`AGENT`].
pub(crate) const PROXY: &str = "weir-proxy";
/// The grant that the connector has.
pub(crate) const GRANT: &str = "lab";
/// The login on the target.
pub(crate) const LOGIN: &str = "app";

/// On the store machine: where the bucket's objects lie as files.
pub(crate) const OBJECTS: &str = "/var/lib/weir-s3/recordings/weir";
/// On the store machine: who may sign.
pub(crate) const ALLOWED_SIGNERS: &str = "/root/allowed_signers";
/// On the store machine: the console's command line, with what it takes to read the bucket.
pub(crate) const WEIR: &str = "AWS_ACCESS_KEY_ID=AKIATEST AWS_SECRET_ACCESS_KEY=a-secret-that-no-log-shows AWS_REGION=us-east-1 \
     WEIR_S3_ENDPOINT=http://10.57.1.10:9000 WEIR_S3_PATH_STYLE=true weir";
/// On the store machine: as the user, whose ssh knows the connector by this name.
const AS_USER: &str = "sudo -n -H -u vagrant";
const BY_NAME: &str = "connector";

/// The machines as they were when they had come up.
pub(crate) struct Bed<'lab> {
    pub(crate) connector: Machine<'lab>,
    pub(crate) target: Machine<'lab>,
    pub(crate) store: Machine<'lab>,
    pub(crate) options: &'lab Options,
    lab: &'lab Lab,
    recordings: Store,
    notes: RefCell<Vec<String>>,
}

impl<'lab> Bed<'lab> {
    /// Brings the machines back to where they were, and takes the signer's key from the connector.
    pub(crate) fn restored(lab: &'lab Lab, options: &'lab Options) -> Result<Self> {
        lab.restore()?;
        lab.write_ssh_config()?;
        let [connector, target, store] = MACHINES.map(|name| Machine::new(lab, name));
        let recordings = Store::new(&store)?;
        let bed = Self { connector, target, store, options, lab, recordings, notes: RefCell::default() };
        // Snapshots are taken one after the other, and there is no NTP.
        bed.set_clocks()?;
        let signers = bed.connector.read("/var/lib/weir/allowed_signers")?;
        bed.store.write(ALLOWED_SIGNERS, &signers)?;
        Ok(bed)
    }

    /// Sets the other machines' clocks by the store's.
    pub(crate) fn set_clocks(&self) -> Result<()> {
        let now = self.store.run("date +%s")?;
        for machine in [&self.connector, &self.target] {
            machine.run(&format!("date -s @{}", now.trim()))?;
        }
        Ok(())
    }

    /// Says what was measured.
    pub(crate) fn note(&self, note: impl Into<String>) {
        self.notes.borrow_mut().push(note.into());
    }

    pub(crate) fn into_notes(self) -> Vec<String> {
        self.notes.into_inner()
    }

    /// Begins a session by the grant; with a command, or a shell.
    pub(crate) fn session(&self, command: Option<&str>) -> Result<Session> {
        self.session_by(GRANT, "", command)
    }

    /// Begins a session by a grant, with options of ssh.
    pub(crate) fn session_by(&self, grant: &str, options: &str, command: Option<&str>) -> Result<Session> {
        let command = command.map(quote).unwrap_or_default();
        let ssh = format!("cd /home/vagrant; exec {AS_USER} ssh -l {grant} {options} {BY_NAME} {command}");
        Ok(Session::of(self.store.spawn(&ssh)?))
    }

    /// A session that runs a command without input to its end.
    pub(crate) fn exec(&self, command: &str) -> Result<Ended> {
        let mut session = self.session(Some(command))?;
        session.end_input();
        session.end()
    }

    /// `sftp` with a batch of commands, as the user.
    pub(crate) fn sftp(&self, batch: &str) -> Result<()> {
        self.store.run_with(&format!("{AS_USER} sftp -q -b - -o User={GRANT} {BY_NAME}"), batch.as_bytes())
    }

    /// Waits until the session whose first command has this in it is complete in the store.
    pub(crate) fn stored(&self, tag: &str) -> Result<Stored> {
        self.stored_where(&format!("the session {tag:?}"), |recording| {
            recording.command().is_some_and(|command| command.contains(tag))
        })
    }

    /// Waits until a session is complete in the store of which this holds.
    pub(crate) fn stored_where(&self, what: &str, is_it: impl Fn(&Recording) -> bool) -> Result<Stored> {
        self.recordings.wait_for(&self.store, what, PATIENCE, is_it)
    }

    /// The scenario's sessions that have something in the store.
    pub(crate) fn sessions(&self) -> Result<Vec<String>> {
        self.recordings.sessions(&self.store)
    }

    /// The one session that has something in the store, once it has.
    pub(crate) fn only_session(&self) -> Result<String> {
        crate::wait::until("the session's first segment is in the store", PATIENCE, || {
            let sessions = self.sessions()?;
            ensure!(sessions.len() <= 1, "one session was begun, and these are in the store: {sessions:?}");
            let Some(session) = sessions.into_iter().next() else { return Ok(None) };
            let objects = Store::objects(&self.store, &session)?;
            Ok(objects.iter().any(|name| name == "000001.sig").then_some(session))
        })
    }

    /// A complete session verifies, with Weir and without.
    pub(crate) fn assert_intact(&self, stored: &Stored) -> Result<bool> {
        stored::assert_intact(&self.store, stored).with_context(|| stored.name.clone())
    }

    /// A session without its end verifies as far as it goes. Gives up to which segment.
    pub(crate) fn assert_unfinished(&self, session: &str) -> Result<u64> {
        let (status, report) = stored::verify(&self.store, session)?;
        ensure!(status == 4 && report["verdict"] == "unfinished", "weir verify says {status}: {report:#}");
        report["unfinished"]["segments"].as_u64().context("up to which segment")
    }

    /// Sets a value of a program's configuration, and restarts it. No session may be running that needs the proxy.
    pub(crate) fn configure(&self, program: &str, settings: &[(&str, &str)]) -> Result<()> {
        let file = format!("/etc/weir/{}.toml", program.trim_start_matches("weir-"));
        for (key, value) in settings {
            // In front of everything: tables come behind the values.
            let (add, remove) = (quote(&format!("1i {key} = {value}")), quote(&format!("/^{key} *=/d")));
            // In place: the owner and the mode stay.
            let edit = format!("sed -e {add} -e {remove} {file} > /tmp/edited; cat /tmp/edited > {file}");
            self.connector.run(&edit)?;
        }
        self.connector.run(&format!("systemctl restart {program}")).map(drop)
    }

    /// A number of the agent's metrics, summed over all rings.
    pub(crate) fn agent_metric(&self, name: &str) -> Result<f64> {
        let script =
            "exec 3<>/dev/tcp/127.0.0.1/9465; printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3";
        let text = self.connector.run(script)?;
        let series = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let matches =
                series == name || series.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'));
            matches.then(|| value.parse::<f64>().ok())?
        });
        let values: Vec<_> = series.collect();
        ensure!(!values.is_empty(), "the agent has no metric {name}");
        Ok(values.iter().sum())
    }

    /// A new session comes through and is recorded: everything works.
    pub(crate) fn assert_works(&self, tag: &str) -> Result<Stored> {
        let ended = self.exec(&format!(": {tag}; echo $((6 * 7))"))?;
        ensure!(
            ended.status == 0 && ended.output == b"42\n",
            "a new session: {} {}",
            ended.status,
            ended.said
        );
        let stored = self.stored(tag)?;
        ensure!(stored.recording.stream(0, "stdout") == b"42\n", "a new session is not recorded as it was");
        self.assert_intact(&stored)?;
        Ok(stored)
    }

    /// The machines' kernels have said of no boot since the snapshot that they are broken.
    pub(crate) fn assert_kernels_are_well(&self) -> Result<()> {
        for machine in [&self.connector, &self.target, &self.store] {
            let said = machine.run("journalctl --quiet --no-pager --output=cat _TRANSPORT=kernel")?;
            let broken =
                |line: &&str| kernel_log::is_fatal(line) || kernel_log::meaning(line) == Some(Sign::Broken);
            if let Some(line) = said.lines().find(broken) {
                bail!("the kernel of {} says: {line}", machine.name());
            }
            // A kernel that panics and starts anew tells it to nobody but its console.
            let console = self.lab.dir().join(format!("{}.console", machine.name()));
            let said = fs::read(&console).unwrap_or_default();
            if let Some(line) = String::from_utf8_lossy(&said).lines().find(|line| kernel_log::is_fatal(line))
            {
                bail!("the kernel of {} said on its console: {line}", machine.name());
            }
        }
        Ok(())
    }

    /// Keeps what the machines have logged; those that can't be reached are left out, and the reason is said.
    pub(crate) fn keep_logs(&self, dir: &Path) {
        if let Err(error) = fs::create_dir_all(dir) {
            eprintln!("  no logs could be kept: {}: {error}", dir.display());
            return;
        }
        let consoles = MACHINES.map(|name| self.keep_console(name, dir));
        let journals = [&self.connector, &self.target, &self.store].map(|machine| keep_journal(machine, dir));
        for error in consoles.into_iter().chain(journals).filter_map(Result::err) {
            eprintln!("  a log could not be kept: {error:#}");
        }
        eprintln!("  logs are in {}", dir.display());
    }

    /// The serial console, where the provider keeps it.
    fn keep_console(&self, machine: &str, dir: &Path) -> Result<()> {
        let console = format!("{machine}.console");
        let from = self.lab.dir().join(&console);
        if from.exists() {
            fs::copy(&from, dir.join(console)).with_context(|| format!("copying {}", from.display()))?;
        }
        Ok(())
    }
}

fn keep_journal(machine: &Machine<'_>, dir: &Path) -> Result<()> {
    let journal = machine.run("journalctl --no-pager --output=short-precise --lines=5000")?;
    let to = dir.join(format!("{}.log", machine.name()));
    fs::write(&to, journal).with_context(|| format!("writing {}", to.display()))
}

/// Some seconds, for people.
pub(crate) fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
