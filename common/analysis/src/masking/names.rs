//! Names: of variables, options, fields, headers; whether what has such a name is a secret.

use std::ops::Range;

/// The most bytes of a name. What is longer has none.
const NAME_BYTES_MAX: usize = 96;

/// Last parts of names of what is about a secret and none itself.
const ABOUT: &[&str] = &[
    "age",
    "algorithm",
    "arn",
    "at",
    "authentication",
    "bucket",
    "count",
    "dir",
    "enabled",
    "endpoint",
    "env",
    "expires",
    "expiry",
    "fd",
    "field",
    "file",
    "format",
    "header",
    "hint",
    "id",
    "ids",
    "in",
    "len",
    "length",
    "lifetime",
    "limit",
    "manager",
    "max",
    "method",
    "min",
    "mode",
    "name",
    "path",
    "policy",
    "prefix",
    "prompt",
    "provider",
    "ref",
    "regex",
    "required",
    "size",
    "stdin",
    "store",
    "timeout",
    "ttl",
    "type",
    "uri",
    "url",
    "usage",
    "version",
];

/// What a part of a name ends with, wherever the part stands.
const SECRET: &[&str] =
    &["password", "passwd", "passphrase", "passcode", "secret", "token", "credential", "credentials"];

/// What the last part of a name is.
const LAST: &[&str] = &["pass", "pw", "pwd"];

/// What a name ends with, its parts put together.
const KEYS: &[&str] = &[
    "accesskey",
    "accountkey",
    "apikey",
    "authkey",
    "encryptionkey",
    "masterkey",
    "oauth2bearer",
    "privatekey",
    "rediscliauth",
    "secretkey",
    "sharedkey",
    "signingkey",
];

/// Words that end in `pass` all the same.
const NO_PASS: &[&str] = &["bypass", "compass", "overpass", "surpass", "trespass", "underpass"];

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

/// The name that lies around `hit`. `None` if it is too long for one, or is a variable's that is referred to.
pub(super) fn name_around(text: &str, hit: &Range<usize>) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let before =
        bytes[..hit.start].iter().rev().take(NAME_BYTES_MAX).take_while(|byte| is_name_byte(**byte)).count();
    let behind = bytes[hit.end..].iter().take(NAME_BYTES_MAX).take_while(|byte| is_name_byte(**byte)).count();
    if before + behind >= NAME_BYTES_MAX {
        return None;
    }
    let name = hit.start - before..hit.end + behind;
    let referred = text[..name.start].ends_with('$') || text[..name.start].ends_with("${");
    (!referred).then_some(name)
}

/// Whether what has this name is a secret. Dashes before it do not count.
pub(super) fn says_secret(name: &str) -> bool {
    let parts = parts(name);
    let Some(last) = parts.last() else { return false };
    if ABOUT.contains(&last.as_str()) {
        return false;
    }
    let joined = parts.concat();
    parts.iter().any(|part| SECRET.iter().any(|word| part.ends_with(word)))
        || KEYS.iter().any(|key| joined.ends_with(key))
        || is_pass(last, parts.len() == 1)
}

fn is_pass(last: &str, alone: bool) -> bool {
    if alone && last == "pwd" || last == "oldpwd" {
        return false;
    }
    LAST.contains(&last) || (last.ends_with("pass") && !NO_PASS.contains(&last))
}

/// The parts of a name in small letters: `clientSecret`, `CLIENT_SECRET` and `client-secret` have the same.
fn parts(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut after_small = false;
    for c in name.chars() {
        if !c.is_ascii_alphanumeric() || (after_small && c.is_ascii_uppercase()) {
            parts.push(String::new());
        }
        if c.is_ascii_alphanumeric()
            && let Some(part) = parts.last_mut()
        {
            part.push(c.to_ascii_lowercase());
        }
        after_small = c.is_ascii_lowercase();
    }
    parts.retain(|part| !part.is_empty());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets_are_told_from_names_of_what_is_about_them() {
        for name in [
            "PASSWORD",
            "PGPASSWORD",
            "MYSQL_PWD",
            "DB_PASS",
            "SSHPASS",
            "client_secret",
            "clientSecret",
            "accessToken",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
            "SecretAccessKey",
            "api-key",
            "APIKEY",
            "apiKey",
            "PRIVATE_KEY",
            "SECRET_KEY_BASE",
            "REDISCLI_AUTH",
            "spring.datasource.password",
            "X-Vault-Token",
            "_authToken",
            "passwd",
            "GPG_PASSPHRASE",
            "rootpass",
        ] {
            assert!(says_secret(name), "{name}");
        }
        for name in [
            "PWD",
            "OLDPWD",
            "PASSWORD_FILE",
            "password-stdin",
            "TOKEN_URL",
            "SECRET_NAME",
            "aws_access_key_id",
            "passin",
            "TOKENIZERS_PARALLELISM",
            "max_tokens",
            "bypass",
            "compass",
            "KEY",
            "SSH_AUTH_SOCK",
            "PasswordAuthentication",
            "pass-through",
            "secretary",
            "monkey",
            "passed",
            "token_type",
            "expires_in",
            "PATH",
            "passwords",
        ] {
            assert!(!says_secret(name), "{name}");
        }
    }
}
