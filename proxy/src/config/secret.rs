//! Files that hold secrets: read once, bounded, and only if nobody else could have read or written them.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use zeroize::Zeroizing;

use super::{ConfigError, value};
use crate::limits;

/// What becomes of a secret that is open to people who have no business with it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum IfOpen {
    Refuse,
    Warn,
}

/// Reads a secret, which is overwritten in memory when it is dropped.
///
/// # Errors
/// [`ConfigError`] if it can't be read, or is open and that is refused.
pub(super) fn read(path: &Path, field: &str, if_open: IfOpen) -> Result<Zeroizing<String>, ConfigError> {
    let failed = |source: io::Error| ConfigError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    if mode & FORBIDDEN_MODE != 0 {
        let reason = format!(
            "{} has mode {:04o}: a secret must not be open to others, nor writable by its group; \
             chmod 600 it (440 will do where a group is needed)",
            path.display(),
            mode & 0o7777
        );
        if if_open == IfOpen::Refuse {
            return Err(value(field, &reason));
        }
        tracing::warn!(field, "{reason}");
    }
    // With room for all of it from the start: a buffer that grows would leave copies behind.
    let mut text = Zeroizing::new(String::with_capacity(limits::SECRET_FILE_BYTES + 1));
    file.take(limits::SECRET_FILE_BYTES as u64 + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() > limits::SECRET_FILE_BYTES {
        return Err(value(field, &format!("{} is longer than any secret", path.display())));
    }
    Ok(text)
}

/// Others may do nothing and the group may not write. The group may read, because that is how Kubernetes gives
/// a secret to a container that is not root (`fsGroup`).
const FORBIDDEN_MODE: u32 = 0o027;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_a_file_that_others_can_not_open_is_a_secret() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("secret");
        fs::write(&path, "hunter2\n").expect("written");
        for (mode, fine) in [
            (0o600, true),
            (0o400, true),
            (0o440, true),
            (0o640, true),
            (0o644, false),
            (0o660, false),
            (0o601, false),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("changed");
            match read(&path, "password_file", IfOpen::Refuse) {
                Ok(text) => assert!(fine && *text == "hunter2\n", "{mode:o}"),
                Err(error) => {
                    assert!(!fine, "{mode:o}: {error}");
                    let error = error.to_string();
                    assert!(error.contains("chmod 600") && !error.contains("hunter2"), "{error}");
                }
            }
            assert!(read(&path, "private_key", IfOpen::Warn).is_ok(), "{mode:o}");
        }
    }

    #[test]
    fn a_file_that_is_too_long_is_no_secret() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("secret");
        fs::write(&path, vec![b'x'; limits::SECRET_FILE_BYTES + 1]).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("changed");
        let error = read(&path, "password_file", IfOpen::Refuse).expect_err("too long").to_string();
        assert!(error.contains("longer than any secret"), "{error}");
    }
}
