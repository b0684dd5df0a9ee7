//! The machines as a whole: how they are reached, their snapshots, their power.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// The machines' names.
pub const MACHINES: [&str; 3] = ["connector", "target", "store"];
/// The snapshot that every scenario begins with.
pub const CLEAN: &str = "clean";

type Vagrant = dyn Fn() -> Result<Command>;
type Program = dyn Fn(&str) -> Result<Command>;

/// The machines that `cargo xtask vm up` has brought up.
pub struct Lab {
    vagrant: Box<Vagrant>,
    program: Box<Program>,
    cut_power: Option<Box<Program>>,
    dir: PathBuf,
}

impl std::fmt::Debug for Lab {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lab").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Lab {
    /// `vagrant` gives vagrant's command with its environment, `program` any other where the machines' addresses lead
    /// to them. Working files and logs go below `dir`.
    #[must_use]
    pub fn new(
        vagrant: impl Fn() -> Result<Command> + 'static,
        program: impl Fn(&str) -> Result<Command> + 'static,
        dir: &Path,
    ) -> Self {
        Self { vagrant: Box::new(vagrant), program: Box::new(program), cut_power: None, dir: dir.to_owned() }
    }

    /// Takes a machine's power away by this command. Otherwise it is `vagrant halt --force`, which with some providers asks the
    /// machine to shut down first: vagrant-libvirt does.
    #[must_use]
    pub fn cutting_power_by(self, command: impl Fn(&str) -> Result<Command> + 'static) -> Self {
        Self { cut_power: Some(Box::new(command)), ..self }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A program where the machines can be reached.
    pub(crate) fn program(&self, name: &str) -> Result<Command> {
        (self.program)(name)
    }

    fn vagrant(&self, arguments: &[&str]) -> Result<String> {
        run((self.vagrant)()?.args(arguments))
    }

    /// Where ssh's configuration for the machines is kept.
    pub(crate) fn ssh_config(&self) -> PathBuf {
        self.dir.join("ssh_config")
    }

    /// Asks anew how the machines are reached: an address may have changed with a start.
    pub(crate) fn write_ssh_config(&self) -> Result<()> {
        let config = self.vagrant(&["ssh-config"])?;
        fs::write(self.ssh_config(), config + "\n").context("writing ssh's configuration")
    }

    /// Takes the snapshot that scenarios begin with, where there is none.
    pub(crate) fn ensure_clean_snapshot(&self) -> Result<()> {
        let has_it = |machine: &&str| {
            let listed = self.vagrant(&["snapshot", "list", machine]).unwrap_or_default();
            listed.split_whitespace().any(|word| word == CLEAN)
        };
        if MACHINES.iter().all(has_it) {
            return Ok(());
        }
        eprintln!("Taking the snapshot that every scenario begins with");
        self.vagrant(&["snapshot", "save", "--force", CLEAN]).map(drop)
    }

    /// Brings all machines back to where they were when they had come up.
    pub(crate) fn restore(&self) -> Result<()> {
        self.vagrant(&["snapshot", "restore", "--no-provision", CLEAN]).map(drop)
    }

    /// Takes a machine's power away: nothing in it hears of it.
    pub(crate) fn cut_power(&self, machine: &str) -> Result<()> {
        match &self.cut_power {
            Some(command) => run(&mut command(machine)?),
            None => self.vagrant(&["halt", "--force", machine]),
        }
        .map(drop)
    }

    /// Switches a machine on, and waits until it can be logged in to.
    pub(crate) fn switch_on(&self, machine: &str) -> Result<()> {
        self.vagrant(&["up", "--no-provision", machine])?;
        self.write_ssh_config()
    }
}

/// What a command prints, if it succeeds.
fn run(command: &mut Command) -> Result<String> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("could not start {command:?}"))?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    if !output.status.success() {
        bail!("{command:?}: {}\n{}{}", output.status, said(&output.stdout), said(&output.stderr));
    }
    Ok(said(&output.stdout))
}
