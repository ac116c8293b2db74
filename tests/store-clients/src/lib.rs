//! What clients of a store under test ask: requests and watches by chance, all of it from one seed. Shared by the simulation and by the runs on
//! real processes.
//!
//! Never here: sending, waiting, recording.

pub mod random;
mod requests;

pub use requests::{Client, Keys, Watcher};
