//! `cargo xtask vm status`: which machines there are, how they are, and how to get in.

use std::path::Path;

use anyhow::Result;

use super::{lab, libvirt};
use crate::exec;

/// Where a machine is in which network, and what it is for.
const ABOUT: &[(&str, &str, &str)] = &[
    ("store", "10.57.1.10", "S3 at http://10.57.1.10:9000, the user's ssh, weir"),
    ("connector", "10.57.1.2, 10.57.2.2", "weir-agent, weir-proxy on port 10022"),
    ("target", "10.57.2.20", "sshd, login app"),
];

/// Show the machines of the whole-system tests.
#[derive(clap::Args)]
pub(crate) struct Options {}

pub(crate) fn run(_: &Options) -> Result<()> {
    lab::ensure_root()?;
    let dir = lab::dir()?;
    if !lab::is_up(&dir) || !libvirt::exists()? {
        println!("There are no machines; `cargo xtask vm up` makes them.");
        return Ok(());
    }
    print(&dir)
}

/// Prints the table.
pub(super) fn print(dir: &Path) -> Result<()> {
    let states: Vec<_> = lab::MACHINES.into_iter().map(state).collect::<Result<_>>()?;
    print!("{}", table(&states));
    print!("{}", ways_in(dir));
    Ok(())
}

fn state(machine: &str) -> Result<String> {
    let asked = exec::output(lab::command("virsh")?.args(["domstate", &format!("weir-{machine}")]));
    Ok(asked.map_or_else(|_| "not there".to_owned(), |state| state.trim().to_owned()))
}

/// Lines to copy.
fn ways_in(dir: &Path) -> String {
    let (namespace, config) = (lab::NAMESPACE, lab::ssh_config(dir));
    format!(
        "\n\
         Into a machine:       cargo xtask vm ssh connector\n\
         Ada, to the target:   cargo xtask vm ssh store -t ssh connector\n\
         Vagrant:              cargo xtask vm vagrant snapshot list\n\
         ssh, scp, virsh:      ip netns exec {namespace} ssh -F {} connector\n\
         Consoles:             {}\n",
        config.display(),
        lab::console(dir, "MACHINE").display()
    )
}

fn table(states: &[String]) -> String {
    let mut text = format!("{:<11}{:<11}{:<22}{}\n", "machine", "state", "addresses", "what");
    for ((machine, addresses, what), state) in ABOUT.iter().zip(states) {
        text += &format!("{machine:<11}{state:<11}{addresses:<22}{what}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    #[test]
    fn the_addresses_are_the_vagrantfiles() {
        let vagrantfile = workspace::root().join("tests/vm/Vagrantfile");
        let vagrantfile = std::fs::read_to_string(vagrantfile).expect("it is in the repository");
        for address in ABOUT.iter().flat_map(|(_, addresses, _)| addresses.split(", ")) {
            assert!(vagrantfile.contains(&format!("\"{address}\"")), "{address}");
        }
    }

    #[test]
    fn every_machine_has_a_line_with_its_state() {
        assert!(ABOUT.iter().map(|(machine, ..)| *machine).eq(lab::MACHINES));
        let text = table(&["running".to_owned(), "shut off".to_owned(), "running".to_owned()]);
        let line = text.lines().find(|line| line.starts_with("connector")).expect("there is a connector");
        assert_eq!(
            line.split_whitespace().take(4).collect::<Vec<_>>(),
            ["connector", "shut", "off", "10.57.1.2,"]
        );
    }
}
