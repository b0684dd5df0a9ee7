//! The file system that the virtual machine lives in: our programs, their libraries, and nothing else.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::BufWriter,
    path::Path,
};

use anyhow::{Context, Result};

use super::{cpio::Archive, init, payload::Payload};

/// Writes it. It is not compressed: the guest would take longer to unpack it than to load it.
pub(super) fn write(to: &Path, payload: &Payload, test_arguments: &[String]) -> Result<()> {
    let Payload { tests, agent, agent_at, init } = payload;
    let read = |path: &Path| fs::read(path).with_context(|| format!("reading {}", path.display()));
    let mut files = vec![
        ("/init".to_owned(), read(init)?),
        (agent_at.clone(), read(agent)?),
        (init::AGENT_CONFIG.to_owned(), init::AGENT_CONFIG_TEXT.as_bytes().to_owned()),
        (init::PASSWD.to_owned(), init::PASSWD_TEXT.as_bytes().to_owned()),
        (init::TEST_ARGUMENTS.to_owned(), test_arguments.join("\n").into_bytes()),
    ];
    for (name, program) in tests {
        files.push((format!("{}/{name}", init::PAYLOAD), read(program)?));
    }
    for (tool, _) in init::TOOLS {
        files.push(((*tool).to_owned(), read(Path::new(tool))?));
    }
    let (authorities, _) = init::AUTHORITIES;
    files.push((authorities.to_owned(), read(Path::new(authorities))?));
    for library in payload.libraries()? {
        let content = read(Path::new(&library))?;
        files.push((library, content));
    }
    let mut folders: BTreeSet<&str> = init::FOLDERS.iter().copied().collect();
    for (path, _) in &files {
        folders.extend(parents(path));
    }

    let out = File::create(to).with_context(|| format!("creating {}", to.display()))?;
    let mut archive = Archive::new(BufWriter::new(out));
    for folder in folders {
        archive.directory(folder)?;
    }
    // What the kernel gives init as standard input and outputs.
    archive.character_device("/dev/console", 5, 1)?;
    for (path, content) in &files {
        archive.file(path, 0o755, content)?;
    }
    archive.symbolic_link(init::AGENT, agent_at)?;
    archive.finish()
}

/// All folders above, the root excepted.
fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at]).filter(|folder| !folder.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_folder_above_is_a_parent() {
        assert_eq!(parents("/usr/lib/libc.so.6").collect::<Vec<_>>(), ["/usr", "/usr/lib"]);
        assert_eq!(parents("/init").next(), None);
    }
}
