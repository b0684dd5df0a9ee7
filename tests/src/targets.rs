//! Sessions to targets of a test's own making.

use std::{fs, os::unix::fs::PermissionsExt, process::Output};

use serde_json::Value;

use crate::{ACCOUNT, Bed, BedOptions, Sshd};

/// A time that no grant of a test lives to see.
pub const NEVER: &str = "2099-01-01T00:00:00Z";

/// A bed whose own target is never started.
#[must_use]
pub fn bed() -> Bed {
    Bed::prepare_temporary(BedOptions::default())
}

/// A resource of this name at a target, with this said of host key and credential, and a grant of the same name.
///
/// # Panics
/// If the grant can't be written.
#[must_use]
pub fn resource(bed: &Bed, name: &str, target: &Sshd, more: &str) -> String {
    bed.write_grant_for(name, NEVER, name, ACCOUNT).expect("written");
    format!(
        "[[resources]]\nname = \"{name}\"\nintegration = \"ssh\"\nhost = \"127.0.0.1\"\nport = {}\n{more}\n",
        target.port
    )
}

/// The target's own key, pinned.
#[must_use]
pub fn pinned(target: &Sshd) -> String {
    format!("host_key = \"{}\"\n", target.read("host_key.pub"))
}

/// The connector's key as the credential.
#[must_use]
pub fn login_key(bed: &Bed) -> String {
    format!("private_key = \"{}\"\n", bed.path("proxy/login_key").display())
}

/// Writes a file that only the proxy may read, and gives its path.
///
/// # Panics
/// If it can't be written.
#[must_use]
pub fn secret(bed: &Bed, name: &str, text: &str) -> String {
    let sub = format!("proxy/{name}");
    fs::write(bed.path(&sub), text).expect("written");
    fs::set_permissions(bed.path(&sub), fs::Permissions::from_mode(0o600)).expect("changed");
    bed.give_to_proxy(&sub).expect("given");
    bed.path(&sub).display().to_string()
}

/// Lets the connector's key in.
///
/// # Panics
/// If it can't be written.
pub fn admit_login_key(bed: &Bed, target: &Sshd) {
    fs::copy(bed.path("proxy/login_key.pub"), target.dir.join("authorized_keys")).expect("copied");
}

/// Starts agent and proxy with these resources.
///
/// # Panics
/// If they do not come up.
pub fn start(bed: &mut Bed, resources: &str) {
    bed.write_proxy_resources(resources).expect("written");
    bed.start_agent().expect("the agent starts");
    bed.start_proxy().expect("the proxy starts");
}

/// Runs a command by a grant.
///
/// # Panics
/// If there is no `ssh`.
#[must_use]
pub fn run(bed: &Bed, grant: &str) -> Output {
    bed.ssh_as(grant, "user/key").args(["-o", "BatchMode=yes", "echo in"]).output().expect("ssh runs")
}

/// What it said on standard error.
#[must_use]
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a session and gives what its manifest says of the target.
///
/// # Panics
/// If it does not get there.
#[must_use]
pub fn reached(bed: &Bed, grant: &str, session: usize) -> Value {
    let output = run(bed, grant);
    assert_eq!(output.stdout, b"in\n", "{grant}: {}", said(&output));
    let recording = bed.recording(session);
    bed.assert_verifies(&recording);
    recording.manifest["target"].clone()
}

/// Runs a session that does not reach its target, for this reason, which names nothing that users need not know.
///
/// # Panics
/// If it does, or another is said.
pub fn refused(bed: &Bed, grant: &str, reason: &str) {
    let output = run(bed, grant);
    assert_eq!(output.status.code(), Some(255), "{grant}");
    let answer = said(&output);
    assert!(answer.contains(reason), "{grant} should say {reason:?}: {answer}");
    let told: Vec<_> = answer.lines().filter(|line| line.contains("weir:")).collect();
    assert!(told.iter().all(|line| !line.contains(ACCOUNT) && !line.contains("/proxy/")), "{told:?}");
}
