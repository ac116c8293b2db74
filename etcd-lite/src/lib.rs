//! etcd-lite: a replicated key-value store that speaks the etcd v3 API.
//!
//! `services` answer clients over a [`member::Member`]; [`raft_member`] is the one there is: `raft` agrees on the log, `wal` keeps it,
//! `checkpoint` keeps the applied state, `peer` carries messages.

pub mod auto_compactor;
pub mod backend_file;
pub mod bolt;
pub mod bootstrap;
pub mod checkpoint;
pub mod corruption;
pub mod data_lock;
pub mod http_endpoints;
pub mod lease_keeper;
pub mod listener;
pub mod member;
pub mod member_ids;
pub mod metrics;
pub mod options;
pub mod peer;
pub mod quota;
pub mod raft;
pub mod raft_member;
pub mod request_text;
pub mod run;
pub mod services;
pub mod slow_requests;
pub mod tls;
pub mod tls_options;
pub mod tokens;
pub mod tools;
pub mod wal;
pub mod zap_log;
