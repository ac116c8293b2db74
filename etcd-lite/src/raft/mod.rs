//! Consensus: the library's types stay below this module. `core` decides, `driver` is its thread, `log` is what the library reads,
//! `applier` carries committed entries into the store.

pub mod applier;
pub mod core;
pub mod driver;
pub mod election;
pub mod log;
pub mod prepared;
pub mod reads;
pub mod waiters;
pub mod wal_disk;
