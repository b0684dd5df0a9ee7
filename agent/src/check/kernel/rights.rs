//! What may keep this process from bpf(): capabilities, a user namespace, seccomp, a security module, a limit.

use super::{
    KIB, MIB,
    capabilities::{BPF, Capabilities, SYS_ADMIN, SYS_RESOURCE},
    cause::{Cause, is_filtered, is_memlock_short, knows_cap_bpf, may_bpf},
    facts::{Facts, Process},
};
use crate::check::Finding;

/// A bounding set of fewer is a container's, and not a host's.
const LEAST_OF_A_HOST: u32 = 32;
/// More names than these are only counted.
const NAMED_MAX: u32 = 6;

pub(super) fn capabilities(facts: &Facts, cause: Option<Cause>) -> Finding {
    const ABOUT: &str = "capabilities";
    let Some(process) = &facts.process else {
        return Finding::cannot_tell(ABOUT, "/proc/self/status cannot be read");
    };
    if facts.in_first_user_namespace == Some(false) {
        return Finding::cannot_tell(ABOUT, "those of a user namespace, which bpf() does not ask for");
    }
    if may_bpf(facts) {
        return Finding::ok(ABOUT, held(facts, process));
    }
    let (name, missing) = if knows_cap_bpf(facts) { ("CAP_BPF", BPF) } else { ("CAP_SYS_ADMIN", SYS_ADMIN) };
    if cause.is_none() {
        return Finding::warning(ABOUT, format!("{name} is missing, and this kernel lets anybody use bpf()"))
            .advice(format!(
                "{}; it counts as soon as kernel.unprivileged_bpf_disabled is set",
                granting(process, missing)
            ));
    }
    Finding::problem(ABOUT, format!("{name} is missing: {} may not use bpf()", user(process)))
        .advice(granting(process, missing))
}

/// The capabilities of a process that has enough.
fn held(facts: &Facts, process: &Process) -> String {
    let set = process.effective;
    let useful: &[u32] = if facts.is_before(5, 11) { &[BPF, SYS_RESOURCE] } else { &[BPF] };
    let others = set.without(useful);
    let names = |set: Capabilities| {
        if set.len() > NAMED_MAX { format!("{} others", set.len()) } else { set.names() }
    };
    match (set.has(BPF), others.len()) {
        (true, 0) => set.names(),
        (true, _) => {
            let needed = set.and(useful).names();
            format!("{needed}; the kernel part does without {}", names(others))
        }
        (false, _) if knows_cap_bpf(facts) => "CAP_SYS_ADMIN, which is more than it takes".to_owned(),
        (false, _) => "CAP_SYS_ADMIN, as this kernel has no CAP_BPF".to_owned(),
    }
}

fn user(process: &Process) -> String {
    match process.uid {
        0 => "root here".to_owned(),
        uid => format!("this user ({uid})"),
    }
}

/// How to get a capability, where this process seems to be.
fn granting(process: &Process, missing: u32) -> String {
    let name = Capabilities::of(&[missing]).names();
    let short = name.trim_start_matches("CAP_");
    let in_container =
        format!("Docker: --cap-add {short}; Kubernetes: securityContext.capabilities.add: [{short}]");
    if !process.bounding.has(missing) {
        format!("{in_container}; systemd: AmbientCapabilities={name}, and in CapabilityBoundingSet= too")
    } else if process.uid != 0 && process.bounding.len() < LEAST_OF_A_HOST {
        // What is added to a container only root gets there.
        format!(
            "containers give it to user 0 only: run as that with all other capabilities dropped, or mark the file: \
             setcap {}=ep (which allowPrivilegeEscalation: false undoes)",
            name.to_lowercase()
        )
    } else {
        format!("systemd: AmbientCapabilities={name}; {in_container}")
    }
}

pub(super) fn user_namespace(facts: &Facts, cause: Option<Cause>) -> Finding {
    const ABOUT: &str = "user namespace";
    match facts.in_first_user_namespace {
        Some(true) => Finding::ok(ABOUT, "the node's own"),
        None => Finding::cannot_tell(ABOUT, "/proc/self/ns/user cannot be read"),
        Some(false) if cause == Some(Cause::UserNamespace) => {
            Finding::problem(ABOUT, "one of its own, in which no capability permits bpf()").advice(
                "run the agent in the node's: Kubernetes without hostUsers: false, containers by root and \
                 without userns-remap, systemd without PrivateUsers=",
            )
        }
        Some(false) => Finding::warning(ABOUT, "one of its own, and bpf() works in it all the same")
            .advice("that may change with the kernel's settings: run the agent in the node's"),
    }
}

pub(super) fn seccomp(facts: &Facts, cause: Option<Cause>) -> Finding {
    const ABOUT: &str = "seccomp";
    match (is_filtered(facts), cause) {
        (false, _) => Finding::ok(ABOUT, "no filter"),
        (true, Some(Cause::Seccomp)) => {
            Finding::problem(ABOUT, "a filter refuses bpf(), whatever the capabilities").advice(
                "use a profile that permits bpf: Docker before 23.0 ties it to CAP_SYS_ADMIN. Kubernetes: \
                 securityContext.seccompProfile; Docker: --security-opt seccomp=FILE; systemd: SystemCallFilter=bpf",
            )
        }
        (true, Some(Cause::Capability | Cause::UserNamespace)) => {
            Finding::cannot_tell(ABOUT, "a filter is in place; whether it permits bpf() shows when the rest is right")
        }
        (true, _) => Finding::ok(ABOUT, "a filter, which permits bpf()"),
    }
}

pub(super) fn security_module(facts: &Facts, cause: Option<Cause>) -> Option<Finding> {
    const ABOUT: &str = "security module";
    let module = facts.labelling()?;
    let label = facts.label.as_deref().map(|label| format!(" (as {label})")).unwrap_or_default();
    Some(match cause {
        Some(Cause::Module(_)) => {
            let advice = match module {
                "SELinux" => {
                    "ausearch -m avc says what is missing: permit class bpf, or run it as spc_t: Kubernetes: \
                     seLinuxOptions.type: spc_t; Docker: --security-opt label=disable"
                }
                _ => {
                    "the kernel's log says what it denied: permit `capability bpf,` in the profile, or \
                     Docker: --security-opt apparmor=unconfined"
                }
            };
            Finding::problem(ABOUT, format!("{module}{label} seems to refuse bpf()")).advice(advice)
        }
        None => Finding::ok(ABOUT, format!("{module}{label} permits bpf()")),
        Some(_) => Finding::cannot_tell(ABOUT, format!("{module}{label}: not asked yet")),
    })
}

pub(super) fn memory_limit(facts: &Facts, cause: Option<Cause>) -> Finding {
    const ABOUT: &str = "memory limit";
    if !facts.is_before(5, 11) && cause != Some(Cause::Memlock) {
        return Finding::ok(ABOUT, "RLIMIT_MEMLOCK counts no BPF since Linux 5.11");
    }
    let needed = facts.estimated_bytes.div_ceil(MIB);
    let text = match facts.memlock {
        None => return Finding::cannot_tell(ABOUT, "RLIMIT_MEMLOCK cannot be seen"),
        Some(u64::MAX) => "RLIMIT_MEMLOCK is unlimited".to_owned(),
        Some(bytes) => format!("RLIMIT_MEMLOCK is {} KiB", bytes / KIB),
    };
    let advice = "systemd: LimitMEMLOCK=infinity; Docker: --ulimit memlock=-1; or CAP_SYS_RESOURCE, with which the \
                  agent lifts it";
    if cause == Some(Cause::Memlock) {
        Finding::problem(
            ABOUT,
            format!("{text}; before Linux 5.11 it holds BPF's memory too, and {needed} MiB are needed"),
        )
        .advice(advice)
    } else if is_memlock_short(facts) {
        Finding::warning(ABOUT, format!("{text}; this kernel may count BPF's memory, {needed} MiB"))
            .advice(advice)
    } else {
        Finding::ok(ABOUT, format!("{text}; {needed} MiB are needed"))
    }
}
