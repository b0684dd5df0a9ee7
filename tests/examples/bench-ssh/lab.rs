//! What is measured: a Weir, its target, and a second `sshd` to jump through.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use weir_tests::{Bed, BedOptions, GRANT, Port, Process, eventually_within, keygen};

use crate::usage::{self, Usage};

/// A way from client to target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// `ssh` to the target's `sshd`.
    Direct,
    /// `ssh -J` through a second `sshd`.
    Jump,
    /// `ssh` to the connector.
    Weir,
}

impl Route {
    pub(crate) const ALL: [Self; 3] = [Self::Direct, Self::Jump, Self::Weir];

    /// Every route once; another begins in every round.
    pub(crate) fn in_round(round: usize) -> impl Iterator<Item = Self> {
        (0..Self::ALL.len()).map(move |turn| Self::ALL[(round + turn) % Self::ALL.len()])
    }

    fn host(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Jump => "jump",
            Self::Weir => "weir",
        }
    }
}

/// What the client offers, on every connection that it makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    /// OpenSSH's own lists.
    Default,
    /// Only the cipher `aes128-gcm@openssh.com`.
    AesGcm,
    /// Only the key exchange `curve25519-sha256`.
    Curve25519,
}

impl Offer {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::AesGcm => "AES-GCM",
            Self::Curve25519 => "curve25519",
        }
    }

    fn config(self) -> &'static str {
        match self {
            Self::Default => "bench/ssh_config",
            Self::AesGcm => "bench/ssh_config_gcm",
            Self::Curve25519 => "bench/ssh_config_25519",
        }
    }

    fn lines(self) -> &'static str {
        match self {
            Self::Default => "",
            Self::AesGcm => "Ciphers aes128-gcm@openssh.com\n",
            Self::Curve25519 => "KexAlgorithms curve25519-sha256\n",
        }
    }
}

/// Everything that is needed, running.
pub(crate) struct Lab {
    bed: Bed,
    jump: Process,
    _jump_port: Port,
    /// Sessions through Weir that are not in the store yet.
    under_way: usize,
}

/// More than a thousand idle sessions take, and the ones that measure.
const MAX_CONNECTIONS: usize = 1_200;
/// How long the agent may take to store what it has.
const STORING_PATIENCE: Duration = Duration::from_secs(300);

impl Lab {
    pub(crate) fn start(bin: &Path) -> Result<Self> {
        let options = BedOptions { max_connections: Some(MAX_CONNECTIONS), ..BedOptions::default() };
        let mut bed = Bed::prepare(bin, options)?;
        let jump_port = Port::reserve()?;
        write_servers(&bed, jump_port.number())?;
        bed.start_target()?;
        bed.start_agent()?;
        bed.start_proxy()?;
        write_client(&bed, jump_port.number())?;
        let mut command = Command::new("/usr/sbin/sshd");
        command.args(["-D", "-e", "-f"]).arg(bed.path("bench/sshd_config"));
        let mut jump = Process::start("jump sshd", &mut command, &bed.path("jump.log"))?;
        jump.wait_for_line("Server listening", 0)?;
        Ok(Self { bed, jump, _jump_port: jump_port, under_way: 0 })
    }

    /// `ssh` by a route; add options and a command. A session through Weir is waited for by [`Self::stored`].
    pub(crate) fn ssh(&mut self, route: Route, offer: Offer) -> Command {
        self.count(route, 1);
        let mut command = Command::new("ssh");
        command.arg("-F").arg(self.bed.path(offer.config())).arg(route.host()).stdin(Stdio::null());
        command
    }

    /// Says that sessions were opened by other means.
    pub(crate) fn count(&mut self, route: Route, sessions: usize) {
        if route == Route::Weir {
            self.under_way += sessions;
        }
    }

    /// Waits until every session through Weir is stored and ended well, and the jump host is quiet.
    pub(crate) fn stored(&mut self) -> Result<Vec<PathBuf>> {
        let sessions = eventually_within(STORING_PATIENCE, "every session is in the store", || {
            let sessions = self.bed.finished_sessions();
            (sessions.len() >= self.under_way).then_some(sessions)
        });
        ensure!(
            sessions.len() == self.under_way,
            "{} sessions instead of {}",
            sessions.len(),
            self.under_way
        );
        for dir in &sessions {
            let manifest: Value = serde_json::from_slice(&fs::read(dir.join("manifest.json"))?)?;
            let outcome = &manifest["outcome"];
            ensure!(outcome["kind"] == "completed", "the session in {} ended with {outcome}", dir.display());
        }
        eventually_within(STORING_PATIENCE, "the jump host's connections end", || {
            (usage::children(self.jump.pid()) == 0).then_some(())
        });
        Ok(sessions)
    }

    /// [`Self::stored`], and makes room for the next.
    pub(crate) fn settle(&mut self) -> Result<()> {
        for dir in self.stored()? {
            fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
        }
        self.under_way = 0;
        Ok(())
    }

    /// What was used until now. Call it when everything is settled.
    pub(crate) fn usage(&self) -> Result<Usage> {
        Ok(Usage {
            proxy: usage::cpu_time(self.bed.proxy().pid())?,
            agent: usage::cpu_time(self.bed.agent().pid())?,
            jump: usage::cpu_time_with_children(self.jump.pid())?,
        })
    }

    pub(crate) fn bed(&self) -> &Bed {
        &self.bed
    }

    /// Writes a file for the target to read.
    pub(crate) fn file(&self, name: &str, content: &[u8]) -> Result<PathBuf> {
        let path = self.bed.path("bench").join(name);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

/// What both servers need, before they start.
fn write_servers(bed: &Bed, port: u16) -> Result<()> {
    fs::create_dir_all(bed.path("bench"))?;
    keygen(&bed.path("bench/host_key"))?;
    // The user's own key gets into target and jump host, besides the connector's.
    let (user, connector) = (bed.public_key("user/key")?, bed.public_key("proxy/login_key")?);
    fs::write(bed.path("target/authorized_keys"), format!("{connector}\n{user}\n"))?;
    fs::write(bed.path("bench/authorized_keys"), format!("{user}\n"))?;
    let dir = bed.path("bench");
    let dir = dir.display();
    let config = format!(
        "HostKey {dir}/host_key\nAuthorizedKeysFile {dir}/authorized_keys\nPidFile none\nUsePAM no\nStrictModes no\n\
         PasswordAuthentication no\nPermitRootLogin yes\nPrintMotd no\nPrintLastLog no\n\
         ListenAddress 127.0.0.1\nPort {port}\nLogLevel VERBOSE\nMaxStartups 100\n"
    );
    fs::write(bed.path("bench/sshd_config"), config)?;
    // Without what this machine's root has in its .bashrc, which may take longer than everything else.
    fs::create_dir_all(bed.path("bench/home"))?;
    let target = fs::read_to_string(bed.path("target/sshd_config"))?;
    Ok(fs::write(bed.path("target/sshd_config"), format!("{target}SetEnv HOME={dir}/home\n"))?)
}

/// What the client needs, when all ports are known.
fn write_client(bed: &Bed, jump_port: u16) -> Result<()> {
    let weir_port = bed.proxy_port();
    let ports = [
        (bed.target_port(), "target/host_key"),
        (jump_port, "bench/host_key"),
        (weir_port, "proxy/host_key"),
    ];
    let known: Result<Vec<_>> = ports
        .iter()
        .map(|(port, key)| Ok(format!("[127.0.0.1]:{port} {}\n", bed.public_key(key)?)))
        .collect();
    fs::write(bed.path("bench/known_hosts"), known?.concat())?;
    let host = |name: &str, user: &str, port: u16, more: &str| {
        format!("Host {name}\nHostName 127.0.0.1\nUser {user}\nPort {port}\n{more}\n")
    };
    let common = format!(
        "{}{}{}{}Host *\nUserKnownHostsFile {}\nStrictHostKeyChecking yes\nIdentityFile {}\n\
         IdentitiesOnly yes\nIdentityAgent none\nLogLevel ERROR\n",
        host("direct", "root", bed.target_port(), ""),
        host("hop", "root", jump_port, ""),
        host("jump", "root", bed.target_port(), "ProxyJump hop"),
        host("weir", GRANT, weir_port, ""),
        bed.path("bench/known_hosts").display(),
        bed.path("user/key").display(),
    );
    // The hop is given the same file, so what it says holds for both connections.
    [Offer::Default, Offer::AesGcm, Offer::Curve25519]
        .iter()
        .try_for_each(|offer| Ok(fs::write(bed.path(offer.config()), format!("{common}{}", offer.lines()))?))
}
