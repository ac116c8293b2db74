//! etcd-lite beside real etcds, through clients that nobody here wrote. One program, so that it is linked once.

mod apiserver;
mod auth;
mod clients;
mod cluster_flags;
mod comparison;
mod etcdctl;
mod flags;
mod gateway;
mod health;
mod limits;
mod listening;
mod logging;
mod membership;
mod metrics;
mod operations;
mod snapshots;
mod table;
mod tls;
