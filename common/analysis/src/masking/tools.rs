//! Programs whose short options carry secrets.

/// What is known of a program's command line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tool {
    /// `-p<password>`, only in the same word.
    Attached,
    /// `mysqladmin`: that, and `password <new>`.
    Mysqladmin,
    /// `-p <password>`.
    Password,
    /// `sshpass`: `-p <password>`, then another command.
    Sshpass,
    /// `-P <password>`.
    CapitalP,
    /// `-a <password>`.
    Redis,
    /// `-u user:password`.
    Curl,
    /// `-u user,password`.
    Lftp,
    /// `-U user%password`.
    Samba,
    /// `-w <password>`.
    Ldap,
    /// `password <password>`, without dashes.
    NetworkManager,
    /// `… login -p <password>`; `--secret` is a name.
    Registry,
    /// The same behind `login`.
    Login,
    /// `vault login <token>`, `vault kv put path name=value`.
    Vault,
}

/// The programs.
pub(super) const TOOLS: &[(&str, Tool)] = &[
    ("mysqladmin", Tool::Mysqladmin),
    ("mariadb-admin", Tool::Mysqladmin),
    ("mysql", Tool::Attached),
    ("mysqldump", Tool::Attached),
    ("mysqlimport", Tool::Attached),
    ("mysqlcheck", Tool::Attached),
    ("mysqlshow", Tool::Attached),
    ("mysqlslap", Tool::Attached),
    ("mysqlbinlog", Tool::Attached),
    ("mysqlpump", Tool::Attached),
    ("mysqlsh", Tool::Attached),
    ("mariadb", Tool::Attached),
    ("mariadb-dump", Tool::Attached),
    ("mariadb-check", Tool::Attached),
    ("mycli", Tool::Attached),
    ("xtrabackup", Tool::Attached),
    ("7z", Tool::Attached),
    ("7za", Tool::Attached),
    ("7zr", Tool::Attached),
    ("unrar", Tool::Attached),
    ("mongo", Tool::Password),
    ("mongosh", Tool::Password),
    ("mongodump", Tool::Password),
    ("mongorestore", Tool::Password),
    ("mongoexport", Tool::Password),
    ("mongoimport", Tool::Password),
    ("cqlsh", Tool::Password),
    ("sshpass", Tool::Sshpass),
    ("sqlcmd", Tool::CapitalP),
    ("bcp", Tool::CapitalP),
    ("unzip", Tool::CapitalP),
    ("zip", Tool::CapitalP),
    ("ipmitool", Tool::CapitalP),
    ("redis-cli", Tool::Redis),
    ("valkey-cli", Tool::Redis),
    ("curl", Tool::Curl),
    ("lftp", Tool::Lftp),
    ("smbclient", Tool::Samba),
    ("rpcclient", Tool::Samba),
    ("ldapsearch", Tool::Ldap),
    ("ldapadd", Tool::Ldap),
    ("ldapmodify", Tool::Ldap),
    ("ldapdelete", Tool::Ldap),
    ("ldappasswd", Tool::Ldap),
    ("ldapwhoami", Tool::Ldap),
    ("nmcli", Tool::NetworkManager),
    ("docker", Tool::Registry),
    ("podman", Tool::Registry),
    ("nerdctl", Tool::Registry),
    ("buildah", Tool::Registry),
    ("skopeo", Tool::Registry),
    ("helm", Tool::Registry),
    ("az", Tool::Registry),
    ("oc", Tool::Registry),
    ("vault", Tool::Vault),
];

/// How a program takes a secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// In the same word.
    Attached,
    /// In the same word or the next one.
    Value,
    /// The same, behind a user's name and this.
    Behind(u8),
}

/// What a short option means to a program.
pub(super) fn short_option(tool: Tool, letter: u8) -> Option<Takes> {
    match (tool, letter) {
        (Tool::Attached | Tool::Mysqladmin, b'p') => Some(Takes::Attached),
        (Tool::Password | Tool::Sshpass | Tool::Login, b'p')
        | (Tool::CapitalP, b'P')
        | (Tool::Redis, b'a')
        | (Tool::Ldap, b'w') => Some(Takes::Value),
        (Tool::Curl, b'u' | b'U') => Some(Takes::Behind(b':')),
        (Tool::Lftp, b'u') => Some(Takes::Behind(b',')),
        (Tool::Samba, b'U') => Some(Takes::Behind(b'%')),
        _ => None,
    }
}

/// Short options of `curl` without a value, which may stand together with one that has one.
pub(super) fn is_switch_of_curl(letter: u8) -> bool {
    b"aBfgGiIjJkLlNnOpqRsSvZ0123461#".contains(&letter)
}
