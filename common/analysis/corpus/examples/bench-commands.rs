//! How many of the commands that real shells ran are found, and how much of what is found ran. Run it with
//! `cargo xtask bench commands`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};
use clap::Parser;
use weir_corpus::{
    Plan, in_parallel, random,
    score::{self, Outcome, Score},
};

/// The seed unless another one is given.
const SEED: u64 = 5;

#[derive(Parser)]
struct Options {
    /// Print JSON instead of tables.
    #[arg(long)]
    json: bool,
    /// Only this shell: `bash`, `zsh`, …, or with its marks: `"bash osc633"`.
    #[arg(long)]
    shell: Option<String>,
    /// Only this trap.
    #[arg(long)]
    trap: Option<String>,
    /// A number, or `random`.
    #[arg(long, default_value_t = SEED.to_string())]
    seed: String,
    /// How many sessions of each kind.
    #[arg(long, default_value_t = 2)]
    rounds: u32,
    /// List what was expected and not found, and what was found and did not run.
    #[arg(long)]
    misses: bool,
    /// Keep what passed in each session there: events, a line each.
    #[arg(long)]
    keep: Option<PathBuf>,
    /// How many sessions at the same time.
    #[arg(long, default_value_t = 8)]
    jobs: usize,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let seed = if options.seed == "random" { random::seed() } else { options.seed.parse()? };
    let mut plans = Plan::all(options.rounds);
    plans.retain(|plan| {
        options.shell.as_ref().is_none_or(|shell| plan.row() == *shell || plan.shell.name() == shell)
    });
    plans.retain(|plan| options.trap.as_ref().is_none_or(|trap| plan.trap.name == trap));
    ensure!(!plans.is_empty(), "there is no such session");
    let outcomes = in_parallel(&plans, options.jobs, |plan| one(plan, seed, options.keep.as_deref()));
    if options.json {
        json(&plans, &outcomes, seed);
    } else {
        tables(&plans, &outcomes, seed, options.misses);
    }
    let failed = outcomes.iter().filter(|outcome| outcome.is_err()).count();
    ensure!(failed == 0, "{failed} sessions could not be had");
    Ok(())
}

fn one(plan: &Plan, seed: u64, keep: Option<&Path>) -> Result<Outcome> {
    let transcript = plan.record(seed)?;
    if let Some(directory) = keep {
        let mut lines = String::new();
        for recorded in &transcript.recorded {
            lines.push_str(&serde_json::to_string(&recorded.event)?);
            lines.push('\n');
        }
        fs::create_dir_all(directory)?;
        fs::write(directory.join(plan.name().replace(' ', "-") + ".ndjson"), lines)?;
    }
    Ok(score::compare(&transcript))
}

fn tables(plans: &[Plan], outcomes: &[Result<Outcome>], seed: u64, misses: bool) {
    println!("seed {seed}, {} sessions\n", plans.len());
    table("shell", plans, outcomes, Plan::row);
    table("trap", plans, outcomes, |plan| plan.trap.name.to_owned());
    table("", plans, outcomes, |_| "all".to_owned());
    for (plan, outcome) in plans.iter().zip(outcomes) {
        match outcome {
            Err(error) => println!("{}: {error:#}", plan.name()),
            Ok(outcome) => {
                for fault in &outcome.faults {
                    println!("{}: {fault}", plan.name());
                }
                for miss in outcome.misses.iter().filter(|_| misses) {
                    let sign = if miss.ran { "expected" } else { "found   " };
                    let repl = miss.repl.as_ref().map_or(String::new(), |repl| format!(" ({repl})"));
                    println!("{}: {sign}{repl} {:?}", plan.name(), miss.text);
                }
            }
        }
    }
}

fn table(title: &str, plans: &[Plan], outcomes: &[Result<Outcome>], group: impl Fn(&Plan) -> String) {
    let groups = grouped(plans, outcomes, group);
    println!(
        "{title:20} {:>6} {:>6} {:>8} {:>10} {:>8}   statements",
        "ran", "found", "correct", "precision", "recall"
    );
    for (name, (commands, statements)) in groups {
        print!(
            "{name:20} {:6} {:6} {:8} {:>9.2}% {:>7.2}%",
            commands.ran,
            commands.found,
            commands.correct,
            commands.precision() * 100.0,
            commands.recall() * 100.0,
        );
        if statements != Score::default() {
            print!("   {} ran, {} found, {} correct", statements.ran, statements.found, statements.correct);
        }
        println!();
    }
    println!();
}

fn grouped(
    plans: &[Plan],
    outcomes: &[Result<Outcome>],
    group: impl Fn(&Plan) -> String,
) -> BTreeMap<String, (Score, Score)> {
    let mut groups: BTreeMap<String, (Score, Score)> = BTreeMap::new();
    for (plan, outcome) in plans.iter().zip(outcomes) {
        if let Ok(outcome) = outcome {
            let (commands, statements) = groups.entry(group(plan)).or_default();
            *commands = [*commands, outcome.commands].into_iter().sum();
            *statements = [*statements, outcome.statements].into_iter().sum();
        }
    }
    groups
}

fn json(plans: &[Plan], outcomes: &[Result<Outcome>], seed: u64) {
    let scores = |groups: BTreeMap<String, (Score, Score)>| -> serde_json::Value {
        let entry = |(name, (commands, statements)): (String, (Score, Score))| {
            let score = |score: Score| {
                serde_json::json!({
                    "ran": score.ran, "found": score.found, "correct": score.correct,
                    "precision": score.precision(), "recall": score.recall(),
                })
            };
            (name, serde_json::json!({ "commands": score(commands), "statements": score(statements) }))
        };
        groups.into_iter().map(entry).collect::<serde_json::Map<_, _>>().into()
    };
    let sessions: Vec<_> = plans
        .iter()
        .zip(outcomes)
        .map(|(plan, outcome)| match outcome {
            Ok(outcome) => serde_json::json!({ "session": plan.name(), "outcome": outcome }),
            Err(error) => serde_json::json!({ "session": plan.name(), "error": format!("{error:#}") }),
        })
        .collect();
    let report = serde_json::json!({
        "seed": seed,
        "shells": scores(grouped(plans, outcomes, Plan::row)),
        "traps": scores(grouped(plans, outcomes, |plan| plan.trap.name.to_owned())),
        "all": scores(grouped(plans, outcomes, |_| "all".to_owned())),
        "sessions": sessions,
    });
    println!("{report:#}");
}
