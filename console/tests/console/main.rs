//! Tests of the console's commands against recordings that [`support`] builds.

mod bucket;
mod completions;
mod export;
mod findings;
mod forgery;
mod gaps;
mod good;
mod hostile;
mod play;
mod search;
mod show;
mod support;
mod tamper;
mod unfinished;
mod watch;
mod withheld;
