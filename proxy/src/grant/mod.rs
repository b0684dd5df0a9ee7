//! Grants: who may connect, to what, how they prove it, what they may do there, until when.
//!
//! A grant is a TOML file in the grants directory ([`Grants`]); its file name without `.toml` is the grant id, which the
//! user gives as the SSH login name. Files are read at every login, and followed for as long as a session goes by them
//! ([`Watcher`], [`LiveGrant`]). This module is the grant itself, and pure.

mod change;
mod listed;
mod live;
mod store;
mod watch;

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use serde::Deserialize;
use weir_common::session::{CapturePolicy, Integration, Permission};

pub use self::{
    listed::ListedKey,
    live::{Credential, LiveGrant},
    store::{GrantError, Grants},
    watch::Watcher,
};
use crate::{
    auth::secret::SecretHash,
    policy::{Endpoint, Permissions, Rights},
};

/// A grant's id: a plain file name of letters, digits, `.`, `_` and `-`, at most 64 bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct GrantId(String);

impl fmt::Display for GrantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for GrantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl FromStr for GrantId {
    type Err = GrantError;

    fn from_str(text: &str) -> Result<Self, GrantError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let valid = (1..=64).contains(&text.len()) && !text.starts_with('.') && text.bytes().all(plain);
        if valid { Ok(Self(text.to_owned())) } else { Err(GrantError::Id) }
    }
}

/// A grant, as the file says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The grant.
    pub id: GrantId,
    /// The person.
    pub user: String,
    /// The resource, by the name it has in the proxy's configuration.
    pub resource: String,
    /// How the resource is reached, if the grant says; it must be what the configuration says.
    pub integration: Option<Integration>,
    /// The login on the target.
    pub target_login: String,
    /// The access request behind it.
    pub request_id: String,
    /// Who approved the access request.
    pub approvers: Vec<String>,
    /// The access flow it went through.
    pub access_flow: String,
    /// When it ends.
    pub expires_at: Timestamp,
    /// What happens to traffic that can't be recorded.
    pub capture_policy: CapturePolicy,
    /// Whether the content of files is recorded that go through file transfer protocols.
    pub record_file_content: bool,
    /// What it allows.
    pub permissions: Vec<Permission>,
    /// Where local forwarding may lead; `None` for anywhere.
    pub permit_open: Option<Vec<Endpoint>>,
    /// Where remote forwarding may listen; `None` for anywhere.
    pub permit_listen: Option<Vec<Endpoint>>,
    /// The keys by which the user may prove who they are.
    pub public_keys: Vec<ListedKey>,
    /// The principals of which a certificate must have one; none if certificates are not accepted.
    pub principals: Vec<String>,
    /// The hash of a secret that is good for one login.
    pub one_time_secret: Option<SecretHash>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGrant {
    user: String,
    resource: String,
    integration: Option<Integration>,
    target_login: String,
    request_id: String,
    #[serde(default)]
    approvers: Vec<String>,
    access_flow: String,
    expires_at: String,
    #[serde(default)]
    capture_policy: CapturePolicy,
    record_file_content: Option<bool>,
    permissions: Option<Vec<Permission>>,
    permit_open: Option<Vec<String>>,
    permit_listen: Option<Vec<String>>,
    #[serde(default)]
    public_keys: Vec<String>,
    certificate: Option<bool>,
    principals: Option<Vec<String>>,
    one_time_secret: Option<String>,
}

/// What is wrong and where, without the line itself: it may hold a secret.
fn described(error: &toml::de::Error, text: &str) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    match before.map(|before| before.matches('\n').count() + 1) {
        Some(line) => format!("TOML, line {line}: {}", error.message()),
        None => format!("TOML: {}", error.message()),
    }
}

impl Grant {
    /// Reads a grant from its text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(id: GrantId, text: &str) -> Result<Self, String> {
        let raw: RawGrant = toml::from_str(text).map_err(|error| described(&error, text))?;
        let RawGrant {
            user,
            resource,
            integration,
            target_login,
            request_id,
            approvers,
            access_flow,
            expires_at,
            capture_policy,
            record_file_content,
            permissions,
            permit_open,
            permit_listen,
            public_keys,
            certificate,
            principals,
            one_time_secret,
        } = raw;
        for (field, value) in [
            ("user", &user),
            ("resource", &resource),
            ("target_login", &target_login),
            ("request_id", &request_id),
            ("access_flow", &access_flow),
        ] {
            if value.trim().is_empty() {
                return Err(format!("{field} is empty"));
            }
        }
        let expires_at = expires_at
            .parse()
            .map_err(|error| format!("expires_at: {error}; expected a time like 2030-01-31T18:00:00Z"))?;
        let permissions = match permissions {
            Some(permissions) if permissions.is_empty() => {
                return Err(
                    "permissions allows nothing; leave it out for shell, exec and subsystem".to_owned()
                );
            }
            Some(permissions) => permissions,
            None => Permissions::usual().iter().collect(),
        };
        let permit_open = endpoints("permit_open", permit_open)?;
        let permit_listen = endpoints("permit_listen", permit_listen)?;
        let public_keys = parse_each("public_keys", &public_keys)?;
        let principals = accepted_principals(certificate, principals, [&user, &id.0])?;
        let one_time_secret = one_time_secret
            .map(|hash| hash.parse().map_err(|error| format!("one_time_secret: {error}")))
            .transpose()?;
        if public_keys.is_empty() && principals.is_empty() && one_time_secret.is_none() {
            return Err(
                "nobody can use it: public_keys lists no key, and there is no certificate = true and no one_time_secret"
                    .to_owned(),
            );
        }
        Ok(Self {
            id,
            user,
            resource,
            integration,
            target_login,
            request_id,
            approvers,
            access_flow,
            expires_at,
            capture_policy,
            record_file_content: record_file_content.unwrap_or(true),
            permissions,
            permit_open,
            permit_listen,
            public_keys,
            principals,
            one_time_secret,
        })
    }

    /// What it allows.
    #[must_use]
    pub fn rights(&self) -> Rights {
        Rights {
            permit_open: self.permit_open.clone(),
            permit_listen: self.permit_listen.clone(),
            ..Rights::new(self.permissions.iter().copied().collect())
        }
    }
}

fn parse_each<T: FromStr<Err: fmt::Display>>(field: &str, texts: &[String]) -> Result<Vec<T>, String> {
    let each = texts.iter().enumerate();
    each.map(|(index, text)| text.parse().map_err(|error| format!("{field}[{index}]: {error}"))).collect()
}

fn endpoints(field: &str, texts: Option<Vec<String>>) -> Result<Option<Vec<Endpoint>>, String> {
    texts.map(|texts| parse_each(field, &texts)).transpose()
}

/// The principals that a certificate may have. Without a list of its own a grant goes by its user and its id.
fn accepted_principals(
    certificate: Option<bool>,
    principals: Option<Vec<String>>,
    usual: [&str; 2],
) -> Result<Vec<String>, String> {
    match (certificate, principals) {
        (Some(false), Some(_)) => Err("principals are for certificates, and certificate is false".to_owned()),
        (_, Some(principals)) if principals.iter().all(|principal| principal.trim().is_empty()) => {
            Err("principals names nobody".to_owned())
        }
        (_, Some(principals)) if principals.iter().any(|principal| principal.trim().is_empty()) => {
            Err("principals has an empty one".to_owned())
        }
        (_, Some(principals)) => Ok(principals),
        (Some(true), None) => Ok(usual.map(str::to_owned).to_vec()),
        (Some(false) | None, None) => Ok(Vec::new()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    pub(crate) const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBVnCHT1mUGFW9MPVYvJ2CLS5gHQ3MzQbXxcKu4m6rVp ada";
    pub(crate) const OTHER: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ4fdbSd4m4YsQq4yqoVjUjrDFsUCSrLkTyWb1Xo8tGk eve";

    pub(crate) fn text(expires_at: &str, key: &str) -> String {
        format!(
            r#"
            user = "ada@example.com"
            resource = "web-1"
            target_login = "deploy"
            request_id = "REQ-1042"
            approvers = ["grace@example.com"]
            access_flow = "on-call"
            expires_at = "{expires_at}"
            public_keys = ["{key}"]
            "#
        )
    }

    pub(crate) fn good() -> String {
        text("2030-01-01T00:00:00Z", KEY)
    }

    pub(crate) fn parse(text: &str) -> Result<Grant, String> {
        Grant::parse("g-1".parse().expect("an id"), text)
    }

    #[test]
    fn a_grant_says_what_its_file_says_and_the_usual_where_it_does_not() {
        let grant = parse(&good()).expect("a good grant");
        assert_eq!(grant.rights(), Rights::new(Permissions::usual()));
        assert_eq!((grant.integration, grant.principals.len()), (None, 0));
        assert_eq!(grant.capture_policy, CapturePolicy::FailClosed);
        assert!(grant.record_file_content);
        let more = good()
            + "permissions = [\"exec\", \"local_forward\"]\npermit_open = [\"db:5432\"]\npermit_listen = []\n\
               integration = \"ssh\"\ncapture_policy = \"best_effort\"\nrecord_file_content = false\n";
        let grant = parse(&more).expect("a good grant");
        let rights = grant.rights();
        assert!(rights.permissions.contains(Permission::LocalForward));
        assert!(!rights.permissions.contains(Permission::Shell));
        assert_eq!(rights.permit_open.map(|list| list.len()), Some(1));
        assert_eq!(rights.permit_listen, Some(Vec::new()));
        assert_eq!(grant.integration, Some(Integration::Ssh));
        assert_eq!(grant.capture_policy, CapturePolicy::BestEffort);
        assert!(!grant.record_file_content);
    }

    #[test]
    fn certificates_are_accepted_where_the_grant_says_so_by_user_id_or_its_own_list() {
        let without_keys = good().replace("public_keys =", "# public_keys =");
        let table = [
            ("certificate = true", &["ada@example.com", "g-1"][..]),
            ("principals = [\"ops\"]", &["ops"]),
            ("certificate = true\nprincipals = [\"ops\", \"db\"]", &["ops", "db"]),
        ];
        for (line, expected) in table {
            let grant = parse(&format!("{without_keys}\n{line}")).expect("a good grant");
            assert_eq!(grant.principals, expected, "{line}");
        }
        assert!(
            parse(&format!("{}\ncertificate = false", good())).expect("a good grant").principals.is_empty()
        );
    }

    #[test]
    fn what_is_wrong_with_a_grant_file_is_named() {
        let with = |line: &str| format!("{}\n{line}\n", good());
        let table = [
            (text("soon", KEY), "expires_at"),
            (text("2030-01-01T00:00:00Z", "ssh-ed25519 AAAA"), "public_keys[0]"),
            (good().replace("deploy", " "), "target_login is empty"),
            (good().replace("user =", "usr ="), "unknown field `usr`"),
            (good().replace("user =", "# user ="), "missing field `user`"),
            ("user = [".to_owned(), "TOML"),
            (good().replace("public_keys =", "# public_keys ="), "nobody can use it"),
            (good().replace(KEY, "").replace("[\"\"]", "[]"), "nobody can use it"),
            (with("integration = \"telnet\""), "`telnet`"),
            (with("one_time_secert = \"$argon2id$\""), "line 11: unknown field `one_time_secert`"),
            (with("capture_policy = \"open\""), "unknown variant `open`"),
            (with("record_file_content = \"no\""), "expected a boolean"),
            (with("permissions = [\"root\"]"), "unknown variant `root`"),
            (with("permissions = []"), "permissions allows nothing"),
            (with("permit_open = [\"db\"]"), "permit_open[0]: \"db\""),
            (with("permit_listen = [\"*:80\", \"x\"]"), "permit_listen[1]"),
            (with("certificate = false\nprincipals = [\"a\"]"), "certificate is false"),
            (with("principals = []"), "principals names nobody"),
            (with("principals = [\"a\", \"\"]"), "principals has an empty one"),
            (with("one_time_secret = \"hunter2\""), "one_time_secret: not a PHC string"),
        ];
        for (text, expected) in table {
            let error = parse(&text).expect_err(expected);
            assert!(error.contains(expected), "{error} should name {expected}");
        }
    }

    #[test]
    fn a_grant_shows_no_secret() {
        let hash = SecretHash::of(b"x").expect("a hash").to_string();
        let grant = parse(&format!("{}\none_time_secret = \"{hash}\"", good())).expect("a good grant");
        assert!(!format!("{grant:?}").contains("argon2"));
    }

    proptest! {
        #[test]
        fn an_id_never_leaves_the_grants_directory(text in ".*") {
            if let Ok(id) = text.parse::<GrantId>() {
                let path = Path::new("/grants").join(format!("{id}.toml"));
                prop_assert_eq!(path.parent(), Some(Path::new("/grants")));
                prop_assert_eq!(path.file_stem().and_then(|stem| stem.to_str()), Some(text.as_str()));
            }
        }

        #[test]
        fn arbitrary_text_is_refused_as_a_grant_without_panic(text in ".*") {
            prop_assert!(parse(&text).is_err());
        }
    }
}
