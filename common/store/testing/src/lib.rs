//! An S3 server in this process: `s3s-fs`, which keeps objects as files, behind a layer that records what is asked,
//! refuses what Weir has no business asking, and fails as it is told to.

#![forbid(unsafe_code)]

mod program;

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
    time::Duration,
};

use aws_sdk_s3::config::Credentials;
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Uri,
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use s3s::{
    auth::SimpleAuth,
    service::{S3Service, S3ServiceBuilder},
};
use s3s_fs::FileSystem;
use tokio::{net::TcpListener, runtime::Runtime, task::JoinHandle};
use weir_store::{Encryption, S3Options};

/// The one bucket.
pub const BUCKET: &str = "recordings";
/// The prefix in it.
pub const PREFIX: &str = "weir";
/// Who is let in.
pub const ACCESS_KEY: &str = "AKIATEST";
/// With this.
pub const SECRET_KEY: &str = "a-secret-that-no-log-shows";

/// What the server does instead of serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Answers with an error and stores nothing.
    Status(u16, &'static str),
    /// Begins an answer of status 500 and hangs up.
    BrokenError,
    /// Reads a part of what is put and hangs up.
    CutRequest,
    /// Does it, begins the answer and hangs up.
    CutAnswer,
    /// Does what it is asked and hangs up without an answer, once for each object.
    LostAnswer,
    /// Does what it is asked, and says nothing of checksums.
    NoChecksum,
    /// Acknowledges what is put, without a checksum, and does not keep it.
    Forgetting,
    /// Takes its time, but does it.
    Slow(Duration),
    /// Never answers.
    Hanging,
}

/// Something that was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    /// How.
    pub method: Method,
    /// For what.
    pub uri: Uri,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Asked {
    /// A header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("text"))
    }

    fn has_query(&self, name: &str) -> bool {
        let pairs = self.uri.query().unwrap_or_default().split('&');
        pairs.into_iter().any(|pair| pair.split('=').next() == Some(name))
    }

    /// Which of Weir's three operations it is.
    fn operation(&self) -> Option<&'static str> {
        let is_object =
            self.uri.path().trim_start_matches('/').split_once('/').is_some_and(|(_, key)| !key.is_empty());
        let known = |name: &str| {
            ["x-id", "list-type", "prefix", "max-keys", "delimiter", "continuation-token"].contains(&name)
        };
        let pairs = self.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        if !pairs.into_iter().all(|pair| known(pair.split('=').next().unwrap_or_default())) {
            return None;
        }
        match self.method {
            Method::PUT if is_object => Some("PutObject"),
            Method::GET if is_object => Some("GetObject"),
            Method::GET if self.has_query("list-type") => Some("ListObjectsV2"),
            _ => None,
        }
    }
}

#[derive(Default)]
struct State {
    fault: Option<Fault>,
    /// Only requests whose path contains this fail.
    only: Option<String>,
    asked: Vec<Asked>,
    forgets: bool,
    reads_only: bool,
    /// The paths that they asked for.
    failed: Vec<String>,
    not_allowed: Vec<String>,
    lost: Vec<String>,
}

/// Settings with which a server of ours at this address is found.
#[must_use]
pub fn options_for(endpoint: String) -> S3Options {
    S3Options {
        bucket: BUCKET.into(),
        prefix: PREFIX.into(),
        region: Some("eu-central-1".into()),
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

/// Who is let in, and to what.
#[derive(Clone)]
struct Service {
    signed: S3Service,
    /// For those who sign nothing, if they are let in.
    open: Option<S3Service>,
}

/// The server. It listens from the beginning.
pub struct Server {
    runtime: Runtime,
    address: SocketAddr,
    listening: Option<JoinHandle<()>>,
    service: Service,
    state: Arc<Mutex<State>>,
    root: PathBuf,
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

    fn start_with(root: &Path, is_public: bool) -> Self {
        Self::try_start(root, ([127, 0, 0, 1], 0).into(), is_public).expect("a fresh directory, and any port")
    }

    fn try_start(root: &Path, address: SocketAddr, is_public: bool) -> io::Result<Self> {
        fs::create_dir_all(root.join(BUCKET).join(PREFIX))?;
        let files = || FileSystem::new(root).map_err(|error| io::Error::other(format!("{error:?}")));
        let mut signed = S3ServiceBuilder::new(files()?);
        signed.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let open = if is_public { Some(S3ServiceBuilder::new(files()?).build()) } else { None };
        let service = Service { signed: signed.build(), open };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let mut server =
            Self { runtime, address, listening: None, service, state: Arc::default(), root: root.to_owned() };
        server.bind()?;
        Ok(server)
    }

    /// Where it listens.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where the objects lie as files.
    #[must_use]
    pub fn objects(&self) -> PathBuf {
        self.root.join(BUCKET).join(PREFIX)
    }

    /// Settings with which it is found.
    #[must_use]
    pub fn options(&self) -> S3Options {
        options_for(self.endpoint())
    }

    /// The same as an agent's configuration.
    #[must_use]
    pub fn settings(&self) -> String {
        format!(
            "store = \"s3://{BUCKET}/{PREFIX}\"\n[s3]\nregion = \"eu-central-1\"\nendpoint = \"{}\"\npath_style = true\n\
             connect_timeout_ms = 1000\nrequest_timeout_ms = 1000\n",
            self.endpoint()
        )
    }

    /// Listens, on the port that it had.
    pub fn listen(&mut self) {
        let holding = self.listening.take().expect("connections are refused");
        self.bind().expect("its own port");
        holding.abort();
    }

    fn bind(&mut self) -> io::Result<()> {
        let listener = self.runtime.block_on(TcpListener::bind(self.address))?;
        self.address = listener.local_addr()?;
        let (service, state) = (self.service.clone(), Arc::clone(&self.state));
        self.listening = Some(self.runtime.spawn(accept(listener, service, state)));
        Ok(())
    }

    /// From now on connections are refused, and those that there are cut.
    pub fn refuse_connections(&mut self) {
        let listening = self.listening.take().expect("it listens");
        listening.abort();
        // The socket is closed when the task is gone.
        let _ = self.runtime.block_on(listening);
        let held = hold(self.address).expect("its own port");
        self.listening = Some(self.runtime.spawn(async move {
            std::future::pending::<()>().await;
            drop(held);
        }));
    }

    /// From now on this happens, for paths that contain this.
    pub fn fail(&self, fault: Option<Fault>, only: Option<&str>) {
        let mut state = self.state();
        (state.fault, state.only) = (fault, only.map(str::to_owned));
        state.failed.clear();
        state.lost.clear();
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
fn hold(address: SocketAddr) -> io::Result<tokio::net::TcpSocket> {
    let socket = tokio::net::TcpSocket::new_v4()?;
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

async fn accept(listener: TcpListener, service: Service, state: Arc<Mutex<State>>) {
    // Dropped with this task, and with it every connection.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((socket, _)) = listener.accept().await else { return };
        let (service, state) = (service.clone(), Arc::clone(&state));
        connections.spawn(async move {
            let serve = service_fn(|request| answer(request, &service, &state));
            // A client that hangs up, or a fault that has us do so.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(socket), serve).await;
        });
    }
}

/// The connection is closed without (the rest of) an answer.
#[derive(Debug, thiserror::Error)]
#[error("hung up")]
struct HungUp;

async fn answer(
    request: Request<Incoming>,
    service: &Service,
    state: &Mutex<State>,
) -> Result<Response<s3s::Body>, HungUp> {
    let (head, mut body) = request.into_parts();
    let fault = {
        let mut state = state.lock().expect("no panic in between");
        let is_meant = state.only.as_ref().is_none_or(|only| head.uri.path().contains(only.as_str()));
        let fault = state.fault.filter(|_| is_meant);
        if fault.is_some() {
            state.failed.push(head.uri.path().to_owned());
        }
        fault
    };
    match fault {
        Some(Fault::Hanging) => std::future::pending().await,
        Some(Fault::CutRequest) => {
            let _ = body.frame().await;
            return Err(HungUp);
        }
        Some(Fault::Slow(pause)) => tokio::time::sleep(pause).await,
        _ => {}
    }
    let body = body.collect().await.map_err(|_| HungUp)?.to_bytes();
    let asked = Asked {
        method: head.method.clone(),
        uri: head.uri.clone(),
        headers: head.headers.clone(),
        body: body.clone(),
    };
    let operation = asked.operation();
    let (is_allowed, is_first_loss) = {
        let mut state = state.lock().expect("no panic in between");
        let is_allowed = operation.is_some_and(|operation| !state.reads_only || operation != "PutObject");
        if !is_allowed {
            state.not_allowed.push(format!("{} {}", head.method, head.uri));
        }
        if !state.forgets {
            state.asked.push(asked);
        }
        let path = head.uri.path().to_owned();
        let is_first = head.method == Method::PUT && !state.lost.contains(&path);
        if is_first && fault == Some(Fault::LostAnswer) {
            state.lost.push(path);
        }
        (is_allowed, is_first)
    };
    if !is_allowed {
        return Ok(error(403, "AccessDenied"));
    }
    match fault {
        Some(Fault::Status(status, code)) => return Ok(error(status, code)),
        Some(Fault::BrokenError) => return Ok(cut(StatusCode::INTERNAL_SERVER_ERROR)),
        Some(Fault::Forgetting) if operation == Some("PutObject") => {
            return Ok(Response::new(s3s::Body::empty()));
        }
        _ => {}
    }
    let is_signed = head.headers.contains_key("authorization");
    let service = service.open.as_ref().filter(|_| !is_signed).unwrap_or(&service.signed);
    let request = Request::from_parts(head, s3s::Body::from(body));
    let mut answer = service.call(request).await.map_err(|_| HungUp)?;
    if fault == Some(Fault::NoChecksum) {
        let stated = answer.headers().keys().filter(|name| name.as_str().starts_with("x-amz-checksum-"));
        for name in stated.cloned().collect::<Vec<_>>() {
            answer.headers_mut().remove(name);
        }
    }
    match fault {
        Some(Fault::LostAnswer) if is_first_loss => Err(HungUp),
        Some(Fault::CutAnswer) => Ok(cut(answer.status())),
        _ => Ok(answer),
    }
}

fn error(status: u16, code: &str) -> Response<s3s::Body> {
    let text = format!(
        "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>as the test wants it</Message></Error>"
    );
    let answer = Response::builder().status(status).header("content-type", "application/xml");
    answer.body(s3s::Body::from(text)).expect("well-formed")
}

fn cut(status: StatusCode) -> Response<s3s::Body> {
    let answer = Response::builder().status(status).header("content-length", "1000");
    answer.body(s3s::Body::http_body_unsync(Cut { begun: false })).expect("well-formed")
}

/// A body that ends in the middle.
struct Cut {
    begun: bool,
}

impl hyper::body::Body for Cut {
    type Data = Bytes;
    type Error = HungUp;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HungUp>>> {
        let begun = std::mem::replace(&mut self.begun, true);
        Poll::Ready(Some(if begun { Err(HungUp) } else { Ok(Frame::data(Bytes::from_static(b"<?xml"))) }))
    }
}
