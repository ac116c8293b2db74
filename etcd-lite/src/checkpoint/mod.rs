//! The applied state on disk, so that a start needs no replay of the whole log. Two forms: sled, written behind all the time, and snapshot
//! files, written now and then, which let old log segments go. Both are only copies: see docs/decisions/etcd-lite-durability.md.

pub mod sled_state;
pub mod snapshot_file;
pub mod writer;
