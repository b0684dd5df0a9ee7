//! What lines that were read may mean.

/// Whether further lines begin at the left, where bash lets them begin and fish does not.
pub(super) fn is_flush(text: &str) -> bool {
    text.lines().skip(1).any(|line| !line.is_empty() && !line.starts_with(' '))
}

/// Whether a shell may have printed this for a command with history expansion (`!!`, `!$`, `!ssh`).
pub(super) fn is_expansion(command: &str, printed: &str) -> bool {
    if command.starts_with('^') {
        return command.matches('^').count() >= 2 && !printed.is_empty() && !printed.contains(": ");
    }
    let Some(at) = command.find('!') else { return false };
    let (before, rest) = command.split_at(at);
    if before.matches('\'').count() % 2 == 1 || printed == command || printed.is_empty() {
        return false;
    }
    let rest = &rest[1..];
    let end = match rest.chars().next() {
        Some(c @ ('!' | '$' | '^' | '*' | '#')) => c.len_utf8(),
        Some('a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '?' | ':') => {
            rest.find([' ', ';', '"', '|']).unwrap_or(rest.len())
        }
        _ => return false,
    };
    let behind = &rest[end..];
    // Further expansions in what follows are not looked at.
    let behind = behind.split('!').next_back().filter(|_| !behind.contains('!')).unwrap_or("");
    printed.len() >= before.len() + behind.len() && printed.starts_with(before) && printed.ends_with(behind)
}
