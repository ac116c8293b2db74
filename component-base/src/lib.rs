//! What every Coracle binary shares and knows nothing of the domain: flags in upstream's style, logging, the shutdown
//! token, TLS loading with reload, the `/metrics` and health endpoints, failpoints.
//!
//! Never here: anything about Kubernetes objects, etcd keys or nodes.

pub mod accept;
pub mod admin;
pub mod duration;
pub mod failpoint;
pub mod feature_gates;
pub mod flags;
pub mod followed;
pub mod gathered_writes;
pub mod go_bool;
pub mod health;
pub mod host_port;
pub mod logging;
pub mod metrics;
pub mod program;
pub mod secure_port;
pub mod shutdown;
pub mod sni;
pub mod tls;
pub mod tls_protocols;
pub mod version;
