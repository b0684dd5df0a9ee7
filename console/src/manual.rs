//! Completions for shells and man pages, made from the command line as [`crate::cli`] has it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::cli::Cli;

/// Why pages could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ManualError {
    /// There is no such subcommand.
    #[error("there is no command `{0}` to have a page; see `weir help`")]
    NoSuchCommand(String),
    /// A file or directory can't be written.
    #[error("can't write {}: {source}", .path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A man page.
pub struct Page {
    /// The file's name, such as `weir-verify.1`.
    pub name: String,
    /// Its text, in roff.
    pub roff: Vec<u8>,
}

/// What a shell reads to complete `weir`.
#[must_use]
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "weir", &mut script);
    script
}

/// A page for `weir` and one for each subcommand.
#[must_use]
pub fn pages() -> Vec<Page> {
    let mut weir = Cli::command().disable_help_subcommand(true);
    weir.build();
    std::iter::once(&weir).chain(weir.get_subcommands()).map(page).collect()
}

/// The page of a subcommand, or of `weir`.
///
/// # Errors
/// If there is no such subcommand.
pub fn page_of(command: Option<&str>) -> Result<Page, ManualError> {
    let name = command.map_or_else(|| "weir.1".to_owned(), |command| format!("weir-{command}.1"));
    let page = pages().into_iter().find(|page| page.name == name);
    page.ok_or_else(|| ManualError::NoSuchCommand(command.unwrap_or_default().to_owned()))
}

/// Writes all pages to a directory, which is made if it is not there.
///
/// # Errors
/// If it can't be.
pub fn write_pages(dir: &Path) -> Result<Vec<PathBuf>, ManualError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ManualError::Write { path, source }
    };
    fs::create_dir_all(dir).map_err(failed(dir))?;
    let mut written = Vec::new();
    for page in pages() {
        let path = dir.join(&page.name);
        fs::write(&path, &page.roff).map_err(failed(&path))?;
        written.push(path);
    }
    Ok(written)
}

fn page(command: &Command) -> Page {
    let title = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let notes = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let man = Man::new(command.clone().after_help(None::<&str>))
        .title(title.to_uppercase())
        .section("1")
        .source(concat!("weir ", env!("CARGO_PKG_VERSION")))
        .manual("Weir");
    let mut roff = Vec::new();
    render(&man, command, &notes, &mut roff).expect("memory takes what is written");
    Page { name: format!("{title}.1"), roff }
}

fn render(man: &Man, command: &Command, notes: &str, roff: &mut Vec<u8>) -> io::Result<()> {
    man.render_title(roff)?;
    man.render_name_section(roff)?;
    man.render_synopsis_section(roff)?;
    man.render_description_section(roff)?;
    if command.get_arguments().next().is_some() {
        man.render_options_section(roff)?;
    }
    if command.has_subcommands() {
        man.render_subcommands_section(roff)?;
    }
    roff.extend_from_slice(sections(notes).as_bytes());
    Ok(())
}

/// The text below a command's help, as sections. Lines that are indented there stay as they are.
fn sections(notes: &str) -> String {
    let mut roff = String::new();
    let mut in_notes = false;
    for paragraph in notes.split("\n\n") {
        let (first, rest) = paragraph.split_once('\n').unwrap_or((paragraph, ""));
        let rest = if let Some(rest) = first.strip_prefix("Exit codes") {
            let more = rest.trim_start_matches(',').trim().trim_end_matches(':');
            roff += &format!(".SH \"EXIT STATUS\"\n{}\n", line(more));
            statuses(paragraph, &mut roff);
            continue;
        } else if first == "Examples:" {
            roff += ".SH EXAMPLES\n";
            in_notes = true;
            rest
        } else {
            roff += if in_notes { ".PP\n" } else { ".SH NOTES\n" };
            in_notes = true;
            paragraph
        };
        lines(rest, &mut roff);
    }
    roff
}

/// `  1  something is wrong`, line by line.
fn statuses(paragraph: &str, roff: &mut String) {
    for status in paragraph.lines().skip(1) {
        match status.trim().split_once("  ") {
            Some((code, meaning)) => *roff += &format!(".TP\n{}\n{}\n", line(code), line(meaning.trim())),
            None => *roff += &format!("{}\n", line(status.trim())),
        }
    }
}

fn lines(text: &str, roff: &mut String) {
    let mut verbatim = false;
    for text in text.lines() {
        if text.starts_with("  ") != verbatim {
            verbatim = !verbatim;
            *roff += if verbatim { ".PP\n.nf\n" } else { ".fi\n.PP\n" };
        }
        *roff += &format!("{}\n", line(text));
    }
    if verbatim {
        *roff += ".fi\n";
    }
}

/// A line in which nothing means anything to roff.
fn line(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subcommand_has_a_page_that_names_its_options() {
        let pages = pages();
        let names: Vec<_> = pages.iter().map(|page| page.name.as_str()).collect();
        let command = Cli::command();
        for subcommand in command.get_subcommands() {
            let name = format!("weir-{}.1", subcommand.get_name());
            let page =
                pages.iter().find(|page| page.name == name).unwrap_or_else(|| panic!("{name}: {names:?}"));
            let text = String::from_utf8(page.roff.clone()).expect("UTF-8");
            for option in subcommand.get_arguments().filter_map(clap::Arg::get_long) {
                assert!(text.contains(&option.replace('-', "\\-")), "{name} says nothing of --{option}");
            }
            assert!(
                text.contains(&format!("weir \\-{}", subcommand.get_name())) || text.contains("SYNOPSIS")
            );
        }
        assert_eq!(pages.len(), command.get_subcommands().count() + 1);
        assert!(
            matches!(page_of(Some("nothing")), Err(ManualError::NoSuchCommand(name)) if name == "nothing")
        );
        assert_eq!(page_of(Some("verify")).expect("a page").name, "weir-verify.1");
    }

    #[test]
    fn what_stands_below_help_becomes_sections() {
        let notes = "Something is so.\n  .hidden \\ -x\n\nExamples:\n  weir --x\n\nExit codes, the first:\n  0  fine\n  1  'not'";
        let roff = ".SH NOTES\nSomething is so.\n.PP\n.nf\n  .hidden \\e \\-x\n.fi\n.SH EXAMPLES\n.PP\n.nf\n  weir \\-\\-x\n.fi\n\
            .SH \"EXIT STATUS\"\nthe first\n.TP\n0\nfine\n.TP\n1\n\\&'not'\n";
        assert_eq!(sections(notes), roff);
    }

    #[test]
    fn pages_are_written_to_a_directory() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let out = dir.path().join("man/man1");
        let written = write_pages(&out).expect("it is made");
        assert_eq!(written.len(), pages().len());
        assert_eq!(fs::read(out.join("weir.1")).expect("a page"), page_of(None).expect("a page").roff);
        fs::write(dir.path().join("file"), "").expect("a file");
        let error = write_pages(&dir.path().join("file")).expect_err("a file is no directory");
        assert!(error.to_string().contains("/file"), "{error}");
    }
}
