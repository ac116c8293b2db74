//! The form of a history: what clients asked, when, and what they got; what watchers got; what was really written.

use coracle_proto::etcdserverpb as pb;
use coracle_proto::mvccpb::KeyValue;

/// Milliseconds on one clock that all records of a history share.
pub type Time = u64;

/// A client's request.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Request {
    Range(pb::RangeRequest),
    Put(pb::PutRequest),
    DeleteRange(pb::DeleteRangeRequest),
    Txn(pb::TxnRequest),
    Compact(pb::CompactionRequest),
    LeaseGrant(pb::LeaseGrantRequest),
    LeaseRevoke(pb::LeaseRevokeRequest),
    LeaseKeepAlive(pb::LeaseKeepAliveRequest),
}

/// An answer, of its request's kind.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Response {
    Range(pb::RangeResponse),
    Put(pb::PutResponse),
    DeleteRange(pb::DeleteRangeResponse),
    Txn(pb::TxnResponse),
    Compact(pb::CompactionResponse),
    LeaseGrant(pb::LeaseGrantResponse),
    LeaseRevoke(pb::LeaseRevokeResponse),
    LeaseKeepAlive(pb::LeaseKeepAliveResponse),
}

impl Response {
    /// The store's revision as the header says it; 0 without one.
    pub fn revision(&self) -> i64 {
        let header = match self {
            Self::Range(r) => &r.header,
            Self::Put(r) => &r.header,
            Self::DeleteRange(r) => &r.header,
            Self::Txn(r) => &r.header,
            Self::Compact(r) => &r.header,
            Self::LeaseGrant(r) => &r.header,
            Self::LeaseRevoke(r) => &r.header,
            Self::LeaseKeepAlive(r) => &r.header,
        };
        header.as_ref().map_or(0, |header| header.revision)
    }
}

/// Why the store refused a request that it understood.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Refusal {
    Compacted,
    FutureRevision,
    KeyNotFound,
    LeaseNotFound,
    LeaseExists,
    /// Any other, with its text; nothing is known of it but that the request changed nothing.
    Other(String),
}

impl Refusal {
    /// From etcd's text of an error.
    pub fn of_text(text: &str) -> Self {
        match text {
            _ if text.contains("required revision has been compacted") => Self::Compacted,
            _ if text.contains("required revision is a future revision") => Self::FutureRevision,
            _ if text.contains("etcdserver: key not found") => Self::KeyNotFound,
            _ if text.contains("requested lease not found") => Self::LeaseNotFound,
            _ if text.contains("lease already exists") => Self::LeaseExists,
            _ => Self::Other(text.to_owned()),
        }
    }
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It was answered.
    Answered(Response),
    /// The store refused it; it changed nothing.
    Refused(Refusal),
    /// It failed before it can have changed anything, and will not later.
    Failed,
    /// Nobody knows: a time-out, a lost connection, the end of the run. It may have happened, or still happen.
    Unknown,
}

/// One operation of a client.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// Who asked. Only for messages.
    pub client: u64,
    /// Who was asked. Only for messages.
    pub member: u64,
    /// When it was asked.
    pub invoked: Time,
    /// When the answer came; not looked at for [`Outcome::Unknown`].
    pub completed: Time,
    /// What was asked. Values put should be unique in a run, else an unknown outcome cannot be told.
    pub request: Request,
    /// What became of it.
    pub outcome: Outcome,
}

/// One change, as it was really made.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The key and its fields after the change; of a deletion key and `mod_revision` alone.
    pub kv: KeyValue,
    /// Whether the key was deleted.
    pub is_deletion: bool,
    /// When it is known to have been there, if that is known better than by the operations' and watchers' answers.
    pub seen: Option<Time>,
}

/// What one watcher asked and got. A watcher that is resumed elsewhere is another one, with the next revision as its start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Watch {
    /// Who watches. Only for messages.
    pub client: u64,
    /// At which member. Only for messages.
    pub member: u64,
    /// What was asked.
    pub create: pb::WatchCreateRequest,
    /// What came for it, in order: the creation, events, progress (those for the whole stream too), the cancellation; and when.
    pub responses: Vec<(Time, pb::WatchResponse)>,
    /// It had all the time it needed to get everything up to this revision, and was not cancelled.
    pub complete_through: Option<i64>,
}

impl Watch {
    /// The first revision that the watcher has not seen, once it knows where it began.
    pub fn next_revision(&self) -> Option<i64> {
        let mut next = None;
        for (_, response) in &self.responses {
            let header = response.header.as_ref().map_or(0, |header| header.revision);
            if response.created {
                let start = self.create.start_revision;
                next = Some(if start > 0 { start } else { header + 1 });
            } else if response.events.is_empty() {
                next = next.max(Some(header + 1));
            } else if let Some(kv) = response.events.last().and_then(|event| event.kv.as_ref()) {
                // What follows in the next fragment is of the same revision.
                next = next.max(Some(kv.mod_revision + i64::from(!response.fragment)));
            }
        }
        next
    }
}

/// What the store held when recording began. Nothing in it has a lease, and nothing before it is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Start {
    /// The newest revision.
    pub revision: i64,
    /// All keys.
    pub kvs: Vec<KeyValue>,
}

impl Default for Start {
    /// The empty store.
    fn default() -> Self {
        Self { revision: 1, kvs: Vec::new() }
    }
}

/// Everything recorded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// Where it begins.
    pub start: Start,
    /// In any order.
    pub operations: Vec<Operation>,
    /// In any order.
    pub watches: Vec<Watch>,
    /// Every change after the start, in order; from a watch of everything from there on that saw all, or from the store itself.
    pub events: Vec<Event>,
    /// How much earlier than asked for, in milliseconds, a lease may seem to end: the clocks' differences.
    pub lease_tolerance_ms: Time,
}
