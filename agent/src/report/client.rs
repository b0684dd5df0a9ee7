//! One attempt to deliver a report, and what its outcome means.

use std::{
    error::Error,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use reqwest::{
    Certificate, Client, StatusCode, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER},
    redirect,
};

use super::ReportOptions;

/// The most bytes of a token: those of identity providers have some thousand.
const TOKEN_BYTES: u64 = 16 * 1024;
/// The most bytes of a file of authorities: the system's own has some 200 KiB.
const CA_BYTES: u64 = 4 * 1024 * 1024;

/// Why there is nothing to deliver reports with.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The authorities cannot be read.
    #[error("cannot read {} (report.ca_file): {source}", path.display())]
    Ca {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// They are none.
    #[error("{} (report.ca_file) holds no PEM certificate that can be used", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// TLS cannot be set up.
    #[error("cannot set up TLS for session reports, the system's authorities among it: {source}")]
    Tls {
        /// Why not.
        source: reqwest::Error,
    },
}

/// What came of an attempt.
#[derive(Debug)]
pub(super) enum Answer {
    /// The receiver has it.
    Taken,
    /// It never will.
    Never(StatusCode),
    /// It does not know this agent.
    Unauthorized(StatusCode),
    /// It may later.
    Later {
        /// In words.
        why: String,
        /// What it asked for.
        retry_after: Option<Duration>,
    },
}

/// Sends reports.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    client: Client,
    url: Url,
    token_file: PathBuf,
}

impl Sender {
    pub(super) fn new(options: &ReportOptions) -> Result<Self, ClientError> {
        let mut client = Client::builder()
            .timeout(options.timeout)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .user_agent(concat!("weir-agent/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = &options.ca_file {
            client = client.tls_certs_only(authorities(path)?);
        }
        let client = client.build().map_err(|source| ClientError::Tls { source })?;
        Ok(Self { client, url: options.url.clone(), token_file: options.token_file.clone() })
    }

    pub(super) fn token_file(&self) -> &Path {
        &self.token_file
    }

    /// The header that says who reports. Read anew for every attempt, so that a token can be changed at any time.
    /// Blocks.
    pub(super) fn authorization(&self) -> Result<HeaderValue, String> {
        let path = self.token_file.display();
        let read = |limit: u64| {
            let mut text = String::new();
            File::open(&self.token_file)?.take(limit + 1).read_to_string(&mut text)?;
            Ok::<_, io::Error>(text)
        };
        let text = read(TOKEN_BYTES).map_err(|error| format!("cannot read the token in {path}: {error}"))?;
        let token = text.trim();
        if token.is_empty() || text.len() as u64 > TOKEN_BYTES {
            return Err(format!("{path} does not hold a token of 1 to {TOKEN_BYTES} bytes"));
        }
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| format!("{path} does not hold a token: it has characters that no header takes"))?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// Makes an attempt.
    pub(super) async fn send(&self, authorization: HeaderValue, body: Vec<u8>) -> Answer {
        let request = self
            .client
            .post(self.url.clone())
            .header(AUTHORIZATION, authorization)
            .header(CONTENT_TYPE, "application/json")
            .body(body);
        match request.send().await {
            Ok(response) => answer(response.status(), response.headers(), Timestamp::now()),
            Err(error) => Answer::Later { why: told(error), retry_after: None },
        }
    }
}

fn answer(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Answer {
    match status.as_u16() {
        200..=299 => Answer::Taken,
        400 | 409 | 413 | 422 => Answer::Never(status),
        401 | 403 => Answer::Unauthorized(status),
        _ => {
            let retry_after = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
            let retry_after = retry_after.and_then(|value| pause(value, now));
            Answer::Later { why: format!("the receiver answered {status}"), retry_after }
        }
    }
}

/// `Retry-After` (RFC 9110 section 10.2.3): seconds, or a date.
fn pause(value: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(value.trim()).ok()?.timestamp();
    Duration::try_from(date.duration_since(now)).ok()
}

/// The error and its causes, without the URL, which may be somebody's secret.
fn told(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}

fn authorities(path: &Path) -> Result<Vec<Certificate>, ClientError> {
    let mut pem = Vec::new();
    File::open(path)
        .and_then(|file| file.take(CA_BYTES).read_to_end(&mut pem))
        .map_err(|source| ClientError::Ca { path: path.to_owned(), source })?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(ClientError::NoCertificate { path: path.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_a_receiver_asks_for_is_a_pause_or_nothing(value in ".*", seconds: u64, now in 0..4_000_000_000_i64) {
            let now = Timestamp::from_second(now).expect("a time");
            let _ = pause(&value, now);
            prop_assert_eq!(pause(&seconds.to_string(), now), Some(Duration::from_secs(seconds)));
        }
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_as_a_date() {
        let now = "1994-11-06T08:49:00Z".parse().expect("a time");
        assert_eq!(pause("120", now), Some(Duration::from_secs(120)));
        assert_eq!(pause("Sun, 06 Nov 1994 08:49:37 GMT", now), Some(Duration::from_secs(37)));
        assert_eq!(pause("Sun, 06 Nov 1994 08:48:37 GMT", now), None, "it is over");
        assert_eq!(pause("soon", now), None);
    }

    #[test]
    fn every_status_means_one_thing() {
        let now = Timestamp::now();
        for status in 100..1000 {
            let Ok(code) = StatusCode::from_u16(status) else { continue };
            let answer = answer(code, &HeaderMap::new(), now);
            match status {
                200..=299 => assert!(matches!(answer, Answer::Taken)),
                400 | 409 | 413 | 422 => assert!(matches!(answer, Answer::Never(_))),
                401 | 403 => assert!(matches!(answer, Answer::Unauthorized(_))),
                _ => assert!(matches!(answer, Answer::Later { .. }), "{status}"),
            }
        }
    }
}
