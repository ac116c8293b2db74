//! What clients ask. Each has a stream of chance of its own, so that one more or less changes nothing for the others.

use std::collections::HashMap;

use bytes::Bytes;
use coracle_proto::etcdserverpb as pb;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::range_request::{SortOrder, SortTarget};
use pb::request_op::Request as Op;
use pb::watch_create_request::FilterType;
use store_checker::{Request, Response};

use crate::random::Random;

/// Leases that a client uses at a time; older ones are left to end.
const LEASES_MAX: usize = 4;

/// Which keys clients use.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    /// Keys that everybody fights for, `k0`, `k1`, …
    pub hot: u64,
    /// Keys that are rarely met twice, `c0`, `c1`, … With any of them no request goes over the whole store.
    pub cold: u64,
}

/// A client that reads and writes, one operation after the other.
pub struct Client {
    /// Its number.
    pub number: u64,
    random: Random,
    keys: Keys,
    /// Operations left.
    pub left: u64,
    /// The operation under way.
    pub current: Option<usize>,
    values: u64,
    /// Modification revisions as last seen.
    seen: HashMap<Bytes, i64>,
    /// The highest revision seen.
    revision: i64,
    leases: Vec<i64>,
    next_lease: i64,
}

impl Client {
    /// A client.
    pub fn new(number: u64, random: Random, keys: Keys, operations: u64) -> Self {
        Self {
            number,
            random,
            keys,
            left: operations,
            current: None,
            values: 0,
            seen: HashMap::new(),
            revision: 1,
            leases: Vec::new(),
            next_lease: 0,
        }
    }

    /// Milliseconds until the next operation.
    pub fn pause(&mut self) -> u64 {
        // In bursts, so that several go into one round.
        if self.random.one_in(3) { self.random.below(3) } else { self.random.below(180) }
    }

    /// Which member to ask.
    pub fn choose(&mut self, members: u64) -> u64 {
        self.random.between(1, members)
    }

    fn key(&mut self) -> Bytes {
        if self.keys.cold > 0 && self.random.one_in(2) {
            let number = self.random.below(self.keys.cold);
            return Bytes::from(format!("c{number}"));
        }
        self.hot_key()
    }

    fn hot_key(&mut self) -> Bytes {
        let number = self.random.below(self.keys.hot);
        Bytes::from(format!("k{number}"))
    }

    /// A key, and the end of a range from it.
    fn range(&mut self) -> (Bytes, Bytes) {
        match self.random.below(4) {
            1 if self.keys.cold > 0 => {
                let number = self.random.below(self.keys.cold);
                (Bytes::from(format!("c{number}")), Bytes::from(format!("c{number}:")))
            }
            0 => (Bytes::from_static(b"k"), Bytes::from_static(b"l")),
            1 => (Bytes::from_static(b"\0"), Bytes::from_static(b"\0")),
            2 => (self.hot_key(), Bytes::from_static(b"\0")),
            _ => {
                let (a, b) = (self.hot_key(), self.hot_key());
                if a < b { (a, b) } else { (b, Bytes::from_static(b"l")) }
            }
        }
    }

    /// No two operations of a run put the same value.
    fn value(&mut self) -> Bytes {
        self.values += 1;
        let padding = if self.random.one_in(20) { 600 } else { self.random.below(40) } as usize;
        Bytes::from(format!("{}-{}{}", self.number, self.values, "x".repeat(padding)))
    }

    /// The next thing to ask.
    pub fn next_request(&mut self) -> Request {
        match self.random.below(100) {
            0..26 => Request::Put(self.put()),
            26..29 => Request::Put(pb::PutRequest {
                key: self.key(),
                ignore_value: true,
                prev_kv: true,
                ..Default::default()
            }),
            29..42 => {
                let key = self.key();
                Request::Range(pb::RangeRequest { key, ..Default::default() })
            }
            42..56 => Request::Range(self.list()),
            56..62 => {
                let (key, range_end) =
                    if self.random.one_in(3) { self.range() } else { (self.key(), Bytes::new()) };
                let prev_kv = self.random.one_in(2);
                Request::DeleteRange(pb::DeleteRangeRequest { key, range_end, prev_kv })
            }
            62..72 => Request::Txn(self.compare_and_swap()),
            72..82 => {
                let depth = self.random.below(3);
                Request::Txn(self.txn(depth))
            }
            82..85 => {
                let any = self.random.below(self.revision.unsigned_abs() + 1) as i64;
                let revision = if self.random.one_in(3) { self.revision } else { any };
                Request::Compact(pb::CompactionRequest { revision, physical: self.random.one_in(2) })
            }
            85..89 => {
                self.next_lease += 1;
                let id = (self.number << 32) as i64 + self.next_lease;
                let ttl = self.random.between(2, 4) as i64;
                Request::LeaseGrant(pb::LeaseGrantRequest { id, ttl })
            }
            89..93 => {
                let put = self.put();
                let lease = self.random.pick(&self.leases).unwrap_or(0);
                Request::Put(pb::PutRequest { lease, ..put })
            }
            93..98 => match self.random.pick(&self.leases) {
                Some(id) => Request::LeaseKeepAlive(pb::LeaseKeepAliveRequest { id }),
                None => Request::Put(self.put()),
            },
            _ => match self.random.pick(&self.leases) {
                Some(id) => Request::LeaseRevoke(pb::LeaseRevokeRequest { id }),
                None => Request::Put(self.put()),
            },
        }
    }

    fn put(&mut self) -> pb::PutRequest {
        let (key, value) = (self.key(), self.value());
        pb::PutRequest { key, value, prev_kv: self.random.one_in(3), ..Default::default() }
    }

    fn list(&mut self) -> pb::RangeRequest {
        let (key, range_end) = self.range();
        let old = self.random.below(self.revision.unsigned_abs() + 3) as i64;
        let number = |random: &mut Random, max: i64| {
            if random.one_in(4) { random.below(max.unsigned_abs() + 1) as i64 } else { 0 }
        };
        let top = self.revision;
        pb::RangeRequest {
            key,
            range_end,
            limit: number(&mut self.random, 4),
            revision: if self.random.one_in(3) { old } else { 0 },
            serializable: self.random.one_in(4),
            keys_only: self.random.one_in(6),
            count_only: self.random.one_in(8),
            min_mod_revision: number(&mut self.random, top),
            max_create_revision: number(&mut self.random, top),
            sort_order: match self.random.below(4) {
                0 => SortOrder::Descend.into(),
                1 => SortOrder::Ascend.into(),
                _ => SortOrder::None.into(),
            },
            sort_target: match self.random.below(8) {
                0 => SortTarget::Mod.into(),
                1 => SortTarget::Create.into(),
                2 => SortTarget::Value.into(),
                _ => SortTarget::Key.into(),
            },
            ..Default::default()
        }
    }

    fn compare_and_swap(&mut self) -> pb::TxnRequest {
        let key = self.key();
        let known = self.seen.get(&key).copied().unwrap_or(0);
        let compare = pb::Compare {
            key: key.clone(),
            target: CompareTarget::Mod.into(),
            target_union: Some(TargetUnion::ModRevision(known)),
            ..Default::default()
        };
        let put = pb::PutRequest { key: key.clone(), value: self.value(), ..Default::default() };
        let get = pb::RangeRequest { key, ..Default::default() };
        pb::TxnRequest {
            compare: vec![compare],
            success: vec![op(Op::RequestPut(put))],
            failure: vec![op(Op::RequestRange(get))],
        }
    }

    fn compare(&mut self) -> pb::Compare {
        let (key, range_end) = if self.random.one_in(5) { self.range() } else { (self.key(), Bytes::new()) };
        let number = self.random.below(self.revision.unsigned_abs() + 2) as i64;
        let (target, union) = match self.random.below(3) {
            0 => (CompareTarget::Version, TargetUnion::Version(number % 4)),
            1 => (CompareTarget::Create, TargetUnion::CreateRevision(number)),
            _ => (CompareTarget::Mod, TargetUnion::ModRevision(number)),
        };
        let result = match self.random.below(3) {
            0 => CompareResult::Equal,
            1 => CompareResult::Greater,
            _ => CompareResult::Less,
        };
        pb::Compare {
            key,
            range_end,
            target: target.into(),
            target_union: Some(union),
            result: result.into(),
        }
    }

    /// Some operations on different keys, and perhaps a transaction inside that looks at a key written outside.
    fn txn(&mut self, depth: u64) -> pb::TxnRequest {
        let branch = |client: &mut Self| {
            let mut ops = Vec::new();
            let keys = client.keys.hot;
            let first = client.random.below(keys);
            let count = client.random.between(1, 3).min(keys);
            for offset in 0..count {
                let key = Bytes::from(format!("k{}", (first + offset) % keys));
                ops.push(op(match client.random.below(5) {
                    0 => Op::RequestDeleteRange(pb::DeleteRangeRequest { key, ..Default::default() }),
                    1 => {
                        // Perhaps compacted: then nothing of the transaction may happen.
                        let old = 1 + client.random.below(client.revision.unsigned_abs()) as i64;
                        let revision = if client.random.one_in(3) { old } else { 0 };
                        Op::RequestRange(pb::RangeRequest { key, revision, ..Default::default() })
                    }
                    _ => {
                        // Perhaps over.
                        let lease = client
                            .random
                            .pick(&client.leases)
                            .filter(|_| client.random.one_in(4))
                            .unwrap_or(0);
                        Op::RequestPut(pb::PutRequest {
                            key,
                            value: client.value(),
                            lease,
                            ..Default::default()
                        })
                    }
                }));
            }
            if depth > 0 && count < keys {
                let written = Bytes::from(format!("k{first}"));
                let other = Bytes::from(format!("k{}", (first + count) % keys));
                let known = client.random.below(client.revision.unsigned_abs() + 1) as i64;
                let compare = pb::Compare {
                    key: written.clone(),
                    target: CompareTarget::Mod.into(),
                    result: CompareResult::Greater.into(),
                    target_union: Some(TargetUnion::ModRevision(known.max(client.revision - 2))),
                    ..Default::default()
                };
                let put = pb::PutRequest { key: other, value: client.value(), ..Default::default() };
                let get = pb::RangeRequest { key: written, ..Default::default() };
                ops.push(op(Op::RequestTxn(pb::TxnRequest {
                    compare: vec![compare],
                    success: vec![op(Op::RequestPut(put))],
                    failure: vec![op(Op::RequestRange(get))],
                })));
            }
            ops
        };
        let (success, failure) = (branch(self), branch(self));
        let compare = if self.random.one_in(3) { Vec::new() } else { vec![self.compare()] };
        pb::TxnRequest { compare, success, failure }
    }

    /// An answer came.
    pub fn answered(&mut self, response: &Response) {
        self.revision = self.revision.max(response.revision());
        match response {
            Response::Range(range) => {
                for kv in &range.kvs {
                    self.seen.insert(kv.key.clone(), kv.mod_revision);
                }
            }
            Response::LeaseGrant(grant) => {
                if self.leases.len() == LEASES_MAX {
                    self.leases.remove(0);
                }
                self.leases.push(grant.id);
            }
            Response::LeaseRevoke(_) => {
                self.leases.pop();
            }
            _ => {}
        }
    }
}

fn op(request: Op) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

/// A client that watches: one stream at a time, at one member, with a few watchers; when the member is gone it goes on elsewhere.
pub struct Watcher {
    /// Its number.
    pub number: u64,
    /// Its chance.
    pub random: Random,
    keys: u64,
    /// The stream: member, its life, number there.
    pub stream: Option<(u64, u64)>,
    /// Watches on the stream by watch id: place in the history.
    pub watches: HashMap<i64, usize>,
    /// What is wanted on the next stream: with the first revision not seen, if it goes on.
    pub wanted: Vec<pb::WatchCreateRequest>,
}

impl Watcher {
    /// A watcher.
    pub fn new(number: u64, mut random: Random, keys: u64) -> Self {
        let count = random.between(1, 3);
        let mut watcher =
            Self { number, random, keys, stream: None, watches: HashMap::new(), wanted: Vec::new() };
        for _ in 0..count {
            let create = watcher.create(1);
            watcher.wanted.push(create);
        }
        watcher
    }

    /// Something to watch; `revision` is about where the store is.
    pub fn create(&mut self, revision: i64) -> pb::WatchCreateRequest {
        let number = self.random.below(self.keys);
        let key = Bytes::from(format!("k{number}"));
        let (key, range_end) = match self.random.below(6) {
            0 | 1 => (key, Bytes::new()),
            2 => (key, Bytes::from_static(b"\0")),
            3 => (key, Bytes::from(format!("k{}", number + 3))),
            4 => (Bytes::from_static(b"k"), Bytes::from_static(b"l")),
            _ => (Bytes::from_static(b"\0"), Bytes::from_static(b"\0")),
        };
        let filters = match self.random.below(8) {
            0 => vec![FilterType::Noput.into()],
            1 => vec![FilterType::Nodelete.into()],
            _ => Vec::new(),
        };
        let start_revision = match self.random.below(4) {
            0 => 0,
            1 => 1 + self.random.below(revision.unsigned_abs()) as i64,
            2 => revision + self.random.below(5) as i64,
            _ => (revision - self.random.below(10) as i64).max(0),
        };
        pb::WatchCreateRequest {
            key,
            range_end,
            start_revision,
            filters,
            prev_kv: self.random.one_in(2),
            progress_notify: self.random.one_in(2),
            fragment: self.random.one_in(3),
            watch_id: 0,
        }
    }
}
