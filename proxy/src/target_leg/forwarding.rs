//! What the client has asked the target to forward, and so which channels the target may open.
//!
//! A target that opens others is refused: the client's agent, display and network are not its to use unasked.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use weir_common::frame::{ChannelType, TcpAddress};

use crate::limits;

/// One connection's forwardings.
#[derive(Debug, Default)]
pub(super) struct Forwardings {
    agent: AtomicBool,
    x11: AtomicBool,
    listening: Mutex<HashMap<Listening, usize>>,
}

/// Where the target listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Listening {
    /// At a TCP port. The address is not compared: a target may write it in another way (RFC 4254 section 7.1).
    Port(u32),
    /// At a Unix socket.
    Path(String),
}

impl Listening {
    pub(super) fn at(address: &TcpAddress) -> Self {
        Self::Port(address.port)
    }
}

/// Stands for every port while the target is choosing one.
const ANY_PORT: u32 = 0;

impl Forwardings {
    fn lock(&self) -> MutexGuard<'_, HashMap<Listening, usize>> {
        // No code can panic while it holds the lock and leave the map half changed.
        self.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client asked to forward its agent.
    pub(super) fn expect_agent(&self) {
        self.agent.store(true, Ordering::Release);
    }

    /// The client asked to forward X11.
    pub(super) fn expect_x11(&self) {
        self.x11.store(true, Ordering::Release);
    }

    /// The target listens there, once more.
    pub(super) fn listens(&self, at: Listening) {
        *self.lock().entry(at).or_default() += 1;
    }

    /// Whether no more places may be asked for.
    pub(super) fn is_full(&self) -> bool {
        self.lock().len() >= limits::LISTENING
    }

    /// The target was asked to listen there no more.
    pub(super) fn listens_no_more(&self, at: &Listening) {
        let mut listening = self.lock();
        match listening.get_mut(at) {
            Some(times) if *times > 1 => *times -= 1,
            _ => drop(listening.remove(at)),
        }
    }

    /// Whether something that the client asked for calls for such a channel.
    pub(super) fn expects(&self, channel: &ChannelType) -> bool {
        match channel {
            ChannelType::ForwardedTcpip { listening, .. } => {
                let asked = self.lock();
                asked.contains_key(&Listening::at(listening))
                    || asked.contains_key(&Listening::Port(ANY_PORT))
            }
            ChannelType::ForwardedStreamlocal { path } => {
                self.lock().contains_key(&Listening::Path(path.clone()))
            }
            ChannelType::Agent => self.agent.load(Ordering::Acquire),
            ChannelType::X11 { .. } => self.x11.load(Ordering::Acquire),
            ChannelType::Session
            | ChannelType::DirectTcpip { .. }
            | ChannelType::DirectStreamlocal { .. }
            | ChannelType::Connection => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use weir_common::frame::Originator;

    use super::*;

    fn originator() -> Originator {
        Originator { address: "192.0.2.1".to_owned(), port: 4000 }
    }

    fn to_port(port: u32) -> ChannelType {
        let listening = TcpAddress { host: "localhost".to_owned(), port };
        ChannelType::ForwardedTcpip { listening, originator: originator() }
    }

    #[test]
    fn nothing_is_expected_that_was_not_asked_for() {
        let forwardings = Forwardings::default();
        for channel in [
            to_port(80),
            ChannelType::ForwardedStreamlocal { path: "/run/s".to_owned() },
            ChannelType::Agent,
            ChannelType::X11 { originator: originator() },
            ChannelType::Session,
        ] {
            assert!(!forwardings.expects(&channel), "{channel:?}");
        }
    }

    #[test]
    fn what_was_asked_for_is_expected_until_it_is_cancelled_as_often_as_it_was_asked_for() {
        let forwardings = Forwardings::default();
        let at = Listening::Port(80);
        forwardings.listens(at.clone());
        forwardings.listens(at.clone());
        forwardings.listens_no_more(&at);
        assert!(forwardings.expects(&to_port(80)));
        assert!(!forwardings.expects(&to_port(81)));
        forwardings.listens_no_more(&at);
        assert!(!forwardings.expects(&to_port(80)));
    }
}
