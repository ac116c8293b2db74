//! Runs the seeds of a simulation on several threads, and its planted faults over seeds until each is found. Never here: what a run is, and what is
//! wrong with it.

pub mod faults;
pub mod seeds;
