//! Why the kernel refused, as far as its answer and the facts tell.

use super::{
    capabilities::{BPF, PERFMON, SYS_ADMIN},
    facts::{Facts, Process},
};
use crate::tap::{Refusal, Step};

/// A reason for a refusal: the one that has to go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// There is no bpf().
    NoSyscall,
    /// A user namespace, in which capabilities are worth nothing to bpf().
    UserNamespace,
    /// CAP_BPF is not effective.
    Capability,
    /// A seccomp filter.
    Seccomp,
    /// SELinux or AppArmor.
    Module(&'static str),
    /// RLIMIT_MEMLOCK.
    Memlock,
    /// The kernel has no ring buffers.
    NoRingBuffer,
    /// There is no memory, or the cgroup may not have more.
    Memory,
    /// The verifier took exception to the program.
    Verifier,
    /// The same, of a kernel that is stricter with who lacks CAP_PERFMON, as this process does.
    StrictVerifier,
    /// Something that is not known here.
    Unknown,
}

/// The cause of the probe's refusal; none if nothing was refused.
pub(super) fn cause(facts: &Facts) -> Option<Cause> {
    let Refusal { step, errno, map: _, answer: _, verifier } = facts.probe.refused.as_ref()?;
    Some(match (step, *errno) {
        // Some profiles of container runtimes say so of what they do not permit.
        (_, Some(libc::ENOSYS)) if is_filtered(facts) => Cause::Seccomp,
        (_, Some(libc::ENOSYS)) => Cause::NoSyscall,
        (_, Some(libc::ENOMEM)) => Cause::Memory,
        (Step::Maps, Some(libc::EINVAL)) => Cause::NoRingBuffer,
        (_, Some(errno @ (libc::EPERM | libc::EACCES))) => forbidden(facts, *step, errno, verifier.is_some()),
        (Step::Program, _) => judged(facts, verifier.is_some()),
        _ => Cause::Unknown,
    })
}

fn forbidden(facts: &Facts, step: Step, errno: i32, has_verdict: bool) -> Cause {
    if facts.in_first_user_namespace == Some(false) {
        return Cause::UserNamespace;
    }
    if !may_bpf(facts) {
        return Cause::Capability;
    }
    if step == Step::Program && has_verdict {
        return judged(facts, has_verdict);
    }
    // What SELinux forbids is EACCES; the kernel itself and AppArmor say EPERM.
    if errno == libc::EACCES && facts.labelling() == Some("SELinux") {
        return Cause::Module("SELinux");
    }
    if step > Step::Bpf && is_memlock_short(facts) {
        return Cause::Memlock;
    }
    // A filter sees which call it is and not what for: a profile that permits the first permits them all.
    if step == Step::Bpf && is_filtered(facts) {
        return Cause::Seccomp;
    }
    match facts.labelling() {
        Some(module) => Cause::Module(module),
        None if is_memlock_short(facts) => Cause::Memlock,
        None => Cause::Unknown,
    }
}

/// Whether this process has a capability that bpf() asks for; if that is not known, the kernel's answer stands.
pub(super) fn may_bpf(facts: &Facts) -> bool {
    facts.process.as_ref().is_none_or(|process| {
        process.effective.has(SYS_ADMIN) || (knows_cap_bpf(facts) && process.effective.has(BPF))
    })
}

/// Verifiers before 6.17 also follow branches that are never taken, as a processor might that guesses, in what processes
/// without CAP_PERFMON load. The program is made to pass that.
fn judged(facts: &Facts, has_verdict: bool) -> Cause {
    let lacks = |process: &Process| !process.effective.has(PERFMON) && !process.effective.has(SYS_ADMIN);
    let is_stricter = facts.is_before(6, 17) && facts.process.as_ref().is_some_and(lacks);
    if has_verdict && is_stricter { Cause::StrictVerifier } else { Cause::Verifier }
}

/// Whether the kernel has CAP_BPF, which came with 5.8; distributions carry it back.
pub(super) fn knows_cap_bpf(facts: &Facts) -> bool {
    facts.last_capability.is_none_or(|last| last >= BPF)
}

/// Whether the kernel is one that counts BPF's memory against RLIMIT_MEMLOCK, and that is too little.
pub(super) fn is_memlock_short(facts: &Facts) -> bool {
    facts.is_before(5, 11) && facts.memlock.is_some_and(|limit| limit < facts.estimated_bytes)
}

pub(super) fn is_filtered(facts: &Facts) -> bool {
    facts.process.as_ref().is_some_and(|process| process.is_filtered)
}
