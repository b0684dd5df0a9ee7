//! What can be read about the kernel and about this process's rights, without a judgement.

use std::{ffi::OsStr, fs, path::Path};

use nix::sys::{
    resource::{RLIM_INFINITY, Resource, getrlimit},
    utsname::uname,
};

use super::capabilities::Capabilities;
use crate::{
    config::Config,
    tap::{Probe, probe},
};

/// The inode of the first user namespace: `PROC_USER_INIT_INO` of `include/linux/proc_ns.h`.
const FIRST_USER_NAMESPACE: &str = "user:[4026531837]";

/// What is known. `None` is for what could not be read.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// As `uname -r`.
    pub(super) release: String,
    /// As `uname -m`.
    pub(super) machine: String,
    pub(super) process: Option<Process>,
    /// The highest capability that the kernel knows.
    pub(super) last_capability: Option<u32>,
    pub(super) in_first_user_namespace: Option<bool>,
    /// The kernel's security modules that are active.
    pub(super) modules: Vec<String>,
    /// The label that they have given this process.
    pub(super) label: Option<String>,
    /// RLIMIT_MEMLOCK in bytes, after trying to lift it; the largest number is no limit.
    pub(super) memlock: Option<u64>,
    /// `net.core.bpf_jit_enable`.
    pub(super) jit: Option<u32>,
    /// Roughly what the configuration takes of the kernel's memory.
    pub(super) estimated_bytes: u64,
    pub(super) rings: u64,
    pub(super) ring_bytes: u32,
    pub(super) max_taps: u32,
    pub(super) probe: Probe,
}

/// What `/proc/self/status` says (proc_pid_status(5)).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Process {
    /// The effective user.
    pub(super) uid: u32,
    pub(super) effective: Capabilities,
    pub(super) bounding: Capabilities,
    /// Whether a seccomp filter is in place.
    pub(super) is_filtered: bool,
}

impl Facts {
    /// Reads and tries everything.
    pub(super) fn gather(config: &Config) -> Self {
        let name = uname().ok();
        let text = |value: &OsStr| value.to_string_lossy().into_owned();
        let rings = config.cpu_groups.len();
        let probe = probe(&config.tap, rings);
        let rings = rings as u64;
        Self {
            release: name.as_ref().map_or_else(String::new, |name| text(name.release())),
            machine: name.as_ref().map_or_else(String::new, |name| text(name.machine())),
            process: read("/proc/self/status").and_then(|status| Process::parse(&status)),
            last_capability: number("/proc/sys/kernel/cap_last_cap"),
            in_first_user_namespace: fs::read_link("/proc/self/ns/user")
                .ok()
                .map(|link| link == Path::new(FIRST_USER_NAMESPACE)),
            modules: read("/sys/kernel/security/lsm")
                .map(|list| list.trim().split(',').map(str::to_owned).collect())
                .unwrap_or_default(),
            label: read("/proc/self/attr/current")
                .map(|label| label.trim_end_matches(['\0', '\n']).to_owned())
                .filter(|label| !label.is_empty()),
            // The probe has lifted it, if that can be done.
            memlock: getrlimit(Resource::RLIMIT_MEMLOCK)
                .ok()
                .map(|(soft, _)| if soft == RLIM_INFINITY { u64::MAX } else { soft }),
            jit: number("/proc/sys/net/core/bpf_jit_enable"),
            estimated_bytes: rings * probe.maps_bytes.unwrap_or_else(|| config.tap.estimated_bytes()),
            rings,
            ring_bytes: config.tap.ring_bytes,
            max_taps: config.tap.max_taps,
            probe,
        }
    }

    /// The release's first two numbers.
    pub(super) fn version(&self) -> Option<(u32, u32)> {
        let mut numbers = self.release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    }

    /// Whether the kernel is from before this version.
    pub(super) fn is_before(&self, major: u32, minor: u32) -> bool {
        self.version().is_some_and(|version| version < (major, minor))
    }

    /// The security module that may keep this process from things by its label, if there is one.
    pub(super) fn labelling(&self) -> Option<&'static str> {
        let is_active = |name: &str| self.modules.iter().any(|module| module == name);
        let label = self.label.as_deref().unwrap_or_default();
        // SELinux's are user:role:type:level; AppArmor's are a profile's name.
        if is_active("selinux") || (self.modules.is_empty() && label.contains(':')) {
            Some("SELinux")
        } else if label.starts_with("unconfined") {
            None
        } else if is_active("apparmor") || (self.modules.is_empty() && !label.is_empty()) {
            Some("AppArmor")
        } else {
            None
        }
    }
}

impl Process {
    fn parse(status: &str) -> Option<Self> {
        let field = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            Some(value.trim())
        };
        let set = |name| u64::from_str_radix(field(name)?, 16).ok().map(Capabilities);
        Some(Self {
            // The real, the effective, the saved one and that for files.
            uid: field("Uid")?.split_ascii_whitespace().nth(1)?.parse().ok()?,
            effective: set("CapEff")?,
            bounding: set("CapBnd")?,
            is_filtered: field("Seccomp") == Some("2"),
        })
    }
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn number(path: &str) -> Option<u32> {
    read(path)?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_and_one_without_capabilities_is_none() {
        let status = "Name:\tweir-agent\nUid:\t0\t995\t995\t995\nCapEff:\t0000008000000000\n\
                      CapBnd:\t000001ffffffffff\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n";
        let expected = Process {
            uid: 995,
            effective: Capabilities::of(&[super::super::capabilities::BPF]),
            bounding: Capabilities(0x1ff_ffff_ffff),
            is_filtered: true,
        };
        assert_eq!(Process::parse(status), Some(expected));
        assert_eq!(Process::parse("Uid:\t0\t0\t0\t0\n"), None);
    }

    #[test]
    fn releases_of_distributions_have_a_version() {
        for (release, version) in [
            ("6.18.44-fc-v470", Some((6, 18))),
            ("5.10.0-35-cloud-amd64", Some((5, 10))),
            ("7.3-rc2", Some((7, 3))),
            ("4.18.0-553.el8_10.x86_64", Some((4, 18))),
            ("next", None),
            ("", None),
        ] {
            let facts = Facts { release: release.to_owned(), ..Facts::default() };
            assert_eq!(facts.version(), version, "{release}");
        }
    }

    #[test]
    fn a_label_says_whose_it_is_where_the_list_of_modules_is_hidden() {
        for (modules, label, expected) in [
            (&[][..], Some("system_u:system_r:container_t:s0:c1,c2"), Some("SELinux")),
            (&[], Some("docker-default (enforce)"), Some("AppArmor")),
            (&["capability", "apparmor"], None, Some("AppArmor")),
            (&["capability", "apparmor"], Some("unconfined"), None),
            (&["capability", "yama"], None, None),
            (&[], None, None),
        ] {
            let facts = Facts {
                modules: modules.iter().map(|&name| name.to_owned()).collect(),
                label: label.map(str::to_owned),
                ..Facts::default()
            };
            assert_eq!(facts.labelling(), expected, "{modules:?} {label:?}");
        }
    }
}
