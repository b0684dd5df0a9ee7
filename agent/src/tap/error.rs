//! What can go wrong between the agent and the kernel. The kernel's and aya's own errors are sources.

use std::{io, path::PathBuf};

use weir_common::session::SocketCookie;

/// An error of somebody else's type, so that aya's types stay inside the module.
pub(crate) type Source = Box<dyn std::error::Error + Send + Sync>;

/// An error of the tap.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The ring can't have this size.
    #[error("a ring of {ring_bytes} bytes: it has to be a power of two, at least {min}")]
    RingSize {
        /// The configured size.
        ring_bytes: u32,
        /// The smallest size on this machine.
        min: u64,
    },
    /// There is no BPF filesystem.
    #[error("{} is no BPF filesystem; mount one with `mount -t bpf bpf {}`", path.display(), path.display())]
    NoBpffs {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A file operation failed.
    #[error("{op} {}", path.display())]
    File {
        /// What was tried.
        op: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Another process holds the pin directory.
    #[error("another agent is using the taps below {}", path.display())]
    InUse {
        /// The pin directory.
        path: PathBuf,
    },
    /// A map of this name is pinned, and it is not laid out as this agent expects.
    #[error("pinned map {}: {field} is {found} and not {expected}; another program owns it", path.display())]
    PinnedLayout {
        /// The pin.
        path: PathBuf,
        /// What differs.
        field: &'static str,
        /// What this agent expects.
        expected: String,
        /// What the pinned map has.
        found: String,
    },
    /// The kernel refused the program or a map of it.
    #[error("loading the BPF program ({op})")]
    Load {
        /// The step.
        op: &'static str,
        /// Why it failed.
        source: Source,
    },
    /// The object this agent was built with has no such program or map.
    #[error("the BPF object has no {name}; build it with `cargo xtask build-ebpf`")]
    Missing {
        /// The name.
        name: &'static str,
    },
    /// A map operation failed.
    #[error("{op} in the {map} map")]
    Map {
        /// What was tried.
        op: &'static str,
        /// The map's name.
        map: &'static str,
        /// Why it failed.
        source: Source,
    },
    /// The ring can't be mapped into memory.
    #[error("mapping the ring's {part}")]
    Mmap {
        /// Which pages.
        part: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// Neither this agent's version nor one that it reads.
    #[error("taps of ABI version {abi} are not for this version of the agent")]
    UnknownAbi {
        /// The version.
        abi: u16,
    },
    /// Taps of an older version end, and none is added.
    #[error("the session was begun under an older version of the agent; open a new one")]
    OlderAbi,
    /// The descriptor is something else than a tap's socket.
    #[error("not a tap socket (AF_UNIX, SOCK_SEQPACKET): {found}")]
    NotATapSocket {
        /// What it is.
        found: String,
    },
    /// An operation on the socket failed.
    #[error("{op} on the socket")]
    Socket {
        /// What was tried.
        op: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The socket has a filter that nobody can replace any more: it was armed before, or its owner locked one.
    #[error("the socket has a locked filter already")]
    Locked,
    /// Something was sent before the socket was armed, so nothing recorded it.
    #[error("the socket had {bytes} unrecorded bytes queued when it was armed")]
    NotEmpty {
        /// How many bytes.
        bytes: u64,
    },
    /// There are as many taps as there may be.
    #[error("all {max_taps} taps are in use")]
    TapsFull {
        /// How many there may be.
        max_taps: u32,
    },
    /// No tap has this cookie.
    #[error("no tap has the socket cookie {}", cookie.0)]
    UnknownTap {
        /// The cookie.
        cookie: SocketCookie,
    },
}

impl TapError {
    /// Whether the node may be the reason: the kernel, a privilege, the BPF file system.
    #[must_use]
    pub fn is_of_the_node(&self) -> bool {
        matches!(
            self,
            Self::NoBpffs { .. }
                | Self::File { .. }
                | Self::Load { .. }
                | Self::Map { .. }
                | Self::Mmap { .. }
                | Self::Socket { .. }
        )
    }

    /// The kernel's answer, if it was one.
    pub(super) fn answer(&self) -> Option<&io::Error> {
        causes(self).find_map(|cause| cause.downcast_ref())
    }
}

/// An error and what caused it.
pub(super) fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}
