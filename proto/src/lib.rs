//! Generated messages, clients and servers of every wire protocol Coracle speaks over gRPC, one module a proto package.
//! Owns no behaviour.
#![allow(missing_docs)]

/// etcd v3: key-value records and events.
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

/// etcd v3: permission records that rpc messages refer to.
pub mod authpb {
    tonic::include_proto!("authpb");
}

/// etcd v3: requests, responses, clients and servers.
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

/// Commands of etcd-lite's Raft log and records of its state.
pub mod coracle {
    /// Raft peer stream between etcd-lite members.
    pub mod peer {
        /// First (and only) version of the protocol.
        pub mod v1 {
            tonic::include_proto!("coracle.peer.v1");
        }
    }
    /// Nested as the proto package is, so that generated code finds its neighbours.
    pub mod store {
        /// First (and only) version of the log's format.
        pub mod v1 {
            tonic::include_proto!("coracle.store.v1");
        }
    }
}
pub use coracle::peer::v1 as peer;
pub use coracle::store::v1 as store;

/// etcd v3: the lock service.
pub mod v3lockpb {
    tonic::include_proto!("v3lockpb");
}

/// etcd v3: the election service.
pub mod v3electionpb {
    tonic::include_proto!("v3electionpb");
}

/// The gRPC health service.
pub mod health {
    tonic::include_proto!("grpc.health.v1");
}

/// An encoded `FileDescriptorSet` of all files, with upstream's field names.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
