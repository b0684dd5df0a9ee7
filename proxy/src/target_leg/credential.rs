//! How the connector proves to a target who it is. Each credential is tried once: a target that counts failures
//! should not count two.

use std::{path::PathBuf, sync::Arc, time::Duration};

use jiff::Timestamp;
use rand::RngExt;
use russh::{
    MethodKind, MethodSet,
    client::{AuthResult, Handle, KeyboardInteractiveAuthResponse},
    keys::{
        Algorithm, PrivateKeyWithHashAlg,
        agent::{AgentIdentity, client::AgentClient},
    },
};
use ssh_key::{
    Certificate, HashAlg, PrivateKey, PublicKey,
    certificate::{Builder, CertType},
};
use weir_common::session::{Permission, SessionId};
use zeroize::Zeroizing;

use super::{Handler, error::Failure};
use crate::{config::Credential, limits};

/// Why there is nothing to log in with.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The agent does not answer.
    #[error("the agent at {socket}: {source}")]
    Agent {
        /// Its socket.
        socket: PathBuf,
        /// Why.
        source: russh::keys::Error,
    },
    /// The agent does not have the key.
    #[error("the agent at {socket} holds {held} keys, but {wanted}")]
    AgentKey {
        /// Its socket.
        socket: PathBuf,
        /// How many it holds.
        held: usize,
        /// What is missing.
        wanted: &'static str,
    },
    /// The agent did not sign.
    #[error("the agent at {socket} does not sign: {source}")]
    Sign {
        /// Its socket.
        socket: PathBuf,
        /// Why.
        source: russh::AgentAuthError,
    },
    /// No key or certificate could be made.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] ssh_key::Error),
}

/// Who wants in.
#[derive(Clone, Copy, Debug)]
pub struct Login<'a> {
    /// The session it is for.
    pub session: SessionId,
    /// The login on the target.
    pub user: &'a str,
    /// What the grant allows; a certificate allows no more.
    pub permissions: &'a [Permission],
}

/// A credential that is ready for one login.
pub(super) enum Proof {
    Key(Arc<PrivateKey>),
    Certificate(Arc<PrivateKey>, Box<Certificate>),
    Password(Arc<Zeroizing<String>>),
    Agent { socket: PathBuf, key: Option<PublicKey> },
}

impl Proof {
    /// Makes ready what can be made before there is a connection.
    ///
    /// `within` is how long connecting may take.
    pub(super) fn prepare(
        credential: &Credential,
        login: Login<'_>,
        within: Duration,
    ) -> Result<Self, CredentialError> {
        Ok(match credential {
            Credential::PrivateKey(key) => Self::Key(key.clone()),
            Credential::Password(password) => Self::Password(password.clone()),
            Credential::Agent { socket, key } => Self::Agent { socket: socket.clone(), key: key.clone() },
            Credential::CertificateAuthority(authority) => {
                let key = one_time_key()?;
                let certificate = certify(&key, authority, login, Timestamp::now(), within)?;
                Self::Certificate(key, Box::new(certificate))
            }
        })
    }

    /// Logs in.
    pub(super) async fn log_in(self, handle: &mut Handle<Handler>, user: &str) -> Result<(), Failure> {
        match self {
            Self::Key(key) => {
                let hash = rsa_hash(handle, &key.algorithm()).await?;
                let key = PrivateKeyWithHashAlg::new(key, hash);
                finish(handle.authenticate_publickey(user, key).await.map_err(Failure::Handshake)?)
            }
            Self::Certificate(key, certificate) => finish(
                handle
                    .authenticate_openssh_cert(user, key, *certificate)
                    .await
                    .map_err(Failure::Handshake)?,
            ),
            Self::Password(password) => with_password(handle, user, &password).await,
            Self::Agent { socket, key } => with_agent(handle, user, socket, key).await,
        }
    }
}

/// A key for one session.
pub(super) fn one_time_key() -> Result<Arc<PrivateKey>, ssh_key::Error> {
    PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).map(Arc::new)
}

/// Certifies a key for one login: key id is the session id, so that the target's own log names the session.
fn certify(
    key: &PrivateKey,
    authority: &PrivateKey,
    login: Login<'_>,
    now: Timestamp,
    within: Duration,
) -> Result<Certificate, ssh_key::Error> {
    let now = u64::try_from(now.as_second()).unwrap_or(0);
    let skew = limits::CERTIFICATE_SKEW.as_secs();
    let valid = (now.saturating_sub(skew), now + within.as_secs() + skew);
    let mut builder = Builder::new_with_random_nonce(&mut rand::rng(), key.public_key(), valid.0, valid.1)?;
    builder.cert_type(CertType::User)?.serial(rand::rng().random())?;
    builder.key_id(login.session.to_string())?.valid_principal(login.user)?;
    for extension in extensions(login.permissions) {
        builder.extension(extension, "")?;
    }
    builder.sign(authority)
}

/// What a certificate allows on the target (ssh-keygen(1), "CERTIFICATES"): a terminal, and what the grant permits.
fn extensions(permissions: &[Permission]) -> impl Iterator<Item = &'static str> {
    let has = |permission| permissions.contains(&permission);
    let forward = has(Permission::LocalForward) || has(Permission::RemoteForward);
    [
        (has(Permission::X11Forward), "permit-X11-forwarding"),
        (has(Permission::AgentForward), "permit-agent-forwarding"),
        (forward, "permit-port-forwarding"),
        (true, "permit-pty"),
        (true, "permit-user-rc"),
    ]
    .into_iter()
    .filter_map(|(permitted, extension)| permitted.then_some(extension))
}

fn finish(result: AuthResult) -> Result<(), Failure> {
    match result {
        AuthResult::Success => Ok(()),
        AuthResult::Failure { remaining_methods, .. } => Err(refused(&remaining_methods)),
    }
}

fn refused(remaining: &MethodSet) -> Failure {
    let offers: Vec<&str> = remaining.iter().map(Into::into).collect();
    Failure::Login { offers: offers.join(", ") }
}

/// The hash to sign with, if the key is an RSA key. Only then is the target's word about it waited for.
async fn rsa_hash(handle: &Handle<Handler>, algorithm: &Algorithm) -> Result<Option<HashAlg>, Failure> {
    match algorithm {
        // Never SHA-1. A target that says nothing will know the weaker of the two that are any good
        // (RFC 8332 section 3.1).
        Algorithm::Rsa { .. } => {
            let best = handle.best_supported_rsa_hash().await.map_err(Failure::Handshake)?;
            Ok(Some(best.flatten().unwrap_or(HashAlg::Sha256)))
        }
        _ => Ok(None),
    }
}

/// Tries `password`; where the target does not know that method, `keyboard-interactive` with one question. A target
/// that knows it and refuses has had its try.
async fn with_password(handle: &mut Handle<Handler>, user: &str, password: &str) -> Result<(), Failure> {
    let remaining = match handle.authenticate_password(user, password).await.map_err(Failure::Handshake)? {
        AuthResult::Success => return Ok(()),
        AuthResult::Failure { remaining_methods, .. } => remaining_methods,
    };
    if remaining.contains(&MethodKind::Password) || !remaining.contains(&MethodKind::KeyboardInteractive) {
        return Err(refused(&remaining));
    }
    let mut answered = false;
    let mut response = handle
        .authenticate_keyboard_interactive_start(user, None::<String>)
        .await
        .map_err(Failure::Handshake)?;
    for _ in 0..MAX_QUESTIONS {
        let answers = match response {
            KeyboardInteractiveAuthResponse::Success => return Ok(()),
            KeyboardInteractiveAuthResponse::Failure { remaining_methods, .. } => {
                return Err(refused(&remaining_methods));
            }
            KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. } if prompts.is_empty() => Vec::new(),
            // What is asked with echo is no password, and a second question is not ours to answer.
            KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. }
                if prompts.len() == 1 && !prompts[0].echo && !answered =>
            {
                answered = true;
                vec![password.to_owned()]
            }
            KeyboardInteractiveAuthResponse::InfoRequest { .. } => return Err(refused(&remaining)),
        };
        response =
            handle.authenticate_keyboard_interactive_respond(answers).await.map_err(Failure::Handshake)?;
    }
    Err(refused(&remaining))
}

async fn with_agent(
    handle: &mut Handle<Handler>,
    user: &str,
    socket: PathBuf,
    key: Option<PublicKey>,
) -> Result<(), Failure> {
    let failed = |source| CredentialError::Agent { socket: socket.clone(), source };
    let mut agent = AgentClient::connect_uds(&socket).await.map_err(failed)?;
    if let Some(binding) = handle.agent_session_binding() {
        // An agent that constrains keys to destinations wants to know this one; others do not know the message.
        let _ = agent.bind_session(binding, false).await;
    }
    let identities = agent.request_identities().await.map_err(failed)?;
    let identity = choose(identities, key.as_ref(), &socket)?;
    let hash = rsa_hash(handle, &identity.public_key().algorithm()).await?;
    let result = match identity {
        AgentIdentity::PublicKey { key, .. } => {
            handle.authenticate_publickey_with(user, key, hash, &mut agent).await
        }
        AgentIdentity::Certificate { certificate, .. } => {
            handle.authenticate_certificate_with(user, certificate, hash, &mut agent).await
        }
    };
    finish(result.map_err(|source| CredentialError::Sign { socket, source })?)
}

/// The one key to try. Among a key and its certificate it is the certificate, because that is why it is there.
fn choose(
    identities: Vec<AgentIdentity>,
    key: Option<&PublicKey>,
    socket: &std::path::Path,
) -> Result<AgentIdentity, CredentialError> {
    let held = identities.len();
    let missing = |wanted| CredentialError::AgentKey { socket: socket.to_owned(), held, wanted };
    if held > limits::AGENT_KEYS {
        return Err(missing("so many can't be right"));
    }
    let first = identities.first().map(|identity| identity.public_key().key_data().clone());
    let wanted = match (key, first) {
        (Some(key), _) => key.key_data().clone(),
        (None, Some(first))
            if identities.iter().all(|identity| *identity.public_key().key_data() == first) =>
        {
            first
        }
        (None, Some(_)) => return Err(missing("agent_key does not say which")),
        (None, None) => return Err(missing("one is needed")),
    };
    let mut matching: Vec<_> =
        identities.into_iter().filter(|identity| *identity.public_key().key_data() == wanted).collect();
    matching.sort_by_key(|identity| matches!(identity, AgentIdentity::Certificate { .. }));
    matching.pop().ok_or_else(|| missing("not the one that agent_key names"))
}

/// Rounds of questions before a target is thought to have too many.
const MAX_QUESTIONS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> PrivateKey {
        PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).expect("a key")
    }

    #[test]
    fn a_certificate_is_for_one_login_and_a_short_time() {
        let (key, authority) = (key(), key());
        let login =
            Login { session: SessionId::generate(), user: "deploy", permissions: &[Permission::Shell] };
        let now = Timestamp::from_second(1_800_000_000).expect("a time");
        let certificate = certify(&key, &authority, login, now, Duration::from_secs(15)).expect("certified");
        assert_eq!(certificate.key_id(), login.session.to_string());
        assert_eq!(certificate.valid_principals(), ["deploy"]);
        assert_eq!(certificate.cert_type(), CertType::User);
        assert_eq!((certificate.valid_after(), certificate.valid_before()), (1_799_999_940, 1_800_000_075));
        let authority = authority.fingerprint(HashAlg::Sha256);
        certificate.validate_at(1_800_000_000, [&authority]).expect("signed by the authority");
        let again = certify(&key, &self::key(), login, now, Duration::from_secs(15)).expect("certified");
        assert_ne!(certificate.serial(), again.serial());
    }

    #[test]
    fn a_certificate_allows_no_more_than_the_grant() {
        let all = [
            Permission::Shell,
            Permission::RemoteForward,
            Permission::AgentForward,
            Permission::X11Forward,
            Permission::LocalForward,
        ];
        let table: [(&[Permission], &[&str]); 3] = [
            (&[Permission::Shell, Permission::Exec], &["permit-pty", "permit-user-rc"]),
            (&[Permission::LocalForward], &["permit-port-forwarding", "permit-pty", "permit-user-rc"]),
            (
                &all,
                &[
                    "permit-X11-forwarding",
                    "permit-agent-forwarding",
                    "permit-port-forwarding",
                    "permit-pty",
                    "permit-user-rc",
                ],
            ),
        ];
        for (permissions, expected) in table {
            assert_eq!(extensions(permissions).collect::<Vec<_>>(), expected, "{permissions:?}");
        }
    }

    #[test]
    fn of_an_agents_keys_the_one_that_is_named_is_tried_or_the_only_one() {
        let (one, two) = (key(), key());
        let identity = |key: &PrivateKey| AgentIdentity::PublicKey {
            key: key.public_key().clone(),
            comment: String::new(),
        };
        let choose = |identities, key| choose(identities, key, "agent".as_ref());
        let chosen = choose(vec![identity(&one), identity(&two)], Some(two.public_key())).expect("named");
        assert_eq!(chosen.public_key().key_data(), two.public_key().key_data());
        let chosen = choose(vec![identity(&one)], None).expect("the only one");
        assert_eq!(chosen.public_key().key_data(), one.public_key().key_data());
        let login = Login { session: SessionId::generate(), user: "deploy", permissions: &[] };
        let certificate =
            certify(&one, &two, login, Timestamp::now(), Duration::from_secs(1)).expect("certified");
        let certified = AgentIdentity::Certificate { certificate, comment: String::new() };
        let chosen = choose(vec![certified, identity(&one)], None).expect("one key, twice");
        assert!(matches!(chosen, AgentIdentity::Certificate { .. }));

        for (identities, key, reason) in [
            (vec![identity(&one), identity(&two)], None, "does not say which"),
            (vec![], None, "one is needed"),
            (vec![identity(&one)], Some(two.public_key()), "not the one"),
        ] {
            let error = choose(identities, key).expect_err(reason).to_string();
            assert!(error.contains(reason), "{error} should say {reason}");
        }
    }
}
