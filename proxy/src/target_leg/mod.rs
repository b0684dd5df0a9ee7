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
use tokio::time::timeout;
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
    limits,
    session::Session,
    tap::{self, Routes},
};

/// A connection to a target, logged in.
pub struct Connection {
    handle: client::Handle<Handler>,
    routes: Arc<Routes<ChannelId>>,
    forwardings: Arc<Forwardings>,
    gate: Severing,
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
        // The target may have gone first, or read nothing any more.
        let goodbye = self.handle.disconnect(Disconnect::ByApplication, "session over", "");
        let _ = timeout(limits::WIND_DOWN, goodbye).await;
        let _ = timeout(limits::WIND_DOWN, self.lost.cancelled()).await;
        self.gate.sever();
    }
}

/// The gate of a connection, which is cut when nobody wants it any more: russh's loop would go on with a target that says
/// nothing.
pub(crate) struct Severing(Arc<Gate>);

impl std::ops::Deref for Severing {
    type Target = Arc<Gate>;

    fn deref(&self) -> &Arc<Gate> {
        &self.0
    }
}

impl Drop for Severing {
    fn drop(&mut self) {
        self.0.sever();
    }
}
