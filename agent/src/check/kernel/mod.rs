//! The kernel and this process's rights: whether the tap would work here, in plain sentences.
//!
//! [`Facts`] are gathered first, what the kernel answers to a try among them; what is found is a function of those, so that
//! every kind of node can be tested on one. The kernel's own answer decides: versions and settings only say why.

mod capabilities;
mod cause;
mod facts;
mod rights;
#[cfg(test)]
mod tests;

use self::{
    cause::{Cause, cause},
    facts::Facts,
};
use super::Finding;
use crate::{
    config::Config,
    tap::{Refusal, Step},
};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// Looks at the kernel, and tries what the agent asks of it.
pub(super) fn kernel(config: &Config) -> Vec<Finding> {
    findings(&Facts::gather(config))
}

fn findings(facts: &Facts) -> Vec<Finding> {
    let cause = cause(facts);
    let mut findings = vec![release(facts), rights::capabilities(facts, cause)];
    findings.push(rights::user_namespace(facts, cause));
    findings.push(rights::seccomp(facts, cause));
    findings.extend(rights::security_module(facts, cause));
    findings.push(rights::memory_limit(facts, cause));
    let refused = facts.probe.refused.as_ref();
    let done = |step| refused.is_none_or(|refusal| refusal.step > step);
    if done(Step::Maps) {
        findings.push(maps(facts));
    }
    if done(Step::Program) {
        findings.push(Finding::ok("BPF program", "accepted by the verifier"));
    }
    if done(Step::Capture) {
        findings.push(Finding::ok("tap", "what passes is captured, and nothing else passes"));
    }
    findings.extend(refused.zip(cause).map(|(refusal, cause)| refusal_of(facts, refusal, cause)));
    findings.extend(jit(facts));
    findings
}

fn release(facts: &Facts) -> Finding {
    let Facts { release, machine, .. } = facts;
    let text = format!("Linux {release} on {machine}");
    if !["x86_64", "aarch64"].contains(&machine.as_str()) {
        return Finding::warning("kernel", text).advice("Weir is for x86-64 and arm64");
    }
    if facts.is_before(5, 8) {
        Finding::warning("kernel", format!("{text}, from before 5.8, with which all came that Weir needs"))
            .advice(
                "take a kernel of 5.10 or newer, unless all is well below: distributions carry things back",
            )
    } else if facts.is_before(5, 10) {
        Finding::warning("kernel", format!("{text}: it should do, and nothing before 5.10 is tested"))
    } else if facts.version().is_none() {
        Finding::cannot_tell("kernel", format!("{text}: which version that is"))
    } else {
        Finding::ok("kernel", text)
    }
}

fn maps(facts: &Facts) -> Finding {
    let Facts { rings, ring_bytes, max_taps, estimated_bytes, .. } = facts;
    let ring = match u64::from(*ring_bytes) {
        bytes if bytes < MIB => format!("{} KiB", bytes / KIB),
        bytes => format!("{} MiB", bytes / MIB),
    };
    let each = if *rings == 1 { "a ring".to_owned() } else { format!("{rings} rings, each") };
    let all = estimated_bytes.div_ceil(MIB);
    let text = format!("{each} of {ring} and {max_taps} taps: {all} MiB of the kernel's memory");
    Finding::ok("BPF maps", text)
}

fn jit(facts: &Facts) -> Option<Finding> {
    // Hidden in a network namespace.
    Some(match facts.jit? {
        0 => Finding::ok("BPF compiler", "off (net.core.bpf_jit_enable = 0): that works, and costs time"),
        _ => Finding::ok("BPF compiler", "on"),
    })
}

/// What was refused. Where the cause has a finding of its own, that is the problem, and this only says what it led to.
fn refusal_of(facts: &Facts, refusal: &Refusal, cause: Cause) -> Finding {
    let Refusal { step, errno: _, map, answer, verifier } = refusal;
    let (about, what) = match step {
        Step::Bpf => ("bpf()", "the smallest map is refused".to_owned()),
        Step::Maps => {
            let map = map.as_deref().map_or_else(|| "a map".to_owned(), |map| format!("the map {map}"));
            ("BPF maps", format!("{map} is refused"))
        }
        Step::Program => ("BPF program", "the program is refused".to_owned()),
        Step::Attach => ("tap", "the filter is refused".to_owned()),
        Step::Capture => ("tap", "a tap does not do what it should".to_owned()),
    };
    let is_verdict = matches!(cause, Cause::Verifier | Cause::StrictVerifier);
    let text = match verifier.as_deref().filter(|_| !is_verdict) {
        Some(reason) => format!("{what}: {answer}: {reason}"),
        None => format!("{what}: {answer}"),
    };
    match cause {
        Cause::NoSyscall => Finding::problem(about, "this kernel has no bpf()")
            .advice("take a kernel with CONFIG_BPF_SYSCALL; those of distributions have it"),
        Cause::NoRingBuffer => {
            Finding::problem(about, format!("{text}: this kernel has no BPF ring buffers"))
                .advice("take a kernel of 5.10 or newer: they came with 5.8")
        }
        Cause::Memory => {
            let needed = facts.estimated_bytes.div_ceil(MIB);
            Finding::problem(about, format!("{text}: {needed} MiB are needed")).advice(
                "raise the memory limit of the container or unit, which counts the maps since Linux 5.11, \
                 or lower ring_bytes or max_taps",
            )
        }
        Cause::Verifier | Cause::StrictVerifier => {
            const SEND: &str =
                "WEIR_LOG=debug shows the verifier's whole log: send it to us with the kernel's release";
            let reason = verifier.as_deref().map(|line| format!(": {line}")).unwrap_or_default();
            let finding = Finding::problem(about, format!("the verifier refuses it{reason} ({answer})"));
            match cause {
                Cause::StrictVerifier => finding.advice(format!(
                    "{SEND}. Before 6.17 verifiers are stricter without CAP_PERFMON, which the program is made to \
                     pass. Granting that may help until it does; but with it and CAP_BPF the agent may read all of \
                     the kernel's memory"
                )),
                _ => finding.advice(SEND),
            }
        }
        Cause::Unknown => Finding::problem(about, text)
            .advice("look into the kernel's log (dmesg) and the audit log for the reason"),
        Cause::UserNamespace | Cause::Capability | Cause::Seccomp | Cause::Module(_) | Cause::Memlock => {
            Finding::cannot_tell(about, format!("{text}, for the reason above"))
        }
    }
}
