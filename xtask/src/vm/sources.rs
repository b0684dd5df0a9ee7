//! Where this machine gets its packages from, read from its apt configuration.

use std::{fs, path::Path};

use anyhow::{Context, Result};

/// The Debian release and mirror of this machine.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sources {
    /// The release, for example `bookworm`.
    pub(super) codename: String,
    /// The archive's address.
    pub(super) archive: String,
    /// The address of the security archive, if this machine uses it.
    pub(super) security: Option<String>,
}

impl Sources {
    /// Reads os-release(5) and the sources below `/etc/apt`.
    pub(super) fn of_this_machine() -> Result<Self> {
        let codename = release("VERSION_CODENAME").context("/etc/os-release names no VERSION_CODENAME")?;
        let found = Self::find(&codename, &texts(Path::new("/etc/apt"))?);
        found.with_context(|| format!("no source below /etc/apt is for {codename}"))
    }

    fn find(codename: &str, texts: &[String]) -> Option<Self> {
        let entries: Vec<_> = texts.iter().flat_map(|text| entries(text)).collect();
        let of =
            |suite: &str| entries.iter().find(|entry| entry.suite == suite).map(|entry| entry.uri.clone());
        Some(Self {
            codename: codename.to_owned(),
            archive: of(codename)?,
            security: of(&format!("{codename}-security")),
        })
    }
}

/// Whether this machine is a Debian.
pub(super) fn is_debian() -> bool {
    release("ID").as_deref() == Some("debian")
}

/// A value of os-release(5).
fn release(key: &str) -> Option<String> {
    let release = fs::read_to_string("/etc/os-release").ok()?;
    let value = release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
    Some(value.trim_matches('"').to_owned())
}

/// One suite of one source of binary packages.
struct Entry {
    uri: String,
    suite: String,
}

/// The contents of all files with sources.
fn texts(apt: &Path) -> Result<Vec<String>> {
    let mut files = vec![apt.join("sources.list")];
    if let Ok(dir) = fs::read_dir(apt.join("sources.list.d")) {
        for entry in dir {
            let path = entry.context("listing /etc/apt/sources.list.d")?.path();
            if path.extension().is_some_and(|kind| kind == "list" || kind == "sources") {
                files.push(path);
            }
        }
    }
    files.sort();
    let present = files.iter().filter(|file| file.exists());
    present
        .map(|file| fs::read_to_string(file).with_context(|| format!("reading {}", file.display())))
        .collect()
}

/// The entries of a file in either of apt's two formats.
fn entries(text: &str) -> Vec<Entry> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let text: String = lines.flat_map(|line| [line, "\n"]).collect();
    let one_line = text.lines().filter_map(one_line_entry);
    one_line.chain(text.split("\n\n").flat_map(stanza_entries)).collect()
}

/// `deb [options] uri suite component…`
fn one_line_entry(line: &str) -> Option<Entry> {
    let rest = line.trim().strip_prefix("deb ")?.trim_start();
    let rest = match rest.strip_prefix('[') {
        Some(options) => options.split_once(']')?.1,
        None => rest,
    };
    let mut words = rest.split_whitespace();
    Some(Entry { uri: without_slash(words.next()?), suite: words.next()?.to_owned() })
}

/// `URIs:`, `Suites:` and more, one a line.
fn stanza_entries(stanza: &str) -> Vec<Entry> {
    let field = |name: &str| -> Vec<&str> {
        let value = stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.unwrap_or_default().split_whitespace().collect()
    };
    if !field("Types").contains(&"deb") || field("Enabled") == ["no"] {
        return Vec::new();
    }
    let (uris, suites) = (field("URIs"), field("Suites"));
    let pairs = uris.iter().flat_map(|uri| suites.iter().map(move |suite| (uri, suite)));
    pairs.map(|(uri, suite)| Entry { uri: without_slash(uri), suite: (*suite).to_owned() }).collect()
}

fn without_slash(uri: &str) -> String {
    uri.trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected() -> Option<Sources> {
        Some(Sources {
            codename: "bookworm".to_owned(),
            archive: "http://mirror.example/debian".to_owned(),
            security: Some("http://mirror.example/debian-security".to_owned()),
        })
    }

    #[test]
    fn a_mirror_is_found_in_the_format_with_fields() {
        let text = "# a comment\nTypes: deb\nURIs: http://mirror.example/debian/\n# another\n\
                    Suites: bookworm bookworm-updates\nComponents: main\n\n\
                    Enabled: no\nTypes: deb\nURIs: http://off.example/debian-security\nSuites: bookworm-security\n\n\
                    Types: deb deb-src\nURIs: http://mirror.example/debian-security\nSuites: bookworm-security\n";
        assert_eq!(Sources::find("bookworm", &[text.to_owned()]), expected());
    }

    #[test]
    fn a_mirror_is_found_in_the_one_line_format() {
        let text = "deb-src http://other.example/debian bookworm main\n#deb http://no.example/debian bookworm main\n\
                    deb [arch=amd64 signed-by=/a/key.gpg] http://mirror.example/debian/ bookworm main\n";
        let security = "deb http://mirror.example/debian-security bookworm-security main\n";
        assert_eq!(Sources::find("bookworm", &[text.to_owned(), security.to_owned()]), expected());
        assert_eq!(Sources::find("trixie", &[text.to_owned()]), None);
    }
}
