//! The layer before what serves: it records, refuses, and fails as it is told to.

use std::sync::{Arc, Mutex};

use http_body_util::BodyExt;
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::{
    Asked, Fault,
    behind::Behind,
    fault::{cut, error},
};

/// Says whether a session token is good.
pub(crate) type Admits = Box<dyn Fn(&str) -> bool + Send>;

/// What the layer was told, and what it has seen.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) fault: Option<Fault>,
    /// Only requests whose path contains this fail.
    pub(crate) only: Option<String>,
    /// Besides, and whatever else happens, those whose path contains this fail so.
    pub(crate) poison: Option<(Fault, String)>,
    /// Whoever signs has to show a session token, and this decides about it.
    pub(crate) admits: Option<Admits>,
    pub(crate) asked: Vec<Asked>,
    pub(crate) forgets: bool,
    pub(crate) reads_only: bool,
    /// The paths that failed requests asked for.
    pub(crate) failed: Vec<String>,
    pub(crate) not_allowed: Vec<String>,
    pub(crate) lost: Vec<String>,
}

impl State {
    /// What a request for this path meets.
    fn fault_of(&mut self, path: &str) -> Option<Fault> {
        let poison = self.poison.as_ref().filter(|(_, part)| path.contains(part.as_str()));
        let is_meant = self.only.as_ref().is_none_or(|only| path.contains(only.as_str()));
        let fault = poison.map(|(fault, _)| *fault).or(self.fault.filter(|_| is_meant));
        if fault.is_some() {
            self.failed.push(path.to_owned());
        }
        fault
    }

    /// Whether it is the first put of this object of which the answer is lost.
    fn is_first_loss(&mut self, asked: &Asked) -> bool {
        let path = asked.uri.path().to_owned();
        let is_first = asked.method == Method::PUT && !self.lost.contains(&path);
        if is_first {
            self.lost.push(path);
        }
        is_first
    }

    /// Notes what is asked; an error, with S3's name for it, if it may not be.
    fn takes(&mut self, asked: Asked, operation: Option<&'static str>) -> Result<(), &'static str> {
        let is_allowed = operation.is_some_and(|operation| !self.reads_only || operation != "PutObject");
        let is_signed = asked.header("authorization").is_some();
        let token = asked.header("x-amz-security-token").unwrap_or_default();
        let is_admitted = !is_signed || self.admits.as_ref().is_none_or(|admits| admits(token));
        let line = format!("{} {}", asked.method, asked.uri);
        if !self.forgets {
            self.asked.push(asked);
        }
        let refusal = match (is_allowed, is_admitted) {
            (true, true) => return Ok(()),
            (false, _) => "AccessDenied",
            (true, false) => "ExpiredToken",
        };
        self.not_allowed.push(line);
        Err(refusal)
    }
}

/// Serves until it is dropped.
pub(crate) async fn accept(listener: TcpListener, behind: Behind, state: Arc<Mutex<State>>) {
    // Dropped with this task, and with it every connection.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((socket, _)) = listener.accept().await else { return };
        let (behind, state) = (behind.clone(), Arc::clone(&state));
        connections.spawn(async move {
            let serve = service_fn(|request| answer(request, &behind, &state));
            // A client that hangs up, or a fault that has us do so.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(socket), serve).await;
        });
    }
}

/// The connection is closed without (the rest of) an answer.
#[derive(Debug, thiserror::Error)]
#[error("hung up")]
pub(crate) struct HungUp;

async fn answer(
    request: Request<Incoming>,
    behind: &Behind,
    state: &Mutex<State>,
) -> Result<Response<s3s::Body>, HungUp> {
    let lock = || state.lock().expect("no panic in between");
    let (head, mut body) = request.into_parts();
    let fault = lock().fault_of(head.uri.path());
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
    let is_first_loss = fault == Some(Fault::LostAnswer) && lock().is_first_loss(&asked);
    if let Err(code) = lock().takes(asked, operation) {
        return Ok(error(403, code));
    }
    match fault {
        Some(Fault::Status(status, code)) => return Ok(error(status, code)),
        Some(Fault::BrokenError) => return Ok(cut(StatusCode::INTERNAL_SERVER_ERROR)),
        Some(Fault::Forgetting) if operation == Some("PutObject") => {
            return Ok(Response::new(s3s::Body::empty()));
        }
        _ => {}
    }
    let mut answer = behind.call(head, body).await?;
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
