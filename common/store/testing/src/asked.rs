//! What a client asks of a server.

use bytes::Bytes;
use hyper::{HeaderMap, Method, Uri};

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
    pub(crate) fn operation(&self) -> Option<&'static str> {
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
