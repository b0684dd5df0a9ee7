//! `cargo xtask vm test`: the whole-system tests, on the machines. What they do is in `tests/vm`.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use weir_machines::report;

use super::{kernel::Series, lab, up, upgrade};

/// Run the whole-system tests on the machines: reboots, power cuts, networks, clocks and disks. Takes root.
///
/// The machines are brought up if they are not there. Each scenario begins with them as they were when they had come up.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only the scenarios whose names contain this.
    filter: Option<String>,
    /// Print the names of the scenarios, and run none.
    #[arg(long)]
    list: bool,
    /// Print the results as JSON.
    #[arg(long)]
    json: bool,
    /// The kernel series of the machines; whatever they run, or 6.1, if none is named.
    #[arg(long)]
    kernel: Option<Series>,
    /// Leave the machines as the last scenario left them.
    #[arg(long)]
    keep: bool,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if options.list {
        weir_machines::names(options.filter.as_deref()).iter().for_each(|name| println!("{name}"));
        return Ok(());
    }
    lab::ensure_root()?;
    let dir = lab::dir()?;
    up::bring_up(&up::Options::on(options.kernel))?;
    let upgrade = upgrade::package(&up::packages(&dir)?, &dir.join("upgrade"))?;
    let lab = weir_machines::Lab::new(lab::vagrant, |program| lab::command(program), &dir)
        .cutting_power_by(power_cut);
    let wanted =
        weir_machines::Options { filter: options.filter.clone(), upgrade: Some(upgrade), keep: options.keep };
    let outcomes = weir_machines::run(&lab, &wanted)?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report::json(&outcomes)).context("writing JSON")?);
    } else {
        print!("{}", report::table(&outcomes));
    }
    let failed = report::failed(&outcomes);
    ensure!(failed == 0, "{failed} of {} scenarios failed", outcomes.len());
    Ok(())
}

/// Ends a machine as a power cut does.
fn power_cut(machine: &str) -> Result<Command> {
    let mut virsh = lab::command("virsh")?;
    virsh.args(["destroy", &format!("weir-{machine}")]);
    Ok(virsh)
}
