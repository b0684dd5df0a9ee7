//! Follows the files of the grants that sessions go by, and the list of what is revoked.
//!
//! Every [`limits::GRANT_POLL`] the file of each such grant is read and compared with what it was. That takes some four
//! microseconds a grant, and unlike notifications it sees every kind of change on every kind of file system: a write in
//! place, a rename, a symbolic link that is swapped (Kubernetes), another host's write (NFS). A file that is missing or
//! malformed is looked at twice before that counts: editors are not atomic. What can't be read at all counts as
//! unchanged for a while, and then as revoked: a directory that is away must not end everything at once, nor keep
//! anything alive for good.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use super::{Credential, Grant, GrantError, GrantId, Grants, LiveGrant};
use crate::{
    auth::{
        certificate::Restrictions,
        revocation::{Revoked, RevokedKeys},
    },
    limits,
};

/// What was seen of a grant.
#[derive(Clone, Debug)]
pub(super) enum Seen {
    Grant(Arc<Grant>),
    Gone,
    Malformed,
    /// For too long.
    Unreadable,
}

/// What is revoked, as far as it is known.
pub(super) type Revocations = Option<Arc<Revoked>>;

/// Follows grants for as long as somebody goes by them.
#[derive(Debug)]
pub struct Watcher {
    grants: Grants,
    revoked: Option<Arc<RevokedKeys>>,
    /// How long what can't be read counts as unchanged.
    patience: Duration,
    state: Mutex<State>,
    revocations: watch::Sender<Revocations>,
}

#[derive(Debug)]
struct State {
    entries: HashMap<GrantId, Entry>,
    /// Whether there is a task that follows them.
    running: bool,
    last_pass: Instant,
}

#[derive(Debug)]
struct Entry {
    news: watch::Sender<Seen>,
    /// The file's text when it was last a grant; none if that must be told anew.
    text: Option<String>,
    /// How many times in a row it was missing or malformed.
    doubts: u32,
    unreadable_since: Option<Instant>,
}

impl Watcher {
    /// Follows these.
    #[must_use]
    pub fn new(grants: Grants, revoked: Option<Arc<RevokedKeys>>, patience: Duration) -> Arc<Self> {
        let state = State { entries: HashMap::new(), running: false, last_pass: Instant::now() };
        Arc::new(Self {
            grants,
            revoked,
            patience,
            state: Mutex::new(state),
            revocations: watch::Sender::default(),
        })
    }

    /// Follows a grant for a session whose user has proved themselves by it.
    #[must_use]
    pub fn follow(
        self: &Arc<Self>,
        grant: Grant,
        credential: Credential,
        restrictions: Restrictions,
    ) -> LiveGrant {
        let mut state = self.state();
        let fresh = || Entry {
            news: watch::Sender::new(Seen::Grant(Arc::new(grant.clone()))),
            text: None,
            doubts: 0,
            unreadable_since: None,
        };
        let entry = state.entries.entry(grant.id.clone()).or_insert_with(fresh);
        // The file may have changed since this session's grant was read, and been looked at since.
        (entry.text, entry.doubts) = (None, 0);
        let seen = entry.news.subscribe();
        if !state.running {
            (state.running, state.last_pass) = (true, Instant::now());
            // Ends by itself when nothing is followed any more.
            tokio::spawn(self.clone().run());
        }
        drop(state);
        // So may the list of what is revoked: the next pass tells everybody of it, whether it has changed or not.
        self.revocations.send_if_modified(|known| {
            *known = None;
            false
        });
        let revocations = self.revocations.subscribe();
        LiveGrant::new(grant, credential, restrictions, self.clone(), seen, revocations)
    }

    /// Resolves when no pass has come to its end for too long: a file system may hang.
    pub(super) async fn stalled(&self) {
        loop {
            let deadline = self.state().last_pass + self.patience;
            if deadline <= Instant::now() {
                return;
            }
            sleep_until(deadline).await;
        }
    }

    async fn run(self: Arc<Self>) {
        let mut ticks = interval(limits::GRANT_POLL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let this = self.clone();
            if spawn_blocking(move || this.pass()).await.is_err() {
                tracing::error!("the grants were not looked at: trying again");
            }
            let mut state = self.state();
            state.entries.retain(|_, entry| entry.news.receiver_count() > 0);
            if state.entries.is_empty() {
                state.running = false;
                return;
            }
        }
    }

    /// Looks at every followed file once. Blocks.
    fn pass(&self) {
        let followed: Vec<_> = self.state().entries.keys().cloned().collect();
        for id in followed {
            let read = self.grants.text(&id);
            if let Some(entry) = self.state().entries.get_mut(&id) {
                entry.take(&id, read, &self.grants, self.patience);
            }
        }
        // What can't be read here lets nobody in, but throws nobody out.
        if let Some(Ok(revoked)) = self.revoked.as_ref().map(|revoked| revoked.load()) {
            self.revocations.send_if_modified(|known| {
                let same = known.as_ref().is_some_and(|known| Arc::ptr_eq(known, &revoked));
                *known = Some(revoked);
                !same
            });
        }
        self.state().last_pass = Instant::now();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn take(&mut self, id: &GrantId, read: Result<String, GrantError>, grants: &Grants, patience: Duration) {
        let parsed = match read {
            Ok(text) if self.text.as_ref() == Some(&text) => {
                (self.doubts, self.unreadable_since) = (0, None);
                return;
            }
            Ok(text) => grants.parse(id, &text).map(|grant| (grant, text)),
            Err(error) => Err(error),
        };
        match parsed {
            Ok((grant, text)) => {
                (self.doubts, self.unreadable_since) = (0, None);
                self.text = Some(text);
                self.news.send_replace(Seen::Grant(Arc::new(grant)));
            }
            Err(GrantError::Read { path, source }) => {
                let since = *self.unreadable_since.get_or_insert_with(|| {
                    tracing::error!(path = %path.display(), error = %source, "a grant that a session goes by can't be read");
                    Instant::now()
                });
                if since.elapsed() >= patience {
                    self.news.send_replace(Seen::Unreadable);
                }
            }
            Err(error) => {
                self.unreadable_since = None;
                self.doubts += 1;
                if self.doubts == LOOKS {
                    tracing::warn!(grant = %id, %error, "a grant that a session goes by is no more");
                    self.text = None;
                    let gone = matches!(error, GrantError::Unknown);
                    self.news.send_replace(if gone { Seen::Gone } else { Seen::Malformed });
                }
            }
        }
    }
}

/// How many times in a row a file is missing or malformed before that counts.
const LOOKS: u32 = 2;

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, path::Path};

    use tempfile::TempDir;
    use tokio::time::timeout;
    use weir_common::{frame::Message, session::Permission};

    use super::*;
    use crate::{
        grant::tests::{KEY, OTHER, good, parse},
        policy::Decision,
    };

    /// How long anything may take before a test gives up on it.
    const PATIENCE: Duration = Duration::from_secs(10);

    struct Place(TempDir, Arc<Watcher>);

    impl Place {
        fn new(patience: Duration) -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            fs::write(dir.path().join("g-1.toml"), good()).expect("written");
            let watcher = Watcher::new(Grants::new(dir.path().to_owned()), None, patience);
            Self(dir, watcher)
        }

        fn file(&self) -> std::path::PathBuf {
            self.0.path().join("g-1.toml")
        }

        fn follow(&self) -> Arc<LiveGrant> {
            let grant = parse(&good()).expect("a grant");
            let credential = Credential::Key(grant.public_keys[0].key().clone());
            Arc::new(self.1.follow(grant, credential, Restrictions::none()))
        }
    }

    async fn reason(live: &LiveGrant) -> String {
        timeout(PATIENCE, live.over()).await.expect("in the end").1
    }

    fn rename_over(file: &Path, text: &str) {
        let other = file.with_extension("new");
        fs::write(&other, text).expect("written");
        fs::rename(other, file).expect("renamed");
    }

    #[tokio::test]
    async fn each_way_of_taking_a_grant_back_is_seen_within_a_second() {
        type Change = fn(&Path);
        let ways: [(&str, Change, &str); 4] = [
            ("removed", |file| fs::remove_file(file).expect("removed"), "the grant was revoked"),
            ("written in place", |file| fs::write(file, "nonsense").expect("written"), "can't be understood"),
            ("renamed over", |file| rename_over(file, &good().replace(KEY, OTHER)), "does not list the key"),
            ("expired", |file| rename_over(file, &good().replace("2030", "2001")), "the grant has expired"),
        ];
        for (way, change, expected) in ways {
            // Up to three times: a busy machine is late for once.
            let mut late = Vec::new();
            loop {
                let place = Place::new(Duration::from_secs(60));
                let live = place.follow();
                let began = Instant::now();
                change(&place.file());
                let reason = reason(&live).await;
                assert!(reason.contains(expected), "{way}: {reason}");
                let took = began.elapsed();
                if took < Duration::from_secs(1) {
                    break;
                }
                late.push(took);
                assert!(late.len() < 3, "{way}: {late:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_symbolic_link_that_is_swapped_is_seen() {
        let place = Place::new(Duration::from_secs(60));
        for (version, text) in [("v1", good()), ("v2", good().replace("deploy", "root"))] {
            fs::create_dir(place.0.path().join(version)).expect("made");
            fs::write(place.0.path().join(version).join("g-1.toml"), text).expect("written");
        }
        let link = |version: &str| {
            let data = place.0.path().join("..data");
            let new = place.0.path().join("..new");
            symlink(version, &new).expect("linked");
            fs::rename(new, data).expect("renamed");
        };
        link("v1");
        fs::remove_file(place.file()).expect("removed");
        symlink("..data/g-1.toml", place.file()).expect("linked");
        let live = place.follow();
        link("v2");
        assert_eq!(
            reason(&live).await,
            "the grant was changed: it names another target login now; the session was closed"
        );
    }

    #[tokio::test]
    async fn what_changes_without_harm_counts_for_the_next_request() {
        let place = Place::new(Duration::from_secs(60));
        let live = place.follow();
        let over = tokio::spawn({
            let live = live.clone();
            async move { live.over().await.1 }
        });
        assert_eq!(live.decide(&Message::AgentForward), Decision::Refuse);
        assert_eq!(live.decide(&Message::Shell), Decision::Allow);
        let widened = good() + "permissions = [\"shell\", \"agent_forward\"]";
        rename_over(&place.file(), &widened.replace("2030", "2031"));
        let seen = async {
            while !live.permissions().contains(Permission::AgentForward) {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, seen).await.expect("in the end");
        assert_eq!(live.decide(&Message::Exec(b"id".to_vec())), Decision::Refuse);
        assert_eq!(live.grant().expires_at, "2031-01-01T00:00:00Z".parse().expect("a time"));
        assert!(!over.is_finished());
        // Unused, so that taking it back harms nobody; the shell is in use.
        rename_over(&place.file(), &(good() + "permissions = [\"exec\"]"));
        let reason = timeout(PATIENCE, over).await.expect("in the end").expect("no panic");
        assert!(reason.contains("it permits no shell any more"), "{reason}");
    }

    #[tokio::test]
    async fn a_directory_that_is_away_for_a_moment_ends_nothing_and_for_long_everything() {
        let place = Place::new(Duration::from_secs(2));
        let live = place.follow();
        let (dir, away) = (place.0.path().to_owned(), place.0.path().with_extension("away"));
        fs::rename(&dir, &away).expect("renamed");
        let reason = async { live.over().await.1 };
        tokio::pin!(reason);
        assert!(timeout(Duration::from_millis(400), &mut reason).await.is_err());
        fs::rename(&away, &dir).expect("renamed back");
        assert!(timeout(Duration::from_millis(2_500), &mut reason).await.is_err());
        fs::rename(&dir, &away).expect("renamed");
        let reason = timeout(PATIENCE, reason).await.expect("in the end");
        assert!(reason.contains("can't read its grants"), "{reason}");
        fs::rename(&away, &dir).expect("renamed back");
    }

    #[tokio::test]
    async fn a_session_that_begins_behind_a_change_hears_of_it() {
        let place = Place::new(Duration::from_secs(60));
        let (first, stale) = (place.follow(), parse(&good()).expect("a grant"));
        rename_over(&place.file(), &good().replace(KEY, OTHER));
        assert!(reason(&first).await.contains("does not list the key"));
        let credential = Credential::Key(stale.public_keys[0].key().clone());
        let second = place.1.follow(stale, credential, Restrictions::none());
        assert!(reason(&second).await.contains("does not list the key"));
    }

    #[tokio::test]
    async fn a_session_that_begins_behind_the_end_of_its_grant_hears_of_it() {
        let place = Place::new(Duration::from_secs(60));
        let (first, stale) = (place.follow(), parse(&good()).expect("a grant"));
        fs::remove_file(place.file()).expect("there");
        assert!(reason(&first).await.contains("revoked"));
        let credential = Credential::Key(stale.public_keys[0].key().clone());
        let second = place.1.follow(stale, credential, Restrictions::none());
        assert!(reason(&second).await.contains("revoked"));
    }

    #[tokio::test]
    async fn nothing_is_followed_for_nobody() {
        let place = Place::new(Duration::from_secs(60));
        drop(place.follow());
        let idle = async {
            while place.1.state().running {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, idle).await.expect("it stops");
        assert!(place.1.state().entries.is_empty());
    }
}
