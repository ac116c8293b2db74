//! From Services and EndpointSlices to nftables: the deciding half of kube-proxy. [`model`] keeps what is wanted and what has been
//! written and plans the difference as one transaction; [`fragment`] says what one Service amounts to; [`base`] is what is always there. The layout is
//! that of kube-proxy's nftables mode. Nothing here runs `nft`, reads the network or knows the time.

pub mod base;
pub mod endpoints;
pub mod fragment;
pub mod model;
pub mod names;
