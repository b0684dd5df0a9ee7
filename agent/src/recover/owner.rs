//! Keeping root from making what the agent of this node could not use afterwards.
//!
//! Directories of a `file://` store, session reports and a new signing key belong to who makes them, and an agent that is
//! an ordinary user takes none of root's. So that user recovers, with the one capability that reads and empties a
//! spool whoever it belongs to.

use std::{env, fs, os::unix::fs::MetadataExt, path::Path};

use nix::unistd::{Gid, Group, Uid, User, geteuid};

use super::RecoverError;

/// Refuses for root where the state directory is another user's, with the command that does it as that user.
pub(super) fn refuse_root(state_dir: &Path) -> Result<(), RecoverError> {
    // One that is missing is made, and then is root's; one that cannot be seen fails where it is used.
    let Ok(found) = fs::metadata(state_dir) else { return Ok(()) };
    if !geteuid().is_root() || found.uid() == 0 {
        return Ok(());
    }
    let user = User::from_uid(Uid::from_raw(found.uid())).ok().flatten().map(|user| user.name);
    let group = Group::from_gid(Gid::from_raw(found.gid())).ok().flatten().map(|group| group.name);
    let own = env::args_os().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>();
    let command = as_user(
        &user.clone().unwrap_or_else(|| found.uid().to_string()),
        &group.unwrap_or_else(|| found.gid().to_string()),
        user.is_some(),
        &own,
    );
    let user = user.unwrap_or_else(|| format!("user {}", found.uid()));
    Err(RecoverError::AnotherUser { path: state_dir.to_owned(), user, command })
}

/// This command line by another user, as a shell takes it.
fn as_user(user: &str, group: &str, is_known: bool, own: &[String]) -> String {
    // Only who has a name can be in groups.
    let groups = if is_known { "--init-groups" } else { "--clear-groups" };
    let before = format!(
        "setpriv --reuid={user} --regid={group} {groups} --inh-caps=-all,+dac_override \
         --ambient-caps=-all,+dac_override --"
    );
    let own = own.iter().map(|word| shlex::try_quote(word).unwrap_or_else(|_| word.into()));
    own.fold(before, |line, word| line + " " + &word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_this_one_again_quoted_with_the_users_groups_if_there_are_any() {
        let own = ["weir-agent", "recover", "--json", "/mnt/lost disk"].map(str::to_owned);
        let command = as_user("weir-agent", "weir", true, &own);
        assert!(command.starts_with("setpriv --reuid=weir-agent --regid=weir --init-groups "), "{command}");
        assert!(command.ends_with(" -- weir-agent recover --json '/mnt/lost disk'"), "{command}");
        assert!(as_user("995", "994", false, &own).contains(" --clear-groups "));
    }
}
