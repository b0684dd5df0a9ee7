//! The table `[s3]`, and `store = "s3://bucket/prefix"`.

use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};

use serde::Deserialize;
use weir_store::{
    Encryption, LockMode, ObjectLock, OptionsError, S3Options,
    options::{CONNECT_TIMEOUT, REQUEST_TIMEOUT},
};

use super::{ConfigError, value, within};

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
        let options = S3Options::new(place).map_err(of_option)?;
        let encryption = self.encryption()?;
        let lock = self.lock()?;
        check_tags(&self.tags)?;
        if let Some(class) = &self.storage_class
            && !STORAGE_CLASSES.contains(&class.as_str())
        {
            let right = STORAGE_CLASSES.join(", ");
            return Err(value("s3.storage_class", format!("{class:?} is not one of {right}")));
        }
        let options = S3Options {
            region: self.region,
            endpoint: self.endpoint,
            path_style: self.path_style,
            profile: self.profile,
            encryption,
            lock,
            tags: self.tags,
            storage_class: self.storage_class,
            connect_timeout: timeout(
                "s3.connect_timeout_ms",
                self.connect_timeout_ms,
                CONNECT_TIMEOUT,
                1..=60_000,
            )?,
            request_timeout: timeout(
                "s3.request_timeout_ms",
                self.request_timeout_ms,
                REQUEST_TIMEOUT,
                100..=600_000,
            )?,
            ..options
        };
        options.check_access().map_err(of_option)?;
        Ok(options)
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

/// The same in the words of the file.
fn of_option(OptionsError { setting, problem }: OptionsError) -> ConfigError {
    let key = match setting {
        "region" => "s3.region",
        "endpoint" => "s3.endpoint",
        "profile" => "s3.profile",
        _ => "store",
    };
    value(key, problem)
}

fn timeout(
    key: &'static str,
    ms: Option<u64>,
    default: Duration,
    within_ms: RangeInclusive<u64>,
) -> Result<Duration, ConfigError> {
    let Some(ms) = ms else { return Ok(default) };
    within(key, ms, *within_ms.start(), *within_ms.end())?;
    Ok(Duration::from_millis(ms))
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
