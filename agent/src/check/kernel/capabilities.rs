//! Sets of capabilities, as `/proc/<pid>/status` has them (capabilities(7)).

/// Their names by number (`linux/capability.h` of Linux 6.18), without the `CAP_` that all have.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

pub(super) const SYS_ADMIN: u32 = 21;
pub(super) const SYS_RESOURCE: u32 = 24;
pub(super) const PERFMON: u32 = 38;
pub(super) const BPF: u32 = 39;

/// A set of capabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Capabilities(pub(super) u64);

impl Capabilities {
    pub(super) fn of(numbers: &[u32]) -> Self {
        Self(numbers.iter().fold(0, |set, number| set | 1 << number))
    }

    pub(super) fn has(self, number: u32) -> bool {
        self.0 & (1 << number) != 0
    }

    pub(super) fn without(self, numbers: &[u32]) -> Self {
        Self(numbers.iter().fold(self.0, |set, number| set & !(1 << number)))
    }

    /// Those of them that are in the set.
    pub(super) fn and(self, numbers: &[u32]) -> Self {
        Self(self.0 & !self.without(numbers).0)
    }

    pub(super) fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Their names, in the order of their numbers.
    pub(super) fn names(self) -> String {
        let name = |number: u32| match NAMES.get(number as usize) {
            Some(name) => format!("CAP_{name}"),
            None => format!("capability {number}"),
        };
        (0..u64::BITS).filter(|&number| self.has(number)).map(name).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_names_what_is_in_it() {
        assert_eq!(Capabilities::of(&[BPF, PERFMON]).names(), "CAP_PERFMON, CAP_BPF");
        assert_eq!(Capabilities::of(&[0, SYS_ADMIN, SYS_RESOURCE, 50]).without(&[SYS_ADMIN]).names(), {
            "CAP_CHOWN, CAP_SYS_RESOURCE, capability 50"
        });
        assert_eq!((Capabilities::default().names(), Capabilities(7).len()), (String::new(), 3));
    }
}
