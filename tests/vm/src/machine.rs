//! One machine: commands in it, as root, over one SSH connection that is shared.

use std::{
    fs::{self, File},
    io::Write,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    lab::Lab,
    shell::quote,
    wait::{PATIENCE, until},
};

/// How long a script may take that does not run along with something else. A wait inside of it is shorter.
const MAX_SCRIPT: Duration = Duration::from_secs(600);

/// A place in a machine's journal.
pub(crate) struct Cursor(String);

/// A machine.
pub(crate) struct Machine<'lab> {
    lab: &'lab Lab,
    name: &'static str,
    /// The ssh that holds the connection: a login takes a second on an emulated processor.
    master: Mutex<Option<Child>>,
}

impl<'lab> Machine<'lab> {
    pub(crate) fn new(lab: &'lab Lab, name: &'static str) -> Self {
        Self { lab, name, master: Mutex::new(None) }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// What a script prints. It runs as root, by `bash -eu`.
    pub(crate) fn run(&self, script: &str) -> Result<String> {
        let output = self.output(script)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: `{script}`: {}: {}", self.name, output.status, said.trim_end());
        String::from_utf8(output.stdout)
            .with_context(|| format!("{}: `{script}` printed no UTF-8", self.name))
    }

    /// How a script ended, and what it said. One that does not end by itself is ended after [`MAX_SCRIPT`], with the status 124.
    pub(crate) fn output(&self, script: &str) -> Result<Output> {
        let limit = format!("timeout --kill-after=10 {}", MAX_SCRIPT.as_secs());
        let mut command = self.command(&limit, script)?;
        command.stdin(Stdio::null()).output().with_context(|| format!("ssh to {}", self.name))
    }

    /// Runs a script with this on its standard input.
    pub(crate) fn run_with(&self, script: &str, input: &[u8]) -> Result<()> {
        let mut child = self.spawn(script)?;
        let mut stdin = child.stdin.take().expect("piped");
        let output = thread::scope(|scope| {
            scope.spawn(move || stdin.write_all(input));
            child.wait_with_output()
        })?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: `{script}`: {}: {}", self.name, output.status, said.trim_end());
        Ok(())
    }

    /// Starts a script; its three streams are pipes.
    pub(crate) fn spawn(&self, script: &str) -> Result<Child> {
        let mut command = self.command("", script)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().with_context(|| format!("ssh to {}", self.name))
    }

    /// A script as root, started by `by`.
    fn command(&self, by: &str, script: &str) -> Result<Command> {
        self.connect()?;
        let mut command = self.ssh()?;
        command.args(["-o", "ControlMaster=no", self.name, "--"]);
        command.arg(format!("sudo -n {by} bash -euc {}", quote(script)));
        Ok(command)
    }

    fn ssh(&self) -> Result<Command> {
        let mut command = self.lab.program("ssh")?;
        command.arg("-F").arg(self.lab.ssh_config());
        command.arg("-o").arg(format!("ControlPath={}", self.socket().display()));
        // A machine that is gone must not hang what waits for it.
        for option in
            ["LogLevel=ERROR", "ConnectTimeout=20", "ServerAliveInterval=5", "ServerAliveCountMax=12"]
        {
            command.args(["-o", option]);
        }
        Ok(command)
    }

    fn socket(&self) -> PathBuf {
        self.lab.dir().join("run").join(format!("{}.ssh", self.name))
    }

    fn master(&self) -> MutexGuard<'_, Option<Child>> {
        self.master.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes sure that there is a connection to share, as soon as the machine lets us in.
    pub(crate) fn connect(&self) -> Result<()> {
        let mut master = self.master();
        if let Some(child) = &mut *master
            && child.try_wait()?.is_none()
            && self.socket().exists()
        {
            return Ok(());
        }
        fs::create_dir_all(self.lab.dir().join("run"))?;
        let log = self.lab.dir().join("run").join(format!("{}.log", self.name));
        until(&format!("{} lets us in", self.name), PATIENCE, || {
            if let Some(mut old) = master.take() {
                let _ = old.kill();
                old.wait()?;
            }
            let _ = fs::remove_file(self.socket());
            let mut command = self.ssh()?;
            command.args(["-o", "ControlMaster=yes", "-N", self.name]);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?);
            let child = master.insert(command.spawn().context("starting ssh")?);
            until("ssh has connected, or failed", PATIENCE, || {
                let over = child.try_wait()?.is_some();
                Ok((over || self.socket().exists()).then_some(!over))
            })
            .map(|connected| connected.then_some(()))
        })
        .with_context(|| fs::read_to_string(&log).unwrap_or_default())
    }

    /// Gives the shared connection up: the machine is not at its other end any more.
    pub(crate) fn disconnect(&self) {
        if let Some(mut child) = self.master().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_file(self.socket());
    }

    /// The content of a file.
    pub(crate) fn read(&self, path: &str) -> Result<String> {
        self.run(&format!("cat {}", quote(path)))
    }

    /// Writes a file as a whole.
    pub(crate) fn write(&self, path: &str, content: &str) -> Result<()> {
        let path = quote(path);
        self.run_with(&format!("cat > {path}.new; mv {path}.new {path}"), content.as_bytes())
    }

    /// The name of the link that has this address.
    pub(crate) fn link(&self, address: &str) -> Result<String> {
        let listed = self.run("ip -o -4 address show")?;
        let found = listed.lines().find(|line| line.contains(&format!(" {address}/")));
        let name = found.and_then(|line| line.split_whitespace().nth(1));
        name.map(str::to_owned).with_context(|| format!("{} has no address {address}:\n{listed}", self.name))
    }

    /// Which boot this is.
    pub(crate) fn boot_id(&self) -> Result<String> {
        self.read("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned())
    }

    /// Restarts the machine by its own means, and waits until it is up again. Whatever runs in it is stopped as systemd
    /// stops it.
    pub(crate) fn reboot(&self) -> Result<()> {
        let before = self.boot_id()?;
        // The connection may be cut before the command has answered.
        let _ = self.output("systemctl reboot")?;
        self.wait_for_boot_other_than(&before)
    }

    /// Waits until the machine has come up, in another boot than this, and all that belongs to it has started.
    pub(crate) fn wait_for_boot_other_than(&self, before: &str) -> Result<()> {
        until(&format!("{} is up again", self.name), PATIENCE * 2, || {
            match self.boot_id() {
                Ok(id) if id != before => return Ok(Some(())),
                Ok(_) => {}
                Err(_) => self.disconnect(),
            }
            Ok(None)
        })?;
        self.wait_for_units()
    }

    /// Waits until systemd has started what there is to start, whether all of that worked or not.
    fn wait_for_units(&self) -> Result<()> {
        let patience = PATIENCE.as_secs();
        let wait = format!("timeout {patience} systemctl is-system-running --wait || [ $? -ne 124 ]");
        self.run(&wait)
            .with_context(|| format!("{} has not started everything after {patience} s", self.name))
            .map(drop)
    }

    /// Cuts the machine's power.
    pub(crate) fn cut_power(&self) -> Result<()> {
        self.lab.cut_power(self.name)?;
        self.disconnect();
        Ok(())
    }

    /// Switches it on again.
    pub(crate) fn switch_on(&self) -> Result<()> {
        self.disconnect();
        self.lab.switch_on(self.name)?;
        self.wait_for_units()
    }

    /// What units have logged since the machine was first started.
    pub(crate) fn journal(&self, unit: &str) -> Result<String> {
        self.run(&format!("journalctl --no-pager --output=short-precise --unit={unit}"))
    }

    /// Where the journal ends now. The place does not move with the clock.
    pub(crate) fn end_of_journal(&self) -> Result<Cursor> {
        let shown = self.run("journalctl --quiet --no-pager --lines=1 --show-cursor")?;
        let cursor = shown.lines().find_map(|line| line.strip_prefix("-- cursor: "));
        cursor.map(|cursor| Cursor(cursor.to_owned())).with_context(|| format!("no cursor in {shown:?}"))
    }

    /// Waits until a unit has logged a line with this text behind that place.
    pub(crate) fn wait_for_log(&self, since: &Cursor, unit: &str, text: &str) -> Result<()> {
        // Not by --unit: with it, journalctl of systemd 252 leaves the first line behind a cursor out.
        let script = format!("journalctl --no-pager --after-cursor={}", quote(&since.0));
        let process = format!(" {unit}[");
        until(&format!("{text:?} in the journal of {unit}"), PATIENCE, || {
            let is_it = |line: &str| line.contains(&process) && line.contains(text);
            Ok(self.run(&script)?.lines().any(is_it).then_some(()))
        })
    }

    /// A property of a unit.
    pub(crate) fn unit(&self, unit: &str, property: &str) -> Result<String> {
        let shown = self.run(&format!("systemctl show --property={property} --value {unit}"))?;
        Ok(shown.trim().to_owned())
    }

    /// The unit's main process.
    pub(crate) fn main_pid(&self, unit: &str) -> Result<u32> {
        let pid = self.unit(unit, "MainPID")?;
        match pid.parse() {
            Ok(0) | Err(_) => bail!("{unit} does not run on {}", self.name),
            Ok(pid) => Ok(pid),
        }
    }

    /// Waits until a unit runs, in another process than this.
    pub(crate) fn wait_for_main_pid_other_than(&self, unit: &str, before: u32) -> Result<u32> {
        until(&format!("{unit} runs again"), PATIENCE, || {
            let is_active = self.unit(unit, "ActiveState")? == "active";
            Ok(self.main_pid(unit).ok().filter(|&pid| is_active && pid != before))
        })
    }

    /// A moment for what only time shows, counted by this machine's own clock of the processor: not for luck, but where the
    /// time is what is tested.
    pub(crate) fn let_pass(&self, time: Duration) -> Result<()> {
        self.run(&format!("sleep {}", time.as_secs_f64())).map(drop)
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        self.disconnect();
    }
}
