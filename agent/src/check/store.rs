//! The bucket: reachable, writable, readable, encrypted, versioned, locked, and nobody else's.

use bytes::Bytes;
use weir_common::digest::Sha256;

use super::Finding;
use crate::{
    config::{Encryption, LockMode, S3Options},
    store::{
        Put, S3Store, Store, StoreError,
        s3::{Anonymous, Seen},
    },
};

/// What the object says. It is the same everywhere, so that a second look finds it there.
const BODY: &[u8] =
    b"weir-agent check: this object shows that recordings can be stored here. It is no recording.\n";
/// Where the objects of checks lie, beside the days of recordings.
const DIR: &str = "v1/check";

/// What findings are about that keep recordings out of the bucket.
pub(super) const STORES: [&str; 3] = ["reachable", "usable", "writable"];

/// Reads a check's object.
///
/// # Errors
/// The store's.
pub(super) async fn get(store: &S3Store, node: &str) -> Result<(), StoreError> {
    store.get(&path(store.options(), node), BODY.len() as u64).await.map(drop)
}

/// Puts a check's object, be it there already.
///
/// # Errors
/// The store's.
pub(super) async fn put(store: &S3Store, node: &str) -> Result<(), StoreError> {
    store.put(&path(store.options(), node), Bytes::from_static(BODY), Sha256::of(BODY)).await.map(drop)
}

/// Looks at a bucket, as far as the agent's permissions let one see.
pub async fn bucket(store: &S3Store, node: &str) -> Vec<Finding> {
    let path = path(store.options(), node);
    let mut findings = vec![endpoint(store.options())];
    match store.put(&path, Bytes::from_static(BODY), Sha256::of(BODY)).await {
        Ok(put) => {
            let how = if put == Put::Stored { "was stored" } else { "is there from an earlier check" };
            let object = store.location(&path);
            findings.push(Finding::ok("reachable", "the store answers"));
            findings.push(Finding::ok("writable", format!("{object} {how}")));
        }
        Err(error) => {
            findings.extend(not_written(&error));
            // What comes next would say the same, after the same times.
            if matches!(error, StoreError::Unavailable { .. } | StoreError::Setup { .. }) {
                return findings;
            }
        }
    }
    findings.push(readable(store, &path).await);
    findings.push(match store.list().await {
        Ok(()) => Finding::ok("listable", "the bucket can be listed"),
        Err(error) => Finding::warning("listable", error.to_string())
            .advice("deploy/iam/agent-s3.json has the statement that allows it"),
    });
    match store.look(&path).await {
        Ok(seen) => findings.extend(of_object(store.options(), &seen)),
        Err(error) => {
            let unseen =
                |about| Finding::cannot_tell(about, format!("the object cannot be looked at: {error}"));
            findings.extend(["encrypted", "versioned", "locked"].map(unseen));
        }
    }
    let can_read = store.read_as_stranger(&path).await;
    findings.push(public("not public", "read objects", can_read));
    findings.push(public("not listed", "list the bucket", store.list_as_stranger().await));
    findings
}

/// Where the object lies: one for each node, and for each way in which objects are protected.
fn path(options: &S3Options, node: &str) -> String {
    let known = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    let node: String = node.chars().map(known).take(128).collect();
    let protection =
        Sha256::of(format!("{:?} {:?}", options.encryption, options.lock).as_bytes()).to_string();
    format!("{DIR}/{node}-{}", &protection[..8])
}

fn endpoint(options: &S3Options) -> Finding {
    let Some(endpoint) = &options.endpoint else {
        return Finding::ok("connection", "encrypted by TLS");
    };
    let url = reqwest::Url::parse(endpoint).ok();
    let host = url.as_ref().and_then(|url| url.host_str()).unwrap_or_default();
    if endpoint.starts_with("https:") {
        Finding::ok("connection", format!("{endpoint}, encrypted by TLS"))
    } else if ["127.0.0.1", "[::1]", "localhost"].contains(&host) {
        Finding::ok("connection", format!("{endpoint}, not encrypted, on this node"))
    } else {
        Finding::problem(
            "connection",
            format!("{endpoint}, not encrypted: recordings can be read on the way"),
        )
        .advice("use an endpoint with https://")
    }
}

fn not_written(error: &StoreError) -> Vec<Finding> {
    let text = error.to_string();
    match error {
        StoreError::Unavailable { .. } => vec![
            Finding::problem("reachable", text)
                .advice("see that the endpoint is right and that the network leads there"),
        ],
        StoreError::Setup { .. } => vec![Finding::problem("usable", text)],
        StoreError::Denied { .. } => {
            vec![Finding::ok("reachable", "the store answers"), Finding::problem("writable", text)]
        }
        StoreError::Conflict { .. } => vec![
            Finding::ok("reachable", "the store answers"),
            Finding::cannot_tell("writable", text)
                .advice("remove the object, so that it can be written anew"),
        ],
        _ => vec![Finding::problem("writable", text)],
    }
}

async fn readable(store: &S3Store, path: &str) -> Finding {
    match store.get(path, BODY.len() as u64).await {
        Ok(bytes) if bytes == BODY => Finding::ok("readable", "what was stored reads back the same"),
        Ok(_) => Finding::problem("readable", format!("{} reads back altered", store.location(path)))
            .advice("the store, or something before it, alters objects"),
        Err(error) => Finding::problem("readable", error.to_string())
            .advice("without s3:GetObject a lost answer cannot be told from somebody else's object"),
    }
}

fn of_object(options: &S3Options, seen: &Seen) -> [Finding; 3] {
    let Seen { encryption, version, lock } = seen;
    [
        encrypted(&options.encryption, encryption.as_deref()),
        match version {
            Some(_) => Finding::ok("versioned", "the bucket keeps versions"),
            None => Finding::warning(
                "versioned",
                "the store names no version: what is deleted or replaced is gone",
            )
            .advice("enable versioning on the bucket"),
        },
        locked(options, lock.as_deref()),
    ]
}

fn encrypted(wanted: &Encryption, seen: Option<&str>) -> Finding {
    let expected = match wanted {
        Encryption::BucketDefault => None,
        Encryption::Aes256 => Some("AES256"),
        Encryption::Kms(_) => Some("aws:kms"),
    };
    match (seen, expected) {
        (Some(seen), Some(expected)) if seen != expected => {
            Finding::problem("encrypted", format!("the object is encrypted with {seen}, not {expected}"))
                .advice("see what the bucket's policy and default encryption make of it")
        }
        (Some(seen), _) => Finding::ok("encrypted", format!("objects are encrypted with {seen}")),
        (None, Some(expected)) => Finding::problem(
            "encrypted",
            format!("{expected} was asked for, and the store does not say that it does it"),
        )
        .advice("use a store that encrypts, or leave encryption out of [s3] if its disks are encrypted"),
        (None, None) => Finding::cannot_tell("encrypted", "the store does not say how objects are encrypted")
            .advice("see whether its disks are encrypted"),
    }
}

fn locked(options: &S3Options, seen: Option<&str>) -> Finding {
    match (options.lock, seen) {
        (Some(lock), Some(seen)) => {
            let wanted = match lock.mode {
                LockMode::Governance => "GOVERNANCE",
                LockMode::Compliance => "COMPLIANCE",
            };
            if seen == wanted {
                Finding::ok("locked", format!("objects are locked, mode {seen}, for {} days", lock.days))
            } else {
                Finding::problem("locked", format!("the object is locked in mode {seen}, not {wanted}"))
            }
        }
        (Some(_), None) => {
            Finding::cannot_tell("locked", "a lock was asked for and not refused, but is not shown")
                .advice("s3:GetObjectRetention lets the agent see it")
        }
        (None, Some(seen)) => {
            Finding::ok("locked", format!("the bucket locks objects by default, mode {seen}"))
        }
        (None, None) => Finding::warning(
            "locked",
            "objects are not seen to be locked: who may delete can delete recordings",
        )
        .advice("set object_lock_mode and object_lock_days in [s3], on a bucket with Object Lock"),
    }
}

fn public(about: &'static str, what: &str, asked: Result<Anonymous, StoreError>) -> Finding {
    match asked {
        Ok(Anonymous::Refused) => Finding::ok(about, format!("a stranger cannot {what}")),
        Ok(Anonymous::Allowed) => Finding::problem(about, format!("anybody without credentials can {what}"))
            .advice("turn on Block Public Access, and look at the bucket's policy and ACL"),
        Ok(Anonymous::Unclear(answer)) => {
            Finding::cannot_tell(about, format!("whether a stranger can {what} is not clear: {answer}"))
        }
        Err(error) => {
            Finding::cannot_tell(about, format!("whether a stranger can {what} could not be asked: {error}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Level, *};

    #[test]
    fn encryption_that_was_asked_for_and_is_not_seen_is_a_problem() {
        let kms = Encryption::Kms(None);
        for (wanted, seen, level) in [
            (&Encryption::BucketDefault, Some("AES256"), Level::Ok),
            (&Encryption::BucketDefault, None, Level::CannotTell),
            (&Encryption::Aes256, None, Level::Problem),
            (&kms, Some("aws:kms"), Level::Ok),
            (&kms, Some("AES256"), Level::Problem),
        ] {
            assert_eq!(encrypted(wanted, seen).level, level, "{wanted:?} {seen:?}");
        }
    }

    #[test]
    fn a_stranger_who_gets_in_is_a_problem() {
        assert_eq!(public("x", "read", Ok(Anonymous::Allowed)).level, Level::Problem);
        assert_eq!(public("x", "read", Ok(Anonymous::Refused)).level, Level::Ok);
        assert_eq!(public("x", "read", Ok(Anonymous::Unclear("?".into()))).level, Level::CannotTell);
    }
}
