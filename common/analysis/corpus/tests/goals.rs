//! The goals for what is found of commands, on a part of the corpus: at least 99 % of what is found ran, and at least 99 %
//! of what ran is found; all of it where the client or marks of the shell say it.

use weir_corpus::{
    Marks, Plan, Shell, in_parallel,
    score::{Outcome, Score},
};

/// The prompts, sizes and commands of these sessions follow from it.
const SEED: u64 = 11;
/// How many sessions at the same time, in each test.
const JOBS: usize = 6;
/// What shells with marks do here; `cargo xtask bench commands` has them do more.
const MARKED: &[&str] = &["plain", "wrapping", "multi_line", "paste_bracketed", "history_up", "ctrl_c"];

#[test]
fn commands_in_bash_are_found() {
    unmarked(Shell::Bash);
}

#[test]
fn commands_in_zsh_are_found() {
    unmarked(Shell::Zsh);
}

#[test]
fn commands_in_fish_are_found() {
    unmarked(Shell::Fish);
}

#[test]
fn commands_in_dash_are_found() {
    unmarked(Shell::Dash);
}

#[test]
fn commands_between_marks_are_found_without_exception() {
    for marks in Marks::ALL {
        meets(1.0, |plan| plan.marks == marks && MARKED.contains(&plan.trap.name));
    }
}

#[test]
fn commands_that_the_client_asks_for_are_found_without_exception() {
    meets(1.0, |plan| plan.trap.name == "exec");
}

#[test]
fn passwords_that_are_not_shown_are_in_no_finding() {
    for (name, outcome) in outcomes(|plan| plan.trap.name == "password") {
        assert_eq!(outcome.faults, Vec::<String>::new(), "{name}");
    }
}

fn unmarked(shell: Shell) {
    meets(0.99, |plan| plan.shell == shell && plan.marks == Marks::None && plan.trap.name != "exec");
}

fn meets(goal: f64, wanted: impl Fn(&Plan) -> bool) {
    let outcomes = outcomes(wanted);
    let score: Score = outcomes.iter().map(|(_, outcome)| outcome.commands).sum();
    let statements: Score = outcomes.iter().map(|(_, outcome)| outcome.statements).sum();
    let misses: Vec<_> =
        outcomes
            .iter()
            .flat_map(|(name, outcome)| outcome.misses.iter().map(move |miss| format!("{name}: {miss:?}")))
            .chain(outcomes.iter().flat_map(|(name, outcome)| {
                outcome.faults.iter().map(move |fault| format!("{name}: {fault}"))
            }))
            .collect();
    let reached = [score.precision(), score.recall(), statements.precision(), statements.recall()];
    assert!(
        reached.iter().all(|reached| *reached >= goal),
        "commands {score:?}, statements {statements:?}; goal {goal}\n{}",
        misses.join("\n")
    );
}

fn outcomes(wanted: impl Fn(&Plan) -> bool) -> Vec<(String, Outcome)> {
    let mut plans = Plan::all(1);
    plans.retain(wanted);
    assert!(!plans.is_empty(), "there are such sessions");
    let outcomes = in_parallel(&plans, JOBS, |plan| plan.measure(SEED));
    let names = plans.iter().map(Plan::name);
    names.zip(outcomes).map(|(name, outcome)| (name, outcome.expect("the session can be had"))).collect()
}
