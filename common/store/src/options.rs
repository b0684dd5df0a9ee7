//! How a bucket is reached, and how objects are put there.

use std::{collections::BTreeMap, time::Duration};

/// Why a setting makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {problem}")]
pub struct OptionsError {
    /// Which one: `store` for bucket and prefix, otherwise the name of the field.
    pub setting: &'static str,
    /// What is wrong, and what would be right.
    pub problem: String,
}

/// A store in a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Options {
    /// The bucket, or the alias of an access point.
    pub bucket: String,
    /// What every key begins with, without a `/` at either end; may be empty.
    pub prefix: String,
    /// The bucket's region; none for what the environment says.
    pub region: Option<String>,
    /// Where the API is, if not where AWS has it.
    pub endpoint: Option<String>,
    /// Whether the bucket is named in the path instead of the host name.
    pub path_style: bool,
    /// The profile of the shared configuration files.
    pub profile: Option<String>,
    /// How objects are encrypted where they lie.
    pub encryption: Encryption,
    /// For how long objects are locked, if they are.
    pub lock: Option<ObjectLock>,
    /// The tags that every object gets.
    pub tags: BTreeMap<String, String>,
    /// The storage class; none for the bucket's default.
    pub storage_class: Option<String>,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long one request may take, the body included.
    pub request_timeout: Duration,
}

/// How objects are encrypted where they lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// As the bucket says.
    BucketDefault,
    /// SSE-S3.
    Aes256,
    /// SSE-KMS, with this key or the account's default one.
    Kms(Option<String>),
}

/// S3's Object Lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectLock {
    /// Who may end it.
    pub mode: LockMode,
    /// How long it lasts from the moment an object is stored.
    pub days: u32,
}

/// Who may end an Object Lock early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// Who has `s3:BypassGovernanceRetention`.
    Governance,
    /// Nobody.
    Compliance,
}

impl S3Options {
    /// Reaches a `bucket/prefix` as AWS has it, with what the environment says, and asks for nothing but the bucket's own
    /// defaults.
    ///
    /// # Errors
    /// If it can't be a bucket's name, or no key of ours has such a prefix.
    pub fn new(place: &str) -> Result<Self, OptionsError> {
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        check_bucket(bucket)?;
        let prefix = prefix.trim_end_matches('/');
        check_prefix(prefix)?;
        Ok(Self {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            region: None,
            endpoint: None,
            path_style: false,
            profile: None,
            encryption: Encryption::BucketDefault,
            lock: None,
            tags: BTreeMap::new(),
            storage_class: None,
            connect_timeout: CONNECT_TIMEOUT,
            request_timeout: REQUEST_TIMEOUT,
        })
    }

    /// Looks at how the bucket is reached.
    ///
    /// # Errors
    /// If the endpoint is no address of a server, or region or profile is no name.
    pub fn check_access(&self) -> Result<(), OptionsError> {
        if let Some(endpoint) = &self.endpoint {
            check_endpoint(endpoint)?;
        }
        for (setting, text) in [("region", &self.region), ("profile", &self.profile)] {
            if text.as_ref().is_some_and(|text| text.is_empty() || text.contains(char::is_whitespace)) {
                return Err(wrong(setting, "must be a name such as eu-central-1, or left out"));
            }
        }
        Ok(())
    }
}

/// S3's rules for names of buckets; the API has the last word.
fn check_bucket(bucket: &str) -> Result<(), OptionsError> {
    let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if (3..=63).contains(&bucket.len())
        && bucket.chars().all(known)
        && bucket.starts_with(ends)
        && bucket.ends_with(ends)
        && !bucket.contains("..")
    {
        return Ok(());
    }
    let right = "3 to 63 lower-case letters, digits, - and ., as in s3://bucket/prefix";
    Err(wrong("store", format!("{bucket:?} cannot be a bucket's name; it has {right}")))
}

fn check_prefix(prefix: &str) -> Result<(), OptionsError> {
    let fine = |part: &str| {
        let known = |c: char| c.is_ascii_alphanumeric() || "-_.=+@".contains(c);
        !part.is_empty() && part != "." && part != ".." && part.chars().all(known)
    };
    if prefix.is_empty() || (prefix.len() <= PREFIX_BYTES && prefix.split('/').all(fine)) {
        return Ok(());
    }
    let right = "letters, digits and -_.=+@ between single slashes, 512 bytes at most";
    Err(wrong("store", format!("the prefix {prefix:?} may have {right}")))
}

fn check_endpoint(endpoint: &str) -> Result<(), OptionsError> {
    let refused = |problem: &str| Err(wrong("endpoint", format!("{problem}; write https://host:port")));
    let Ok(url) = reqwest::Url::parse(endpoint) else {
        return refused("not a URL");
    };
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return refused("not an address of a server");
    }
    if !url.username().is_empty()
        || url.password().is_some()
        || url.query().is_some()
        || url.fragment().is_some()
    {
        return refused("has more than an address");
    }
    Ok(())
}

fn wrong(setting: &'static str, problem: impl Into<String>) -> OptionsError {
    OptionsError { setting, problem: problem.into() }
}

/// How long connecting may take unless something else is said.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one request may take unless something else is said.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

const PREFIX_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_bucket_and_a_prefix() {
        let options = S3Options::new("recordings/weir/prod/").expect("a place");
        assert_eq!((&*options.bucket, &*options.prefix), ("recordings", "weir/prod"));
        for place in ["", "Recordings", "re", "recordings/a//b", "recordings/../b", "recordings/a b"] {
            assert_eq!(S3Options::new(place).expect_err("no place").setting, "store", "{place:?}");
        }
    }

    #[test]
    fn a_secret_in_an_endpoint_is_not_repeated() {
        let mut options = S3Options::new("recordings").expect("a place");
        options.endpoint = Some("https://user:secret@host".into());
        let error = options.check_access().expect_err("more than an address").to_string();
        assert!(error.starts_with("endpoint: ") && !error.contains("secret"), "{error}");
    }
}
