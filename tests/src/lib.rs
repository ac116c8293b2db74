//! What end-to-end tests share: a cluster of their own, real clients, waiting for conditions. Nothing depends on this
//! crate.

pub mod cluster;
pub mod comparison;
pub mod history;
pub mod member;
pub mod ports;
pub mod store;
pub mod tools;
pub mod wait;
