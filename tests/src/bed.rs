//! The test bed: see the crate's documentation.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;

use crate::{port::Port, process::Process};

/// The id of the grant that every bed has.
pub const GRANT: &str = "demo";

/// The user that the proxy runs as: Debian's `nobody`.
pub const PROXY_UID: u32 = 65_534;

/// A login at the target that is not root's.
pub const TARGET_USER: &str = "weir-target";

const TARGET_UID: u32 = 60_001;

/// What may differ between beds.
#[derive(Debug, Clone)]
pub struct BedOptions {
    /// Bytes of the kernel ring; small ones are soon full.
    pub ring_bytes: u32,
    /// Age in milliseconds at which a segment is sealed.
    pub segment_max_age_ms: u64,
    /// How long the proxy lets a session stall, in milliseconds.
    pub stall_timeout_ms: u64,
    /// How long a user may take to log in, in milliseconds.
    pub login_timeout_ms: u64,
    /// How long a restarted agent waits for a proxy, in milliseconds.
    pub reattach_timeout_ms: u64,
    /// The most connections at once, if not the default; a tenth of them may be logging in, at the proxy and at
    /// the target.
    pub max_connections: Option<usize>,
    /// More lines of the proxy's configuration, before its resources; `DIR` stands for the bed's directory. Unless
    /// they are about sources, 127.0.0.0/8 is exempt from the limits per source: everybody comes from there.
    pub proxy_settings: String,
    /// Lines of the target's `sshd_config`, before the bed's own: the first counts.
    pub extra_target_config: String,
    /// Where the proxy listens.
    pub listen: String,
    /// The store's directory; none for one in the bed.
    pub store: Option<PathBuf>,
    /// Environment variables of the proxy.
    pub proxy_env: Vec<(String, String)>,
}

impl Default for BedOptions {
    fn default() -> Self {
        Self {
            ring_bytes: 16 << 20,
            segment_max_age_ms: 30_000,
            stall_timeout_ms: 60_000,
            login_timeout_ms: 30_000,
            reattach_timeout_ms: 15_000,
            max_connections: None,
            proxy_settings: String::new(),
            extra_target_config: String::new(),
            listen: "127.0.0.1:0".to_owned(),
            store: None,
            proxy_env: Vec::new(),
        }
    }
}

/// A whole Weir on this machine.
#[derive(Debug)]
pub struct Bed {
    dir: TempDir,
    bin: PathBuf,
    options: BedOptions,
    target_port: Port,
    proxy_port: Option<u16>,
    agent_starts: usize,
    proxy_starts: usize,
    target: Option<Process>,
    agent: Option<Process>,
    proxy: Option<Process>,
}

impl Bed {
    /// A bed in a temporary directory with everything running, for tests.
    ///
    /// # Panics
    /// If it can't be set up; the message says what is missing.
    #[must_use]
    pub fn start(options: BedOptions) -> Self {
        let mut bed = Self::prepare_temporary(options);
        bed.start_target().expect("the target starts");
        bed.start_agent().expect("the agent starts");
        bed.start_proxy().expect("the proxy starts");
        bed
    }

    /// A bed with nothing running, for tests.
    ///
    /// # Panics
    /// If it can't be set up.
    #[must_use]
    pub fn prepare_temporary(options: BedOptions) -> Self {
        let bin = std::env::current_exe()
            .ok()
            .and_then(|exe| Some(exe.parent()?.parent()?.to_owned()))
            .expect("tests run from the target directory");
        Self::prepare(&bin, options).expect("the bed can be set up")
    }

    /// Lays out keys, configuration and directories in a temporary directory. Binaries come from `bin`.
    ///
    /// # Errors
    /// If something is missing or this is not root.
    pub fn prepare(bin: &Path, options: BedOptions) -> Result<Self> {
        ensure!(nix::unistd::geteuid().is_root(), "BPF and mounts need root: run this as root");
        for tool in ["ssh", "ssh-keygen", "/usr/sbin/sshd"] {
            ensure!(
                Command::new(tool).arg("-?").output().is_ok(),
                "{tool} is missing: apt-get install openssh-client openssh-server"
            );
        }
        let bed = Self {
            dir: tempfile::Builder::new().prefix("weir-").tempdir()?,
            bin: bin.to_owned(),
            target_port: Port::reserve()?,
            proxy_port: None,
            options,
            agent_starts: 0,
            proxy_starts: 0,
            target: None,
            agent: None,
            proxy: None,
        };
        bed.lay_out()?;
        Ok(bed)
    }

    fn lay_out(&self) -> Result<()> {
        // The unprivileged proxy has to get to what is its own below here.
        fs::set_permissions(self.dir.path(), fs::Permissions::from_mode(0o755))?;
        for sub in ["target", "agent", "proxy", "proxy/grants", "user", "bpf", "run", "bin"] {
            fs::create_dir_all(self.path(sub))?;
        }
        // What privileged sshd insists on, wherever its own configuration lies.
        fs::create_dir_all("/run/sshd")?;
        for key in ["target/host_key", "proxy/host_key", "proxy/login_key", "user/key", "user/stranger_key"] {
            keygen(&self.path(key))?;
        }
        mount(Some("bpf"), &self.path("bpf"), Some("bpf"), MsFlags::empty(), None::<&str>)
            .context("cannot mount a bpffs of our own")?;
        for binary in ["weir-agent", "weir-proxy"] {
            let (from, to) = (self.bin.join(binary), self.path("bin").join(binary));
            // The build directory may lie where an unprivileged user can't go.
            fs::hard_link(&from, &to).or_else(|_| fs::copy(&from, &to).map(drop)).with_context(|| {
                format!("{} is missing: run `cargo xtask test`, which builds it", from.display())
            })?;
        }
        fs::copy(self.path("proxy/login_key.pub"), self.path("target/authorized_keys"))?;
        let known = format!("[127.0.0.1]:* {}", fs::read_to_string(self.path("proxy/host_key.pub"))?);
        fs::write(self.path("user/known_hosts"), known)?;
        let ssh_config = format!(
            "UserKnownHostsFile {}\nStrictHostKeyChecking yes\nIdentitiesOnly yes\nIdentityAgent none\n",
            self.path("user/known_hosts").display()
        );
        fs::write(self.path("user/ssh_config"), ssh_config)?;
        self.write_target_config()?;
        self.write_agent_config()?;
        self.write_proxy_config(&self.public_key("target/host_key")?)?;
        self.write_grant(GRANT, "2099-01-01T00:00:00Z")?;
        for entry in ["proxy", "proxy/host_key", "proxy/login_key"] {
            chown(self.path(entry), Some(PROXY_UID), Some(PROXY_UID))?;
        }
        Ok(())
    }

    fn write_target_config(&self) -> Result<()> {
        let home = self.path("target/home");
        fs::create_dir_all(&home)?;
        chown(&home, Some(TARGET_UID), Some(TARGET_UID))?;
        let users = fs::read_to_string("/etc/passwd")?;
        let user = format!("{TARGET_USER}:x:{TARGET_UID}:{TARGET_UID}::{}:/bin/sh\n", home.display());
        fs::write(self.path("target/passwd"), users + &user)?;
        let dir = self.path("target");
        let dir = dir.display();
        let config = format!(
            "{}\nHostKey {dir}/host_key\nAuthorizedKeysFile {dir}/authorized_keys\nPidFile none\nUsePAM no\n\
             StrictModes no\nPasswordAuthentication no\nPermitRootLogin yes\nAcceptEnv LANG LC_*\n\
             PrintMotd no\nPrintLastLog no\nSubsystem sftp internal-sftp\nListenAddress 127.0.0.1\nPort {}\n\
             LogLevel VERBOSE\nMaxStartups {}\nX11Forwarding yes\n",
            self.options.extra_target_config,
            self.target_port.number(),
            self.options.max_connections.map_or(100, logging_in)
        );
        Ok(fs::write(self.path("target/sshd_config"), config)?)
    }

    fn write_agent_config(&self) -> Result<()> {
        let BedOptions { ring_bytes, segment_max_age_ms, reattach_timeout_ms, .. } = self.options;
        let dir = self.dir.path().display();
        let config = format!(
            "state_dir = \"{dir}/agent\"\nstore = \"file://{}\"\nsigning_key = \"{dir}/agent/signing_key\"\n\
             control_socket = \"{dir}/run/agent.sock\"\ncontrol_group = \"nogroup\"\nallowed_uids = [{PROXY_UID}]\n\
             bpf_dir = \"{dir}/bpf\"\nring_bytes = {ring_bytes}\nsegment_max_age_ms = {segment_max_age_ms}\n\
             reattach_timeout_ms = {reattach_timeout_ms}\n",
            self.store().display()
        );
        Ok(fs::write(self.path("agent.toml"), config)?)
    }

    /// Writes the proxy's configuration, with this as the target's host key.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn write_proxy_config(&self, target_host_key: &str) -> Result<()> {
        self.write_proxy_resources(&format!(
            "[[resources]]\nname = \"target\"\nintegration = \"ssh\"\nhost = \"127.0.0.1\"\nport = {}\n\
             host_key = \"{target_host_key}\"\nprivate_key = \"{}\"\n",
            self.target_port.number(),
            self.path("proxy/login_key").display(),
        ))
    }

    /// Writes the proxy's configuration with these resources, and whatever else comes before them.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn write_proxy_resources(&self, resources: &str) -> Result<()> {
        let (dir, listen) = (self.dir.path().display(), &self.options.listen);
        let limits = self
            .options
            .max_connections
            .map(|most| format!("max_connections = {most}\nmax_unauthenticated = {}", logging_in(most)));
        let mut settings = self.options.proxy_settings.replace("DIR", &dir.to_string());
        if !["login_exempt", "login_failures", "per_source"].iter().any(|option| settings.contains(option)) {
            settings.insert_str(0, "login_exempt = [\"127.0.0.0/8\"]\n");
        }
        let config = format!(
            "listen = \"{listen}\"\nhost_key = \"{dir}/proxy/host_key\"\ngrants_dir = \"{dir}/proxy/grants\"\n\
             agent_socket = \"{dir}/run/agent.sock\"\nstall_timeout_ms = {}\nlogin_timeout_ms = {}\n\
             {}\n{settings}\n{resources}",
            self.options.stall_timeout_ms,
            self.options.login_timeout_ms,
            limits.unwrap_or_default(),
        );
        Ok(fs::write(self.path("proxy.toml"), config)?)
    }

    /// Writes the proxy's configuration with these lines besides the bed's own.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn reconfigure_proxy(&mut self, extra: &str) -> Result<()> {
        extra.clone_into(&mut self.options.proxy_settings);
        self.write_proxy_config(&self.public_key("target/host_key")?)
    }

    /// Where the proxy listens, on the loopback interface.
    ///
    /// # Panics
    /// If the proxy was never started.
    #[must_use]
    pub fn proxy_port(&self) -> u16 {
        self.proxy_port.expect("the proxy was started")
    }

    /// Writes a grant for the bed's user that expires then.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn write_grant(&self, id: &str, expires_at: &str) -> Result<()> {
        let keys = format!("public_keys = [\"{}\"]", self.public_key("user/key")?);
        Ok(fs::write(self.grant_file(id), Self::grant_text(expires_at, &keys))?)
    }

    /// The text of a grant for the bed's user, with these lines about proof and permissions.
    #[must_use]
    pub fn grant_text(expires_at: &str, lines: &str) -> String {
        format!(
            "user = \"ada@example.com\"\nresource = \"target\"\ntarget_login = \"root\"\nrequest_id = \"REQ-1042\"\n\
             approvers = [\"grace@example.com\"]\naccess_flow = \"on-call\"\nexpires_at = \"{expires_at}\"\n{lines}\n"
        )
    }

    /// Runs `ssh-keygen` in the bed's directory.
    ///
    /// # Panics
    /// If it fails; the message holds what it said.
    pub fn ssh_keygen(&self, arguments: &[&str]) {
        let output = Command::new("ssh-keygen").current_dir(self.dir.path()).args(arguments).output();
        let output = output.expect("ssh-keygen runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ssh-keygen {arguments:?}: {said}");
    }

    /// Writes a grant for the bed's user to a resource and a login there.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn write_grant_for(&self, id: &str, expires_at: &str, resource: &str, login: &str) -> Result<()> {
        let keys = format!("public_keys = [\"{}\"]", self.public_key("user/key")?);
        let grant = Self::grant_text(expires_at, &keys)
            .replace("resource = \"target\"", &format!("resource = \"{resource}\""))
            .replace("target_login = \"root\"", &format!("target_login = \"{login}\""));
        Ok(fs::write(self.grant_file(id), grant)?)
    }

    /// Where a grant lies.
    #[must_use]
    pub fn grant_file(&self, id: &str) -> PathBuf {
        self.path("proxy/grants").join(format!("{id}.toml"))
    }

    /// Starts the target's `sshd`.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn start_target(&mut self) -> Result<()> {
        // A login that is not root's, in a mount namespace of the target's own: the machine's users stay as they are.
        let script = "mount --bind \"$0\" /etc/passwd && exec /usr/sbin/sshd -D -e -f \"$1\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]);
        command.arg(self.path("target/passwd")).arg(self.path("target/sshd_config"));
        let mut target = Process::start("target sshd", &mut command, &self.path("target.log"))?;
        target.wait_for_line("Server listening", 0)?;
        self.target = Some(target);
        Ok(())
    }

    /// Starts the agent; again, if it was killed.
    ///
    /// # Errors
    /// If it does not come up; the error holds its log.
    pub fn start_agent(&mut self) -> Result<()> {
        let mut command = Command::new(self.path("bin/weir-agent"));
        command.arg("--config").arg(self.path("agent.toml")).env("NO_COLOR", "1");
        let mut agent = Process::start("weir-agent", &mut command, &self.path("agent.log"))?;
        agent.wait_for_line("ready", self.agent_starts)?;
        self.agent_starts += 1;
        self.agent = Some(agent);
        Ok(())
    }

    /// Starts the proxy, as a user without any privilege.
    ///
    /// # Errors
    /// If it does not come up; the error holds its log.
    pub fn start_proxy(&mut self) -> Result<()> {
        let mut command = Command::new(self.path("bin/weir-proxy"));
        command
            .arg("--config")
            .arg(self.path("proxy.toml"))
            .uid(PROXY_UID)
            .gid(PROXY_UID)
            .env("NO_COLOR", "1")
            .envs(self.options.proxy_env.iter().map(|(name, value)| (name, value)));
        let mut proxy = Process::start("weir-proxy", &mut command, &self.path("proxy.log"))?;
        let line = proxy.wait_for_line("ready", self.proxy_starts)?;
        self.proxy_starts += 1;
        let port = line
            .split("listen=")
            .nth(1)
            .and_then(|rest| rest.split_whitespace().next()?.rsplit(':').next()?.parse().ok());
        self.proxy_port = Some(port.with_context(|| format!("no port in {line:?}"))?);
        self.proxy = Some(proxy);
        Ok(())
    }

    /// The agent, out of the bed's hands: to kill it, say.
    ///
    /// # Panics
    /// If it does not run.
    pub fn take_agent(&mut self) -> Process {
        self.agent.take().expect("the agent runs")
    }

    /// The proxy, out of the bed's hands.
    ///
    /// # Panics
    /// If it does not run.
    pub fn take_proxy(&mut self) -> Process {
        self.proxy.take().expect("the proxy runs")
    }

    /// The running agent.
    ///
    /// # Panics
    /// If it does not run.
    #[must_use]
    pub fn agent(&self) -> &Process {
        self.agent.as_ref().expect("the agent runs")
    }

    /// The running target.
    ///
    /// # Panics
    /// If it does not run.
    #[must_use]
    pub fn target(&self) -> &Process {
        self.target.as_ref().expect("the target runs")
    }

    /// The running proxy.
    ///
    /// # Panics
    /// If it does not run.
    #[must_use]
    pub fn proxy(&self) -> &Process {
        self.proxy.as_ref().expect("the proxy runs")
    }

    /// Where the target's `sshd` listens, on loopback.
    #[must_use]
    pub fn target_port(&self) -> u16 {
        self.target_port.number()
    }

    /// The target's log.
    #[must_use]
    pub fn target_log(&self) -> String {
        fs::read_to_string(self.path("target.log")).unwrap_or_default()
    }

    /// Hands a file or a directory of the bed to the user that the proxy runs as.
    ///
    /// # Errors
    /// If it is not there.
    pub fn give_to_proxy(&self, sub: &str) -> Result<()> {
        Ok(chown(self.path(sub), Some(PROXY_UID), Some(PROXY_UID))?)
    }

    /// `ssh` through the connector with the user's key and the bed's grant; add a command, or not.
    #[must_use]
    pub fn ssh(&self) -> Command {
        self.ssh_as(GRANT, "user/key")
    }

    /// [`Self::ssh`] that shares one connection with the others (OpenSSH's `ControlMaster`), see [`Self::control_path`].
    #[must_use]
    pub fn shared_ssh(&self) -> Command {
        let mut command = self.ssh();
        command.arg("-o").arg(format!("ControlPath={}", self.control_path().display()));
        command
    }

    /// The socket of the shared connection; it is there once its master listens.
    #[must_use]
    pub fn control_path(&self) -> PathBuf {
        self.path("run/master")
    }

    /// `ssh` through the connector as somebody.
    #[must_use]
    pub fn ssh_as(&self, grant: &str, key: &str) -> Command {
        let mut command = Command::new("ssh");
        command.args(self.ssh_arguments(grant, key));
        command
    }

    /// The arguments of `ssh` through the connector.
    ///
    /// # Panics
    /// If the proxy was never started.
    #[must_use]
    pub fn ssh_arguments(&self, grant: &str, key: &str) -> Vec<String> {
        let port = self.proxy_port();
        let path = |sub: &str| self.path(sub).display().to_string();
        let options = ["-F", &path("user/ssh_config"), "-i", &path(key), "-p", &port.to_string()];
        let user = format!("{grant}@127.0.0.1");
        options.into_iter().chain([user.as_str()]).map(str::to_owned).collect()
    }

    /// A path in the bed.
    #[must_use]
    pub fn path(&self, sub: &str) -> PathBuf {
        self.dir.path().join(sub)
    }

    /// The store's directory.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.options.store.clone().unwrap_or_else(|| self.path("store"))
    }

    /// The signer's key in `allowed_signers` form.
    #[must_use]
    pub fn allowed_signers(&self) -> PathBuf {
        self.path("agent/allowed_signers")
    }

    /// Where binaries come from.
    #[must_use]
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// A public key of the bed, as one line.
    ///
    /// # Errors
    /// If there is none.
    pub fn public_key(&self, key: &str) -> Result<String> {
        let path = self.path(&format!("{key}.pub"));
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(text.trim().to_owned())
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        drop((self.proxy.take(), self.agent.take(), self.target.take()));
        if std::thread::panicking() {
            for log in ["proxy.log", "agent.log", "target.log"] {
                let text = fs::read_to_string(self.path(log)).unwrap_or_default();
                let tail: Vec<_> = text.lines().rev().take(40).collect();
                eprintln!("--- the end of {log} ---");
                tail.iter().rev().for_each(|line| eprintln!("{line}"));
            }
        }
        let _ = umount2(&self.path("bpf"), MntFlags::MNT_DETACH);
    }
}

/// How many of so many connections may be logging in.
fn logging_in(connections: usize) -> usize {
    (connections / 10).max(1)
}

/// Makes an Ed25519 key pair without a passphrase, unless it is there.
///
/// # Errors
/// If `ssh-keygen` fails.
pub fn keygen(path: &Path) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let output = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"])
        .arg(path)
        .output()?;
    ensure!(output.status.success(), "ssh-keygen: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
