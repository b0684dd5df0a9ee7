//! Which command carries files: `scp`, `rsync` and `sftp-server` as clients start them.
//!
//! The command must run one such program and nothing else, or what comes after it could pass for file content.

use weir_common::recording::findings::PATH_BYTES_MAX;

use crate::text::{bounded, lossy};

/// Where programs lie that the target's administrator has installed.
const FOLDERS: &[&[u8]] = &[
    b"/bin",
    b"/sbin",
    b"/usr/bin",
    b"/usr/sbin",
    b"/usr/local/bin",
    b"/opt/homebrew/bin",
    b"/usr/lib",
    b"/usr/lib/openssh",
    b"/usr/lib/ssh",
    b"/usr/libexec",
    b"/usr/libexec/openssh",
    b"/usr/libexec/ssh",
];
/// Flags of `scp` that may stand beside `-t` and `-f`; none of them takes a value.
const SCP_FLAGS: &[u8] = b"rpdvqTBC346O";

/// A command that carries files.
pub(super) struct Carrier {
    pub(super) program: Program,
    /// Whether the program goes by the name of one that the target's administrator has installed: a bare name, or one in
    /// their folders. Others may be anything that calls itself so. So may a bare name, to the user: it is whatever their
    /// shell's start-up files make of it (a function, an alias, a search path), which nothing in the session tells.
    pub(super) is_installed: bool,
}

/// What carries them.
pub(super) enum Program {
    Sftp,
    /// `scp -t`: the client sends.
    ScpTo {
        path: String,
        /// Whether the path is said to be a folder.
        is_folder: bool,
    },
    /// `scp -f`: the target sends.
    ScpFrom {
        paths: Vec<String>,
    },
    Rsync {
        path: String,
        /// The command line comes as the first data (`--secluded-args`).
        is_secluded: bool,
    },
}

/// Reads a command line.
pub(super) fn read(command: &[u8]) -> Option<Carrier> {
    if !runs_one_program(command) {
        return None;
    }
    let words = shlex::bytes::split(command)?;
    let (program, arguments) = words.split_first()?;
    let (folder, name) = match program.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (Some(&program[..at]), &program[at + 1..]),
        None => (None, &program[..]),
    };
    let program = match name {
        b"sftp-server" => Program::Sftp,
        b"scp" => scp(arguments)?,
        b"rsync" => rsync(arguments)?,
        _ => return None,
    };
    Some(Carrier { program, is_installed: folder.is_none_or(|folder| FOLDERS.contains(&folder)) })
}

fn scp(arguments: &[Vec<u8>]) -> Option<Program> {
    let mut arguments = arguments.iter();
    let (mut to, mut from, mut is_folder) = (false, false, false);
    let mut paths = Vec::new();
    for argument in arguments.by_ref() {
        match argument.strip_prefix(b"-") {
            Some(b"-") => break,
            Some(flags @ [_, ..]) => {
                for flag in flags {
                    match flag {
                        b't' => to = true,
                        b'f' => from = true,
                        b'd' => is_folder = true,
                        flag if SCP_FLAGS.contains(flag) => {}
                        _ => return None,
                    }
                }
            }
            _ => {
                paths.push(argument);
                break;
            }
        }
    }
    paths.extend(arguments);
    let mut paths: Vec<_> =
        fitting(paths.into_iter()).into_iter().map(|path| lossy(path, PATH_BYTES_MAX)).collect();
    match (to, from, paths.len()) {
        (true, false, 1) => Some(Program::ScpTo { path: paths.pop()?, is_folder }),
        (false, true, 1..) => Some(Program::ScpFrom { paths }),
        _ => None,
    }
}

/// The client starts `rsync --server`, options, `.` and paths.
fn rsync(arguments: &[Vec<u8>]) -> Option<Program> {
    let (first, arguments) = arguments.split_first()?;
    if first != b"--server" {
        return None;
    }
    let at = arguments.iter().position(|argument| argument == b".").unwrap_or(arguments.len());
    let (options, paths) = arguments.split_at(at);
    // A server that others configure: what it runs is not known.
    if arguments.iter().any(|option| option.starts_with(b"--daemon") || option.starts_with(b"--config")) {
        return None;
    }
    let is_secluded = options.iter().any(|option| is_secluded(option));
    let paths = paths.get(1..).unwrap_or_default();
    Some(Program::Rsync { path: joined(paths), is_secluded })
}

/// Whether `s` is among these options; `e` has a value, up to the end.
pub(super) fn is_secluded(options: &[u8]) -> bool {
    match options {
        b"--secluded-args" | b"--protect-args" => true,
        [b'-', b'-', ..] => false,
        [b'-', flags @ ..] => flags.iter().take_while(|flag| **flag != b'e').any(|flag| *flag == b's'),
        _ => false,
    }
}

/// As many of the paths as fit together.
pub(super) fn fitting<P: AsRef<[u8]>>(paths: impl Iterator<Item = P>) -> Vec<P> {
    let fits = |held: &mut usize, path: P| {
        *held += path.as_ref().len();
        (*held <= PATH_BYTES_MAX).then_some(path)
    };
    paths.scan(0, fits).collect()
}

/// Several paths in one text, quoted as a shell wants it.
pub(super) fn joined<P: AsRef<[u8]>>(paths: &[P]) -> String {
    let quoter = shlex::bytes::Quoter::new().allow_nul(true);
    match paths {
        [path] => lossy(path.as_ref(), PATH_BYTES_MAX),
        paths => quoter
            .join(paths.iter().map(AsRef::as_ref))
            .map_or_else(|_| String::new(), |text| bounded(lossy(&text, PATH_BYTES_MAX), PATH_BYTES_MAX)),
    }
}

/// Whether a shell makes one program with arguments of this: no operators, no substitutions, not even in part.
fn runs_one_program(command: &[u8]) -> bool {
    let mut quote = None;
    let mut bytes = command.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match (quote, byte) {
            (Some(b'\''), b'\'') | (Some(b'"'), b'"') => quote = None,
            (Some(b'\''), _) => {}
            (_, b'\\') => {
                bytes.next();
            }
            (_, b'`') => return false,
            (_, b'$') if bytes.peek().is_some_and(|next| b"({['\"".contains(next)) => return false,
            (Some(_), _) => {}
            (None, b'\'' | b'"') => quote = Some(byte),
            (None, b';' | b'&' | b'|' | b'<' | b'>' | b'(' | b')' | b'\n' | b'\r') => return false,
            (None, _) => {}
        }
    }
    quote.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(command: &str) -> Option<String> {
        let Carrier { program, is_installed } = read(command.as_bytes())?;
        let kind = match program {
            Program::Sftp => "sftp".to_owned(),
            Program::ScpTo { path, is_folder } => format!("to {path}{}", if is_folder { "/" } else { "" }),
            Program::ScpFrom { paths } => format!("from {}", paths.join(",")),
            Program::Rsync { path, is_secluded } => {
                format!("rsync {path}{}", if is_secluded { " secluded" } else { "" })
            }
        };
        Some(if is_installed { kind } else { format!("? {kind}") })
    }

    #[test]
    fn commands_that_carry_files_are_known_in_the_forms_that_clients_send() {
        for (command, expected) in [
            ("scp -t /tmp", "to /tmp"),
            ("scp -r -p -d -t /tmp", "to /tmp/"),
            ("/usr/bin/scp -rpt -- '-odd name'", "to -odd name"),
            ("'/usr/bin/scp' -v -f \"a b\" c\\;d", "from a b,c;d"),
            ("scp -f '$(x)' ~/y*", "from $(x),~/y*"),
            ("/home/me/scp -t .", "? to ."),
            ("./rsync --server . x", "? rsync x"),
            ("rsync --server -vlogDtpre.iLsfxCIvu . /srv/a", "rsync /srv/a"),
            ("rsync --server --sender -logDtpre.iLsfxCIvu --bwlimit=5 . a 'b c'", "rsync a 'b c'"),
            ("rsync --server -svlogDtpre.iLfxCIvu", "rsync  secluded"),
            ("/usr/lib/openssh/sftp-server", "sftp"),
            ("/usr/lib/openssh/sftp-server -l INFO", "sftp"),
            ("/tmp/sftp-server", "? sftp"),
        ] {
            assert_eq!(kind(command).as_deref(), Some(expected), "{command}");
        }
    }

    #[test]
    fn a_command_that_does_more_is_not_followed() {
        for command in [
            "",
            "scp",
            "scp -t",
            "scp a b",
            "scp -t -f x",
            "scp -t a b",
            "scp -S /tmp/x -t a",
            "scp -t /tmp; bash -i",
            "scp -t /tmp && bash",
            "scp -t /tmp | tee x",
            "scp -t /tmp\nbash",
            "scp -t \"$(bash)\"",
            "scp -t `bash`",
            "scp -t \"`bash`\"",
            "scp -t $'\\'';bash'",
            "scp -t ${x:-'a;b'}",
            "scp -t 'a",
            "scp -t a > b",
            "(scp -t a)",
            "sudo scp -t a",
            "LC_ALL=C scp -t a",
            "sh -c 'scp -t a'",
            "rsync -a x y",
            "rsync --server --daemon .",
            "rsync --daemon --server .",
            "rsync --server --daemon --config=/tmp/x .",
            "git-upload-pack 'x'",
            "bash",
        ] {
            assert_eq!(kind(command), None, "{command}");
        }
    }
}
