//! The target leg: an SSH client that does what the frames say.
//!
//! One [`Connection`] per session, a channel on it per tap. Nothing reaches the target that was not taken from
//! a tap, and what the target says goes into a tap before anything else sees it.

mod address;
mod channel;
mod connect;
mod credential;
mod error;
mod forwarding;
mod global;
mod handler;
mod host_key;
pub(crate) mod known_hosts;
mod learned;

use std::sync::Arc;

use russh::{ChannelId, Disconnect, client};
use tokio_util::sync::CancellationToken;
use weir_common::session::TargetPeer;

pub(crate) use self::handler::signal_name;
pub use self::{
    connect::connect,
    credential::{CredentialError, Login},
    error::{ConnectError, Failure},
    host_key::{Presented, Refusal},
    known_hosts::KnownHostsError,
    learned::LearnError,
};
use self::{forwarding::Forwardings, handler::Handler};
use crate::{
    gate::{Bypass, Gate},
    session::Session,
    tap::{self, Routes},
};

/// A connection to a target, logged in.
pub struct Connection {
    handle: client::Handle<Handler>,
    routes: Arc<Routes<ChannelId>>,
    forwardings: Arc<Forwardings>,
    gate: Arc<Gate>,
    lost: CancellationToken,
    peer: TargetPeer,
}

impl Connection {
    /// The target as it was found.
    #[must_use]
    pub fn peer(&self) -> &TargetPeer {
        &self.peer
    }

    /// Serves the target's end of a tap until the channel is closed.
    pub async fn serve(self: Arc<Self>, end: tap::End, session: Arc<Session>) {
        channel::report(&session, channel::serve(&self, end, session.stall_timeout()).await);
    }

    /// Keeps reading the target whatever is held, until the guard is dropped: for a wait that only the target
    /// can end.
    #[must_use]
    pub fn bypass(&self) -> Bypass {
        self.gate.bypass()
    }

    /// Resolves when the target has gone.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Says goodbye.
    pub async fn close(&self) {
        // The target may have gone first.
        let _ = self.handle.disconnect(Disconnect::ByApplication, "session over", "").await;
    }
}
