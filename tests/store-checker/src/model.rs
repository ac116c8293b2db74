//! What a store of keys and transactions has to do, written down a second time and as simply as can be: a map of keys to their versions.
//!
//! Semantics are those of etcd 3.5's documentation and behaviour. Never here: etcd-lite's code.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

use bytes::Bytes;
use coracle_proto::etcdserverpb as pb;
use coracle_proto::mvccpb::KeyValue;
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::range_request::{SortOrder, SortTarget};
use pb::request_op::Request as Op;
use pb::response_op::Response as OpResponse;

use crate::history::{Event, Refusal, Request, Response, Start};

/// A key's state after the change of a revision.
#[derive(Clone, Debug)]
struct Stored {
    revision: i64,
    /// `None` when it was deleted.
    kv: Option<KeyValue>,
}

/// All versions of all keys up to a revision.
#[derive(Clone, Debug)]
pub struct Model {
    revision: i64,
    keys: BTreeMap<Bytes, Vec<Stored>>,
    leases: HashMap<i64, BTreeSet<Bytes>>,
}

impl Default for Model {
    fn default() -> Self {
        Self::at_start(&Start::default())
    }
}

/// What a request would do now.
#[derive(Clone, Debug, PartialEq)]
pub struct Effect {
    /// Changes in order.
    pub changes: Vec<(KeyValue, bool)>,
    /// The answer, without headers but for the outermost.
    pub response: Response,
}

/// Whether a key lies in a range as the API gives it.
pub fn contains(key: &[u8], range_end: &[u8], candidate: &[u8]) -> bool {
    match range_end {
        [] => candidate == key,
        [0] => candidate >= key,
        _ => candidate >= key && candidate < range_end,
    }
}

fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { revision, ..pb::ResponseHeader::default() })
}

impl Model {
    /// As the store is when recording begins.
    pub fn at_start(start: &Start) -> Self {
        let stored = |kv: &KeyValue| {
            (kv.key.clone(), vec![Stored { revision: kv.mod_revision, kv: Some(kv.clone()) }])
        };
        Self {
            revision: start.revision,
            keys: start.kvs.iter().map(stored).collect(),
            leases: HashMap::new(),
        }
    }

    /// The newest revision.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Takes over the changes of the next revision.
    pub fn write(&mut self, events: &[Event]) {
        self.revision += 1;
        for event in events {
            let key = event.kv.key.clone();
            if let Some(previous) = self.newest(&key).map(|kv| kv.lease)
                && let Some(keys) = self.leases.get_mut(&previous)
            {
                keys.remove(&key);
            }
            if !event.is_deletion && event.kv.lease != 0 {
                self.leases.entry(event.kv.lease).or_default().insert(key.clone());
            }
            let kv = (!event.is_deletion).then(|| event.kv.clone());
            self.keys.entry(key).or_default().push(Stored { revision: self.revision, kv });
        }
    }

    /// A key now.
    pub fn newest(&self, key: &[u8]) -> Option<&KeyValue> {
        self.keys.get(key)?.last()?.kv.as_ref()
    }

    /// A key at a revision.
    pub fn at(&self, key: &[u8], revision: i64) -> Option<&KeyValue> {
        at(self.keys.get(key)?, revision)
    }

    /// Whether a key was deleted, or was not there, at some time from a revision on.
    pub fn was_absent_since(&self, key: &[u8], revision: i64) -> bool {
        let Some(versions) = self.keys.get(key) else { return true };
        let later = versions.partition_point(|v| v.revision <= revision);
        at(versions, revision).is_none() || versions[later..].iter().any(|v| v.kv.is_none())
    }

    /// The keys that would go with a lease.
    pub fn keys_of_lease(&self, lease: i64) -> Vec<Bytes> {
        self.leases.get(&lease).into_iter().flatten().cloned().collect()
    }

    /// The keys' deletion, as the revocation of a lease does it.
    pub fn revocation(&self, lease: i64) -> Vec<(KeyValue, bool)> {
        let deleted = |key| KeyValue { key, mod_revision: self.revision + 1, ..KeyValue::default() };
        self.keys_of_lease(lease).into_iter().map(|key| (deleted(key), true)).collect()
    }

    /// What a request would do.
    ///
    /// # Errors
    /// It would be refused.
    pub fn effect(&self, request: &Request) -> Result<Effect, Refusal> {
        let mut batch = Batch { model: self, written: BTreeMap::new(), changes: Vec::new() };
        let response = match request {
            Request::Range(range) => Response::Range(batch.range(range)?),
            Request::Put(put) => Response::Put(batch.put(put)?),
            Request::DeleteRange(delete) => Response::DeleteRange(batch.delete(delete)),
            Request::Txn(txn) => {
                let path = self.path(txn);
                Response::Txn(batch.txn(txn, &path)?)
            }
            Request::LeaseRevoke(revoke) => {
                batch.changes = self.revocation(revoke.id);
                Response::LeaseRevoke(pb::LeaseRevokeResponse::default())
            }
            Request::Compact(_) => Response::Compact(pb::CompactionResponse::default()),
            Request::LeaseGrant(grant) => Response::LeaseGrant(pb::LeaseGrantResponse {
                id: grant.id,
                ttl: grant.ttl,
                ..pb::LeaseGrantResponse::default()
            }),
            Request::LeaseKeepAlive(_) => Response::LeaseKeepAlive(pb::LeaseKeepAliveResponse::default()),
        };
        let header = header(batch.revision());
        Ok(Effect { response: with_header(response, header), changes: batch.changes })
    }

    /// Comparisons, nested ones too, are made before anything is written.
    fn path(&self, txn: &pb::TxnRequest) -> Path {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        let branch = if succeeded { &txn.success } else { &txn.failure };
        let nested = branch.iter().filter_map(|op| match &op.request {
            Some(Op::RequestTxn(nested)) => Some(self.path(nested)),
            _ => None,
        });
        Path { succeeded, nested: nested.collect() }
    }

    fn holds(&self, compare: &pb::Compare) -> bool {
        let mut some = false;
        for (_, kv) in self.live(&compare.key, &compare.range_end) {
            some = true;
            if !holds_for(compare, kv) {
                return false;
            }
        }
        some || (compare.target() != CompareTarget::Value && holds_for(compare, &KeyValue::default()))
    }

    fn live<'a>(
        &'a self,
        key: &Bytes,
        range_end: &Bytes,
    ) -> impl Iterator<Item = (&'a Bytes, &'a KeyValue)> + 'a {
        self.versions(key, range_end).filter_map(|(key, versions)| Some((key, versions.last()?.kv.as_ref()?)))
    }

    fn versions<'a>(
        &'a self,
        key: &Bytes,
        range_end: &Bytes,
    ) -> Box<dyn Iterator<Item = (&'a Bytes, &'a Vec<Stored>)> + 'a> {
        let end = match range_end.as_ref() {
            [] => return Box::new(self.keys.get_key_value(key).into_iter()),
            [0] => Bound::Unbounded,
            end if end <= key.as_ref() => return Box::new(std::iter::empty()),
            end => Bound::Excluded(end),
        };
        Box::new(self.keys.range::<[u8], _>((Bound::Included(key.as_ref()), end)))
    }
}

fn at(versions: &[Stored], revision: i64) -> Option<&KeyValue> {
    let end = versions.partition_point(|v| v.revision <= revision);
    versions[..end].last()?.kv.as_ref()
}

fn holds_for(compare: &pb::Compare, kv: &KeyValue) -> bool {
    let ordering = match (&compare.target_union, compare.target()) {
        (Some(TargetUnion::Version(n)), CompareTarget::Version) => kv.version.cmp(n),
        (Some(TargetUnion::CreateRevision(n)), CompareTarget::Create) => kv.create_revision.cmp(n),
        (Some(TargetUnion::ModRevision(n)), CompareTarget::Mod) => kv.mod_revision.cmp(n),
        (Some(TargetUnion::Lease(n)), CompareTarget::Lease) => kv.lease.cmp(n),
        (Some(TargetUnion::Value(value)), CompareTarget::Value) => kv.value.cmp(value),
        (_, CompareTarget::Version) => kv.version.cmp(&0),
        (_, CompareTarget::Create) => kv.create_revision.cmp(&0),
        (_, CompareTarget::Mod) => kv.mod_revision.cmp(&0),
        (_, CompareTarget::Lease) => kv.lease.cmp(&0),
        (_, CompareTarget::Value) => kv.value.as_ref().cmp(&[][..]),
    };
    match compare.result() {
        CompareResult::Equal => ordering.is_eq(),
        CompareResult::NotEqual => ordering.is_ne(),
        CompareResult::Greater => ordering.is_gt(),
        CompareResult::Less => ordering.is_lt(),
    }
}

/// Which branches of a transaction run.
struct Path {
    succeeded: bool,
    nested: Vec<Path>,
}

/// A request under way: the model, and what the request wrote so far.
struct Batch<'a> {
    model: &'a Model,
    written: BTreeMap<Bytes, Option<KeyValue>>,
    changes: Vec<(KeyValue, bool)>,
}

impl Batch<'_> {
    /// What a header says now.
    fn revision(&self) -> i64 {
        self.model.revision + i64::from(!self.changes.is_empty())
    }

    fn get(&self, key: &Bytes) -> Option<KeyValue> {
        match self.written.get(key) {
            Some(written) => written.clone(),
            None => self.model.newest(key).cloned(),
        }
    }

    fn put(&mut self, put: &pb::PutRequest) -> Result<pb::PutResponse, Refusal> {
        let previous = self.get(&put.key);
        if (put.ignore_value || put.ignore_lease) && previous.is_none() {
            return Err(Refusal::KeyNotFound);
        }
        let revision = self.model.revision + 1;
        let before =
            previous.clone().unwrap_or(KeyValue { create_revision: revision, ..KeyValue::default() });
        let kv = KeyValue {
            key: put.key.clone(),
            create_revision: before.create_revision,
            mod_revision: revision,
            version: before.version + 1,
            value: if put.ignore_value { before.value } else { put.value.clone() },
            lease: if put.ignore_lease { before.lease } else { put.lease },
        };
        self.written.insert(put.key.clone(), Some(kv.clone()));
        self.changes.push((kv, false));
        Ok(pb::PutResponse { header: None, prev_kv: previous.filter(|_| put.prev_kv) })
    }

    fn delete(&mut self, delete: &pb::DeleteRangeRequest) -> pb::DeleteRangeResponse {
        let doomed = self.live(&delete.key, &delete.range_end);
        let mod_revision = self.model.revision + 1;
        for kv in &doomed {
            self.written.insert(kv.key.clone(), None);
            self.changes.push((KeyValue { key: kv.key.clone(), mod_revision, ..KeyValue::default() }, true));
        }
        let deleted = doomed.len() as i64;
        pb::DeleteRangeResponse {
            header: None,
            deleted,
            prev_kvs: if delete.prev_kv { doomed } else { Vec::new() },
        }
    }

    fn live(&self, key: &Bytes, range_end: &Bytes) -> Vec<KeyValue> {
        if self.written.is_empty() {
            return self.model.live(key, range_end).map(|(_, kv)| kv.clone()).collect();
        }
        let mut found: BTreeMap<&Bytes, KeyValue> =
            self.model.live(key, range_end).map(|(key, kv)| (key, kv.clone())).collect();
        for (written, kv) in self.written.iter().filter(|(k, _)| contains(key, range_end, k)) {
            match kv {
                Some(kv) => found.insert(written, kv.clone()),
                None => found.remove(written),
            };
        }
        found.into_values().collect()
    }

    fn range(&self, range: &pb::RangeRequest) -> Result<pb::RangeResponse, Refusal> {
        let current = self.revision();
        if range.revision > current {
            return Err(Refusal::FutureRevision);
        }
        let mut kvs: Vec<KeyValue> = if range.revision <= 0 || range.revision == current {
            self.live(&range.key, &range.range_end)
        } else {
            let versions = self.model.versions(&range.key, &range.range_end);
            versions.filter_map(|(_, versions)| at(versions, range.revision).cloned()).collect()
        };
        let mut response = pb::RangeResponse { count: kvs.len() as i64, ..pb::RangeResponse::default() };
        if range.count_only {
            return Ok(response);
        }
        let limit = usize::try_from(range.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        let inside =
            |value: i64, min: i64, max: i64| (min == 0 || value >= min) && (max == 0 || value <= max);
        let is_filtered = range.min_mod_revision != 0
            || range.max_mod_revision != 0
            || range.min_create_revision != 0
            || range.max_create_revision != 0;
        if range.sort_order() == SortOrder::None && !is_filtered {
            // One more than the limit is fetched, and only that is sorted.
            kvs.truncate(limit.saturating_add(1));
        }
        kvs.retain(|kv| {
            inside(kv.mod_revision, range.min_mod_revision, range.max_mod_revision)
                && inside(kv.create_revision, range.min_create_revision, range.max_create_revision)
        });
        let is_sorted = range.sort_order() != SortOrder::None || range.sort_target() != SortTarget::Key;
        if is_sorted {
            let compare = |a: &KeyValue, b: &KeyValue| match range.sort_target() {
                SortTarget::Key => a.key.cmp(&b.key),
                SortTarget::Version => a.version.cmp(&b.version),
                SortTarget::Create => a.create_revision.cmp(&b.create_revision),
                SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
                SortTarget::Value => a.value.cmp(&b.value),
            };
            let is_descending = range.sort_order() == SortOrder::Descend;
            kvs.sort_by(|a, b| if is_descending { compare(b, a) } else { compare(a, b) });
        }
        response.more = kvs.len() > limit;
        kvs.truncate(limit);
        if range.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
        }
        response.kvs = kvs;
        Ok(response)
    }

    fn txn(&mut self, txn: &pb::TxnRequest, path: &Path) -> Result<pb::TxnResponse, Refusal> {
        let branch = if path.succeeded { &txn.success } else { &txn.failure };
        let mut nested_paths = path.nested.iter();
        let mut responses = Vec::with_capacity(branch.len());
        for op in branch {
            let response = match &op.request {
                Some(Op::RequestRange(range)) => Some(OpResponse::ResponseRange(self.range(range)?)),
                Some(Op::RequestPut(put)) => Some(OpResponse::ResponsePut(self.put(put)?)),
                Some(Op::RequestDeleteRange(delete)) => {
                    Some(OpResponse::ResponseDeleteRange(self.delete(delete)))
                }
                Some(Op::RequestTxn(nested)) => match nested_paths.next() {
                    Some(path) => Some(OpResponse::ResponseTxn(self.txn(nested, path)?)),
                    None => None,
                },
                None => None,
            };
            responses.push(pb::ResponseOp { response });
        }
        Ok(pb::TxnResponse { header: None, succeeded: path.succeeded, responses })
    }
}

fn with_header(response: Response, header: Option<pb::ResponseHeader>) -> Response {
    match response {
        Response::Range(r) => Response::Range(pb::RangeResponse { header, ..r }),
        Response::Put(r) => Response::Put(pb::PutResponse { header, ..r }),
        Response::DeleteRange(r) => Response::DeleteRange(pb::DeleteRangeResponse { header, ..r }),
        Response::Txn(r) => Response::Txn(pb::TxnResponse { header, ..r }),
        Response::Compact(_) => Response::Compact(pb::CompactionResponse { header }),
        Response::LeaseGrant(r) => Response::LeaseGrant(pb::LeaseGrantResponse { header, ..r }),
        Response::LeaseRevoke(_) => Response::LeaseRevoke(pb::LeaseRevokeResponse { header }),
        Response::LeaseKeepAlive(r) => Response::LeaseKeepAlive(pb::LeaseKeepAliveResponse { header, ..r }),
    }
}

/// An answer as the model gives it: of the headers only the outermost revision is left, of equal things nothing that stores may do differently.
pub fn plain(response: &Response) -> Response {
    let header = header(response.revision());
    let response = match response {
        // The inner ones' headers.
        Response::Txn(txn) => Response::Txn(without_headers(txn)),
        // Raised by the store to its shortest time.
        Response::LeaseGrant(grant) => {
            Response::LeaseGrant(pb::LeaseGrantResponse { error: String::new(), ..grant.clone() })
        }
        other => other.clone(),
    };
    with_header(response, header)
}

fn without_headers(txn: &pb::TxnResponse) -> pb::TxnResponse {
    let inner = |response: &OpResponse| match response {
        OpResponse::ResponseRange(r) => {
            OpResponse::ResponseRange(pb::RangeResponse { header: None, ..r.clone() })
        }
        OpResponse::ResponsePut(r) => OpResponse::ResponsePut(pb::PutResponse { header: None, ..r.clone() }),
        OpResponse::ResponseDeleteRange(r) => {
            OpResponse::ResponseDeleteRange(pb::DeleteRangeResponse { header: None, ..r.clone() })
        }
        OpResponse::ResponseTxn(r) => OpResponse::ResponseTxn(without_headers(r)),
    };
    let responses =
        txn.responses.iter().map(|op| pb::ResponseOp { response: op.response.as_ref().map(inner) });
    pb::TxnResponse { header: None, succeeded: txn.succeeded, responses: responses.collect() }
}
