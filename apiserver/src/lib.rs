//! The Kubernetes API server of Coracle: speaks upstream's REST API (level v1.35) to clients and the etcd v3 API to its store. Holds no state of its own
//! beyond caches, so any number of instances serve side by side.

pub mod admission;
pub mod aggregation;
pub mod allocator;
pub mod audit;
pub mod authn;
pub mod authz;
pub mod bootstrap;
pub mod cache;
pub mod conversion;
pub mod definitions;
pub mod discovery;
pub mod extension;
pub mod flowcontrol;
pub mod openapi;
pub mod options;
pub mod printers;
pub mod protobuf;
pub mod recent;
pub mod registry;
pub mod run;
pub mod server;
pub mod storage;
pub mod strategy;
pub mod subresource;
