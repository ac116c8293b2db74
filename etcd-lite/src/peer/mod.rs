//! Traffic between members: `outgoing` keeps one stream to each peer, `incoming` serves theirs, `channel` makes the connections, `joining` asks the
//! members of a running cluster who they are. Raft retries, so messages may be dropped, but never wait without bound.

mod channel;
mod incoming;
mod joining;
mod metrics;
mod outgoing;

pub use channel::{PeerTls, check_urls};
pub use incoming::serve;
pub use joining::{MembersFound, ask_members};
pub(crate) use joining::{describe, same_urls};
pub use outgoing::Peers;
