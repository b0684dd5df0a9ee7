//! What was found, compared with what ran.

use std::iter::Sum;

use serde::Serialize;
use weir_analysis::{Analysis, Found, masking::Masking};
use weir_common::recording::findings::{Command, Source};

use crate::{session::Transcript, shells::Truth};

/// How many commands there were and were found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Score {
    /// How many ran.
    pub ran: u32,
    /// How many were found.
    pub found: u32,
    /// How many of these are what ran, text and order.
    pub correct: u32,
}

impl Score {
    /// Share of what was found that is right.
    #[must_use]
    pub fn precision(&self) -> f64 {
        ratio(self.correct, self.found)
    }

    /// Share of what ran that was found.
    #[must_use]
    pub fn recall(&self) -> f64 {
        ratio(self.correct, self.ran)
    }
}

fn ratio(part: u32, whole: u32) -> f64 {
    if whole == 0 { 1.0 } else { f64::from(part) / f64::from(whole) }
}

impl Sum for Score {
    fn sum<I: Iterator<Item = Self>>(scores: I) -> Self {
        scores.fold(Self::default(), |a, b| Self {
            ran: a.ran + b.ran,
            found: a.found + b.found,
            correct: a.correct + b.correct,
        })
    }
}

/// What a session's measure is.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// Commands of shells.
    pub commands: Score,
    /// Statements of other interpreters.
    pub statements: Score,
    /// What stands on one side only, in order.
    pub misses: Vec<Miss>,
    /// What else is wrong.
    pub faults: Vec<String>,
}

/// What stands on one side only.
#[derive(Debug, Serialize)]
pub struct Miss {
    /// Whether it ran and was not found; found and did not run otherwise.
    pub ran: bool,
    /// The interpreter, if it was not the shell.
    pub repl: Option<String>,
    /// The command.
    pub text: String,
}

/// Puts a recording through the analysis and compares.
#[must_use]
pub fn compare(transcript: &Transcript) -> Outcome {
    let collected = analyse(transcript);
    let found: Vec<&Command> = collected.commands.iter().collect();
    let pairs = align(&transcript.truth, &found);
    let mut outcome = Outcome {
        commands: Score::default(),
        statements: Score::default(),
        misses: Vec::new(),
        faults: Vec::new(),
    };
    let (mut at, mut at_found) = (0, 0);
    for (truth, command) in pairs.iter().copied().chain([(transcript.truth.len(), found.len())]) {
        for missed in &transcript.truth[at..truth] {
            if !missed.optional {
                outcome.score(missed.repl.as_ref()).ran += 1;
                outcome.misses.push(Miss { ran: true, repl: missed.repl.clone(), text: missed.text.clone() });
            }
        }
        for extra in &found[at_found..command] {
            outcome.score(extra.repl.as_ref()).found += 1;
            outcome.misses.push(Miss { ran: false, repl: extra.repl.clone(), text: extra.text.clone() });
        }
        if let (Some(truth), Some(command)) = (transcript.truth.get(truth), found.get(command)) {
            if !truth.optional {
                let score = outcome.score(truth.repl.as_ref());
                (score.ran, score.found, score.correct) = (score.ran + 1, score.found + 1, score.correct + 1);
            }
            outcome.faults.extend(disagreement(truth, command));
        }
        (at, at_found) = (truth + 1, command + 1);
    }
    outcome.faults.extend(
        transcript
            .secrets
            .iter()
            .filter(|secret| holds(&collected, secret))
            .map(|_| "a password that was not shown is among the findings".to_owned()),
    );
    for program in &transcript.full_screen {
        let known = found.iter().any(|command| {
            !command.full_screen.is_empty() && command.text.split_whitespace().any(|word| word == program)
        });
        if !known {
            outcome.faults.push(format!("{program} had the whole screen, and no command says so"));
        }
    }
    outcome
}

impl Outcome {
    fn score(&mut self, repl: Option<&String>) -> &mut Score {
        if repl.is_some() { &mut self.statements } else { &mut self.commands }
    }
}

/// Where marks or requests told more than the text, it has to be what the shell said.
fn disagreement(truth: &Truth, command: &Command) -> Vec<String> {
    let mut faults = Vec::new();
    if let (Some(code), Some(said)) = (truth.exit_code, command.exit_code)
        && code != said
    {
        faults.push(format!("{:?} ended with {code}, not {said}", truth.text));
    }
    if let (Some(cwd), Some(said)) = (&truth.cwd, &command.cwd)
        && cwd != said
    {
        faults.push(format!("{:?} ran in {cwd}, not {said}", truth.text));
    }
    if command.source != Source::Screen && command.exit_code.is_none() && truth.exit_code.is_some() {
        faults.push(format!("{:?} ended with {:?}, which is not said", truth.text, truth.exit_code));
    }
    faults
}

/// Whether a text occurs anywhere.
fn holds(found: &Found, text: &str) -> bool {
    found.texts().into_iter().chain(found.transcript()).any(|found| found.contains(text))
}

/// Commands in the order in which they began: an inner shell's come after the one that started it.
fn analyse(transcript: &Transcript) -> Found {
    let mut collected = Found::default();
    let mut analysis = Analysis::new(None, Masking::default());
    for recorded in &transcript.recorded {
        analysis.event(&recorded.event, &recorded.content, &mut collected);
    }
    analysis.finish(&mut collected);
    collected.commands.sort_by_key(|command| command.span.t);
    collected
}

/// The longest common subsequence.
fn align(truth: &[Truth], found: &[&Command]) -> Vec<(usize, usize)> {
    let same = |a: usize, b: usize| {
        truth[a].repl.is_some() == found[b].repl.is_some() && normal(&truth[a].text) == normal(&found[b].text)
    };
    let mut longest = vec![vec![0_u32; found.len() + 1]; truth.len() + 1];
    for a in (0..truth.len()).rev() {
        for b in (0..found.len()).rev() {
            longest[a][b] =
                if same(a, b) { longest[a + 1][b + 1] + 1 } else { longest[a + 1][b].max(longest[a][b + 1]) };
        }
    }
    let (mut a, mut b, mut pairs) = (0, 0, Vec::new());
    while a < truth.len() && b < found.len() {
        if same(a, b) {
            pairs.push((a, b));
            (a, b) = (a + 1, b + 1);
        } else if longest[a + 1][b] >= longest[a][b + 1] {
            a += 1;
        } else {
            b += 1;
        }
    }
    pairs
}

/// Without trailing blanks, and without the backslashes that only join lines, which bash's history leaves out.
fn normal(text: &str) -> String {
    let joined = text.replace("\\\n", "");
    let lines: Vec<_> = joined.trim_end().split('\n').map(str::trim_end).collect();
    lines.join("\n")
}
