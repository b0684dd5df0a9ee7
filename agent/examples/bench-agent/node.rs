//! A node of our own: a BPF file system, directories, and a real agent on it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use anyhow::{Context, Result, ensure};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;
use weir_common::{
    control::Reply,
    session::{ChannelNo, Outcome, SessionMeta},
};

use crate::{
    feeder::Feeder,
    proxy::{Control, meta},
    wait_until,
};

/// A mounted bpffs and room for files; unmounted when dropped.
pub(crate) struct Place {
    dir: TempDir,
}

impl Place {
    pub(crate) fn new() -> Result<Self> {
        let dir = tempfile::tempdir().context("a directory to measure in")?;
        let bpf = dir.path().join("bpf");
        fs::create_dir(&bpf)?;
        mount(Some("bpf"), &bpf, Some("bpf"), MsFlags::empty(), None::<&str>)
            .context("mounting a bpffs; the benchmark takes root")?;
        Ok(Self { dir })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = umount2(&self.path("bpf"), MntFlags::MNT_DETACH);
    }
}

/// A place with an agent.
pub(crate) struct Node {
    agent: Child,
    pub(crate) place: Place,
}

impl Node {
    /// Starts an agent with these settings besides its directories; `TOKEN` in them becomes the path of a token.
    pub(crate) fn start(extra: &str) -> Result<Self> {
        let place = Place::new()?;
        let at = |name| place.path(name).display().to_string();
        fs::write(place.path("token"), "bench")?;
        let extra = extra.replace("TOKEN", &at("token"));
        let text = format!(
            "control_socket = {:?}\nstate_dir = {:?}\nstore = \"file://{}\"\nbpf_dir = {:?}\nallowed_uids = [{}]\n{extra}",
            at("run/agent.sock"),
            at("state"),
            at("store"),
            at("bpf"),
            nix::unistd::getuid()
        );
        fs::write(place.path("agent.toml"), text)?;
        let node = Self { agent: spawn(&place)?, place };
        node.wait_until_ready();
        Ok(node)
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.agent.id().cast_signed())
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(self.pid(), signal)?)
    }

    /// Waits for the agent's end.
    pub(crate) fn wait(&mut self) -> Result<ExitStatus> {
        Ok(self.agent.wait()?)
    }

    /// Starts the next agent, without waiting for it.
    pub(crate) fn start_next(&mut self) -> Result<()> {
        self.agent = spawn(&self.place)?;
        Ok(())
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.place.path("run/agent.sock")
    }

    pub(crate) fn wait_until_ready(&self) {
        wait_until("the agent listens", || listens(&self.socket()));
    }

    /// A session with a channel.
    pub(crate) fn session(&self) -> Result<Session> {
        let (meta, control) = (meta(), Control::connect(&self.socket()));
        let opened = control.open(&meta, false);
        ensure!(opened == Some(Reply::Opened), "not opened: {opened:?}");
        let feeder = Feeder::armed(&control, ChannelNo(0))?;
        Ok(Session { meta, control, feeder })
    }

    /// Where the session is stored, once it is complete.
    pub(crate) fn stored(&self, session: &SessionMeta) -> PathBuf {
        let find = || {
            let days = fs::read_dir(self.place.path("store/v1")).ok()?;
            let mut dirs =
                days.filter_map(Result::ok).map(|day| day.path().join(session.session_id.to_string()));
            dirs.find(|dir| dir.join("SHA256SUMS.sig").exists())
        };
        let mut found = None;
        wait_until("the session is stored", || {
            found = find();
            found.is_some()
        });
        found.unwrap_or_default()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }
}

/// A session as its proxy has it.
pub(crate) struct Session {
    pub(crate) meta: SessionMeta,
    pub(crate) control: Control,
    pub(crate) feeder: Feeder,
}

impl Session {
    pub(crate) fn close(&self) -> Result<()> {
        let mut closed = None;
        // While the spool is full an agent puts it off.
        wait_until("the session is closed", || {
            closed = self.control.close(Outcome::Completed);
            !matches!(closed, Some(Reply::TryAgain { .. }))
        });
        ensure!(closed == Some(Reply::Closed), "not closed: {closed:?}");
        Ok(())
    }
}

fn listens(socket: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(socket)
        .is_err_and(|error| error.raw_os_error() == Some(libc::EPROTOTYPE))
}

fn spawn(place: &Place) -> Result<Child> {
    let exe = std::env::current_exe()?;
    let dir = exe.parent().and_then(Path::parent).context("an example lies in the target directory")?;
    let log = fs::File::options().create(true).append(true).open(place.path("agent.log"))?;
    Command::new(dir.join("weir-agent"))
        .arg("--config")
        .arg(place.path("agent.toml"))
        .env("WEIR_LOG", "warn")
        .stderr(Stdio::from(log))
        .spawn()
        .context("starting weir-agent; is it built?")
}
