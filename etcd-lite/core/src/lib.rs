//! The state machine of etcd-lite, pure: multi-version keys, transactions, leases, and what a watcher is to be told.
//!
//! Owns: [`Store`] with its one [`Store::apply`], the same on leader and followers; the reads; the stateless request
//! checks ([`check`]); the flat records the state is saved and sent as ([`records`]); lease expiry as a function of
//! `now` ([`lessor::Lessor`]); which watcher wants which key ([`watch_index::WatchIndex`]).
//! Never: tokio, files, sockets, clocks, random numbers.
//!
//! # How the shell uses it
//! * The applier (one thread of control) decodes each committed entry's data **from the entry's own bytes** into a
//!   [`Command`] and calls `store.write().apply(index, term, &command)`. Keys and values in the store are slices of what
//!   the command was decoded from, so decoding from a buffer much larger than the entry would keep that buffer alive.
//!   Entries without data (a new leader's first, configuration changes) go to [`Store::advance`].
//! * [`Applied`] has the answer for the proposer, the events for watchers, the lease change for the leader's
//!   [`lessor::Lessor`], and the record changes for the checkpoint. `Applied::changes` always ends with the
//!   [`Record::Meta`] of that index, so a checkpoint that takes whole `Applied`s is consistent. Building the
//!   bytes of a record is left to [`Record::key`] and [`Record::value`], off the critical path.
//! * A checkpoint is loaded with [`Store::load`] from `(key, value)` pairs in key order. A snapshot for another member is
//!   [`Store::records`], cheap shared handles collected under the read lock and turned into bytes outside it.
//! * Two members with the same [`Store::applied_index`] have the same [`Store::hash`].

pub mod alarms;
mod apply;
pub mod auth;
pub mod auto_compaction;
pub mod backend_form;
pub mod check;
mod compaction;
mod error;
pub mod hash;
mod history;
mod key_index;
mod key_range;
mod lease;
pub mod lessor;
mod live_counts;
mod members;
pub mod mutants;
mod range;
pub mod records;
mod store;
mod txn;
mod version;
pub mod walk;
pub mod watch_index;

#[cfg(test)]
mod model_tests;

pub use apply::{Applied, LeaseChange, Response};
pub use coracle_proto::store::command::Request;
pub use coracle_proto::store::{Caller, Command, MemberRecord};
pub use error::{ErrorCode, LoadError, StoreError};
pub use history::History;
pub use key_range::KeyRange;
pub use lease::Lease;
pub use members::{Members, Suffrage};
pub use range::RangeFound;
pub use records::{Record, RecordChange, RecordKey};
pub use store::Store;
pub use version::{Event, Life, Revision, Version};
