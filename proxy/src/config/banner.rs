//! The text that users read before the login.

use std::{fs::File, io::Read, path::Path, sync::Arc};

use super::{ConfigError, value};

/// Bytes of a banner: several screens, and far below what a packet may hold.
const BANNER_BYTES: u64 = 16 << 10;

/// Reads a banner.
///
/// # Errors
/// [`ConfigError`] if it can't be read, is too long or no text.
pub(super) fn load(path: &Path) -> Result<Arc<str>, ConfigError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(BANNER_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    if bytes.len() as u64 > BANNER_BYTES {
        return Err(value("banner", &format!("is longer than {BANNER_BYTES} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|_| value("banner", "is not UTF-8"))?;
    Ok(shown(&text).into())
}

/// As it goes to the client: lines end in CR LF (RFC 4252 section 5.4), and no control character but the tab is left
/// (section 5.4 refers to RFC 4251 section 9.2: they could take a terminal over).
fn shown(text: &str) -> String {
    let line = |line: &str| -> String {
        line.chars().filter(|&c| c == '\t' || !c.is_control()).chain(['\r', '\n']).collect()
    };
    text.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_as_ssh_wants_and_control_characters_are_gone() {
        assert_eq!(
            shown("Authorised use only.\n\tÜber\u{1b}[2J\u{7}\u{9b}K\r\nlast"),
            "Authorised use only.\r\n\tÜber[2JK\r\nlast\r\n"
        );
        assert_eq!(shown(""), "");
    }
}
