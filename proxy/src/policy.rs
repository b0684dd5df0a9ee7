//! What a grant lets a client ask for: a pure function of the request.
//!
//! Nothing here does I/O. What is refused is refused before it becomes a frame, so it reaches neither the tap
//! nor the target.

use weir_common::frame::Message;

/// Whether a request may go to the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may.
    Allow,
    /// It may not, and the client is told so.
    Refuse,
}

/// Environment variables that may be set, as OpenSSH's `AcceptEnv LANG LC_*` on Debian: enough for a correct
/// terminal, nothing that changes which code runs.
#[must_use]
pub fn env(name: &str) -> Decision {
    let locale = name.strip_prefix("LC_").is_some_and(|rest| {
        !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    });
    if name == "LANG" || locale { Decision::Allow } else { Decision::Refuse }
}

/// Decides about what a client sent on a session channel.
#[must_use]
pub fn decide(message: &Message) -> Decision {
    match message {
        Message::Env(fields) => env(&fields.name),
        _ => Decision::Allow,
    }
}

#[cfg(test)]
mod tests {
    use weir_common::frame::Env;

    use super::*;

    #[test]
    fn only_locale_variables_may_be_set() {
        let table = [
            ("LANG", Decision::Allow),
            ("LC_ALL", Decision::Allow),
            ("LC_TIME", Decision::Allow),
            ("LC_", Decision::Refuse),
            ("LC_A=B", Decision::Refuse),
            ("LANGUAGE", Decision::Refuse),
            ("LD_PRELOAD", Decision::Refuse),
            ("PATH", Decision::Refuse),
            ("", Decision::Refuse),
        ];
        for (name, decision) in table {
            let message = Message::Env(Env { name: name.into(), value: "x".into() });
            assert_eq!(decide(&message), decision, "{name}");
        }
    }
}
