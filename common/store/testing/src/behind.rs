//! What serves the requests that do not fail: files, or another server.

use std::{io, net::SocketAddr, path::Path};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response,
    client::conn::http1::handshake,
    header::{CONNECTION, EXPECT, TRANSFER_ENCODING},
    http::request::Parts,
};
use hyper_util::rt::TokioIo;
use s3s::{
    auth::SimpleAuth,
    service::{S3Service, S3ServiceBuilder},
};
use s3s_fs::FileSystem;
use tokio::net::TcpStream;

use crate::{ACCESS_KEY, SECRET_KEY, serving::HungUp};

/// Who is let in, and to what.
#[derive(Clone)]
pub(crate) enum Behind {
    /// `s3s-fs`.
    Files {
        /// For those who sign.
        signed: S3Service,
        /// For those who sign nothing, if they are let in.
        open: Option<S3Service>,
    },
    /// A server that checks for itself whom it lets in.
    Elsewhere(SocketAddr),
}

impl Behind {
    /// Files below this directory, for whoever has the credentials, and for strangers if it is public.
    pub(crate) fn files(root: &Path, is_public: bool) -> io::Result<Self> {
        let files = || FileSystem::new(root).map_err(|error| io::Error::other(format!("{error:?}")));
        let mut signed = S3ServiceBuilder::new(files()?);
        signed.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let open = if is_public { Some(S3ServiceBuilder::new(files()?).build()) } else { None };
        Ok(Self::Files { signed: signed.build(), open })
    }

    pub(crate) async fn call(&self, head: Parts, body: Bytes) -> Result<Response<s3s::Body>, HungUp> {
        match self {
            Self::Files { signed, open } => {
                let is_signed = head.headers.contains_key("authorization");
                let service = open.as_ref().filter(|_| !is_signed).unwrap_or(signed);
                service.call(Request::from_parts(head, body.into())).await.map_err(|_| HungUp)
            }
            Self::Elsewhere(address) => {
                let answer = forward(*address, head, body).await.map_err(|_| HungUp)?;
                Ok(answer.map(s3s::Body::from))
            }
        }
    }
}

/// Asks another server the same, with every header that a signature may cover.
async fn forward(address: SocketAddr, mut head: Parts, body: Bytes) -> io::Result<Response<Bytes>> {
    // The body is here in full.
    head.headers.remove(EXPECT);
    let socket = TokioIo::new(TcpStream::connect(address).await?);
    let (mut sender, connection) = handshake(socket).await.map_err(io::Error::other)?;
    let exchange = async move {
        let answer = sender.send_request(Request::from_parts(head, Full::new(body))).await?;
        let (mut head, body) = answer.into_parts();
        // They are of that connection, and not of the one to our client.
        head.headers.remove(CONNECTION);
        head.headers.remove(TRANSFER_ENCODING);
        Ok::<_, hyper::Error>(Response::from_parts(head, body.collect().await?.to_bytes()))
    };
    // The connection ends when what sends on it is dropped.
    let (answer, _) = tokio::join!(exchange, connection);
    answer.map_err(io::Error::other)
}
