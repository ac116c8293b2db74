//! Runs the real controllers, in one thread and in virtual time, against an API server made of a map. One 64-bit seed decides what people ask for, how
//! late each watch is, which streams break, which events come twice, which requests fail and between which two writes the process is killed. What the
//! server's history was is judged by `history-oracle`, revision by revision; at the end all must come to rest.

pub mod faults;
mod link;
mod nodes;
mod objects;
mod people;
pub mod preemption;
mod random;
pub mod real;
mod rest;
mod run;
mod server;
mod watch;

pub use run::{Finished, Stats, run};
