//! Trying out what an agent asks of the kernel, on objects that nobody else sees.
//!
//! Nothing is pinned and no socket is touched but a pair of its own; maps, program and sockets are gone when it returns.
//! So it may run beside an agent at work. Not here: why the kernel refused, which takes a look at more than its answer.

use std::{
    fs,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::Arc,
};

use aya::{
    Ebpf,
    maps::{HashMap, Map, MapData, MapError},
    programs::ProgramError,
};
use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair},
};
use weir_common::abi::RecordHeader;

use super::{
    Ring, TapError, TapOptions, TapState,
    error::causes,
    load::{self, halves, make_maps, verify},
    rings::page_size,
    socket,
};

/// What is tried, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// The smallest of maps: whether bpf() can be used at all.
    Bpf,
    /// The maps of a ring, in the sizes that are configured.
    Maps,
    /// The program, past the verifier.
    Program,
    /// The filter on a socket, and locking it there.
    Attach,
    /// A message that is tossed, and one that is captured.
    Capture,
}

/// What the kernel did not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// At which step.
    pub step: Step,
    /// Its answer as a number, if it was one.
    pub errno: Option<i32>,
    /// The map, where one was refused.
    pub map: Option<String>,
    /// The answer in words.
    pub answer: String,
    /// What the verifier said last, where it was asked.
    pub verifier: Option<String>,
}

/// What came of trying.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probe {
    /// The first step that was refused; none if everything works.
    pub refused: Option<Refusal>,
    /// The kernel's memory behind a ring's maps, by its own account.
    pub maps_bytes: Option<u64>,
}

/// Tries everything, up to the first refusal: the maps of this many rings at a time, and the rest with one.
#[must_use]
pub fn probe(options: &TapOptions, rings: usize) -> Probe {
    load::raise_memlock();
    let mut probe = Probe::default();
    probe.refused = steps(options, rings, &mut probe.maps_bytes).err();
    probe
}

fn steps(options: &TapOptions, rings: usize, maps_bytes: &mut Option<u64>) -> Result<(), Refusal> {
    let refused = |step| move |error: TapError| Refusal::of(step, &error);
    smallest_map().map_err(refused(Step::Bpf))?;
    let mut object = make_maps(None, options).map_err(refused(Step::Maps))?;
    *maps_bytes = memory(&object);
    // Held together, as the agent will: limits are on the sum.
    let others = (1..rings).map(|_| make_maps(None, options)).collect::<Result<Vec<_>, _>>();
    drop(others.map_err(refused(Step::Maps))?);
    verify(&mut object).map_err(refused(Step::Program))?;
    // There are no pins to lock.
    let (mut taps, ring) = halves(object, page_size(), &Arc::default()).map_err(refused(Step::Maps))?;
    let pair = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC);
    let (from, to) =
        pair.map_err(|errno| Refusal::not_so(Step::Attach, format!("no socket pair: {errno}")))?;
    // Paused, so that it tosses until it is said to capture.
    let cookie = taps.arm(to.as_fd(), TapState::Paused).map_err(refused(Step::Attach))?;
    if !socket::is_locked(to.as_fd()).unwrap_or(false) {
        return Err(Refusal::not_so(Step::Attach, "the filter was not locked"));
    }
    pass(&from, b"to be tossed")?;
    if taken(&to).is_some() {
        return Err(Refusal::not_so(Step::Capture, "a message passed that was to be tossed"));
    }
    taps.set_state(cookie, TapState::Armed).map_err(refused(Step::Capture))?;
    captured(&from, &to, &ring, cookie.0)
}

/// Whether a message passes, and is in the ring.
fn captured(from: &OwnedFd, to: &OwnedFd, ring: &Ring, cookie: u64) -> Result<(), Refusal> {
    let message = b"to be captured";
    pass(from, message)?;
    if taken(to).as_deref() != Some(message) {
        return Err(Refusal::not_so(Step::Capture, "a message did not pass that was to be captured"));
    }
    let is_it = |record: super::Record<'_>| {
        RecordHeader::split(record.bytes)
            .is_some_and(|(header, bytes)| header.cookie == cookie && bytes == message)
    };
    if ring.records().map(is_it).collect::<Vec<_>>() != [true] {
        return Err(Refusal::not_so(Step::Capture, "a message passed that is not in the ring"));
    }
    Ok(())
}

fn pass(from: &OwnedFd, message: &[u8]) -> Result<(), Refusal> {
    match send(from.as_raw_fd(), message, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT) {
        Ok(_) => Ok(()),
        Err(errno) => Err(Refusal::not_so(Step::Capture, format!("sending through a tap: {errno}"))),
    }
}

/// What is in the socket's queue, if anything.
fn taken(socket: &OwnedFd) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 64];
    let received: Result<usize, Errno> = recv(socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT);
    bytes.truncate(received.ok()?);
    Some(bytes)
}

fn smallest_map() -> Result<(), TapError> {
    let made: Result<HashMap<MapData, u64, u32>, MapError> = HashMap::create(1, 0);
    made.map(drop).map_err(|source| TapError::Load { op: "creating a map", source: source.into() })
}

/// The kernel's memory behind an object's maps, as `/proc/self/fdinfo` has it.
fn memory(object: &Ebpf) -> Option<u64> {
    let bytes = object.maps().map(|(_, map)| {
        let (Map::HashMap(data) | Map::RingBuf(data)) = map else { return None };
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", data.fd().as_fd().as_raw_fd())).ok()?;
        let bytes = info.lines().find_map(|line| line.strip_prefix("memlock:"))?;
        bytes.trim().parse::<u64>().ok()
    });
    bytes.sum()
}

impl Refusal {
    fn of(step: Step, error: &TapError) -> Self {
        let answer = error.answer();
        let verifier = causes(error).find_map(|cause| match cause.downcast_ref() {
            Some(ProgramError::LoadError { verifier_log, .. }) => Some(verifier_log.to_string()),
            _ => None,
        });
        if let Some(log) = &verifier {
            tracing::debug!("the verifier's log:\n{log}");
        }
        let map = causes(error).find_map(|cause| match cause.downcast_ref() {
            Some(MapError::CreateError { name, .. }) => Some(name.clone()),
            _ => None,
        });
        Self {
            step,
            errno: answer.and_then(std::io::Error::raw_os_error),
            map: map.filter(|_| step == Step::Maps),
            answer: answer.map_or_else(|| error.to_string(), ToString::to_string),
            verifier: verifier.as_deref().and_then(verdict).map(str::to_owned),
        }
    }

    fn not_so(step: Step, answer: impl Into<String>) -> Self {
        Self { step, errno: None, map: None, answer: answer.into(), verifier: None }
    }
}

/// The line of a verifier's log that says why: the last one that is not about its own work.
fn verdict(log: &str) -> Option<&str> {
    let statistics = ["processed ", "verification time ", "stack depth ", "max_states"];
    let lines = log.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.rev().find(|line| !statistics.iter().any(|word| line.starts_with(word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_verdict_is_what_comes_before_its_statistics() {
        let log = "0: R1=ctx() R10=fp0\n5: (85) call bpf_skb_load_bytes#26\nR4 invalid zero-sized read\n\
                   verification time 42 usec\nstack depth 16\nprocessed 6 insns (limit 1000000)\n\n";
        assert_eq!(verdict(log), Some("R4 invalid zero-sized read"));
        assert_eq!(verdict("\nprocessed 0 insns\n"), None);
    }
}
