//! A receiver of session reports: HTTPS with a certificate of its own making, and every way to misbehave.

use std::{
    collections::VecDeque,
    fs,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    runtime::Runtime,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::aws_lc_rs, pki_types::PrivateKeyDer},
};
use weir_common::{
    report::{SessionReport, Status},
    session::SessionId,
};

/// What a receiver does with a report whose token is right.
#[derive(Clone, Debug)]
pub(crate) enum Does {
    /// 204.
    Take,
    /// This status, with these header lines.
    Answer(u16, &'static str),
    /// Nothing, and keeps the connection.
    Hang,
    /// Takes it and hangs up without an answer.
    LoseTheAnswer,
}

/// A report as it came.
#[derive(Clone, Debug)]
pub(crate) struct Came {
    pub(crate) report: SessionReport,
    pub(crate) body: Vec<u8>,
    /// Whether it was answered with 204.
    pub(crate) taken: bool,
}

/// A receiver; gone with this value.
pub(crate) struct Receiver {
    runtime: Option<Runtime>,
    address: SocketAddr,
    tls: Arc<ServerConfig>,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    token: String,
    usually: Does,
    /// What is done with the next ones instead.
    next: VecDeque<Does>,
    /// What is done with those of this session.
    of: Option<(SessionId, Does)>,
    came: Vec<Came>,
    unauthorized: usize,
}

impl Receiver {
    /// A receiver that takes this token. The certificate of its authority is written to `ca_file`.
    pub(crate) fn start(token: &str, ca_file: &Path) -> Self {
        let shared = Shared {
            token: token.to_owned(),
            usually: Does::Take,
            next: VecDeque::new(),
            of: None,
            came: Vec::new(),
            unauthorized: 0,
        };
        let tls = Arc::new(certified(ca_file));
        let mut receiver = Self {
            runtime: None,
            address: ([127, 0, 0, 1], 0).into(),
            tls,
            shared: Arc::new(Mutex::new(shared)),
        };
        receiver.go_up();
        receiver
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}/api/v1/reports", self.address.port())
    }

    /// Does not answer any more.
    pub(crate) fn go_down(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Answers again, at the same address.
    pub(crate) fn go_up(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let listener = loop {
            // A runtime that is going down may have the port for another moment.
            match runtime.block_on(TcpListener::bind(self.address)) {
                Ok(listener) => break listener,
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => std::thread::yield_now(),
                Err(error) => panic!("cannot listen: {error}"),
            }
        };
        self.address = listener.local_addr().expect("bound");
        let (acceptor, shared) = (TlsAcceptor::from(Arc::clone(&self.tls)), Arc::clone(&self.shared));
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, &shared).await;
                    }
                });
            }
        });
        self.runtime = Some(runtime);
    }

    pub(crate) fn set_token(&self, token: &str) {
        token.clone_into(&mut self.shared().token);
    }

    pub(crate) fn usually(&self, does: Does) {
        self.shared().usually = does;
    }

    pub(crate) fn next(&self, does: impl IntoIterator<Item = Does>) {
        self.shared().next.extend(does);
    }

    pub(crate) fn with_session(&self, session: SessionId, does: Does) {
        self.shared().of = Some((session, does));
    }

    pub(crate) fn unauthorized(&self) -> usize {
        self.shared().unauthorized
    }

    /// Everything that came with the right token, in order.
    pub(crate) fn came(&self) -> Vec<Came> {
        self.shared().came.clone()
    }

    /// The reports of this session that were taken.
    pub(crate) fn taken(&self, session: SessionId) -> Vec<SessionReport> {
        let came = self.came().into_iter().filter(|came| came.taken);
        came.map(|came| came.report).filter(|report| report.session.session_id == session).collect()
    }

    /// Whether a report of this session being stored was taken.
    pub(crate) fn has_stored(&self, session: SessionId) -> bool {
        self.taken(session).iter().any(|report| matches!(report.status, Status::Stored(_)))
    }

    fn shared(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().expect("no panic in between")
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.go_down();
    }
}

async fn serve(mut stream: tokio_rustls::server::TlsStream<tokio::net::TcpStream>, shared: &Mutex<Shared>) {
    while let Some((head, body)) = request(&mut stream).await {
        assert!(head.starts_with("POST /api/v1/reports HTTP/1.1\r\n"), "{head}");
        assert!(head.to_lowercase().contains("content-type: application/json\r\n"), "{head}");
        let does = {
            let mut shared = shared.lock().expect("no panic in between");
            if head.contains(&format!("Bearer {}\r\n", shared.token)) {
                let report: SessionReport = serde_json::from_slice(&body).expect("a report");
                let id = report.session.session_id;
                let of = shared.of.clone().filter(|(session, _)| *session == id).map(|(_, does)| does);
                let next = if of.is_some() { None } else { shared.next.pop_front() };
                let does = of.or(next).unwrap_or_else(|| shared.usually.clone());
                shared.came.push(Came { report, body, taken: matches!(does, Does::Take) });
                does
            } else {
                shared.unauthorized += 1;
                Does::Answer(401, "")
            }
        };
        let (status, headers) = match does {
            Does::Take => (204, ""),
            Does::Answer(status, headers) => (status, headers),
            Does::Hang => std::future::pending().await,
            Does::LoseTheAnswer => return,
        };
        let answer = format!("HTTP/1.1 {status} Whatever\r\n{headers}Content-Length: 0\r\n\r\n");
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn request(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let mut body = bytes.split_off(end);
    let head = String::from_utf8(bytes).expect("text");
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    })?;
    while body.len() < length {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some((head, body))
}

fn certified(ca_file: &Path) -> ServerConfig {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let ca = CertifiedIssuer::self_signed(params, key).expect("an authority");
    fs::write(ca_file, ca.pem()).expect("writable");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let certificate = params.signed_by(&key, &ca).expect("signed");
    ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .expect("a certificate and its key")
}
