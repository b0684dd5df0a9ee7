//! Finds sessions in a store: by the days they lie in, then by what they say of themselves.
//!
//! A day is listed when its turn comes. Whose session it is costs its manifest, or the beginning of its first segment
//! while it is under way.

mod about;
pub mod when;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use jiff::{Timestamp, ToSpan, civil::Date};
use weir_common::session::SessionId;

pub use self::about::{About, AboutError};
use crate::{
    store::{SessionDir, Store, StoreError},
    verify::pattern::matches_list,
};

/// Which sessions are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The user: patterns with `*` and `?`, a comma between them.
    pub user: Option<String>,
    /// The resource's name or host: such patterns.
    pub resource: Option<String>,
    /// The access request: such patterns.
    pub request_id: Option<String>,
    /// What the session's id begins with.
    pub session: Option<String>,
    /// Begun at this moment or later.
    pub since: Option<Timestamp>,
    /// Begun before this moment.
    pub until: Option<Timestamp>,
}

/// In which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The last one first.
    NewestFirst,
    /// The first one first.
    OldestFirst,
}

impl Filter {
    /// Whether a session is wanted.
    #[must_use]
    pub fn wants(&self, about: &About) -> bool {
        let Self { user, resource, request_id, session: _, since, until } = self;
        let fits = |pattern: &Option<String>, texts: &[&str]| match pattern {
            Some(pattern) => texts.iter().any(|text| matches_list(pattern, text)),
            None => true,
        };
        let meta = &about.meta;
        fits(user, &[&meta.user])
            && fits(resource, &[&meta.resource.name, &meta.resource.host])
            && fits(request_id, &[&meta.request_id])
            && since.is_none_or(|since| about.opened_at >= since)
            && until.is_none_or(|until| about.opened_at < until)
    }

    /// Whether a session that is wanted can have begun on this day (UTC).
    fn wants_day(&self, day: Date) -> bool {
        let date = |at: Timestamp| at.to_zoned(jiff::tz::TimeZone::UTC).date();
        let last = |until: Timestamp| date(until.saturating_sub(1.nanosecond()).unwrap_or(until));
        self.since.is_none_or(|since| day >= date(since)) && self.until.is_none_or(|until| day <= last(until))
    }

    fn wants_id(&self, id: SessionId) -> bool {
        self.session.as_ref().is_none_or(|prefix| id.to_string().starts_with(&prefix.to_ascii_lowercase()))
    }
}

/// The sessions of a store whose day and id are wanted; [`Filter::wants`] has the last word about each.
pub struct Sessions<'a> {
    store: &'a Store,
    filter: &'a Filter,
    order: Order,
    /// In reverse: the next is the last.
    days: Vec<Date>,
    /// The same.
    current: Vec<SessionDir>,
    listed: Arc<AtomicUsize>,
}

impl<'a> Sessions<'a> {
    /// Lists the store's days.
    ///
    /// # Errors
    /// If they can't be listed, or it is no store.
    pub fn of(store: &'a Store, filter: &'a Filter, order: Order) -> Result<Self, StoreError> {
        let mut days = store.days()?;
        days.retain(|day| filter.wants_day(*day));
        if order == Order::OldestFirst {
            days.reverse();
        }
        Ok(Self { store, filter, order, days, current: Vec::new(), listed: Arc::default() })
    }

    /// How many have been listed so far, for who shows progress.
    #[must_use]
    pub fn listed(&self) -> &Arc<AtomicUsize> {
        &self.listed
    }

    fn list(&self, day: Date) -> Result<Vec<SessionDir>, StoreError> {
        let mut ids = self.store.sessions(day)?;
        ids.retain(|id| self.filter.wants_id(*id));
        if self.order == Order::OldestFirst {
            ids.reverse();
        }
        ids.into_iter().map(|id| self.store.session(day, id)).collect()
    }
}

impl Iterator for Sessions<'_> {
    type Item = Result<SessionDir, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(session) = self.current.pop() {
                return Some(Ok(session));
            }
            let day = self.days.pop()?;
            match self.list(day) {
                Ok(sessions) => {
                    self.listed.fetch_add(sessions.len(), Ordering::Relaxed);
                    self.current = sessions;
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
