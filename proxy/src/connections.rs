//! The table of open connections: who may come in, who is there, and how all of them are ended.
//!
//! It is the one owner of every connection's [`End`]. A connection is here from the moment it is accepted until the
//! agent has heard how its session ended, so an empty table means that nothing is left to do.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::{
    auth::sources::Source,
    session::{Cause, End},
};

/// How many connections there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// The most connections at once.
    pub max_connections: usize,
    /// The most connections at once whose users have not logged in yet.
    pub max_unauthenticated: usize,
    /// The same for one source: an IPv4 address, or an IPv6 network of 64 bits.
    pub max_unauthenticated_per_source: usize,
}

/// Why a connection was not let in. `Display` names the option.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// [`Admission::max_connections`].
    #[error("max_connections")]
    Connections,
    /// [`Admission::max_unauthenticated`].
    #[error("max_unauthenticated")]
    Unauthenticated,
    /// [`Admission::max_unauthenticated_per_source`].
    #[error("max_unauthenticated_per_source")]
    Source,
}

impl Refusal {
    /// Every reason.
    pub const ALL: [Self; 3] = [Self::Connections, Self::Unauthenticated, Self::Source];

    /// Its name in metrics: that of the option.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Connections => "max_connections",
            Self::Unauthenticated => "max_unauthenticated",
            Self::Source => "max_unauthenticated_per_source",
        }
    }
}

/// How many there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections, strangers among them.
    pub connections: usize,
    /// Connections whose users have not logged in.
    pub strangers: usize,
}

impl Counts {
    /// Connections whose users have logged in.
    #[must_use]
    pub fn logged_in(self) -> usize {
        // A connection's place is given back before the stranger's, when it ends as one.
        self.connections.saturating_sub(self.strangers)
    }
}

/// The table; clones are the same table.
#[derive(Debug, Clone, Default)]
pub struct Connections(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    table: Mutex<Table>,
    counts: watch::Sender<Counts>,
}

#[derive(Debug, Default)]
struct Table {
    last_id: u64,
    ends: HashMap<u64, End>,
    strangers: usize,
    strangers_by_source: HashMap<Source, usize>,
}

/// A connection's entry; dropped when nothing is left to be done for it.
#[derive(Debug)]
pub struct Place {
    connections: Connections,
    id: u64,
    end: End,
}

/// A connection's place among those whose users have not logged in; dropped when one has, or when it ends.
#[derive(Debug)]
pub struct Stranger {
    connections: Connections,
    source: Source,
}

impl Connections {
    /// Lets a connection in; one that is exempt whatever its source.
    ///
    /// # Errors
    /// [`Refusal`], if one more would be one too many.
    pub fn admit(
        &self,
        peer: SocketAddr,
        admission: Admission,
        exempt: bool,
    ) -> Result<(Place, Stranger), Refusal> {
        let (source, end) = (Source::from(peer.ip()), End::default());
        let mut table = self.table();
        let from_source = table.strangers_by_source.get(&source).copied().unwrap_or(0);
        if table.ends.len() >= admission.max_connections {
            return Err(Refusal::Connections);
        }
        if table.strangers >= admission.max_unauthenticated {
            return Err(Refusal::Unauthenticated);
        }
        if !exempt && from_source >= admission.max_unauthenticated_per_source {
            return Err(Refusal::Source);
        }
        table.last_id += 1;
        let id = table.last_id;
        table.ends.insert(id, end.clone());
        table.strangers += 1;
        table.strangers_by_source.insert(source, from_source + 1);
        self.publish(&table);
        Ok((Place { connections: self.clone(), id, end }, Stranger { connections: self.clone(), source }))
    }

    /// How many there are now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        *self.0.counts.borrow()
    }

    /// Resolves when the counts are like this.
    pub async fn until(&self, wanted: impl FnMut(&Counts) -> bool) {
        // It fails when the sender is gone, and that is `self`.
        let _ = self.0.counts.subscribe().wait_for(wanted).await;
    }

    /// Ends every connection that is here now, with the reason.
    pub fn end_all(&self, cause: Cause, reason: &str) {
        // Not under the lock: what an end wakes may look at the table.
        let ends: Vec<_> = self.table().ends.values().cloned().collect();
        for end in ends {
            end.because_of(cause, reason);
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // No code panics while it holds the lock.
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, table: &Table) {
        let counts = Counts { connections: table.ends.len(), strangers: table.strangers };
        self.0.counts.send_replace(counts);
    }
}

impl Place {
    /// The connection's end.
    #[must_use]
    pub fn end(&self) -> &End {
        &self.end
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.connections.table();
        table.ends.remove(&self.id);
        self.connections.publish(&table);
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut table = self.connections.table();
        table.strangers -= 1;
        if let Some(number) = table.strangers_by_source.get_mut(&self.source) {
            *number -= 1;
            if *number == 0 {
                table.strangers_by_source.remove(&self.source);
            }
        }
        self.connections.publish(&table);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADMISSION: Admission =
        Admission { max_connections: 4, max_unauthenticated: 3, max_unauthenticated_per_source: 2 };

    fn peer(address: &str) -> SocketAddr {
        SocketAddr::new(address.parse().expect("an address"), 1)
    }

    fn admit(connections: &Connections, address: &str) -> Result<(Place, Stranger), Refusal> {
        connections.admit(peer(address), ADMISSION, false)
    }

    #[test]
    fn every_bound_is_kept_and_places_are_given_back() {
        let connections = Connections::default();
        let (first, first_stranger) = admit(&connections, "192.0.2.1").expect("the first");
        let second = admit(&connections, "192.0.2.1").expect("the second");
        assert_eq!(admit(&connections, "::ffff:192.0.2.1").expect_err("a third from there"), Refusal::Source);
        let third = admit(&connections, "192.0.2.2").expect("from elsewhere");
        assert_eq!(admit(&connections, "192.0.2.3").expect_err("too many"), Refusal::Unauthenticated);
        drop(first_stranger);
        let fourth = admit(&connections, "192.0.2.3").expect("one has logged in");
        assert_eq!(connections.counts(), Counts { connections: 4, strangers: 3 });
        assert_eq!(admit(&connections, "192.0.2.4").expect_err("full"), Refusal::Connections);
        drop((first, second, third, fourth));
        assert_eq!(connections.counts(), Counts::default());
        assert!(connections.table().strangers_by_source.is_empty(), "sources are forgotten");
    }

    #[tokio::test]
    async fn all_are_ended_with_the_reason_and_an_empty_table_is_heard_of() {
        let connections = Connections::default();
        let (place, stranger) = admit(&connections, "192.0.2.1").expect("let in");
        connections.end_all(Cause::ShuttingDown, "enough");
        place.end().over().await;
        assert_eq!(place.end().reason(), Some("enough"));
        let empty = connections.until(|counts| counts.connections == 0);
        drop((stranger, place));
        empty.await;
    }
}
