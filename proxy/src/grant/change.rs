//! What a changed grant means for a session that goes by it: a pure comparison.

use ssh_key::{Certificate, public::KeyData};
use weir_common::session::Permission;

use super::Grant;
use crate::{
    auth::certificate,
    policy::{self, Endpoint, Permissions},
};

/// How the user proved who they are, as far as a grant can take it back.
#[derive(Clone, Debug)]
pub enum Credential {
    /// By a key that the grant lists.
    Key(KeyData),
    /// By a certificate.
    Certificate(Box<Certificate>),
    /// By a secret, which was spent by that: nothing can take it back.
    Secret,
}

/// Why a session can't go on under its changed grant, in words for the user; `None` if it can.
///
/// What the session's recording says of it is fixed from its beginning. So a grant that says otherwise now is another grant.
pub(super) fn ends(
    before: &Grant,
    after: &Grant,
    credential: &Credential,
    used: Permissions,
) -> Option<String> {
    let fixed = [
        ("another user", before.user == after.user),
        ("another resource", before.resource == after.resource),
        // Which one it is the resource says; a grant may only repeat it.
        (
            "another integration",
            before.integration.is_none()
                || after.integration.is_none()
                || before.integration == after.integration,
        ),
        ("another target login", before.target_login == after.target_login),
        ("another access request", before.request_id == after.request_id),
        ("other approvers", sorted(&before.approvers) == sorted(&after.approvers)),
        ("another access flow", before.access_flow == after.access_flow),
        ("another capture policy", before.capture_policy == after.capture_policy),
        ("another rule for the content of files", before.record_file_content == after.record_file_content),
    ];
    if let Some((other, _)) = fixed.into_iter().find(|&(_, same)| !same) {
        return Some(format!("it names {other} now"));
    }
    if let Some(reason) = taken_back(after, credential) {
        return Some(reason.to_owned());
    }
    let permissions: Permissions = after.permissions.iter().copied().collect();
    if let Some(gone) = used.beyond(permissions).next() {
        return Some(format!("it permits no {} any more", policy::named(gone)));
    }
    let narrowed = [
        (Permission::LocalForward, &before.permit_open, &after.permit_open),
        (Permission::RemoteForward, &before.permit_listen, &after.permit_listen),
    ];
    let narrowed = narrowed.into_iter().find(|&(permission, before, after)| {
        used.contains(permission) && !covers(after.as_deref(), before.as_deref())
    });
    narrowed.map(|(permission, ..)| format!("it restricts {} more than before", policy::named(permission)))
}

fn sorted(names: &[String]) -> Vec<&String> {
    let mut names: Vec<_> = names.iter().collect();
    names.sort_unstable();
    names
}

fn taken_back(grant: &Grant, credential: &Credential) -> Option<&'static str> {
    match credential {
        Credential::Key(key) => {
            let listed = grant.public_keys.iter().any(|listed| listed.key() == key);
            (!listed).then_some("it does not list the key any more that you logged in with")
        }
        Credential::Certificate(certificate) => {
            let accepted = certificate::principal(certificate, &grant.principals).is_ok();
            (!accepted).then_some("it does not accept the certificate any more that you logged in with")
        }
        Credential::Secret => None,
    }
}

/// Whether everything that was permitted still is.
fn covers(now: Option<&[Endpoint]>, before: Option<&[Endpoint]>) -> bool {
    match (now, before) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(now), Some(before)) => before.iter().all(|endpoint| now.contains(endpoint)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grant::tests::{KEY, OTHER, good, parse};

    fn key() -> Credential {
        let grant = parse(&good()).expect("a grant");
        Credential::Key(grant.public_keys[0].key().clone())
    }

    fn shell() -> Permissions {
        [Permission::Shell].into_iter().collect()
    }

    #[test]
    fn a_change_that_the_session_does_not_go_by_leaves_it_alone() {
        let before = parse(&good()).expect("a grant");
        let table = [
            good(),
            good().replace("2030", "2031"),
            good().replace(&format!("[\"{KEY}\"]"), &format!("[\"{OTHER}\", \"{KEY}\"]")),
            good() + "permissions = [\"shell\"]",
            good() + "permissions = [\"shell\", \"exec\", \"local_forward\"]",
            good() + "integration = \"ssh\"\ncertificate = true",
            good() + "permit_open = []",
            good() + "capture_policy = \"fail_closed\"",
            good() + "record_file_content = true",
        ];
        for after in table {
            let after = parse(&after).expect("a grant");
            assert_eq!(ends(&before, &after, &key(), shell()), None, "{after:?}");
        }
    }

    #[test]
    fn a_change_of_what_the_session_goes_by_ends_it_and_says_which() {
        let before = parse(&(good() + "integration = \"ssh\"")).expect("a grant");
        let table = [
            (good().replace("ada@", "eve@"), "it names another user now"),
            (good().replace("web-1", "web-2"), "it names another resource now"),
            (good() + "integration = \"aws-ec2-ssh\"", "it names another integration now"),
            (good().replace("deploy", "root"), "it names another target login now"),
            (good().replace("REQ-1042", "REQ-1043"), "it names another access request now"),
            (good().replace("grace@", "heidi@"), "it names other approvers now"),
            (good().replace("on-call", "emergency"), "it names another access flow now"),
            (good() + "capture_policy = \"best_effort\"", "it names another capture policy now"),
            (good() + "record_file_content = false", "it names another rule for the content of files now"),
            (good().replace(KEY, OTHER), "it does not list the key any more that you logged in with"),
            (good() + "permissions = [\"exec\"]", "it permits no shell any more"),
        ];
        for (after, expected) in table {
            let after = parse(&after).expect("a grant");
            let reason = ends(&before, &after, &key(), shell()).expect(expected);
            assert_eq!(reason, expected);
        }
    }

    #[test]
    fn forwarding_that_is_restricted_more_ends_a_session_that_uses_it() {
        let forward: Permissions = [Permission::LocalForward].into_iter().collect();
        let with = |lines: &str| {
            parse(&format!("{}permissions = [\"shell\", \"local_forward\"]\n{lines}", good()))
                .expect("a grant")
        };
        let (any, one, two) =
            (with(""), with("permit_open = [\"a:1\"]"), with("permit_open = [\"b:2\", \"a:1\"]"));
        for (before, after, used, goes_on) in [
            (&any, &one, forward, false),
            (&any, &one, shell(), true),
            (&one, &two, forward, true),
            (&two, &one, forward, false),
            (&two, &any, forward, true),
        ] {
            assert_eq!(ends(before, after, &key(), used).is_none(), goes_on);
        }
    }

    #[test]
    fn a_secret_was_spent_and_can_not_be_taken_back() {
        let before = parse(&good()).expect("a grant");
        let after = parse(&good().replace(KEY, OTHER)).expect("a grant");
        assert_eq!(ends(&before, &after, &Credential::Secret, shell()), None);
    }
}
