//! Faults, and the answers that come of them.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::{Response, StatusCode, body::Frame};

use crate::serving::HungUp;

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

pub(crate) fn error(status: u16, code: &str) -> Response<s3s::Body> {
    let text = format!(
        "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>as the test wants it</Message></Error>"
    );
    let answer = Response::builder().status(status).header("content-type", "application/xml");
    answer.body(s3s::Body::from(text)).expect("well-formed")
}

pub(crate) fn cut(status: StatusCode) -> Response<s3s::Body> {
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
