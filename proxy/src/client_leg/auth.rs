//! The login of one connection: what russh asks, answered by the checks in [`crate::auth`].
//!
//! A stranger learns nothing but *no*. Every key that is offered without a signature is said to be worth one, because
//! whether it belongs to a listed key or to a certificate can't be told before (russh shows the certificate only with
//! its signature), and because the answer would tell who has got hold of a grant's public key that there is such a grant.
//! Every refusal takes the same time (russh's `auth_rejection_time`), and a secret costs the same to check whether there
//! is one or not. The cause is in the log.

use std::{net::SocketAddr, sync::Arc};

use jiff::Timestamp;
use russh::server::{Auth, PublicKeyOffer, Response, VerifiedPublicKey};
use ssh_key::{Algorithm, Certificate, public::KeyData};
use tokio::task::spawn_blocking;
use weir_common::session::Proof;

use super::Shared;
use crate::{
    auth::{
        certificate::{self, CertificateError, Restrictions},
        fingerprint,
        revocation::{Revocation, RevocationError, Revoked},
        secret::SpendError,
    },
    config::{self, ConfigError},
    grant::{Credential, Grant, GrantError, GrantId, LiveGrant},
    limits,
    metrics::metrics,
};

/// Why a proof was refused. For the log only.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Grant(#[from] GrantError),
    #[error("the grant expired at {at}")]
    Expired { at: Timestamp },
    #[error("the key {fingerprint} is not listed in the grant{hint}")]
    Key { fingerprint: String, hint: &'static str },
    #[error("the key {fingerprint} is refused: {revocation}")]
    RevokedKey { fingerprint: String, revocation: Revocation },
    #[error("ssh-rsa signs with SHA-1, which is not accepted")]
    Sha1,
    #[error("the grant does not accept certificates")]
    NoCertificates,
    #[error("nobody gets in by certificate: {0}")]
    Authorities(#[from] ConfigError),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("the certificate {key_id:?}, serial {serial}, is refused: {revocation}")]
    RevokedCertificate { key_id: String, serial: u64, revocation: Revocation },
    #[error("nobody gets in by key or certificate: {0}")]
    RevokedKeys(#[from] RevocationError),
    #[error("the one-time secret is wrong, or the grant has none")]
    Secret,
    #[error(transparent)]
    Spend(#[from] SpendError),
}

impl Refusal {
    /// Whether something is wrong with the connector, rather than with the user.
    fn is_ours(&self) -> bool {
        matches!(
            self,
            Self::Grant(GrantError::Malformed { .. } | GrantError::Read { .. })
                | Self::Authorities(_)
                | Self::RevokedKeys(_)
                | Self::Spend(SpendError::Record { .. })
        )
    }
}

/// A user who has proved who they are.
pub(super) struct Proven {
    pub(super) grant: Arc<LiveGrant>,
    pub(super) proof: Proof,
}

/// What is checked about a proof before it counts.
struct Accepted {
    grant: Grant,
    credential: Credential,
    restrictions: Restrictions,
    proof: Proof,
}

/// The login of one connection.
pub(super) struct Authentication {
    shared: Arc<Shared>,
    peer: SocketAddr,
    /// Whether the client has begun to log in.
    begun: bool,
    /// Whether the log says of some attempt why it was refused.
    explained: bool,
    /// Questions that russh does not count as attempts.
    questions: u32,
    /// Whether the source's limits have heard of a failure already.
    wrong_secrets: bool,
    proven: Option<Proven>,
    grant: Option<Arc<LiveGrant>>,
}

impl Authentication {
    pub(super) fn new(shared: Arc<Shared>, peer: SocketAddr) -> Self {
        Self {
            shared,
            peer,
            begun: false,
            explained: false,
            questions: 0,
            wrong_secrets: false,
            proven: None,
            grant: None,
        }
    }

    /// The client asks to log in.
    pub(super) fn begin(&mut self) {
        self.begun = true;
    }

    /// What the user has proved, once; from then on the connection goes by its grant.
    pub(super) fn succeed(&mut self) -> Option<Proven> {
        let proven = self.proven.take()?;
        self.grant = Some(proven.grant.clone());
        Some(proven)
    }

    /// The grant that the connection goes by; none before the login.
    pub(super) fn grant(&self) -> Option<&Arc<LiveGrant>> {
        self.grant.as_ref()
    }

    /// Counts what is asked before anything is proved. Past the bound it counts as an attempt.
    fn has_asked_too_often(&mut self) -> bool {
        self.questions += 1;
        self.questions > limits::LOGIN_QUESTIONS
    }

    /// Whether a key is worth a signature: see above.
    pub(super) fn offered(&mut self, name: &str, offer: PublicKeyOffer<'_>) -> Auth {
        match accepted_algorithm(offer.algorithm) {
            Ok(()) if self.has_asked_too_often() => Auth::reject(),
            Ok(()) => Auth::Accept,
            Err(refusal) => self.refuse(name, &refusal),
        }
    }

    pub(super) async fn public_key(&mut self, name: &str, key: VerifiedPublicKey<'_>) -> Auth {
        let accepted = match accepted_algorithm(key.algorithm) {
            Ok(()) => self.check_key(name, key.public_key.key_data()).await,
            Err(refusal) => Err(refusal),
        };
        self.answer(name, "publickey", accepted)
    }

    pub(super) async fn certificate(&mut self, name: &str, certificate: &Certificate) -> Auth {
        let accepted = self.check_certificate(name, certificate).await;
        self.answer(name, "certificate", accepted)
    }

    /// Asks for the secret, or takes it.
    pub(super) async fn keyboard_interactive(&mut self, name: &str, response: Option<Response<'_>>) -> Auth {
        if self.shared.secrets.is_none() {
            return Auth::reject();
        }
        let Some(mut response) = response else {
            if self.has_asked_too_often() {
                return Auth::reject();
            }
            return Auth::Partial {
                name: "".into(),
                instructions: "".into(),
                prompts: vec![(PROMPT.into(), false)].into(),
            };
        };
        let mut secret = response.next().map(|answer| answer.to_vec()).unwrap_or_default();
        secret.truncate(limits::SECRET_BYTES);
        let accepted = self.check_secret(name, secret).await;
        if accepted.is_err() {
            // At once, and whatever was wrong: how soon a source is refused must not tell which grants there are.
            self.wrong_secrets = true;
            self.shared.sources.failed(self.peer.ip());
        }
        self.answer(name, "one_time_secret", accepted)
    }

    fn answer(&mut self, name: &str, method: &'static str, accepted: Result<Accepted, Refusal>) -> Auth {
        metrics().login(accepted.is_ok(), method);
        match accepted {
            Ok(Accepted { grant, credential, restrictions, proof }) => {
                let grant = Arc::new(self.shared.watcher.follow(grant, credential, restrictions));
                self.proven = Some(Proven { grant, proof });
                Auth::Accept
            }
            Err(refusal) => self.refuse(name, &refusal),
        }
    }

    fn refuse(&mut self, name: &str, refusal: &Refusal) -> Auth {
        self.explained = true;
        // What is no id may be anything of any length.
        let grant = name.parse::<GrantId>().map(|id| id.to_string()).unwrap_or_default();
        let peer = self.peer;
        if refusal.is_ours() {
            tracing::error!(%peer, grant, error = %refusal, "login refused");
        } else {
            tracing::warn!(%peer, grant, error = %refusal, "login refused");
        }
        Auth::reject()
    }

    /// The grant of this name, if it is one now.
    async fn lookup(&self, name: &str) -> Result<Grant, Refusal> {
        let grant = self.shared.grants.lookup(name).await?;
        if Timestamp::now() >= grant.expires_at {
            return Err(Refusal::Expired { at: grant.expires_at });
        }
        Ok(grant)
    }

    async fn check_key(&self, name: &str, key: &KeyData) -> Result<Accepted, Refusal> {
        let grant = self.lookup(name).await?;
        let fingerprint = fingerprint(key);
        if !grant.public_keys.iter().any(|listed| listed.key() == key) {
            // russh refuses certificates that are not valid now by itself, and clients try the key alone then.
            let hint = if grant.principals.is_empty() { "" } else { CERTIFICATE_HINT };
            return Err(Refusal::Key { fingerprint, hint });
        }
        if let Some(revoked) = self.revoked().await? {
            let named = |revocation| Refusal::RevokedKey { fingerprint: fingerprint.clone(), revocation };
            revoked.check_key(key).map_err(named)?;
        }
        Ok(Accepted {
            grant,
            credential: Credential::Key(key.clone()),
            restrictions: Restrictions::none(),
            proof: Proof::PublicKey { fingerprint },
        })
    }

    async fn check_certificate(&self, name: &str, certificate: &Certificate) -> Result<Accepted, Refusal> {
        let grant = self.lookup(name).await?;
        if grant.principals.is_empty() {
            return Err(Refusal::NoCertificates);
        }
        let restrictions = certificate::check(
            certificate,
            &self.authorities().await?,
            &grant.principals,
            self.peer.ip(),
            Timestamp::now(),
        )?;
        let (key_id, serial) = (certificate.key_id().to_owned(), certificate.serial());
        if let Some(revoked) = self.revoked().await? {
            let named =
                |revocation| Refusal::RevokedCertificate { key_id: key_id.clone(), serial, revocation };
            revoked.check_certificate(certificate).map_err(named)?;
        }
        Ok(Accepted {
            grant,
            credential: Credential::Certificate(Box::new(certificate.clone())),
            restrictions,
            proof: Proof::Certificate {
                fingerprint: fingerprint(certificate.public_key()),
                key_id,
                serial,
                ca_fingerprint: fingerprint(certificate.signature_key()),
            },
        })
    }

    async fn check_secret(&self, name: &str, secret: Vec<u8>) -> Result<Accepted, Refusal> {
        let secrets = self.shared.secrets.as_ref().ok_or(Refusal::Secret)?;
        // Whatever is wrong with the grant, a hash is computed.
        let grant = self.lookup(name).await;
        let expected = grant.as_ref().ok().and_then(|grant| grant.one_time_secret.clone());
        let matches = secrets.check(expected.clone(), secret).await;
        let grant = grant?;
        let Some(hash) = expected.filter(|_| matches) else { return Err(Refusal::Secret) };
        secrets.spend(&grant.id, &hash).await?;
        Ok(Accepted {
            grant,
            credential: Credential::Secret,
            restrictions: Restrictions::none(),
            proof: Proof::OneTimeSecret,
        })
    }

    /// Whose certificates are accepted now.
    async fn authorities(&self) -> Result<Vec<KeyData>, ConfigError> {
        let Some(path) = self.shared.config.auth.user_ca.clone() else { return Ok(Vec::new()) };
        let failed = path.clone();
        let read = spawn_blocking(move || config::authorities(&path)).await;
        read.unwrap_or_else(|error| {
            Err(ConfigError::Read { path: failed, source: std::io::Error::other(error) })
        })
    }

    /// What is revoked now, if the connector has a list of that.
    async fn revoked(&self) -> Result<Option<Arc<Revoked>>, RevocationError> {
        let Some(file) = self.shared.revoked_keys.clone() else { return Ok(None) };
        let path = file.path().to_owned();
        let loaded = spawn_blocking(move || file.load()).await;
        loaded
            .unwrap_or_else(|error| Err(RevocationError::Read { path, source: std::io::Error::other(error) }))
            .map(Some)
    }
}

/// Tells the source's limits how it went.
impl Drop for Authentication {
    fn drop(&mut self) {
        let refused = self.begun && self.grant.is_none();
        if refused && !self.explained {
            // russh refuses these before it asks us.
            tracing::warn!(peer = %self.peer, "no login: no key was offered, or a wrong signature, or a certificate \
                that is not valid now");
        }
        if refused && !self.wrong_secrets {
            self.shared.sources.failed(self.peer.ip());
        }
    }
}

/// RFC 8332: the same RSA key may sign with SHA-1, or with SHA-2.
fn accepted_algorithm(algorithm: &Algorithm) -> Result<(), Refusal> {
    if matches!(algorithm, Algorithm::Rsa { hash: None }) { Err(Refusal::Sha1) } else { Ok(()) }
}

const CERTIFICATE_HINT: &str =
    "; if there was a certificate of it, that one is expired, not valid yet or not rightly signed";
const PROMPT: &str = "One-time secret: ";
