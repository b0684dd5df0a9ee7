//! The scenarios. Each proves what is in the store by its content, not by the absence of errors.

mod clock;
mod disk_full;
mod killed;
mod network;
mod power_cut;
mod privilege;
mod reboot;
mod sessions;
mod store_away;
mod units;
mod upgrade;

use anyhow::Result;

use crate::bed::Bed;

/// A scenario.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&Bed<'_>) -> Result<()>,
}

/// All of them, in the order in which they run.
pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "units", run: units::run },
    Scenario { name: "sessions", run: sessions::run },
    Scenario { name: "killed-agent", run: killed::agent },
    Scenario { name: "killed-proxy", run: killed::proxy },
    Scenario { name: "upgrade", run: upgrade::run },
    Scenario { name: "reboot", run: reboot::run },
    Scenario { name: "power-cut", run: power_cut::run },
    Scenario { name: "store-away", run: store_away::run },
    Scenario { name: "clock-jump", run: clock::jumps },
    Scenario { name: "grant-expiry", run: clock::expiry },
    Scenario { name: "target-lost", run: network::target },
    Scenario { name: "user-lost", run: network::user },
    Scenario { name: "disk-full", run: disk_full::goes_on },
    Scenario { name: "disk-full-stall", run: disk_full::stalls },
    Scenario { name: "full-privilege", run: privilege::run },
];
