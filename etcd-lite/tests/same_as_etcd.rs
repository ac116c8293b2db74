//! The same random requests to a real etcd and to the store: the answers have to be the same, errors included.
//!
//! Needs the `etcd` binary (Debian: `etcd-server`), so it runs on request only:
//! `cargo nextest run -p etcd-lite --run-ignored only same_as_etcd`. `SEED=n` repeats a run.

use std::net::TcpListener;
use std::process::{Child, Command as Process, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use coracle_proto::etcdserverpb as pb;
use coracle_proto::etcdserverpb::compare::TargetUnion;
use coracle_proto::etcdserverpb::kv_client::KvClient;
use coracle_proto::etcdserverpb::lease_client::LeaseClient;
use coracle_proto::etcdserverpb::range_request::SortTarget;
use coracle_proto::etcdserverpb::request_op::Request as Op;
use coracle_proto::etcdserverpb::response_op::Response as OpResponse;
use coracle_proto::etcdserverpb::watch_client::WatchClient;
use coracle_proto::etcdserverpb::watch_request::RequestUnion;
use coracle_proto::mvccpb::Event;
use etcd_lite_core::{Command, KeyRange, Request, Response, Store, StoreError, check};
use tonic::Status;
use tonic::transport::Channel;

const REQUESTS: usize = 4_000;

/// A real etcd on ports of its own, stopped with the test.
struct Etcd {
    process: Child,
    url: String,
    _data: tempfile::TempDir,
}

impl Etcd {
    fn start() -> Self {
        let data = tempfile::tempdir().expect("a directory");
        let (client, peer) = (format!("http://{}", free_address()), format!("http://{}", free_address()));
        let process = Process::new("etcd")
            .arg("--data-dir")
            .arg(data.path())
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("default={peer}"), "--unsafe-no-fsync"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd is installed");
        Self { process, url: client, _data: data }
    }

    async fn connect(&self) -> Channel {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let endpoint = tonic::transport::Endpoint::from_shared(self.url.clone()).expect("a URL");
            if let Ok(channel) = endpoint.connect().await {
                let read = pb::RangeRequest { key: "x".into(), ..Default::default() };
                if KvClient::new(channel.clone()).range(read).await.is_ok() {
                    return channel;
                }
            }
            assert!(Instant::now() < deadline, "etcd does not answer at {}", self.url);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_address() -> std::net::SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port")
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn of(&mut self, texts: &[&'static str]) -> Bytes {
        Bytes::from_static(texts[self.below(texts.len() as u64) as usize].as_bytes())
    }

    fn key(&mut self) -> Bytes {
        self.of(&["a", "aa", "ab", "b", "ba", "c", "\0", "a", "b", "c", "a\0"])
    }

    fn range_end(&mut self) -> Bytes {
        self.of(&["", "", "", "b", "bb", "c", "d", "\0", "a"])
    }

    /// A revision around what there is, mostly the newest.
    fn revision(&mut self, store: &Store) -> i64 {
        if self.one_in(2) { 0 } else { store.revision() + 2 - self.below(30) as i64 }
    }

    fn range(&mut self, store: &Store) -> pb::RangeRequest {
        let sort_order = self.below(3) as i32;
        let bound =
            |random: &mut Self| if random.one_in(6) { store.revision() - random.below(20) as i64 } else { 0 };
        pb::RangeRequest {
            key: if self.one_in(50) { Bytes::new() } else { self.key() },
            range_end: self.range_end(),
            limit: self.below(4) as i64,
            revision: self.revision(store),
            sort_order,
            sort_target: self.below(5) as i32,
            serializable: self.one_in(2),
            keys_only: self.one_in(5),
            count_only: self.one_in(5),
            min_mod_revision: bound(self),
            max_mod_revision: bound(self),
            min_create_revision: bound(self),
            max_create_revision: bound(self),
        }
    }

    fn put(&mut self) -> pb::PutRequest {
        pb::PutRequest {
            key: if self.one_in(50) { Bytes::new() } else { self.key() },
            value: if self.one_in(4) { Bytes::new() } else { self.of(&["x", "y", "z"]) },
            lease: if self.one_in(2) { 0 } else { self.below(4) as i64 },
            prev_kv: self.one_in(2),
            ignore_value: self.one_in(8),
            ignore_lease: self.one_in(8),
        }
    }

    fn delete(&mut self) -> pb::DeleteRangeRequest {
        pb::DeleteRangeRequest { key: self.key(), range_end: self.range_end(), prev_kv: self.one_in(2) }
    }

    fn compare(&mut self, store: &Store) -> pb::Compare {
        let near = store.revision() - self.below(10) as i64;
        let (target, union) = match self.below(5) {
            0 => (0, TargetUnion::Version(self.below(4) as i64)),
            1 => (1, TargetUnion::CreateRevision(if self.one_in(2) { 0 } else { near })),
            2 => (2, TargetUnion::ModRevision(if self.one_in(2) { 0 } else { near })),
            3 => (3, TargetUnion::Value(self.of(&["", "x", "y"]))),
            _ => (4, TargetUnion::Lease(self.below(4) as i64)),
        };
        pb::Compare {
            result: self.below(4) as i32,
            target,
            key: self.key(),
            target_union: if self.one_in(10) { None } else { Some(union) },
            range_end: self.range_end(),
        }
    }

    fn branch(&mut self, store: &Store, depth: u32) -> Vec<pb::RequestOp> {
        (0..self.below(4))
            .map(|_| {
                let request = match self.below(if depth < 2 { 8 } else { 6 }) {
                    0 | 1 => Op::RequestRange(self.range(store)),
                    2..=4 => Op::RequestPut(self.put()),
                    5 => Op::RequestDeleteRange(self.delete()),
                    _ => Op::RequestTxn(self.txn(store, depth + 1)),
                };
                pb::RequestOp { request: Some(request) }
            })
            .collect()
    }

    fn txn(&mut self, store: &Store, depth: u32) -> pb::TxnRequest {
        pb::TxnRequest {
            compare: (0..self.below(3)).map(|_| self.compare(store)).collect(),
            success: self.branch(store, depth),
            failure: self.branch(store, depth),
        }
    }
}

/// An answer without what differs by nature: who answered, and the order of what sorts equal.
fn plain(header: &mut Option<pb::ResponseHeader>) {
    let revision = header.as_ref().map_or(0, |h| h.revision);
    *header = Some(pb::ResponseHeader { revision, ..Default::default() });
}

fn plain_range(range: &mut pb::RangeResponse, request: &pb::RangeRequest) {
    plain(&mut range.header);
    if request.sort_target() != SortTarget::Key {
        if request.limit > 0 {
            range.kvs.clear();
        }
        range.kvs.sort_by(|a, b| a.key.cmp(&b.key));
    }
}

fn plain_txn(txn: &mut pb::TxnResponse, request: &pb::TxnRequest) {
    plain(&mut txn.header);
    let branch = if txn.succeeded { &request.success } else { &request.failure };
    for (op, response) in branch.iter().zip(&mut txn.responses) {
        match (&op.request, &mut response.response) {
            (Some(Op::RequestRange(request)), Some(OpResponse::ResponseRange(range))) => {
                plain_range(range, request)
            }
            (Some(Op::RequestTxn(request)), Some(OpResponse::ResponseTxn(txn))) => plain_txn(txn, request),
            (_, Some(OpResponse::ResponsePut(put))) => plain(&mut put.header),
            (_, Some(OpResponse::ResponseDeleteRange(delete))) => plain(&mut delete.header),
            _ => {}
        }
    }
}

/// Code and text.
type Refusal = (String, String);

fn refusal(status: Status) -> Refusal {
    (format!("{:?}", status.code()), status.message().to_owned())
}

fn own_refusal(error: StoreError) -> Refusal {
    (format!("{:?}", error.code()), error.to_string())
}

struct Both {
    kv: KvClient<Channel>,
    leases: LeaseClient<Channel>,
    store: Store,
}

impl Both {
    fn apply(&mut self, request: Request) -> Result<Response, Refusal> {
        let command = Command { id: 0, request: Some(request) };
        self.store.apply(self.store.applied_index() + 1, 1, &command).response.map_err(own_refusal)
    }

    /// One random request to both; gives what each answered, in words.
    async fn step(&mut self, random: &mut Random) -> (String, String, String) {
        match random.below(40) {
            0..10 => {
                let request = random.range(&self.store);
                let theirs = self.kv.range(request.clone()).await.map(|r| r.into_inner()).map_err(refusal);
                let ours = check::range(&request)
                    .and_then(|()| self.store.range(&request).map(|found| found.to_response()))
                    .map_err(own_refusal);
                let both = [theirs, ours].map(|r| {
                    r.map(|mut r| {
                        plain_range(&mut r, &request);
                        r
                    })
                });
                words(&request, both)
            }
            10..20 => {
                let request = random.put();
                let theirs = self.kv.put(request.clone()).await.map(|r| r.into_inner()).map_err(refusal);
                let ours = check::put(&request).map_err(own_refusal);
                let ours = ours.and_then(|()| self.apply(Request::Put(request.clone())));
                let ours = ours.map(|r| if let Response::Put(r) = r { r } else { unreachable!() });
                let both = [theirs, ours].map(|r| {
                    r.map(|mut r| {
                        plain(&mut r.header);
                        r
                    })
                });
                words(&request, both)
            }
            20..24 => {
                let request = random.delete();
                let theirs =
                    self.kv.delete_range(request.clone()).await.map(|r| r.into_inner()).map_err(refusal);
                let ours = self.apply(Request::DeleteRange(request.clone()));
                let ours = ours.map(|r| if let Response::DeleteRange(r) = r { r } else { unreachable!() });
                let both = [theirs, ours].map(|r| {
                    r.map(|mut r| {
                        plain(&mut r.header);
                        r
                    })
                });
                words(&request, both)
            }
            24..36 => {
                let request = loop {
                    let request = random.txn(&self.store, 0);
                    if !crashes_etcd(&request) {
                        break request;
                    }
                };
                let theirs = self.kv.txn(request.clone()).await.map(|r| r.into_inner()).map_err(refusal);
                let ours = check::txn(&request, check::TXN_OPS_MAX).map_err(own_refusal);
                let ours = ours.and_then(|()| {
                    if check::txn_is_read_only(&request) {
                        return self.store.read_txn(&request).map_err(own_refusal);
                    }
                    let answer = self.apply(Request::Txn(request.clone()))?;
                    Ok(if let Response::Txn(r) = answer { r } else { unreachable!() })
                });
                let both = [theirs, ours].map(|r| {
                    r.map(|mut r| {
                        plain_txn(&mut r, &request);
                        r
                    })
                });
                words(&request, both)
            }
            36 => {
                let request = pb::CompactionRequest {
                    revision: self.store.revision() + 1 - random.below(40) as i64,
                    physical: true,
                };
                let theirs = self.kv.compact(request).await.map(|r| r.into_inner()).map_err(refusal);
                let ours = self.apply(Request::Compact(request));
                let ours = ours.map(|r| if let Response::Compact(r) = r { r } else { unreachable!() });
                let both = [theirs, ours].map(|r| {
                    r.map(|mut r| {
                        plain(&mut r.header);
                        r
                    })
                });
                words(&request, both)
            }
            37 => {
                let request = pb::LeaseRevokeRequest { id: 1 + random.below(3) as i64 };
                let theirs = self.leases.lease_revoke(request).await.map(|r| r.into_inner()).map_err(refusal);
                let ours = self.apply(Request::LeaseRevoke(request));
                let ours = ours.map(|r| if let Response::LeaseRevoke(r) = r { r } else { unreachable!() });
                let both = [theirs, ours].map(|r| {
                    r.map(|mut r| {
                        plain(&mut r.header);
                        r
                    })
                });
                words(&request, both)
            }
            _ => {
                let ttl = if random.one_in(10) { 9_000_000_001 } else { 10_000 };
                let request = pb::LeaseGrantRequest { id: 1 + random.below(3) as i64, ttl };
                let theirs = self.leases.lease_grant(request).await.map(|r| r.into_inner()).map_err(refusal);
                let ours = self.apply(Request::LeaseGrant(request));
                let ours = ours.map(|r| if let Response::LeaseGrant(r) = r { r } else { unreachable!() });
                let both = [theirs, ours].map(|r| {
                    r.map(|mut r| {
                        plain(&mut r.header);
                        r
                    })
                });
                words(&request, both)
            }
        }
    }
}

fn words<R: std::fmt::Debug, A: std::fmt::Debug>(
    request: &R,
    [theirs, ours]: [A; 2],
) -> (String, String, String) {
    (format!("{request:?}"), format!("{theirs:#?}"), format!("{ours:#?}"))
}

/// etcd 3.4 panics on a put that keeps the value or lease of a key which the same transaction has deleted, and lets such a
/// transaction through when the deletion has no upper bound.
fn crashes_etcd(request: &pb::TxnRequest) -> bool {
    fn any(request: &pb::TxnRequest, wanted: &dyn Fn(&Op) -> bool) -> bool {
        request.success.iter().chain(&request.failure).filter_map(|op| op.request.as_ref()).any(|op| match op
        {
            Op::RequestTxn(nested) => any(nested, wanted),
            other => wanted(other),
        })
    }
    any(request, &|op| matches!(op, Op::RequestDeleteRange(delete) if delete.range_end.as_ref() == [0]))
        && any(request, &|op| matches!(op, Op::RequestPut(put) if put.ignore_value || put.ignore_lease))
}

/// Everything a watcher of all keys gets from a revision to the newest.
async fn watched(channel: Channel, start_revision: i64, newest: i64) -> Vec<Event> {
    let create = pb::WatchCreateRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        start_revision,
        prev_kv: true,
        ..Default::default()
    };
    let (requests, receiver) = tokio::sync::mpsc::channel(1);
    let request = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    requests.send(request).await.expect("open");
    let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut responses = WatchClient::new(channel).watch(requests).await.expect("opens").into_inner();
    let mut events: Vec<Event> = Vec::new();
    while events.last().and_then(|e| e.kv.as_ref()).is_none_or(|kv| kv.mod_revision < newest) {
        let response = responses.message().await.expect("no error").expect("not ended");
        assert!(!response.canceled, "{response:?}");
        events.extend(response.events);
    }
    events
}

#[tokio::test]
#[ignore = "needs the etcd binary"]
async fn random_requests_are_answered_the_same_as_etcd_answers_them() {
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or_else(|| u64::from(std::process::id()));
    println!("SEED={seed}");
    let etcd = Etcd::start();
    let channel = etcd.connect().await;
    let mut random = Random(seed);
    let mut both = Both {
        kv: KvClient::new(channel.clone()),
        leases: LeaseClient::new(channel.clone()),
        store: Store::new(),
    };
    for number in 0..REQUESTS {
        let (request, theirs, ours) = both.step(&mut random).await;
        assert_eq!(theirs, ours, "SEED={seed}, request {number}: {request}");
    }
    let store = &both.store;
    let start = store.compacted_revision().max(1) + 1;
    let everything = KeyRange::new(&Bytes::from_static(b"\0"), &Bytes::from_static(b"\0"));
    let ours = store.history(&everything, start, usize::MAX, usize::MAX).expect("not compacted").events;
    assert!(!ours.is_empty());
    let ours: Vec<Event> = ours.iter().map(|e| e.to_proto(true)).collect();
    let theirs = watched(channel, start, store.revision()).await;
    assert_eq!(theirs.len(), ours.len(), "SEED={seed}");
    for (theirs, ours) in theirs.iter().zip(&ours) {
        assert_eq!(theirs, ours, "SEED={seed}");
    }
}
