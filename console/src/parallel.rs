//! Work in several threads whose results come in the order of the work.
//!
//! Bounded: each piece of work has [`RESULTS_MAX`] results in front of it at the most and waits then, and only so many pieces are
//! under way or waiting for their turn as [`AHEAD`] allows.

use std::{
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

/// The most results of one piece of work that wait for their turn.
const RESULTS_MAX: usize = 32;
/// The most pieces of work that wait for their turn, besides those of each thread.
const AHEAD: usize = 4;

/// Nobody wants any more results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped;

/// Takes the results of one piece of work.
pub struct Results<R>(SyncSender<R>);

impl<R> Results<R> {
    /// Gives a result; waits where there are many already.
    ///
    /// # Errors
    /// If nobody wants it.
    pub fn give(&self, result: R) -> Result<(), Stopped> {
        self.0.send(result).map_err(|_| Stopped)
    }
}

/// Does all work in so many threads, and has the results taken in the order of the work, those of one piece in the order
/// in which it gave them. Ends early where `take` fails.
///
/// # Errors
/// What `take` fails with.
pub fn in_order<J, R: Send, E>(
    work: impl Iterator<Item = J> + Send,
    threads: usize,
    perform: impl Fn(J, &Results<R>) + Sync,
    mut take: impl FnMut(R) -> Result<(), E>,
) -> Result<(), E> {
    thread::scope(|scope| {
        let (turns, in_turn) = sync_channel::<Receiver<R>>(AHEAD);
        let work = Arc::new(Mutex::new((work, turns)));
        for _ in 0..threads {
            let (work, perform) = (Arc::clone(&work), &perform);
            scope.spawn(move || {
                loop {
                    // Whoever panicked in there says so itself.
                    let Ok(mut next) = work.lock() else { return };
                    let Some(piece) = next.0.next() else { return };
                    let (results, taken) = sync_channel(RESULTS_MAX);
                    // The turn is given with the piece, or two threads could do it the other way round.
                    if next.1.send(taken).is_err() {
                        return;
                    }
                    drop(next);
                    perform(piece, &Results(results));
                }
            });
        }
        // The threads alone hold it: when they are gone, no more turns come.
        drop(work);
        for results in in_turn {
            for result in results {
                take(result)?;
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_work_however_long_each_takes() {
        let mut seen = Vec::new();
        let perform = |piece: usize, results: &Results<(usize, usize)>| {
            for n in 0..(piece * 37) % 200 {
                results.give((piece, n)).expect("wanted");
            }
        };
        let done: Result<(), ()> = in_order(0..100, 4, perform, |result| {
            seen.push(result);
            Ok(())
        });
        let expected: Vec<_> =
            (0..100).flat_map(|piece| (0..(piece * 37) % 200).map(move |n| (piece, n))).collect();
        assert_eq!((done, seen), (Ok(()), expected));
    }

    #[test]
    fn it_ends_when_nobody_takes_any_more_and_never_runs_far_ahead() {
        let begun = AtomicUsize::new(0);
        let perform = |piece: usize, results: &Results<usize>| {
            begun.fetch_add(1, Ordering::Relaxed);
            while results.give(piece).is_ok() {}
        };
        let ended = in_order(0.., 3, perform, |piece| if piece == 0 { Err("enough") } else { Ok(()) });
        assert_eq!(ended, Err("enough"));
        assert!(begun.into_inner() <= 3 + AHEAD + 1);
    }
}
