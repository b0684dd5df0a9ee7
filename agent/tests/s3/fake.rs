//! A small HTTP server that answers as a closure says: what gives out credentials on AWS.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, runtime::Runtime};

pub(crate) struct Fake {
    _runtime: Runtime,
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    /// A server; the closure gives each answer's status and body.
    pub(crate) fn start(answer: impl Fn(&Request<Bytes>) -> (u16, String) + Send + Sync + 'static) -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into(), answer)
    }

    /// The same where clients expect it.
    pub(crate) fn start_at(
        address: SocketAddr,
        answer: impl Fn(&Request<Bytes>) -> (u16, String) + Send + Sync + 'static,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind(address)).expect("an address");
        let address = listener.local_addr().expect("bound");
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let (answer, noted) = (Arc::new(answer), Arc::clone(&asked));
        runtime.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (answer, noted) = (Arc::clone(&answer), Arc::clone(&noted));
                tokio::spawn(async move {
                    let serve = service_fn(async |request: Request<Incoming>| {
                        let asked = format!("{} {}", request.method(), request.uri());
                        noted.lock().expect("no panic in between").push(asked);
                        let (head, body) = request.into_parts();
                        let body = body.collect().await?.to_bytes();
                        let (status, body) = answer(&Request::from_parts(head, body));
                        // Only the token of the metadata service wants it; the others do not mind.
                        let answer = Response::builder()
                            .status(status)
                            .header("x-aws-ec2-metadata-token-ttl-seconds", "21600")
                            .body(Full::new(Bytes::from(body)));
                        Ok::<_, hyper::Error>(answer.expect("well-formed"))
                    });
                    // A client that hangs up is none of our business.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(socket), serve).await;
                });
            }
        });
        Self { _runtime: runtime, address, asked }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn was_asked(&self, what: &str) -> bool {
        self.asked.lock().expect("no panic in between").iter().any(|asked| asked.contains(what))
    }
}
