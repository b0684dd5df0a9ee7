//! Targets besides the bed's own: an `sshd` with host keys and accounts of its own.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::{Bed, Port, Process, bed::keygen};

/// An account that only an [`Sshd`] has.
pub const ACCOUNT: &str = "deploy";

/// Its password.
pub const PASSWORD: &str = "correct horse battery staple";

/// [`PASSWORD`], as crypt(3) writes it.
const PASSWORD_HASH: &str =
    "$6$weirtests$S7LE23inTzFwZxkjHcMdBRvuE2r9FXlcFG4m4zPHpeQYUtRBw1dIE1j8qrjGhAhixcle13G9grYO/aw2DaL7i1";

/// Its accounts are bind-mounted over the machine's in a mount namespace of its own, so that nothing of this machine is
/// changed.
const START: &str = "mount --bind $0/passwd /etc/passwd && mount --bind $0/shadow /etc/shadow && \
     { [ ! -e $0/pam ] || mount --bind $0/pam /etc/pam.d/sshd; } && exec /usr/sbin/sshd -D -e -f $0/sshd_config";

/// A target of its own.
#[derive(Debug)]
pub struct Sshd {
    /// Its directory.
    pub dir: PathBuf,
    /// Its port on the loopback interface.
    pub port: u16,
    _reserved: Port,
    process: Process,
}

impl Sshd {
    /// Starts one in the bed's directory `name`, with this added to its configuration. `DIR` in it stands for the
    /// directory; what is there already is left there.
    ///
    /// # Panics
    /// If it does not come up.
    #[must_use]
    pub fn start(bed: &Bed, name: &str, config: &str) -> Self {
        Self::try_start(bed, name, config).unwrap_or_else(|error| panic!("{name}: {error:#}"))
    }

    fn try_start(bed: &Bed, name: &str, config: &str) -> Result<Self> {
        let (dir, reserved) = (bed.path(name), Port::reserve()?);
        let port = reserved.number();
        fs::create_dir_all(&dir)?;
        keygen(&dir.join("host_key"))?;
        let accounts = ["root", "sshd", "nobody"]
            .map(|account| fs::read_to_string("/etc/passwd").map(|passwd| line(&passwd, account)))
            .into_iter()
            .collect::<Result<String, _>>()?;
        fs::write(dir.join("passwd"), format!("{accounts}{ACCOUNT}:x:54321:65534::/tmp:/bin/sh\n"))?;
        fs::write(
            dir.join("shadow"),
            format!("root:*:19000::::::\n{ACCOUNT}:{PASSWORD_HASH}:19000::::::\n"),
        )?;
        let text = format!(
            "ListenAddress 127.0.0.1\nPort {port}\nPidFile none\nStrictModes no\nPermitRootLogin yes\nLogLevel DEBUG1\n\
             PrintMotd no\nPrintLastLog no\nMaxStartups 100\n{}\nHostKey {}/host_key\nUsePAM no\nPasswordAuthentication no\n\
             AuthorizedKeysFile {}/authorized_keys\n",
            config.replace("DIR", &dir.display().to_string()),
            dir.display(),
            dir.display(),
        );
        fs::write(dir.join("sshd_config"), text)?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", START]).arg(&dir);
        let mut process = Process::start(name, &mut command, &dir.join("log"))?;
        process.wait_for_line("Server listening", 0)?;
        Ok(Self { dir, port, _reserved: reserved, process })
    }

    /// Everything it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The text of a file in its directory, without the line's end.
    ///
    /// # Panics
    /// If it can't be read.
    #[must_use]
    pub fn read(&self, file: &str) -> String {
        let path = self.dir.join(file);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        text.trim_end().to_owned()
    }

    /// Its host key's fingerprint, as `ssh-keygen -l` says it.
    ///
    /// # Panics
    /// If `ssh-keygen` does not say it.
    #[must_use]
    pub fn fingerprint(&self, key: &str) -> String {
        let shown = Command::new("ssh-keygen").arg("-lf").arg(self.dir.join(key)).output().expect("it runs");
        let text = String::from_utf8_lossy(&shown.stdout).into_owned();
        text.split(' ').nth(1).expect("size, fingerprint, comment").to_owned()
    }
}

/// Runs `ssh-keygen` with these arguments.
///
/// # Errors
/// What it says, if it fails.
pub fn ssh_keygen(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ssh-keygen")
        .arg("-q")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .context("ssh-keygen")?;
    ensure!(output.status.success(), "ssh-keygen {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn line(passwd: &str, account: &str) -> String {
    let found = passwd.lines().find(|line| line.split(':').next() == Some(account));
    found.map_or_else(String::new, |line| format!("{line}\n"))
}
