//! An S3 server in this process: `s3s-fs`, which keeps objects as files, or another server, behind a layer that records
//! what is asked, refuses what Weir has no business asking, and fails as it is told to.

#![forbid(unsafe_code)]

mod asked;
mod behind;
mod elsewhere;
mod fault;
mod program;
mod serving;

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use aws_sdk_s3::config::Credentials;
use tokio::{
    net::{TcpListener, TcpSocket},
    runtime::Runtime,
    task::JoinHandle,
};
use weir_store::{Encryption, S3Options};

pub use self::{asked::Asked, fault::Fault};
use self::{
    behind::Behind,
    elsewhere::Elsewhere,
    serving::{State, accept},
};

/// The one bucket.
pub const BUCKET: &str = "recordings";
/// The prefix in it.
pub const PREFIX: &str = "weir";
/// Who is let in.
pub const ACCESS_KEY: &str = "AKIATEST";
/// With this.
pub const SECRET_KEY: &str = "a-secret-that-no-log-shows";

const REGION: &str = "eu-central-1";

/// Settings with which a server of ours at this address is found.
#[must_use]
pub fn options_for(endpoint: String) -> S3Options {
    S3Options {
        bucket: BUCKET.into(),
        prefix: PREFIX.into(),
        region: Some(REGION.into()),
        endpoint: Some(endpoint),
        path_style: true,
        profile: None,
        encryption: Encryption::BucketDefault,
        lock: None,
        tags: [].into(),
        storage_class: None,
        connect_timeout: Duration::from_secs(2),
        request_timeout: Duration::from_secs(2),
    }
}

/// The server. It listens from the beginning.
pub struct Server {
    runtime: Runtime,
    address: SocketAddr,
    /// Nobody else gets the port while it does not listen.
    _held: TcpSocket,
    listening: Option<JoinHandle<()>>,
    behind: Behind,
    elsewhere: Option<Elsewhere>,
    state: Arc<Mutex<State>>,
    root: PathBuf,
    bucket: String,
}

impl Server {
    /// One that keeps its objects below this directory, and accepts these credentials only.
    #[must_use]
    pub fn start(root: &Path) -> Self {
        Self::start_with(root, false)
    }

    /// One that lets strangers in besides.
    #[must_use]
    pub fn start_public(root: &Path) -> Self {
        Self::start_with(root, true)
    }

    /// One that passes what does not fail on to another server, which has not got this bucket yet. The directory is for
    /// copies of what that server keeps ([`Self::fetch`]).
    #[must_use]
    pub fn start_before(elsewhere: SocketAddr, bucket: &str, root: &Path) -> Self {
        fs::create_dir_all(root.join(bucket).join(PREFIX)).expect("a fresh directory");
        let address = ([127, 0, 0, 1], 0).into();
        let mut server = Self::try_listen(root, address, Behind::Elsewhere(elsewhere)).expect("any port");
        bucket.clone_into(&mut server.bucket);
        let made = server.runtime.block_on(Elsewhere::make(elsewhere, bucket));
        server.elsewhere = Some(made.expect("the other server makes a bucket"));
        server
    }

    fn start_with(root: &Path, is_public: bool) -> Self {
        Self::try_start(root, ([127, 0, 0, 1], 0).into(), is_public).expect("a fresh directory, and any port")
    }

    fn try_start(root: &Path, address: SocketAddr, is_public: bool) -> io::Result<Self> {
        fs::create_dir_all(root.join(BUCKET).join(PREFIX))?;
        Self::try_listen(root, address, Behind::files(root, is_public)?)
    }

    fn try_listen(root: &Path, address: SocketAddr, behind: Behind) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let held = hold(address)?;
        let mut server = Self {
            runtime,
            address: held.local_addr()?,
            _held: held,
            listening: None,
            behind,
            elsewhere: None,
            state: Arc::default(),
            root: root.to_owned(),
            bucket: BUCKET.to_owned(),
        };
        server.bind()?;
        Ok(server)
    }

    /// Where it listens.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where the objects lie as files; those of another server after [`Self::fetch`].
    #[must_use]
    pub fn objects(&self) -> PathBuf {
        self.root.join(&self.bucket).join(PREFIX)
    }

    /// Copies what another server has and [`Self::objects`] has not.
    pub fn fetch(&self) {
        if let Some(elsewhere) = &self.elsewhere {
            let copied = self.runtime.block_on(elsewhere.copy_to(&self.objects()));
            copied.expect("the other server gives what it has");
        }
    }

    /// Copies everything that another server has, as it is now.
    pub fn fetch_anew(&self) {
        if self.elsewhere.is_some() {
            fs::remove_dir_all(self.objects()).expect("made when it was started");
            fs::create_dir(self.objects()).expect("just removed");
            self.fetch();
        }
    }

    /// Settings with which it is found.
    #[must_use]
    pub fn options(&self) -> S3Options {
        S3Options { bucket: self.bucket.clone(), ..options_for(self.endpoint()) }
    }

    /// The same as an agent's configuration.
    #[must_use]
    pub fn settings(&self) -> String {
        format!(
            "store = \"s3://{}/{PREFIX}\"\n[s3]\nregion = \"{REGION}\"\nendpoint = \"{}\"\npath_style = true\n\
             connect_timeout_ms = 1000\nrequest_timeout_ms = 1000\n",
            self.bucket,
            self.endpoint()
        )
    }

    /// Listens, on the port that it had.
    pub fn listen(&mut self) {
        assert!(self.listening.is_none(), "connections are refused");
        self.bind().expect("its own port");
    }

    fn bind(&mut self) -> io::Result<()> {
        let listener = self.runtime.block_on(TcpListener::bind(self.address))?;
        let (behind, state) = (self.behind.clone(), Arc::clone(&self.state));
        self.listening = Some(self.runtime.spawn(accept(listener, behind, state)));
        Ok(())
    }

    /// From now on connections are refused, and those that there are cut.
    pub fn refuse_connections(&mut self) {
        let listening = self.listening.take().expect("it listens");
        listening.abort();
        // The socket is closed when the task is gone.
        let _ = self.runtime.block_on(listening);
    }

    /// From now on this happens, for paths that contain this.
    pub fn fail(&self, fault: Option<Fault>, only: Option<&str>) {
        let mut state = self.state();
        (state.fault, state.only) = (fault, only.map(str::to_owned));
        state.failed.clear();
        state.lost.clear();
    }

    /// From now on this happens, whatever else does, for paths that contain this.
    pub fn poison(&self, poison: Option<(Fault, String)>) {
        self.state().poison = poison;
    }

    /// From now on whoever signs has to show a session token for which this is true. Others are told that it has expired,
    /// and it counts as not allowed.
    pub fn admit_tokens(&self, admits: impl Fn(&str) -> bool + Send + 'static) {
        self.state().admits = Some(Box::new(admits));
    }

    /// How many requests with this in their path failed since it was told to.
    #[must_use]
    pub fn failed(&self, part: &str) -> usize {
        self.state().failed.iter().filter(|path| path.contains(part)).count()
    }

    /// From now on it does not keep what is asked.
    pub fn forgets_what_is_asked(&self) {
        self.state().forgets = true;
    }

    /// From now on nothing can be stored, as for whoever has the console's policy.
    pub fn only_reads(&self) {
        self.state().reads_only = true;
    }

    /// Counts failures from here on.
    pub fn count_anew(&self) {
        self.state().failed.clear();
    }

    /// Everything that was asked.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        self.state().asked.clone()
    }

    /// What was asked that may not be.
    #[must_use]
    pub fn not_allowed(&self) -> Vec<String> {
        self.state().not_allowed.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic in between")
    }
}

/// Binds a port and does not listen on it: nobody else gets it then, and connections are refused.
fn hold(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // As what listens has it: then one can be bound beside the other (socket(7)).
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// The credentials that are let in.
#[must_use]
pub fn credentials() -> Credentials {
    Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "test")
}

/// What an agent finds in its environment.
pub const ENVIRONMENT: [(&str, &str); 5] = [
    ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
    ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
    ("AWS_EC2_METADATA_DISABLED", "true"),
    ("AWS_CONFIG_FILE", "/nonexistent"),
    ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent"),
];
