//! Traffic between members: `outgoing` keeps one stream to each peer, `incoming` serves theirs. Raft retries, so messages may be dropped, but
//! never wait without bound.

mod incoming;
mod outgoing;

pub use incoming::serve;
pub use outgoing::{PeerTls, Peers};
