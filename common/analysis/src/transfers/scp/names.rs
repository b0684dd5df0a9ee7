//! What scp's files are called: by the command line and by the lines that are sent.

use serde::{Deserialize, Serialize};
use weir_common::recording::findings::PATH_BYTES_MAX;

use crate::{
    text::bounded,
    transfers::{HELD_BYTES_MAX, lost::Lost},
};

/// The most folders within each other.
pub(in crate::transfers) const FOLDERS_MAX: usize = 256;
/// The most bytes that [`Named`] holds: two paths that end in `…`.
pub(super) const NAMED_BYTES_MAX: usize = 2 * (PATH_BYTES_MAX + '…'.len_utf8());

/// Where files go to or come from, and in which folder of it the sender is.
#[derive(Clone, Serialize, Deserialize)]
pub(in crate::transfers) struct Names {
    place: Place,
    folders: Vec<String>,
}

#[derive(Clone, Serialize, Deserialize)]
enum Place {
    /// They go to this path, or below it if it is a folder.
    To { path: String, is_folder: bool },
    /// They come from these paths, which may be patterns.
    From(Vec<String>),
}

/// What a file is called.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Named {
    pub(super) path: String,
    /// The name that was sent, where the path is a file's or a folder's and the protocol does not tell which.
    pub(super) other_path: Option<String>,
}

impl Named {
    /// How many bytes it holds.
    pub(super) fn held(&self) -> usize {
        self.path.len() + self.other_path.as_ref().map_or(0, String::len)
    }
}

impl Names {
    pub(in crate::transfers) fn to(path: String, is_folder: bool) -> Self {
        let is_folder = is_folder || path.is_empty() || matches!(last(&path), "" | "." | "..");
        Self { place: Place::To { path, is_folder }, folders: Vec::new() }
    }

    pub(in crate::transfers) fn from(paths: Vec<String>) -> Self {
        Self { place: Place::From(paths), folders: Vec::new() }
    }

    pub(super) fn enter(&mut self, folder: String) -> Result<(), Lost> {
        let held: usize = self.folders.iter().map(String::len).sum();
        if self.folders.len() >= FOLDERS_MAX {
            return Err(Lost::Folders);
        }
        if held + folder.len() > HELD_BYTES_MAX {
            return Err(Lost::Held);
        }
        self.folders.push(folder);
        Ok(())
    }

    pub(super) fn leave(&mut self) -> Result<(), Lost> {
        self.folders.pop().map(drop).ok_or(Lost::Malformed)
    }

    /// All that the command line says.
    pub(super) fn all(&self) -> String {
        match &self.place {
            Place::To { path, .. } => path.clone(),
            Place::From(paths) => crate::transfers::command::joined(paths),
        }
    }

    /// The path of what is called so in the folder where the sender is.
    pub(super) fn of(&self, name: &str) -> Named {
        let sent = self.folders.iter().map(String::as_str).chain([name]).collect::<Vec<_>>().join("/");
        let (path, other_path) = match &self.place {
            Place::To { path, is_folder: true } => (below(path, &sent), None),
            Place::To { path, is_folder: false } => (path.clone(), Some(sent)),
            Place::From(paths) => (self.source(paths, &sent, name), None),
        };
        Named {
            path: bounded(path, PATH_BYTES_MAX),
            other_path: other_path.map(|path| bounded(path, PATH_BYTES_MAX)),
        }
    }

    /// A sender names things by the last part of their path.
    fn source(&self, paths: &[String], sent: &str, name: &str) -> String {
        let first = self.folders.first().map_or(name, String::as_str);
        let trimmed = |path: &String| path.trim_end_matches('/').to_owned();
        let path = paths.iter().map(trimmed).find(|path| last(path) == first);
        match (path, paths) {
            (Some(path), _) => path + &sent[first.len()..],
            // A pattern: its folder is where the file is.
            (None, [path]) => {
                let path =
                    if path.chars().all(|char| char == '/') { path } else { path.trim_end_matches('/') };
                below(&path[..path.len() - last(path).len()], sent)
            }
            (None, _) => sent.to_owned(),
        }
    }

    pub(super) fn is_sound(&self) -> bool {
        self.folders.len() <= FOLDERS_MAX
            && self.folders.iter().map(String::len).sum::<usize>() <= HELD_BYTES_MAX
    }
}

/// The last part of a path.
fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn below(folder: &str, path: &str) -> String {
    match folder {
        "" => path.to_owned(),
        folder if folder.ends_with('/') => format!("{folder}{path}"),
        folder => format!("{folder}/{path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(mut names: Names, folders: &[&str], name: &str) -> (String, Option<String>) {
        for folder in folders {
            names.enter((*folder).to_owned()).expect("few");
        }
        let Named { path, other_path } = names.of(name);
        (path, other_path)
    }

    #[test]
    fn a_file_goes_below_what_is_a_folder_for_certain() {
        for (path, is_folder, expected) in [
            ("/tmp", true, "/tmp/d/f"),
            ("/tmp/", false, "/tmp/d/f"),
            (".", false, "./d/f"),
            ("", false, "d/f"),
        ] {
            assert_eq!(named(Names::to(path.into(), is_folder), &["d"], "f"), (expected.into(), None));
        }
        assert_eq!(named(Names::to("/tmp".into(), false), &["d"], "f"), ("/tmp".into(), Some("d/f".into())));
    }

    #[test]
    fn a_file_that_is_fetched_has_the_path_that_was_asked_for() {
        let from = |paths: &[&str]| Names::from(paths.iter().map(|path| (*path).to_owned()).collect());
        for (paths, folders, name, expected) in [
            (&["/etc/passwd"][..], &[][..], "passwd", "/etc/passwd"),
            (&["/srv/d/"], &["d", "e"], "f", "/srv/d/e/f"),
            (&["/srv/*.txt"], &[], "a.txt", "/srv/a.txt"),
            (&["*"], &["d"], "f", "d/f"),
            (&["a/x", "b/y"], &[], "y", "b/y"),
            (&["a/*", "b/*"], &[], "y", "y"),
            (&["/"], &[], "y", "/y"),
        ] {
            assert_eq!(named(from(paths), folders, name).0, expected, "{paths:?}");
        }
    }
}
