//! The same operations to a real etcd and to etcd-lite: answers, errors and watch events have to be the same.
//!
//! An operation is a pure function of a seed, its number and how far the store is ([`operation`]), so that any subset of a run can be run
//! again ([`shrink`]). Both stores are servers of their own ([`server`]) that get one operation after the other; watch streams live through
//! the run ([`watches`]). What differs by nature is made equal in [`normal`], what differs between etcd's versions is listed in [`versions`].
//! Never here: an opinion of what is right; etcd 3.5 is.

mod chronicle;
mod generate_kv;
mod generate_watch;
pub mod normal;
pub mod operation;
mod random;
pub mod run;
pub mod server;
pub mod shrink;
pub mod versions;
pub mod watches;
