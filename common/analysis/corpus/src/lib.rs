//! Real shells on real terminals, driven as a person drives them, with what they ran told by the shells themselves: what
//! the findings of `weir-analysis` are measured by.
//!
//! Prompts, sizes and commands are generated from a seed. A *trap* is a kind of session that is known to be hard.

#![forbid(unsafe_code)]

mod prompt;
pub mod random;
pub mod score;
mod session;
mod shells;
mod terminal;
mod traps;
mod words;

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::{Context as _, Result};

use self::{random::Chance, score::Outcome};
pub use self::{
    session::Transcript,
    shells::{Shell, Truth, marks::Marks},
    terminal::Recorded,
    traps::{TRAPS, Trap},
};

/// A session of the corpus.
#[derive(Clone, Copy)]
pub struct Plan {
    /// With which shell.
    pub shell: Shell,
    /// Which marks that writes.
    pub marks: Marks,
    /// What is done.
    pub trap: &'static Trap,
    /// Which of the sessions of this kind.
    pub round: u32,
}

impl Plan {
    /// All sessions, so many of each kind.
    #[must_use]
    pub fn all(rounds: u32) -> Vec<Self> {
        let mut plans = Vec::new();
        for round in 0..rounds {
            for trap in TRAPS {
                for &shell in trap.shells {
                    plans.push(Self { shell, marks: Marks::None, trap, round });
                    if shell != Shell::Dash && traps::MARKED.contains(&trap.name) {
                        plans.extend(Marks::ALL.map(|marks| Self { shell, marks, trap, round }));
                    }
                }
            }
        }
        plans
    }

    /// As it is shown: it says which session it is, and is part of its seed.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{} {} {} {}", self.shell.name(), self.marks.name(), self.trap.name, self.round)
            .replace("  ", " ")
    }

    /// The shell and its marks.
    #[must_use]
    pub fn row(&self) -> String {
        if self.trap.is_exec {
            return "exec".to_owned();
        }
        format!("{} {}", self.shell.name(), self.marks.name()).trim_end().to_owned()
    }

    /// Has the session and records it.
    ///
    /// # Errors
    /// If the shell can't be started or does not do as expected: the corpus is wrong then, not the analysis.
    pub fn record(&self, seed: u64) -> Result<Transcript> {
        let name = self.name();
        self.trap.record(self, Chance::new(seed, &name)).with_context(|| format!("in the session {name:?}"))
    }

    /// Has the session, and compares what is found in it with what ran.
    ///
    /// # Errors
    /// See [`Self::record`].
    pub fn measure(&self, seed: u64) -> Result<Outcome> {
        Ok(score::compare(&self.record(seed)?))
    }
}

/// Does something with each session, so many at the same time: they wait most of it.
pub fn in_parallel<T: Send>(plans: &[Plan], jobs: usize, of: impl Fn(&Plan) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(BTreeMap::new());
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(plan) = plans.get(at) else { return };
            let result = of(plan);
            done.lock().unwrap_or_else(PoisonError::into_inner).insert(at, result);
        }
    };
    thread::scope(|scope| (0..jobs).for_each(|_| drop(scope.spawn(work))));
    done.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect()
}
