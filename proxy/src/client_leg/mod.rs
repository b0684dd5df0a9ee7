//! The client leg: an SSH server that turns what the user's client asks for into frames, and does towards the
//! client what the frames from the target say.
//!
//! A login begins the [`Session`] in the background: agent first, then target. A channel gets a tap, and is
//! confirmed to the client only when the target has confirmed it over that tap.

mod auth;
mod channel;
mod global;
mod handler;
mod login;

use std::{io, net::SocketAddr, sync::Arc};

use russh::{
    Disconnect, Limits, MethodKind, MethodSet, SshId,
    keys::PrivateKey,
    server::{self, Handle},
};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout, timeout_at},
};

use self::handler::Handler;
use crate::{
    algorithms,
    auth::{revocation::RevokedKeys, secret::Secrets, sources::Sources},
    config::{Config, Transport},
    connections::{Place, Stranger},
    gate::{self, Gate, GatedStream},
    grant::{Grants, Watcher},
    limits,
    session::{Cause, End},
};

/// What every connection needs.
#[derive(Debug)]
pub struct Shared {
    /// The proxy's configuration.
    pub config: Config,
    /// Where grants are looked up.
    pub grants: Grants,
    /// Follows the grants of running sessions.
    pub watcher: Arc<Watcher>,
    /// How often one source may try to log in.
    pub sources: Arc<Sources>,
    pub(crate) revoked_keys: Option<Arc<RevokedKeys>>,
    pub(crate) secrets: Option<Secrets>,
    ssh: Arc<server::Config>,
}

impl Shared {
    /// Prepares to serve with this host key.
    ///
    /// # Errors
    /// If `state_dir` can't be used.
    pub fn new(config: Config, host_key: PrivateKey) -> io::Result<Self> {
        let sources = Sources::new(config.auth.sources.clone());
        Self::with_keys(config, vec![host_key], sources)
    }

    /// The same with another configuration, for the connections that are accepted from now on. What is remembered
    /// of sources stays.
    ///
    /// # Errors
    /// If `state_dir` can't be used.
    pub fn reconfigured(&self, config: Config) -> io::Result<Self> {
        let sources = self.sources.with_limits(config.auth.sources.clone());
        Self::with_keys(config, self.ssh.keys.clone(), sources)
    }

    fn with_keys(config: Config, keys: Vec<PrivateKey>, sources: Arc<Sources>) -> io::Result<Self> {
        let grants = Grants::new(config.grants_dir.clone());
        let revoked_keys = config.auth.revoked_keys.clone().map(|path| Arc::new(RevokedKeys::new(path)));
        if let Some(Err(error)) = revoked_keys.as_ref().map(|file| file.load()) {
            tracing::error!(%error, "nobody gets in by key or certificate");
        }
        let patience = config.auth.grants_unreadable_timeout;
        let watcher = Watcher::new(grants.clone(), revoked_keys.clone(), patience);
        let secrets = config.auth.state_dir.as_deref().map(Secrets::open).transpose()?;
        let ssh = Arc::new(ssh_config(keys, config.client_transport, secrets.is_some()));
        Ok(Self { config, grants, watcher, sources, revoked_keys, secrets, ssh })
    }
}

/// Serves one connection from a user to its end, session included.
///
/// `place` is the connection's entry in the table, `stranger` its place among those that are not logged in, `peer` its
/// address.
pub async fn serve(
    shared: Arc<Shared>,
    stream: TcpStream,
    peer: SocketAddr,
    place: Place,
    stranger: Stranger,
) {
    let (gate, end) = (Gate::new(), place.end());
    gate::tend(&gate, end);
    if let Err(error) = serve_until_over(&shared, stream, peer, stranger, gate, end).await {
        tracing::info!(%peer, %error, "client connection ended");
    }
    end.done();
}

async fn serve_until_over(
    shared: &Arc<Shared>,
    stream: TcpStream,
    peer: SocketAddr,
    stranger: Stranger,
    gate: Arc<Gate>,
    end: &End,
) -> Result<(), russh::Error> {
    stream.set_nodelay(true)?;
    let deadline = Instant::now() + shared.config.login_timeout;
    let handler = Handler::new(shared.clone(), gate.clone(), end.clone(), peer);
    let login = handler.login();
    tokio::spawn(login.clone().vacate(stranger));
    let stream = GatedStream::new(stream, gate.clone());
    let running = server::run_stream(shared.ssh.clone(), stream, handler);
    let running = tokio::select! {
        running = timeout_at(deadline, running) => running.map_err(|_| russh::Error::ConnectionTimeout)??,
        // Nothing can be said to a client that has not said its version.
        () = end.over() => return Ok(()),
    };
    let handle = running.handle();
    tokio::pin!(running);
    let result = tokio::select! {
        result = &mut running => result,
        // What comes after a goodbye has no meaning any more; a peer that does not hang up then is hung up on.
        () = farewell(&gate) => {
            gate.sever();
            let _ = running.await;
            Ok(())
        }
        () = login.missed(deadline) => {
            gate.sever();
            // What it fails with now is our doing.
            let _ = running.await;
            Err(russh::Error::ConnectionTimeout)
        }
        () = end.over() => {
            say_goodbye(&handle, end).await;
            let patience = sleep(limits::WIND_DOWN);
            tokio::select! {
                result = &mut running => result,
                () = patience => { gate.sever(); running.await }
            }
        }
    };
    // Before the session is finished, which may take its time.
    if let Some(error) = result.err().filter(|error| !is_hangup(error)) {
        tracing::info!(%peer, %error, "client connection ended");
        if is_vanished(&error) {
            // Nobody reads it any more but in the recording.
            end.because_of(Cause::ClientLost, "the connection to the client was lost");
        }
    }
    login.finish(end).await;
    Ok(())
}

/// Resolves when russh has said its last, and the client had time to read it and hang up.
async fn farewell(gate: &Gate) {
    gate.farewell().await;
    sleep(limits::WIND_DOWN).await;
}

async fn say_goodbye(handle: &Handle, end: &End) {
    let reason = end.reason().unwrap_or("session over");
    let goodbye = handle.disconnect(Disconnect::ByApplication, format!("weir: {reason}"), String::new());
    // A client that reads nothing leaves no room for a goodbye; the connection is severed then.
    let _ = timeout(limits::WIND_DOWN, goodbye).await;
}

/// A client that goes away without a goodbye is no news.
fn is_hangup(error: &russh::Error) -> bool {
    match error {
        russh::Error::Disconnect | russh::Error::HUP => true,
        russh::Error::IO(error) => {
            matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset)
        }
        _ => false,
    }
}

/// A client that is not there any more, and never said that it was going.
fn is_vanished(error: &russh::Error) -> bool {
    use io::ErrorKind::{HostUnreachable, NetworkUnreachable, TimedOut};
    match error {
        russh::Error::KeepaliveTimeout => true,
        russh::Error::IO(error) => matches!(error.kind(), TimedOut | HostUnreachable | NetworkUnreachable),
        _ => false,
    }
}

/// The methods that are offered depend on the configuration only, never on the grant.
fn ssh_config(keys: Vec<PrivateKey>, transport: Transport, secrets: bool) -> server::Config {
    let Transport { rekey_bytes, rekey_after, keepalive } = transport;
    let methods: &[MethodKind] = if secrets {
        &[MethodKind::PublicKey, MethodKind::KeyboardInteractive]
    } else {
        &[MethodKind::PublicKey]
    };
    server::Config {
        server_id: SshId::Standard(concat!("SSH-2.0-Weir_", env!("CARGO_PKG_VERSION")).into()),
        methods: MethodSet::from(methods),
        // The same for every refusal, so that its time tells nothing.
        auth_rejection_time: std::time::Duration::from_secs(1),
        auth_rejection_time_initial: Some(std::time::Duration::ZERO),
        keys,
        limits: Limits::new(rekey_bytes, rekey_bytes, rekey_after),
        maximum_packet_size: limits::PACKET_BYTES,
        window_size: limits::FIRST_WINDOW_BYTES,
        channel_buffer_size: 1,
        max_auth_attempts: limits::LOGIN_ATTEMPTS,
        inactivity_timeout: None,
        keepalive_interval: Some(keepalive),
        keepalive_max: limits::CLIENT_KEEPALIVES,
        preferred: algorithms::for_clients(),
        ..Default::default()
    }
}
