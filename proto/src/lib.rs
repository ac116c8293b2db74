//! Generated messages, clients and servers of every wire protocol Coracle speaks over gRPC, one module a proto package.
//! Owns no behaviour.
#![allow(missing_docs)]

/// Raft peer stream between etcd-lite members.
pub mod peer {
    tonic::include_proto!("coracle.peer.v1");
}
