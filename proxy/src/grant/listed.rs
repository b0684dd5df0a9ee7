//! A key that a grant lists.

use std::str::FromStr;

use ssh_key::{PublicKey, public::KeyData};

use crate::auth::{KeyError, on_authenticator, usable};

/// A key that a grant lists: an OpenSSH public key, before which `no-touch-required` may stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedKey {
    key: PublicKey,
}

/// Why a line lists no key.
#[derive(Debug, thiserror::Error)]
pub enum ListedKeyError {
    /// Not a key.
    #[error("{0}")]
    Key(#[from] ssh_key::Error),
    /// Not one to log in with.
    #[error(transparent)]
    Unusable(#[from] KeyError),
    /// Something before the key that is not understood.
    #[error("{option:?} before the key is not supported; only no-touch-required is")]
    Option {
        /// What stands there.
        option: String,
    },
    /// Its touch can't be checked.
    #[error(
        "whether this FIDO key was touched can't be checked; to accept it without, write no-touch-required before it"
    )]
    Touch,
}

impl ListedKey {
    /// The key.
    #[must_use]
    pub fn key(&self) -> &KeyData {
        self.key.key_data()
    }
}

impl FromStr for ListedKey {
    type Err = ListedKeyError;

    /// russh verifies the signature of a FIDO key, but shows its flags to nobody, so that it can't be told whether the
    /// key was touched. A grant has to accept that in so many words.
    fn from_str(text: &str) -> Result<Self, ListedKeyError> {
        let text = text.trim();
        let (first, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        // The algorithm of an OpenSSH key is its first word, and one that is encoded begins with this.
        let option =
            rest.trim_start().split(char::is_whitespace).nth(1).is_some_and(|word| word.starts_with("AAAA"))
                && !rest.trim_start().starts_with("AAAA");
        let (no_touch_required, key) = match (option, first) {
            (false, _) => (false, text),
            (true, "no-touch-required") => (true, rest.trim_start()),
            (true, _) => return Err(ListedKeyError::Option { option: first.to_owned() }),
        };
        let key = PublicKey::from_openssh(key)?;
        usable(key.key_data())?;
        if on_authenticator(key.key_data()) && !no_touch_required {
            return Err(ListedKeyError::Touch);
        }
        Ok(Self { key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grant::tests::KEY;

    const SK: &str = "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAICFo/k5LU8863u66YC9\
                      eUO2170QduohPURkQnbLa/dczAAAABHNzaDo= ada";

    #[test]
    fn a_fido_key_is_listed_with_the_word_that_its_touch_is_not_required() {
        let listed: ListedKey = format!("no-touch-required {SK}").parse().expect("a key");
        assert!(on_authenticator(listed.key()));
        assert!(matches!(SK.parse::<ListedKey>(), Err(ListedKeyError::Touch)));
        assert!(format!("no-touch-required {KEY}").parse::<ListedKey>().is_ok());
    }

    #[test]
    fn options_of_authorized_keys_are_refused_by_name() {
        for option in
            ["no-pty", "command=\"x\"", "from=10.0.0.0/8", "no-touch-required,no-pty", "verify-required"]
        {
            let error = format!("{option} {KEY}").parse::<ListedKey>().expect_err("an option");
            assert!(
                error.to_string().contains(option.trim_matches('"').split('"').next().expect("text")),
                "{error}"
            );
        }
    }

    #[test]
    fn only_keys_to_log_in_with_can_be_listed() {
        let small = ssh_key::PrivateKey::from(
            ssh_key::private::RsaKeypair::random(&mut rand::rng(), 2048).expect("a key"),
        );
        let line = small.public_key().to_openssh().expect("text");
        assert!(line.parse::<ListedKey>().is_ok());
        for line in ["", "ssh-ed25519", "ssh-ed25519 AAAA", "AAAA", "ssh-dss AAAAB3NzaC1kc3M= x"] {
            assert!(line.parse::<ListedKey>().is_err(), "{line}");
        }
    }
}
