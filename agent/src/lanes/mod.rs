//! Lanes: a ring, its core, its spool, one for each group of CPUs.
//!
//! Owns the way to the right one. A new session goes to the lane with the fewest; whatever is said about it
//! afterwards goes where it is. Lanes share the store's worker, the space for spools and the [`Roster`], and
//! nothing else: no lane waits for another. Not here: what a core does (`core`).

pub(crate) mod open;
mod plan;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use weir_common::control::Reply;

pub use self::open::LaneError;
use crate::core::{Ask, ConnectionId, CoreHandle, LaneNo, Roster};

/// The ways to all lanes.
#[derive(Clone, Debug)]
pub struct Lanes {
    lanes: Arc<[Lane]>,
    roster: Arc<Roster>,
    connections: Arc<AtomicU64>,
}

/// The way to one.
#[derive(Debug)]
pub struct Lane {
    /// Its core.
    pub core: CoreHandle,
    /// Whether sessions may begin there.
    pub takes_new: bool,
}

/// A control connection, which is about one session at most and so leads to one lane.
#[derive(Debug)]
pub struct Connection {
    id: ConnectionId,
    lanes: Lanes,
    /// Where its session is, once it has one.
    lane: Option<LaneNo>,
}

impl Lanes {
    /// The ways to these, numbered in this order.
    #[must_use]
    pub fn new(lanes: Vec<Lane>, roster: Arc<Roster>) -> Self {
        Self { lanes: lanes.into(), roster, connections: Arc::default() }
    }

    /// A new connection.
    #[must_use]
    pub fn connect(&self) -> Connection {
        let id = ConnectionId::new(self.connections.fetch_add(1, Ordering::Relaxed));
        Connection { id, lanes: self.clone(), lane: None }
    }

    /// Makes all cores end; sessions go on with the next agent.
    pub async fn stop(&self) {
        for lane in &*self.lanes {
            lane.core.stop().await;
        }
    }

    /// Where a question leads that opens a session, or that comes before one is open.
    fn lane_for(&self, ask: &Ask) -> LaneNo {
        let session = match ask {
            Ask::Open { meta, .. } => Some(meta.session_id),
            _ => None,
        };
        let takes_new = |&(_, lane): &(usize, &Lane)| lane.takes_new;
        let open = || self.lanes.iter().enumerate().filter(takes_new).map(|(no, _)| LaneNo(no));
        // Whoever asks without a session is refused the same in each.
        session
            .and_then(|session| self.roster.lane_of(session))
            .or_else(|| self.roster.fewest(open()))
            .unwrap_or(LaneNo(0))
    }
}

impl Connection {
    /// Which one.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Asks for something and waits for the answer.
    pub async fn ask(&mut self, ask: Ask) -> Reply {
        let no = self.lane.unwrap_or_else(|| self.lanes.lane_for(&ask));
        let Some(lane) = self.lanes.lanes.get(no.0) else { return crate::core::stopping() };
        let reply = lane.core.ask(self.id, ask).await;
        if reply == Reply::Opened {
            self.lane = Some(no);
        }
        reply
    }

    /// Says that it is gone. Once the core is stopping, that ends no session.
    pub async fn end(self) {
        if let Some(lane) = self.lane.and_then(|no| self.lanes.lanes.get(no.0)) {
            lane.core.disconnected(self.id).await;
        }
    }
}
