//! What is found of commands, on a part of the corpus: all of it where the client says it.
//!
//! The goal for all of the corpus is 99 % found and 99 % right, and `cargo xtask bench commands` tells whether it is met. Here one
//! shell has some two hundred commands, of which every second miss is a percent; so each shell has to reach [`EACH`].

use weir_corpus::{
    Marks, Plan, Shell, in_parallel,
    score::{Outcome, Score},
};

/// The prompts, sizes and commands of these sessions follow from it.
const SEED: u64 = 11;
/// How many sessions at the same time, in each test.
const JOBS: usize = 6;
/// Of what a shell ran, and of what was found.
const EACH: f64 = 0.95;
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
fn commands_between_marks_are_found() {
    // The goal is all of them. When real programs draw and redraw is not the same twice, and once in a while one is missed.
    for marks in Marks::ALL {
        meets(0.98, |plan| plan.marks == marks && MARKED.contains(&plan.trap.name));
    }
}

#[test]
fn commands_that_the_client_asks_for_are_found_without_exception() {
    meets(1.0, |plan| plan.trap.name == "exec");
}

#[test]
fn programs_on_a_screen_of_their_own_are_known_to() {
    // `top` draws over the shell's screen, which nothing tells from other output.
    let outcomes = outcomes(|plan| plan.trap.name == "full_screen" && plan.marks == Marks::None);
    let faults = outcomes.iter().flat_map(|(_, outcome)| &outcome.faults);
    assert_eq!(faults.filter(|fault| !fault.starts_with("top ")).collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
fn exit_codes_and_directories_are_what_marks_say() {
    faultless(|plan| plan.marks != Marks::None && MARKED.contains(&plan.trap.name));
}

#[test]
fn passwords_that_are_not_shown_are_in_no_finding() {
    faultless(|plan| plan.trap.name == "password");
}

fn faultless(wanted: impl Fn(&Plan) -> bool) {
    let outcomes = outcomes(wanted);
    let faults =
        outcomes.iter().flat_map(|(name, outcome)| outcome.faults.iter().map(move |fault| (name, fault)));
    assert_eq!(faults.collect::<Vec<_>>(), Vec::new());
}

fn unmarked(shell: Shell) {
    meets(EACH, |plan| plan.shell == shell && plan.marks == Marks::None && plan.trap.name != "exec");
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
