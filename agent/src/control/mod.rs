//! The control socket: who may talk to the agent, and how many.
//!
//! Owns least trust: the peer's user id is the kernel's word (`SO_PEERCRED`), every connection is bounded in
//! number, message size and the time until it says which session it is about. Not here: what requests do
//! (`core`).

mod connection;
mod message;

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::{
    errno::Errno,
    unistd::{Group, User},
};
use tokio::{
    sync::{Semaphore, oneshot},
    task::JoinSet,
};
use tokio_seqpacket::{UCred, UnixSeqpacket, UnixSeqpacketListener};
use tracing::{error, warn};
use weir_common::control::{self, Reply};

use crate::{config::ControlConfig, lanes::Lanes};

const SOCKET_MODE: u32 = 0o660;
const DIR_MODE: u32 = 0o755;

/// What went wrong with the control socket.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The system said no.
    #[error("cannot {op} the control socket {}: {source}", path.display())]
    Io {
        /// What was tried.
        op: &'static str,
        /// The socket.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// No such group.
    #[error("control_group: there is no group {group:?}")]
    NoGroup {
        /// Its name.
        group: String,
    },
    /// No such user.
    #[error(
        "allowed_users: this node has no user {user:?}; make it (`useradd --system {user}`), or name the one that \
         the proxy runs as"
    )]
    NoUser {
        /// Its name.
        user: String,
    },
    /// Users can't be looked up.
    #[error("allowed_users: cannot look up the user {user:?}: {source}")]
    Users {
        /// Whose id was asked for.
        user: String,
        /// Why there was no answer.
        source: Errno,
    },
    /// Somebody serves the socket.
    #[error("another agent serves the control socket {}", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
}

/// The control socket, accepting.
#[derive(Debug)]
pub struct Listener {
    socket: UnixSeqpacketListener,
    allowed: Vec<u32>,
    config: ControlConfig,
}

/// The ids of all users that may connect.
///
/// # Errors
/// [`ListenError::NoUser`] or [`ListenError::Users`], of the first that is not known.
pub fn allowed(config: &ControlConfig) -> Result<Vec<u32>, ListenError> {
    let named = config.allowed_users.iter().map(|name| match User::from_name(name) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        Ok(None) => Err(ListenError::NoUser { user: name.clone() }),
        Err(source) => Err(ListenError::Users { user: name.clone(), source }),
    });
    config.allowed_uids.iter().copied().map(Ok).chain(named).collect()
}

impl Listener {
    /// Begins to listen to these users ([`allowed`]). A socket that nobody serves any more is replaced.
    ///
    /// # Errors
    /// [`ListenError`].
    pub fn bind(config: ControlConfig, allowed: Vec<u32>) -> Result<Self, ListenError> {
        let path = &config.path;
        let failed = |op| move |source| ListenError::Io { op, path: path.clone(), source };
        if UnixSeqpacket::connect_blocking(path).is_ok() {
            return Err(ListenError::InUse { path: path.clone() });
        }
        make_dir(path).map_err(failed("make the directory of"))?;
        // Under another name until mode and group are right, so that nobody connects before.
        let unfinished = path.with_extension("new");
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("replace")(error)),
            _ => {}
        }
        let socket = UnixSeqpacketListener::bind(&unfinished).map_err(failed("bind"))?;
        if let Some(name) = &config.group {
            let group = Group::from_name(name).ok().flatten();
            let group = group.ok_or_else(|| ListenError::NoGroup { group: name.clone() })?;
            nix::unistd::chown(&unfinished, None, Some(group.gid))
                .map_err(|errno| failed("give a group to")(errno.into()))?;
        }
        fs::set_permissions(&unfinished, fs::Permissions::from_mode(SOCKET_MODE))
            .map_err(failed("set the mode of"))?;
        fs::rename(&unfinished, path).map_err(failed("name"))?;
        Ok(Self { socket, allowed, config })
    }

    /// Accepts connections until `stop`, and serves them until the future is dropped, which ends them all
    /// without a word to the core.
    pub async fn serve(self, lanes: Lanes, mut stop: oneshot::Receiver<()>) {
        let Self { socket, allowed, config } = self;
        let free = Arc::new(Semaphore::new(config.max_connections));
        let mut connections = JoinSet::new();
        let mut listening = Some(socket);
        loop {
            tokio::select! {
                // Whoever connects from here on finds nobody, and tries again until the next agent listens.
                _ = &mut stop, if listening.is_some() => listening = None,
                accepted = accept(&mut listening) => match accepted {
                    Ok(socket) => {
                        let Some((socket, peer)) = admit(&allowed, socket) else { continue };
                        let Ok(place) = Arc::clone(&free).try_acquire_owned() else {
                            warn!(pid = peer.pid(), uid = peer.uid(), "refused a connection too many");
                            let reason = "the agent has too many connections".to_owned();
                            tell(&socket, &Reply::TryAgain { reason });
                            continue;
                        };
                        let (connection, open_timeout) = (lanes.connect(), config.open_timeout);
                        connections.spawn(async move {
                            connection::serve(socket, peer, connection, open_timeout).await;
                            drop(place);
                        });
                    }
                    Err(error) => {
                        error!(%error, "cannot accept a control connection");
                        // Out of descriptors, most likely; they come back as connections end.
                        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    }
                },
                Some(ended) = connections.join_next() => {
                    if let Err(error) = ended {
                        error!(%error, "a control connection's task failed");
                    }
                }
            }
        }
    }
}

async fn accept(listening: &mut Option<UnixSeqpacketListener>) -> io::Result<UnixSeqpacket> {
    match listening {
        Some(socket) => socket.accept().await,
        None => std::future::pending().await,
    }
}

fn admit(allowed: &[u32], socket: UnixSeqpacket) -> Option<(UnixSeqpacket, UCred)> {
    match socket.peer_cred() {
        Ok(peer) if allowed.contains(&peer.uid()) => Some((socket, peer)),
        Ok(peer) => {
            let (pid, uid) = (peer.pid(), peer.uid());
            warn!(pid, uid, "refused a control connection: the user is not in allowed_uids or allowed_users");
            let reason = format!("user {uid} is not in the agent's allowed_uids or allowed_users");
            tell(&socket, &Reply::Refused { reason });
            None
        }
        Err(error) => {
            warn!(%error, "refused a control connection: its user is not known");
            None
        }
    }
}

/// Says it to whoever reads it.
fn tell(socket: &UnixSeqpacket, reply: &Reply) {
    if let Ok(bytes) = control::encode(reply) {
        // A fresh socket has room for it; if the peer is gone, nobody is left to tell.
        let _ = nix::unistd::write(socket, &bytes);
    }
}

fn make_dir(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(dir) if !dir.exists() => {
            fs::create_dir_all(dir)?;
            fs::set_permissions(dir, fs::Permissions::from_mode(DIR_MODE))
        }
        _ => Ok(()),
    }
}
