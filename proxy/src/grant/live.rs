//! The grant of a running session, as it is now.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{sync::watch, time::sleep};
use weir_common::frame::Message;

pub use super::change::Credential;
use super::{
    Grant, Watcher, change,
    watch::{Revocations, Seen},
};
use crate::{
    auth::{certificate::Restrictions, revocation::Revoked},
    policy::{self, Decision, Permissions, Rights},
    session::Cause,
};

/// The grant that a session goes by, followed as its file changes. What it permits counts from the next request on.
#[derive(Debug)]
pub struct LiveGrant {
    credential: Credential,
    restrictions: Restrictions,
    state: Mutex<State>,
    watcher: Arc<Watcher>,
    seen: watch::Receiver<Seen>,
    revocations: watch::Receiver<Revocations>,
}

#[derive(Debug)]
struct State {
    grant: Grant,
    rights: Rights,
    /// The permissions that the session has made use of.
    used: Permissions,
}

impl LiveGrant {
    pub(super) fn new(
        grant: Grant,
        credential: Credential,
        restrictions: Restrictions,
        watcher: Arc<Watcher>,
        seen: watch::Receiver<Seen>,
        revocations: watch::Receiver<Revocations>,
    ) -> Self {
        let rights = restrictions.apply(grant.rights());
        let state = Mutex::new(State { grant, rights, used: Permissions::default() });
        Self { credential, restrictions, state, watcher, seen, revocations }
    }

    /// The grant as it is now.
    #[must_use]
    pub fn grant(&self) -> Grant {
        self.state().grant.clone()
    }

    /// What it permits now, less what the user's certificate takes away.
    #[must_use]
    pub fn rights(&self) -> Rights {
        self.state().rights.clone()
    }

    /// The permissions of [`Self::rights`].
    #[must_use]
    pub fn permissions(&self) -> Permissions {
        self.state().rights.permissions
    }

    /// What the user's certificate takes away.
    #[must_use]
    pub fn restrictions(&self) -> &Restrictions {
        &self.restrictions
    }

    /// Decides about a message by the rights of now ([`policy::decide`]), and remembers which permission it used: the
    /// session ends when that is taken back.
    #[must_use]
    pub fn decide(&self, message: &Message) -> Decision {
        let mut state = self.state();
        let decision = policy::decide(message, &state.rights);
        if decision == Decision::Allow
            && let Some(permission) = policy::needs(message)
        {
            state.used = state.used.with(permission);
        }
        decision
    }

    /// Follows the grant until the session must end; returns the reason, in words for the user.
    pub async fn over(&self) -> (Cause, String) {
        let (mut seen, mut revocations) = (self.seen.clone(), self.revocations.clone());
        loop {
            let expires_at = self.state().grant.expires_at;
            let reason = tokio::select! {
                () = expiry(expires_at) => {
                    return (Cause::GrantExpired, "the grant has expired; the session was closed".to_owned());
                }
                Ok(()) = seen.changed() => {
                    let seen = seen.borrow_and_update().clone();
                    self.take(seen)
                }
                Ok(()) = revocations.changed() => {
                    let revoked = revocations.borrow_and_update().clone();
                    revoked.and_then(|revoked| self.revoked(&revoked))
                }
                () = self.watcher.stalled() => Some(UNREADABLE.to_owned()),
            };
            if let Some(reason) = reason {
                return (Cause::GrantChanged, format!("{reason}; the session was closed"));
            }
        }
    }

    /// Takes news of the grant; returns why the session must end, if it must.
    fn take(&self, seen: Seen) -> Option<String> {
        let after = match seen {
            Seen::Grant(grant) => grant,
            Seen::Gone => return Some("the grant was revoked".to_owned()),
            Seen::Malformed => return Some("the grant was changed: its file can't be understood".to_owned()),
            Seen::Unreadable => return Some(UNREADABLE.to_owned()),
        };
        let mut state = self.state();
        if let Some(reason) = change::ends(&state.grant, &after, &self.credential, state.used) {
            return Some(format!("the grant was changed: {reason}"));
        }
        state.rights = self.restrictions.apply(after.rights());
        state.grant = Grant::clone(&after);
        None
    }

    fn revoked(&self, revoked: &Revoked) -> Option<String> {
        let (what, checked) = match &self.credential {
            Credential::Key(key) => ("key", revoked.check_key(key)),
            Credential::Certificate(certificate) => ("certificate", revoked.check_certificate(certificate)),
            Credential::Secret => return None,
        };
        checked.is_err().then(|| format!("the {what} that you logged in with was revoked"))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const UNREADABLE: &str = "the connector can't read its grants any more";

/// Resolves at a calendar time, also when the calendar is set meanwhile.
async fn expiry(at: Timestamp) {
    loop {
        let left = Timestamp::now().duration_until(at);
        match Duration::try_from(left) {
            Ok(left) if !left.is_zero() => sleep(left.min(EXPIRY_POLL)).await,
            _ => return,
        }
    }
}

const EXPIRY_POLL: Duration = Duration::from_secs(60);
