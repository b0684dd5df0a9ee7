//! Many sessions that say nothing, held by one process: a real client each would be more than a machine can take.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use russh::{
    Channel, ChannelMsg, Disconnect,
    client::{self, Handle, Msg},
    keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate, load_secret_key},
};
use tokio::{runtime::Runtime, task::JoinSet, time::timeout};
use weir_tests::GRANT;

/// Idle sessions through Weir.
pub(crate) struct Crowd {
    runtime: Runtime,
    port: u16,
    key: Arc<PrivateKey>,
    members: Vec<Member>,
}

struct Member {
    handle: Handle<Client>,
    channel: Channel<Msg>,
}

/// How many connect at a time: fewer than may be logging in.
const AT_A_TIME: usize = 16;
/// How long one may take to connect.
const PATIENCE: Duration = Duration::from_secs(60);

impl Crowd {
    /// Nobody yet, but who would connect to this port with this key.
    pub(crate) fn new(port: u16, key: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(Self { runtime, port, key: Arc::new(load_secret_key(key, None)?), members: Vec::new() })
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// Opens sessions until there are so many, and checks that each is alive.
    pub(crate) fn grow(&mut self, to: usize) -> Result<()> {
        let Self { runtime, port, key, members } = self;
        runtime.block_on(async {
            let mut joining = JoinSet::new();
            let mut missing = to.saturating_sub(members.len());
            while missing > 0 || !joining.is_empty() {
                while missing > 0 && joining.len() < AT_A_TIME {
                    joining.spawn(timeout(PATIENCE, Member::join(*port, key.clone())));
                    missing -= 1;
                }
                if let Some(joined) = joining.join_next().await {
                    members.push(joined?.context("a session takes too long")??);
                }
            }
            Ok(())
        })
    }

    /// Everybody says goodbye.
    pub(crate) fn leave(self) -> Result<()> {
        let Self { runtime, members, .. } = self;
        runtime.block_on(async {
            for Member { handle, channel } in members {
                channel.close().await?;
                handle.disconnect(Disconnect::ByApplication, "", "").await?;
            }
            Ok(())
        })
    }
}

impl Member {
    async fn join(port: u16, key: Arc<PrivateKey>) -> Result<Self> {
        let config = Arc::new(client::Config { nodelay: true, ..Default::default() });
        let mut handle = client::connect(config, ("127.0.0.1", port), Client).await?;
        let key = PrivateKeyWithHashAlg::new(key, None);
        ensure!(handle.authenticate_publickey(GRANT, key).await?.success(), "the login was refused");
        let mut channel = handle.channel_open_session().await?;
        channel.exec(false, "cat").await?;
        channel.data_bytes(&b"x"[..]).await?;
        while let Some(message) = channel.wait().await {
            if let ChannelMsg::Data { data } = message {
                ensure!(*data == b"x"[..], "something else came back");
                return Ok(Self { handle, channel });
            }
        }
        bail!("the session ended")
    }
}

struct Client;

impl client::Handler for Client {
    type Error = russh::Error;

    /// It is this machine's own loopback interface.
    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }
}
