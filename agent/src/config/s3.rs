//! The table `[s3]`, and `store = "s3://bucket/prefix"`.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;

use super::{ConfigError, value, within};

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

/// The table, as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawS3 {
    region: Option<String>,
    endpoint: Option<String>,
    path_style: bool,
    profile: Option<String>,
    encryption: Option<String>,
    kms_key_id: Option<String>,
    object_lock_mode: Option<String>,
    object_lock_days: Option<u32>,
    tags: BTreeMap<String, String>,
    storage_class: Option<String>,
    connect_timeout_ms: Option<u64>,
    request_timeout_ms: Option<u64>,
}

impl RawS3 {
    /// What the table says about this `bucket/prefix`.
    pub(super) fn validate(self, place: &str) -> Result<S3Options, ConfigError> {
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        check_bucket(bucket)?;
        let prefix = prefix.trim_end_matches('/');
        check_prefix(prefix)?;
        let encryption = self.encryption()?;
        let lock = self.lock()?;
        check_tags(&self.tags)?;
        if let Some(endpoint) = &self.endpoint {
            check_endpoint(endpoint)?;
        }
        if let Some(class) = &self.storage_class
            && !STORAGE_CLASSES.contains(&class.as_str())
        {
            let right = STORAGE_CLASSES.join(", ");
            return Err(value("s3.storage_class", format!("{class:?} is not one of {right}")));
        }
        for (key, text) in [("s3.region", &self.region), ("s3.profile", &self.profile)] {
            if text.as_ref().is_some_and(|text| text.is_empty() || text.contains(char::is_whitespace)) {
                return Err(value(key, "must be a name such as eu-central-1, or left out"));
            }
        }
        let connect_ms = self.connect_timeout_ms.unwrap_or(5_000);
        within("s3.connect_timeout_ms", connect_ms, 1, 60_000)?;
        let request_ms = self.request_timeout_ms.unwrap_or(60_000);
        within("s3.request_timeout_ms", request_ms, 100, 600_000)?;
        Ok(S3Options {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            region: self.region,
            endpoint: self.endpoint,
            path_style: self.path_style,
            profile: self.profile,
            encryption,
            lock,
            tags: self.tags,
            storage_class: self.storage_class,
            connect_timeout: Duration::from_millis(connect_ms),
            request_timeout: Duration::from_millis(request_ms),
        })
    }

    fn encryption(&self) -> Result<Encryption, ConfigError> {
        let encryption = match self.encryption.as_deref() {
            None | Some("bucket-default") => Encryption::BucketDefault,
            Some("AES256") => Encryption::Aes256,
            Some("aws:kms") => Encryption::Kms(self.kms_key_id.clone()),
            Some(other) => {
                let right = "write bucket-default, AES256 or aws:kms";
                return Err(value("s3.encryption", format!("{other:?} is not known; {right}")));
            }
        };
        match &self.kms_key_id {
            Some(_) if !matches!(encryption, Encryption::Kms(_)) => {
                Err(value("s3.kms_key_id", "counts only with encryption = \"aws:kms\""))
            }
            Some(key) if key.is_empty() || key.len() > 2048 || !key.is_ascii() => {
                Err(value("s3.kms_key_id", "must be the id, alias or ARN of a key"))
            }
            _ => Ok(encryption),
        }
    }

    fn lock(&self) -> Result<Option<ObjectLock>, ConfigError> {
        let mode = match self.object_lock_mode.as_deref() {
            None if self.object_lock_days.is_none() => return Ok(None),
            None => {
                return Err(value(
                    "s3.object_lock_mode",
                    "say governance or compliance with object_lock_days",
                ));
            }
            Some("governance") => LockMode::Governance,
            Some("compliance") => LockMode::Compliance,
            Some(other) => {
                let problem = format!("{other:?} is not known; write governance or compliance");
                return Err(value("s3.object_lock_mode", problem));
            }
        };
        let Some(days) = self.object_lock_days else {
            return Err(value("s3.object_lock_days", "say for how many days with object_lock_mode"));
        };
        within("s3.object_lock_days", days.into(), 1, 36_500)?;
        Ok(Some(ObjectLock { mode, days }))
    }
}

/// S3's rules for names of buckets; the API has the last word.
fn check_bucket(bucket: &str) -> Result<(), ConfigError> {
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
    Err(value("store", format!("{bucket:?} cannot be a bucket's name; it has {right}")))
}

fn check_prefix(prefix: &str) -> Result<(), ConfigError> {
    let fine = |part: &str| {
        let known = |c: char| c.is_ascii_alphanumeric() || "-_.=+@".contains(c);
        !part.is_empty() && part != "." && part != ".." && part.chars().all(known)
    };
    if prefix.is_empty() || (prefix.len() <= PREFIX_BYTES && prefix.split('/').all(fine)) {
        return Ok(());
    }
    let right = "letters, digits and -_.=+@ between single slashes, 512 bytes at most";
    Err(value("store", format!("the prefix {prefix:?} may have {right}")))
}

fn check_endpoint(endpoint: &str) -> Result<(), ConfigError> {
    let refused = |problem: &str| Err(value("s3.endpoint", format!("{problem}; write https://host:port")));
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

/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html>
fn check_tags(tags: &BTreeMap<String, String>) -> Result<(), ConfigError> {
    let known = |c: char| c.is_alphanumeric() || c == ' ' || "_.:/=+-@".contains(c);
    let fine = |(name, text): (&String, &String)| {
        (1..=128).contains(&name.chars().count())
            && text.chars().count() <= 256
            && name.chars().chain(text.chars()).all(known)
            && !name.to_ascii_lowercase().starts_with("aws:")
    };
    if tags.len() > TAGS {
        return Err(value("s3.tags", format!("an object has at most {TAGS} tags, not {}", tags.len())));
    }
    match tags.iter().find(|tag| !fine(*tag)) {
        None => Ok(()),
        Some((name, _)) => {
            let right = "names have 1 to 128 characters and values at most 256: letters, digits, spaces and _.:/=+-@; \
                         names don't begin with aws:";
            Err(value("s3.tags", format!("the tag {name:?} is not one that S3 takes: {right}")))
        }
    }
}

const PREFIX_BYTES: usize = 512;
const TAGS: usize = 10;
/// Those that can be read at once; recordings are read when somebody asks for them.
const STORAGE_CLASSES: [&str; 5] =
    ["STANDARD", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR"];

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(store: &str, table: &str) -> Result<S3Options, ConfigError> {
        toml::from_str::<RawS3>(table).expect("well-formed").validate(store)
    }

    #[test]
    fn a_bucket_needs_nothing_else() {
        let options = parse("recordings", "").expect("enough");
        assert_eq!((&*options.bucket, &*options.prefix), ("recordings", ""));
        assert_eq!((options.encryption, options.lock), (Encryption::BucketDefault, None));
        let options = parse("recordings/weir/prod/", "").expect("fine");
        assert_eq!((&*options.bucket, &*options.prefix), ("recordings", "weir/prod"));
    }

    #[test]
    fn encryption_lock_and_tags_are_read() {
        let table = "encryption = 'aws:kms'\nkms_key_id = 'alias/weir'\nobject_lock_mode = 'compliance'\n\
                     object_lock_days = 400\n[tags]\nteam = 'sec ops'";
        let options = parse("recordings", table).expect("fine");
        assert_eq!(options.encryption, Encryption::Kms(Some("alias/weir".into())));
        assert_eq!(options.lock, Some(ObjectLock { mode: LockMode::Compliance, days: 400 }));
        assert_eq!(options.tags["team"], "sec ops");
    }

    #[test]
    fn each_nonsense_is_refused_by_the_name_of_its_key() {
        for (store, table, key) in [
            ("", "", "store"),
            ("Recordings", "", "store"),
            ("recordings/a//b", "", "store"),
            ("recordings/../b", "", "store"),
            ("recordings", "encryption = 'aes'", "s3.encryption"),
            ("recordings", "kms_key_id = 'k'", "s3.kms_key_id"),
            ("recordings", "object_lock_days = 3", "s3.object_lock_mode"),
            ("recordings", "object_lock_mode = 'governance'", "s3.object_lock_days"),
            ("recordings", "object_lock_mode = 'legal'\nobject_lock_days = 3", "s3.object_lock_mode"),
            ("recordings", "object_lock_mode = 'governance'\nobject_lock_days = 0", "s3.object_lock_days"),
            ("recordings", "endpoint = 'host:9000'", "s3.endpoint"),
            ("recordings", "endpoint = 'https://user:secret@host'", "s3.endpoint"),
            ("recordings", "storage_class = 'GLACIER'", "s3.storage_class"),
            ("recordings", "region = ''", "s3.region"),
            ("recordings", "request_timeout_ms = 0", "s3.request_timeout_ms"),
            ("recordings", "[tags]\n'aws:x' = 'y'", "s3.tags"),
            ("recordings", "[tags]\n'x' = 'a&b'", "s3.tags"),
        ] {
            let problem = parse(store, table).expect_err("nonsense").to_string();
            assert!(problem.starts_with(key), "{store:?} {table:?}: {problem}");
            assert!(!problem.contains("secret"), "{problem}");
        }
    }
}
