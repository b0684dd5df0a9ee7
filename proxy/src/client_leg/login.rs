//! From a user who has proved who they are to a session with its target, and to that session's end.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use weir_common::session::{Proof, SessionId, SessionMeta};

use super::{Shared, channel::Leg};
use crate::{
    agent::AgentError,
    config::Target,
    connections::Stranger,
    grant::{Grant, LiveGrant},
    limits,
    metrics::metrics,
    session::{Cause, End, Offers, Session},
    target_leg,
};

/// A session that the agent records, and the connection to its target.
pub(super) struct Established {
    pub(super) session: Arc<Session>,
    pub(super) target: Arc<target_leg::Connection>,
}

/// How far the login has come.
#[derive(Clone, Default)]
pub(super) enum Stage {
    #[default]
    Stranger,
    LoggedIn,
    Established(Arc<Established>),
    /// Nothing will come of it; the user has been told.
    Failed,
}

/// The login, as the connection's owner watches it.
#[derive(Clone)]
pub(super) struct Login(watch::Receiver<Stage>);

impl Login {
    pub(super) fn watch(stage: &watch::Sender<Stage>) -> Self {
        Self(stage.subscribe())
    }

    /// Resolves when the deadline passes without a login.
    pub(super) async fn missed(&self, deadline: Instant) {
        sleep_until(deadline).await;
        if !matches!(*self.0.borrow(), Stage::Stranger) {
            std::future::pending::<()>().await;
        }
    }

    /// Gives up the place among strangers once the user has logged in, or the connection has ended.
    pub(super) async fn vacate(mut self, stranger: Stranger) {
        // An error says that the connection's handler is gone.
        let _ = self.0.wait_for(|stage| !matches!(stage, Stage::Stranger)).await;
        drop(stranger);
    }

    /// What came of a login: waits for a session that is being set up. None if there is no session.
    pub(super) async fn settled(mut self) -> Option<Arc<Established>> {
        let settled = self.0.wait_for(|stage| !matches!(stage, Stage::LoggedIn)).await;
        settled.ok().and_then(|stage| stage.established().cloned())
    }

    /// Ends whatever came of the login: the session, and the connection to the target.
    pub(super) async fn finish(self, end: &End) {
        // A session that is still being set up is waited for, so that the agent hears how it ended.
        let Some(established) = self.settled().await else { return end.done() };
        established.session.finish().await;
        established.target.close().await;
        tracing::info!(session = %established.session.id(), ended = end.reason().unwrap_or("completed"), "session over");
    }
}

impl Stage {
    pub(super) fn established(&self) -> Option<&Arc<Established>> {
        match self {
            Self::Established(established) => Some(established),
            _ => None,
        }
    }
}

/// A user who has proved who they are, about to get a session.
pub(super) struct NewSession {
    pub(super) grant: Arc<LiveGrant>,
    pub(super) proof: Proof,
    pub(super) client_version: String,
    pub(super) peer: SocketAddr,
}

impl NewSession {
    /// Sets the session up and says how far that came.
    pub(super) async fn begin(self, shared: Arc<Shared>, end: End, stage: watch::Sender<Stage>, leg: Leg) {
        stage.send_replace(match self.establish(&shared, &end).await {
            Ok((established, offers)) => {
                let established = Arc::new(established);
                established.session.watch(watch_target(established.clone(), leg.clone(), end.clone()));
                established.session.watch(leg.take_offers(established.session.clone(), offers));
                Stage::Established(established)
            }
            Err(reason) => {
                end.because(reason);
                Stage::Failed
            }
        });
    }

    /// Registers the session with the agent, then connects to the target: in this order, so that nothing
    /// reaches a target without a recording. The error is what the user reads.
    async fn establish(self, shared: &Shared, end: &End) -> Result<(Established, Offers), String> {
        let (live, grant) = (self.grant.clone(), self.grant.grant());
        let target = target_of(&grant, shared).inspect_err(|_| metrics().session_refused("bad_grant"))?;
        let user = grant.target_login.clone();
        let meta = self.meta(grant, target);
        let permissions = meta.permissions.clone();
        let id = meta.session_id;
        tracing::info!(session = %id, user = meta.user, grant = meta.grant_id, resource = meta.resource.name,
            peer = %meta.client_address, "session begins");

        let began = Instant::now();
        let (session, offers) =
            Session::begin(shared.config.agent.clone(), meta, end.clone()).await.map_err(|error| {
                tracing::error!(session = %id, %error, "session refused: it would not be recorded");
                metrics().session_refused("not_recorded");
                match error {
                    // In the agent's words, which are meant for users.
                    AgentError::Refused(reason) => format!("session refused: {reason}"),
                    _ => NOT_RECORDED.to_owned(),
                }
            })?;
        let (ending, stopping) = (end.clone(), session.clone());
        session.watch(async move {
            let (cause, reason) = live.over().await;
            stopping.freeze().await;
            tracing::warn!(session = %id, reason, "the session's grant does not cover it any more");
            ending.because_of(cause, reason);
        });
        metrics().session_setup("agent", began.elapsed());
        let connecting = Instant::now();
        let (within, transport) = (shared.config.target_connect_timeout, shared.config.target_transport);
        let login = target_leg::Login { session: id, user: &user, permissions: &permissions };
        let connected = tokio::select! {
            connected = target_leg::connect(target, login, within, transport, &session) => connected,
            // The proxy is stopping, or the grant is over; nobody waits for this session any more.
            () = end.over() => {
                session.finish().await;
                return Err("the session was closed before it began".to_owned());
            }
        };
        let connection = match connected {
            Ok(connection) => connection,
            Err(error) => {
                tracing::error!(session = %id, %error, cause = %error.failure, "no connection to the target");
                end.because_of(Cause::TargetUnreachable, error.to_string());
                session.finish().await;
                return Err(error.to_string());
            }
        };
        metrics().session_setup("target", connecting.elapsed());
        let target = connection.peer().clone();
        if let Err(error) = session.connected(target).await {
            tracing::error!(session = %id, %error, "session ended: the agent does not note its target");
            end.because_of(Cause::NotRecorded, NOT_RECORDED);
            session.finish().await;
            connection.close().await;
            return Err(NOT_RECORDED.to_owned());
        }
        metrics().session_setup("total", began.elapsed());
        if let Some(limit) = shared.config.idle_timeout {
            session.watch_idle(limit);
        }
        Ok((Established { session, target: Arc::new(connection) }, offers))
    }

    fn meta(self, grant: Grant, target: &Target) -> SessionMeta {
        let Self { grant: live, proof, client_version, peer } = self;
        SessionMeta {
            session_id: SessionId::generate(),
            user: grant.user,
            grant_id: grant.id.to_string(),
            request_id: grant.request_id,
            approvers: grant.approvers,
            access_flow: grant.access_flow,
            resource: target.resource.clone(),
            target_login: grant.target_login,
            permissions: live.permissions().iter().collect(),
            proof,
            client_address: peer,
            client_version,
            expires_at: grant.expires_at,
            capture_policy: grant.capture_policy,
            record_file_content: grant.record_file_content,
        }
    }
}

/// Ends a session whose target is lost. Channels notice by themselves, and have what they were sent delivered first.
async fn watch_target(established: Arc<Established>, leg: Leg, end: End) {
    established.target.lost().await;
    while !leg.routes.is_empty() {
        sleep(LOST_POLL).await;
    }
    // Some targets hang up behind the last channel, and the client is about to do the same: no loss.
    sleep(limits::WIND_DOWN).await;
    end.because_of(Cause::TargetLost, "the connection to the server was lost");
}

const LOST_POLL: Duration = Duration::from_millis(100);

/// Where the grant leads, if that is how this connector has it. The error is what the user reads.
fn target_of<'a>(grant: &Grant, shared: &'a Shared) -> Result<&'a Target, String> {
    let Some(target) = shared.config.targets.get(&grant.resource) else {
        tracing::error!(grant = %grant.id, resource = grant.resource, "no such resource is configured");
        return Err("the grant's resource is not known to this connector; tell your administrator".to_owned());
    };
    let configured = target.resource.integration;
    if let Some(integration) = grant.integration.filter(|&integration| integration != configured) {
        tracing::error!(grant = %grant.id, resource = grant.resource, %integration, %configured,
            "the grant's integration is not the resource's");
        return Err("the grant's integration is not its resource's; tell your administrator".to_owned());
    }
    if !target.admits(&grant.target_login) {
        tracing::error!(grant = %grant.id, resource = grant.resource, login = grant.target_login,
            "the grant names a login that the resource does not admit");
        return Err(
            "the grant's login is not one that this connector has for the resource; tell your administrator"
                .to_owned(),
        );
    }
    Ok(target)
}

const NOT_RECORDED: &str = "session refused: the recording agent on this connector does not answer. Nothing \
     was run on the server. Try again in a moment, or tell your administrator";
