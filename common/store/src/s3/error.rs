//! What an answer of S3 means, and what a person should do about it.
//!
//! Texts hold what the SDK's errors say of themselves (`Display`), never their `Debug`, which may show headers and
//! bodies.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::{
    config::http::HttpResponse,
    error::{ProvideErrorMetadata, SdkError},
};

use super::StoreError;
use crate::S3Options;

/// The most bytes of a server's words that are repeated.
const TEXT_BYTES: usize = 500;

/// A call, as it is spoken of when it fails.
#[derive(Debug)]
pub(super) struct Call {
    op: &'static str,
    action: &'static str,
    path: String,
    resource: String,
    bucket: String,
}

impl Call {
    pub(super) fn put(options: &S3Options, path: &str) -> Self {
        Self::object(options, path, "store", "s3:PutObject")
    }

    pub(super) fn get(options: &S3Options, path: &str) -> Self {
        Self::object(options, path, "read", "s3:GetObject")
    }

    pub(super) fn list(options: &S3Options) -> Self {
        Self {
            op: "list",
            action: "s3:ListBucket",
            path: options.prefix.clone(),
            resource: format!("arn:aws:s3:::{}", options.bucket),
            bucket: options.bucket.clone(),
        }
    }

    fn object(options: &S3Options, path: &str, op: &'static str, action: &'static str) -> Self {
        let S3Options { bucket, prefix, .. } = options;
        let slash = if prefix.is_empty() { "" } else { "/" };
        Self {
            op,
            action,
            path: path.to_owned(),
            resource: format!("arn:aws:s3:::{bucket}/{prefix}{slash}*"),
            bucket: bucket.clone(),
        }
    }

    /// What the failure of the call means.
    pub(super) fn failed<E>(&self, error: &SdkError<E, HttpResponse>) -> StoreError
    where
        E: Error + ProvideErrorMetadata + 'static,
    {
        if let SdkError::ServiceError(service) = error {
            let status = service.raw().status().as_u16();
            let region = service.raw().headers().get("x-amz-bucket-region");
            let message = service.err().message().unwrap_or_default();
            return self.answered(status, service.err().code().unwrap_or_default(), message, region);
        }
        if finds::<CredentialsError>(error) {
            return StoreError::Setup {
                problem: format!("there are no credentials for AWS ({})", told(error)),
                advice: "have a role (IRSA, ECS task role, instance profile), a profile or a login: docs/store.md",
            };
        }
        match error {
            SdkError::ConstructionFailure(_) => self.refused(told(error)),
            _ => self.unavailable(told(error)),
        }
    }

    /// What an answer means. <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>
    fn answered(&self, status: u16, code: &str, message: &str, region: Option<&str>) -> StoreError {
        let details = match (code, message) {
            ("", "") => format!("status {status}"),
            ("", message) => format!("status {status}: {}", tame(message)),
            (code, "") => format!("status {status} {}", tame(code)),
            (code, message) => format!("status {status} {}: {}", tame(code), tame(message)),
        };
        let setup = |problem: String, advice| StoreError::Setup { problem, advice };
        let bucket = &self.bucket;
        match (status, code) {
            (_, "NoSuchBucket") => {
                setup(format!("there is no bucket {bucket}"), "make it, or write another name after s3://")
            }
            (_, "RequestTimeTooSkewed" | "RequestExpired") => setup(
                format!("this node's clock is not the store's ({details})"),
                "set the node's clock, and keep it right with NTP",
            ),
            (
                _,
                "InvalidAccessKeyId"
                | "SignatureDoesNotMatch"
                | "ExpiredToken"
                | "InvalidToken"
                | "TokenRefreshRequired",
            ) => setup(
                format!("the store does not know these credentials ({details})"),
                "see which credentials the SDK's default chain finds: docs/store.md",
            ),
            (301 | 307, _)
            | (
                _,
                "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException",
            ) => {
                let region = region.map_or_else(String::new, |region| format!(", it is in {}", tame(region)));
                setup(
                    format!("the bucket {bucket} is in another region{region} ({details})"),
                    "set region in [s3], or --region, to the bucket's",
                )
            }
            (_, code) if code.starts_with("KMS.") => setup(
                format!("the KMS key cannot be used ({details})"),
                "look at the key's state and policy, and at kms_key_id in [s3]",
            ),
            (400, "InvalidRequest") if message.replace(' ', "").contains("ObjectLockConfiguration") => setup(
                format!("the bucket {bucket} does not take locked objects ({details})"),
                "enable Object Lock on the bucket, or leave object_lock_mode out of [s3]",
            ),
            (401 | 403, _) => self.denied(details),
            (404, _) => StoreError::Missing { path: self.path.clone() },
            // Something on the way altered the body, gave up on it, or somebody else writes the same key just now.
            (
                400,
                "BadDigest"
                | "InvalidDigest"
                | "XAmzContentSHA256Mismatch"
                | "IncompleteBody"
                | "RequestTimeout",
            )
            | (408 | 409 | 429, _) => self.unavailable(details),
            (501, _) => self.refused(format!("{details}; this server lacks what Weir needs (docs/store.md)")),
            (500.., _) => self.unavailable(details),
            _ => self.refused(details),
        }
    }

    fn denied(&self, details: String) -> StoreError {
        // S3 says "Access Denied" also for what a request carries along.
        let action = match () {
            () if details.contains("kms:GenerateDataKey") => "kms:GenerateDataKey",
            () if details.contains("kms:Decrypt") => "kms:Decrypt",
            () if details.contains("s3:PutObjectTagging") => "s3:PutObjectTagging",
            () if details.contains("s3:PutObjectRetention") => "s3:PutObjectRetention",
            () => self.action,
        };
        StoreError::Denied { action, resource: self.resource.clone(), details }
    }

    fn unavailable(&self, details: String) -> StoreError {
        StoreError::Unavailable { op: self.op, path: self.path.clone(), details }
    }

    pub(super) fn refused(&self, details: String) -> StoreError {
        StoreError::Refused { op: self.op, path: self.path.clone(), details }
    }
}

/// The status of the answer, if there was one.
pub(super) fn status<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
    error.raw_response().map(|answer| answer.status().as_u16())
}

/// A body that did not come to its end.
pub(super) fn interrupted(path: &str, error: &(dyn Error + 'static)) -> StoreError {
    StoreError::Unavailable { op: "read", path: path.to_owned(), details: told(error) }
}

/// An error and its causes, each once.
fn told(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let cause = tame(&error.to_string());
        if !text.contains(&cause) {
            text.push_str(if text.is_empty() { "" } else { ": " });
            text.push_str(&cause);
        }
        next = error.source();
    }
    text
}

fn finds<T: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<T>() {
            return true;
        }
        next = error.source();
    }
    false
}

/// A server's words, short and in one line.
fn tame(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match text.char_indices().find(|(at, c)| at + c.len_utf8() > TEXT_BYTES) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, code: &str, message: &str) -> StoreError {
        let options = super::super::client::tests::options("http://127.0.0.1:1");
        Call::put(&options, "v1/x").answered(status, code, message, Some("eu-west-1"))
    }

    #[test]
    fn what_a_person_can_do_is_said() {
        for (status, code, message, said) in [
            (404, "NoSuchBucket", "", "no bucket recordings"),
            (403, "AccessDenied", "Access Denied", "s3:PutObject on arn:aws:s3:::recordings/weir/*"),
            (
                403,
                "AccessDenied",
                "not authorized to perform: kms:GenerateDataKey",
                "allow kms:GenerateDataKey",
            ),
            (403, "RequestTimeTooSkewed", "", "NTP"),
            (403, "InvalidAccessKeyId", "", "credentials"),
            (301, "PermanentRedirect", "", "it is in eu-west-1"),
            (400, "AuthorizationHeaderMalformed", "", "set region"),
            (400, "InvalidRequest", "Bucket is missing Object Lock Configuration", "enable Object Lock"),
            (400, "KMS.DisabledException", "", "KMS key"),
            (501, "NotImplemented", "", "docs/store.md"),
        ] {
            let text = answered(status, code, message).to_string();
            assert!(text.contains(said), "{status} {code}: {text}");
        }
    }

    #[test]
    fn what_passes_by_itself_is_told_from_what_does_not() {
        for (status, code) in [
            (503, "SlowDown"),
            (500, "InternalError"),
            (409, "ConditionalRequestConflict"),
            (400, "BadDigest"),
        ] {
            assert!(matches!(answered(status, code, ""), StoreError::Unavailable { .. }), "{code}");
        }
        assert!(matches!(answered(400, "InvalidArgument", ""), StoreError::Refused { .. }));
        assert!(!answered(400, "InvalidArgument", "").is_store_wide());
        assert!(answered(403, "AccessDenied", "").is_store_wide());
    }

    #[test]
    fn a_servers_words_stay_short_and_in_their_line() {
        let text = answered(400, "X", &format!("a\n\x1b[31m{}", "é".repeat(1000))).to_string();
        assert!(!text.contains(['\n', '\x1b']) && text.len() < 700, "{text}");
    }
}
