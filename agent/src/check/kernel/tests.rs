//! Nodes of every kind, and what is said of them.

use super::{
    super::{Finding, Level},
    Facts, MIB,
    capabilities::{BPF, Capabilities, PERFMON, SYS_ADMIN, SYS_RESOURCE},
    facts::Process,
    findings,
};
use crate::tap::{Probe, Refusal, Step};

/// What Docker gives root in a container.
const OF_A_CONTAINER: u64 = 0xa804_25fb;
const ALL: u64 = 0x1ff_ffff_ffff;

/// A node on which all is well: an ordinary user with CAP_BPF.
fn node(release: &str) -> Facts {
    Facts {
        release: release.to_owned(),
        machine: "x86_64".to_owned(),
        process: Some(Process {
            uid: 995,
            effective: Capabilities::of(&[BPF]),
            bounding: Capabilities(ALL),
            is_filtered: false,
        }),
        last_capability: Some(40),
        in_first_user_namespace: Some(true),
        memlock: Some(8 * MIB),
        jit: Some(1),
        estimated_bytes: 22 * MIB,
        rings: 1,
        ring_bytes: 16 * 1024 * 1024,
        max_taps: 16_384,
        ..Facts::default()
    }
}

fn process(uid: u32, effective: u64, bounding: u64, is_filtered: bool) -> Option<Process> {
    Some(Process { uid, effective: Capabilities(effective), bounding: Capabilities(bounding), is_filtered })
}

fn refused(step: Step, errno: i32) -> Probe {
    let map = (step == Step::Maps).then(|| "RING".to_owned());
    let answer = std::io::Error::from_raw_os_error(errno).to_string();
    Probe {
        refused: Some(Refusal { step, errno: Some(errno), map, answer, verifier: None }),
        maps_bytes: None,
    }
}

fn rejected(verdict: &str) -> Probe {
    let mut probe = refused(Step::Program, libc::EACCES);
    if let Some(refusal) = &mut probe.refused {
        refusal.verifier = Some(verdict.to_owned());
    }
    probe
}

fn find(findings: &[Finding], about: &str) -> Finding {
    let found = findings.iter().find(|finding| finding.about == about);
    found.unwrap_or_else(|| panic!("nothing about {about} in {findings:#?}")).clone()
}

/// The problems: what they are about, and text and advice in one.
fn problems(facts: &Facts) -> Vec<(&'static str, String)> {
    let problem = |finding: Finding| {
        (finding.level == Level::Problem)
            .then(|| (finding.about, format!("{} → {}", finding.text, finding.advice.unwrap_or_default())))
    };
    findings(facts).into_iter().filter_map(problem).collect()
}

#[test]
fn where_all_works_nothing_is_worse_than_ok_whatever_the_version() {
    for release in ["6.18.44", "5.10.0-35-cloud-amd64", "7.3-rc2"] {
        let facts = Facts { memlock: Some(u64::MAX), ..node(release) };
        let found = findings(&facts);
        assert!(found.iter().all(|finding| finding.level == Level::Ok), "{release}: {found:#?}");
        assert_eq!(find(&found, "capabilities").text, "CAP_BPF");
        for about in ["kernel", "user namespace", "seccomp", "memory limit", "BPF maps", "BPF program", "tap"]
        {
            find(&found, about);
        }
    }
}

#[test]
fn each_reason_is_the_only_problem_and_says_what_to_do() {
    let cases: Vec<(&str, Facts, &str, &[&str])> = vec![
        (
            "no CAP_BPF on a host",
            Facts {
                process: process(995, 0, ALL, false),
                probe: refused(Step::Bpf, libc::EPERM),
                ..node("6.1.0")
            },
            "capabilities",
            &[
                "CAP_BPF is missing",
                "(995)",
                "systemd: AmbientCapabilities=CAP_BPF;",
                "--cap-add BPF;",
                "[BPF]",
            ],
        ),
        (
            "a container's root",
            Facts {
                process: process(0, OF_A_CONTAINER, OF_A_CONTAINER, true),
                probe: refused(Step::Bpf, libc::EPERM),
                ..node("6.1.0")
            },
            "capabilities",
            &["CAP_BPF is missing", "root here", "--cap-add BPF;", "CapabilityBoundingSet="],
        ),
        (
            "a container's user to which it was added",
            Facts {
                process: process(1000, 0, OF_A_CONTAINER | 1 << BPF, false),
                probe: refused(Step::Bpf, libc::EPERM),
                ..node("6.1.0")
            },
            "capabilities",
            &["CAP_BPF is missing", "user 0 only", "setcap cap_bpf=ep"],
        ),
        (
            "no CAP_BPF in the kernel",
            Facts {
                process: process(995, 0, ALL, false),
                last_capability: Some(37),
                probe: refused(Step::Bpf, libc::EPERM),
                ..node("5.4.0-200-generic")
            },
            "capabilities",
            &["CAP_SYS_ADMIN is missing", "AmbientCapabilities=CAP_SYS_ADMIN"],
        ),
        (
            "a verifier that is strict with users who have nothing",
            Facts {
                process: process(995, 0, ALL, false),
                probe: rejected("R0 pointer comparison prohibited"),
                ..node("6.1.0")
            },
            "capabilities",
            &["CAP_BPF is missing"],
        ),
        (
            "a user namespace",
            Facts {
                process: process(0, ALL, ALL, false),
                in_first_user_namespace: Some(false),
                probe: refused(Step::Bpf, libc::EPERM),
                ..node("6.1.0")
            },
            "user namespace",
            &["no capability permits bpf()", "hostUsers: false", "PrivateUsers="],
        ),
        (
            "a seccomp filter",
            Facts {
                process: process(0, 1 << BPF, 1 << BPF, true),
                probe: refused(Step::Bpf, libc::EPERM),
                ..node("6.1.0")
            },
            "seccomp",
            &["refuses bpf()", "seccompProfile", "SystemCallFilter=bpf"],
        ),
        (
            "a seccomp filter that hides the call",
            Facts {
                process: process(0, ALL, ALL, true),
                probe: refused(Step::Bpf, libc::ENOSYS),
                ..node("6.1.0")
            },
            "seccomp",
            &["refuses bpf()"],
        ),
        (
            "SELinux",
            Facts {
                modules: vec!["lockdown".to_owned(), "selinux".to_owned()],
                label: Some("system_u:system_r:container_t:s0:c1,c2".to_owned()),
                probe: refused(Step::Bpf, libc::EACCES),
                ..node("6.1.0")
            },
            "security module",
            &["SELinux", "container_t", "ausearch", "spc_t"],
        ),
        (
            "AppArmor",
            Facts {
                label: Some("docker-default (enforce)".to_owned()),
                probe: refused(Step::Bpf, libc::EPERM),
                ..node("6.1.0")
            },
            "security module",
            &["AppArmor", "docker-default", "capability bpf,"],
        ),
        (
            "little locked memory before 5.11",
            Facts {
                memlock: Some(64 * 1024),
                probe: refused(Step::Maps, libc::EPERM),
                ..node("5.10.0-35-cloud-amd64")
            },
            "memory limit",
            &["RLIMIT_MEMLOCK is 64 KiB", "22 MiB", "LimitMEMLOCK=infinity", "CAP_SYS_RESOURCE"],
        ),
        (
            "no ring buffers",
            Facts { probe: refused(Step::Maps, libc::EINVAL), ..node("5.4.0-200-generic") },
            "BPF maps",
            &["RING", "no BPF ring buffers", "5.10 or newer"],
        ),
        (
            "no bpf()",
            Facts { probe: refused(Step::Bpf, libc::ENOSYS), ..node("6.1.0-custom") },
            "bpf()",
            &["no bpf()", "CONFIG_BPF_SYSCALL"],
        ),
        (
            "a small cgroup",
            Facts { probe: refused(Step::Maps, libc::ENOMEM), ..node("6.1.0") },
            "BPF maps",
            &["22 MiB", "memory limit", "ring_bytes"],
        ),
        (
            "a verifier that is strict with who lacks CAP_PERFMON",
            Facts {
                probe: rejected("R1 min value is outside of the allowed memory range"),
                ..node("6.12.0")
            },
            "BPF program",
            &[
                "R1 min value is outside",
                "→ WEIR_LOG=debug",
                "stricter without CAP_PERFMON",
                "kernel's memory",
            ],
        ),
        (
            "a verifier that refuses where CAP_PERFMON changes nothing",
            Facts {
                probe: rejected("R1 min value is outside of the allowed memory range"),
                ..node("6.18.0")
            },
            "BPF program",
            &["R1 min value is outside", "WEIR_LOG=debug"],
        ),
        (
            "a verifier that refuses",
            Facts {
                process: process(995, 1 << BPF | 1 << PERFMON, ALL, false),
                probe: rejected("R4 invalid zero-sized read"),
                ..node("6.12.0")
            },
            "BPF program",
            &["R4 invalid zero-sized read", "WEIR_LOG=debug"],
        ),
        (
            "something else",
            Facts { probe: refused(Step::Bpf, libc::EPERM), ..node("6.1.0") },
            "bpf()",
            &["the smallest map is refused: Operation not permitted", "dmesg"],
        ),
    ];
    for (what, facts, about, said) in cases {
        let problems = problems(&facts);
        assert_eq!(problems.len(), 1, "{what}: {problems:#?}");
        assert_eq!(problems[0].0, about, "{what}: {problems:#?}");
        for words in said {
            assert!(problems[0].1.contains(words), "{what}: no {words:?} in {problems:#?}");
        }
    }
}

#[test]
fn cap_perfmon_is_not_mentioned_where_it_would_change_nothing() {
    let verdict = || rejected("R1 min value is outside of the allowed memory range");
    let given = process(995, 1 << BPF | 1 << PERFMON, ALL, false);
    for (what, facts) in [
        ("a kernel that does not ask for it", Facts { probe: verdict(), ..node("6.18.0") }),
        ("it is there", Facts { process: given, probe: verdict(), ..node("6.12.0") }),
        ("no verdict", Facts { probe: refused(Step::Program, libc::EINVAL), ..node("6.12.0") }),
    ] {
        let problems = problems(&facts);
        assert!(problems.len() == 1 && !problems[0].1.contains("PERFMON"), "{what}: {problems:#?}");
    }
}

#[test]
fn what_was_refused_is_said_beside_the_reason_and_what_was_not_tried_is_not_said_to_work() {
    let memlock = Some(64 * 1024);
    let found = findings(&Facts { memlock, probe: refused(Step::Maps, libc::EPERM), ..node("5.10.0") });
    let maps = find(&found, "BPF maps");
    assert_eq!(maps.level, Level::CannotTell);
    assert!(maps.text.contains("RING") && maps.text.contains("reason above"), "{}", maps.text);
    assert!(!found.iter().any(|finding| ["BPF program", "tap"].contains(&finding.about)), "{found:#?}");
    let not_so = Refusal {
        step: Step::Capture,
        errno: None,
        map: None,
        answer: "a message passed that is not in the ring".to_owned(),
        verifier: None,
    };
    let probe = Probe { refused: Some(not_so), maps_bytes: None };
    let found = findings(&Facts { probe, ..node("6.1.0") });
    assert_eq!((find(&found, "BPF program").level, find(&found, "tap").level), (Level::Ok, Level::Problem));
}

#[test]
fn capabilities_that_are_more_than_enough_are_named_or_counted() {
    for (release, effective, last, expected) in [
        ("6.18.0", 1 << BPF, 40, "CAP_BPF"),
        ("6.18.0", 1 << BPF | 1 << PERFMON, 40, "CAP_BPF; the kernel part does without CAP_PERFMON"),
        (
            "6.12.0",
            1 << BPF | 1 << PERFMON | 1 << 12,
            40,
            "CAP_BPF; the kernel part does without CAP_NET_ADMIN, CAP_PERFMON",
        ),
        ("6.18.0", ALL, 40, "CAP_BPF; the kernel part does without 40 others"),
        ("6.1.0", 1 << SYS_ADMIN, 40, "CAP_SYS_ADMIN, which is more than it takes"),
        ("5.10.0", 1 << SYS_ADMIN, 37, "CAP_SYS_ADMIN, as this kernel has no CAP_BPF"),
    ] {
        let facts = Facts {
            process: process(0, effective, ALL, false),
            last_capability: Some(last),
            memlock: Some(u64::MAX),
            ..node(release)
        };
        let finding = find(&findings(&facts), "capabilities");
        assert_eq!((finding.level, finding.text.as_str()), (Level::Ok, expected));
    }
    let lifts = process(995, 1 << BPF | 1 << SYS_RESOURCE, ALL, false);
    let finding = find(&findings(&Facts { process: lifts, ..node("5.10.0") }), "capabilities");
    assert_eq!(finding.text, "CAP_SYS_RESOURCE, CAP_BPF", "before 5.11 it has its use");
}

#[test]
fn what_works_against_the_odds_or_is_not_tested_is_a_warning() {
    let anybody = Facts { process: process(995, 0, ALL, false), ..node("6.1.0") };
    let machine = "riscv64".to_owned();
    let inside = Facts { in_first_user_namespace: Some(false), ..node("6.18.0") };
    let short = Facts { memlock: Some(64 * 1024), ..node("5.10.0") };
    for (facts, about, said) in [
        (anybody, "capabilities", "lets anybody use bpf()"),
        (inside, "user namespace", "works in it all the same"),
        (short, "memory limit", "may count BPF's memory"),
        (node("5.4.0-200-generic"), "kernel", "from before 5.8"),
        (node("4.18.0-553.el8_10.x86_64"), "kernel", "from before 5.8"),
        (node("5.9.0"), "kernel", "nothing before 5.10 is tested"),
        (Facts { machine, ..node("6.1.0") }, "kernel", "riscv64"),
    ] {
        assert_eq!(problems(&facts), [], "{about}");
        let finding = find(&findings(&facts), about);
        assert_eq!(finding.level, Level::Warning, "{finding:?}");
        assert!(finding.text.contains(said), "{finding:?}");
    }
}

#[test]
fn what_cannot_be_read_is_said_and_is_no_problem_where_the_kernel_takes_everything() {
    let facts = Facts { process: None, in_first_user_namespace: None, jit: None, ..node("next") };
    assert_eq!(problems(&facts), []);
    for about in ["kernel", "capabilities", "user namespace"] {
        assert_eq!(find(&findings(&facts), about).level, Level::CannotTell, "{about}");
    }
}
