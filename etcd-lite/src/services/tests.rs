//! The services over a real connection, with a member that has no log.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coracle_proto::etcdserverpb as pb;
use coracle_proto::etcdserverpb::kv_client::KvClient;
use coracle_proto::etcdserverpb::lease_client::LeaseClient;
use coracle_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use coracle_proto::etcdserverpb::watch_client::WatchClient;
use coracle_proto::etcdserverpb::watch_request::RequestUnion;
use coracle_proto::mvccpb::event::EventType;
use etcd_lite_core::Request as Command;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Streaming};

use super::test_member::TestMember;
use super::{ClientService, ServiceConfig, serve_connection};

pub(super) const DEADLINE: Duration = Duration::from_secs(30);

pub(super) struct Server {
    pub(super) member: Arc<TestMember>,
    pub(super) channel: Channel,
    pub(super) address: std::net::SocketAddr,
    _stop: DropGuard,
}

pub(super) async fn serve(feed_capacity: usize, config: ServiceConfig) -> Server {
    let member = TestMember::new(feed_capacity);
    let shutdown = CancellationToken::new();
    let registry = component_base::metrics::registry();
    let service = ClientService::start(Arc::clone(&member), config, &registry, shutdown.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let stopped = shutdown.clone();
    tokio::spawn(async move {
        loop {
            let connection = tokio::select! {
                () = stopped.cancelled() => return,
                accepted = listener.accept() => accepted.expect("accepts").0,
            };
            tokio::spawn(serve_connection(connection, service.clone(), stopped.clone()));
        }
    });
    let channel =
        Endpoint::from_shared(format!("http://{address}")).expect("a URL").connect().await.expect("connects");
    Server { member, channel, address, _stop: shutdown.drop_guard() }
}

pub(super) fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() }
}

/// A watch stream as a client holds it.
pub(super) struct Watching {
    pub(super) requests: mpsc::Sender<pb::WatchRequest>,
    pub(super) responses: Streaming<pb::WatchResponse>,
}

impl Watching {
    pub(super) async fn open(server: &Server) -> Self {
        let (requests, receiver) = mpsc::channel(16);
        let mut client = WatchClient::new(server.channel.clone()).max_decoding_message_size(usize::MAX);
        let responses = client.watch(ReceiverStream::new(receiver)).await.expect("opens").into_inner();
        Self { requests, responses }
    }

    pub(super) async fn send(&self, request: RequestUnion) {
        self.requests.send(pb::WatchRequest { request_union: Some(request) }).await.expect("stream is open");
    }

    pub(super) async fn create(&mut self, create: pb::WatchCreateRequest) -> pb::WatchResponse {
        self.send(RequestUnion::CreateRequest(create)).await;
        self.next().await
    }

    pub(super) async fn next(&mut self) -> pb::WatchResponse {
        tokio::time::timeout(DEADLINE, self.responses.message())
            .await
            .expect("a response in time")
            .expect("no error")
            .expect("not ended")
    }
}

pub(super) fn watch_all() -> pb::WatchCreateRequest {
    pb::WatchCreateRequest {
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
        ..Default::default()
    }
}

fn key_number(kv: Option<&coracle_proto::mvccpb::KeyValue>) -> (i64, Bytes) {
    kv.map(|kv| (kv.mod_revision, kv.value.clone())).expect("an event has a key-value")
}

#[tokio::test]
async fn what_is_put_is_read_with_a_whole_header() {
    let server = serve(16, ServiceConfig::default()).await;
    let mut kv = KvClient::new(server.channel.clone());
    let value: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    let answer = kv.put(put("a\0b", value.clone())).await.expect("puts").into_inner();
    let header = answer.header.expect("a header");
    assert_eq!((header.cluster_id, header.member_id, header.revision, header.raft_term), (77, 1, 2, 1));
    let range = pb::RangeRequest { key: "a\0b".into(), ..Default::default() };
    let mut kv = kv.max_decoding_message_size(usize::MAX);
    let found = kv.range(range).await.expect("reads").into_inner();
    assert_eq!((found.count, found.kvs.len()), (1, 1));
    assert_eq!(found.kvs[0].value, value);
}

#[tokio::test]
async fn refusals_have_etcds_codes_and_texts() {
    let server = serve(16, ServiceConfig::default()).await;
    let mut kv = KvClient::new(server.channel.clone());
    let status = kv.put(put("", "v")).await.expect_err("no key");
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "etcdserver: key is not provided"));
    let status = kv.put(put("k", vec![0; 1536 * 1024])).await.expect_err("too large");
    assert_eq!(
        (status.code(), status.message()),
        (Code::InvalidArgument, "etcdserver: request is too large")
    );
    // The request itself is not, but what etcd writes to its log for it.
    let status = kv.put(put("k", vec![0; 1536 * 1024 - 20])).await.expect_err("too large");
    assert_eq!(status.message(), "etcdserver: request is too large");
    kv.put(put("k", vec![0; 1536 * 1024 - 30])).await.expect("not too large");
    let range = pb::RangeRequest { key: "k".into(), revision: 9, ..Default::default() };
    let status = kv.range(range).await.expect_err("future");
    assert_eq!(
        (status.code(), status.message()),
        (Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision")
    );
    let status = kv.put(pb::PutRequest { lease: 5, ..put("k", "v") }).await.expect_err("no such lease");
    assert_eq!((status.code(), status.message()), (Code::NotFound, "etcdserver: requested lease not found"));
    let status = MaintenanceClient::new(server.channel.clone())
        .move_leader(pb::MoveLeaderRequest { target_id: 1 })
        .await
        .expect_err("alone");
    assert_eq!(
        (status.code(), status.message()),
        (Code::FailedPrecondition, "etcdserver: bad leader transferee")
    );
    server.member.set_leader(0);
    let mut request =
        Request::new(pb::RangeRequest { key: "k".into(), serializable: true, ..Default::default() });
    request.metadata_mut().insert("hasleader", "true".parse().expect("ascii"));
    let status = kv.range(request).await.expect_err("no leader");
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "etcdserver: no leader"));
}

#[tokio::test]
async fn a_read_only_transaction_does_not_go_through_the_log() {
    let server = serve(16, ServiceConfig::default()).await;
    let mut kv = KvClient::new(server.channel.clone());
    kv.put(put("k", "v")).await.expect("puts");
    let before = server.member_applied();
    let read = pb::RequestOp {
        request: Some(pb::request_op::Request::RequestRange(pb::RangeRequest {
            key: "k".into(),
            ..Default::default()
        })),
    };
    let answer = kv
        .txn(pb::TxnRequest { success: vec![read], ..Default::default() })
        .await
        .expect("reads")
        .into_inner();
    assert!(answer.succeeded && answer.header.expect("a header").revision == 2);
    assert_eq!(server.member_applied(), before);
}

impl Server {
    fn member_applied(&self) -> u64 {
        use crate::member::Member;
        self.member.store().read().applied_index()
    }

    fn revision(&self) -> i64 {
        use crate::member::Member;
        self.member.store().read().revision()
    }
}

/// Reads a watcher's events until one of `last` has come, and checks that nothing is lost, repeated or out of order.
async fn expect_every_revision(watching: &mut Watching, first: i64, last: i64) {
    let mut next = first;
    while next <= last {
        let response = watching.next().await;
        assert!(!response.canceled, "canceled at {next}: {}", response.cancel_reason);
        assert!(!response.events.is_empty());
        for event in &response.events {
            let (revision, _) = key_number(event.kv.as_ref());
            assert_eq!(revision, next, "in order, nothing lost, nothing twice");
            next += 1;
        }
        assert!(response.header.expect("a header").revision >= next - 1);
    }
}

async fn watchers_see_every_revision_once(feed_capacity: usize, replace_store: bool) {
    const WRITES: i64 = 3_000;
    let server = serve(feed_capacity, ServiceConfig::default()).await;
    let member = Arc::clone(&server.member);
    let writer = tokio::task::spawn_blocking(move || {
        for n in 0..WRITES {
            member.apply(Command::Put(put(format!("k{}", n % 7), n.to_string()))).expect("puts");
            if replace_store && n % 500 == 499 {
                member.replace_store();
            }
        }
    });
    let mut tasks = tokio::task::JoinSet::new();
    for start in [0, 1, 2, 700, WRITES, 0, 2, 0] {
        let mut watching = Watching::open(&server).await;
        tasks.spawn(async move {
            let created =
                watching.create(pb::WatchCreateRequest { start_revision: start, ..watch_all() }).await;
            assert!(created.created && created.events.is_empty());
            let now = created.header.expect("a header").revision;
            let first = if start == 0 { now + 1 } else { start.max(2) };
            expect_every_revision(&mut watching, first, WRITES + 1).await;
        });
    }
    while let Some(result) = tasks.join_next().await {
        result.expect("watcher saw everything");
    }
    writer.await.expect("all written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_of_any_start_see_every_revision_once() {
    watchers_see_every_revision_once(1024, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_the_feed_overflows() {
    watchers_see_every_revision_once(1, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_when_a_snapshot_replaces_the_store() {
    watchers_see_every_revision_once(64, true).await;
}

#[tokio::test]
async fn a_reader_that_stops_for_a_while_is_caught_up_from_history() {
    const WRITES: i64 = 2_000;
    let server = serve(1024, ServiceConfig::default()).await;
    let mut slow = Watching::open(&server).await;
    let mut quick = Watching::open(&server).await;
    slow.create(watch_all()).await;
    quick.create(watch_all()).await;
    // 20 MB, far more than buffers and flow control hold.
    let value = vec![b'v'; 10_000];
    for batch in 0..20 {
        for n in 0..WRITES / 20 {
            server.member.apply(Command::Put(put(format!("k{n}"), value.clone()))).expect("puts");
        }
        expect_every_revision(&mut quick, 2 + batch * WRITES / 20, 1 + (batch + 1) * WRITES / 20).await;
    }
    expect_every_revision(&mut slow, 2, WRITES + 1).await;
}

#[tokio::test]
async fn a_slow_reader_whose_history_is_compacted_is_told_so() {
    let server = serve(1024, ServiceConfig::default()).await;
    let mut watching = Watching::open(&server).await;
    watching.create(watch_all()).await;
    let value = vec![b'v'; 10_000];
    for n in 0..2_000 {
        server.member.apply(Command::Put(put(format!("k{}", n % 10), value.clone()))).expect("puts");
        tokio::task::yield_now().await;
    }
    let revision = server.revision();
    server
        .member
        .apply(Command::Compact(pb::CompactionRequest { revision, physical: false }))
        .expect("compacts");
    let mut next = 2;
    loop {
        let response = watching.next().await;
        if response.canceled {
            assert_eq!(response.compact_revision, revision);
            break;
        }
        for event in &response.events {
            assert_eq!(key_number(event.kv.as_ref()).0, next);
            next += 1;
        }
    }
    assert!(next > 2 && next < revision, "some came before: {next}");
}

#[tokio::test]
async fn a_watch_from_a_compacted_revision_is_created_and_cancelled() {
    let server = serve(16, ServiceConfig::default()).await;
    for _ in 0..5 {
        server.member.apply(Command::Put(put("k", "v"))).expect("puts");
    }
    server
        .member
        .apply(Command::Compact(pb::CompactionRequest { revision: 4, physical: true }))
        .expect("compacts");
    let mut watching = Watching::open(&server).await;
    assert!(watching.create(pb::WatchCreateRequest { start_revision: 3, ..watch_all() }).await.created);
    let cancelled = watching.next().await;
    assert!(cancelled.canceled && cancelled.compact_revision == 4 && cancelled.watch_id == 0);
    assert!(watching.create(pb::WatchCreateRequest { start_revision: 4, ..watch_all() }).await.created);
    expect_every_revision(&mut watching, 4, 6).await;
}

#[tokio::test]
async fn a_watch_that_a_compaction_ended_keeps_its_id_until_it_is_cancelled() {
    let server = serve(16, ServiceConfig::default()).await;
    for _ in 0..5 {
        server.member.apply(Command::Put(put("k", "v"))).expect("puts");
    }
    let compaction = pb::CompactionRequest { revision: 4, physical: true };
    server.member.apply(Command::Compact(compaction)).expect("compacts");
    let mut watching = Watching::open(&server).await;
    // One before everything is refused like one in the past.
    let create = pb::WatchCreateRequest { start_revision: -3, watch_id: 7, ..watch_all() };
    assert!(!watching.create(create.clone()).await.canceled);
    let ended = watching.next().await;
    let told = (ended.watch_id, ended.canceled, ended.compact_revision, ended.cancel_reason.as_str());
    assert_eq!(told, (7, true, 4, ""));
    assert_eq!(ended.header.expect("a header").revision, 0);
    let duplicate = watching.create(create.clone()).await;
    assert_eq!(duplicate.cancel_reason, "mvcc: duplicate watch ID provided on the WatchStream");
    watching.send(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).await;
    assert_eq!(watching.next().await.watch_id, -1, "progress does not wait for it");
    watching.send(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: 7 })).await;
    assert!(watching.next().await.canceled);
    assert!(!watching.create(create).await.canceled, "the id is free again");
}

#[tokio::test]
async fn watchers_of_one_stream_have_their_own_ranges_views_and_ids() {
    let server = serve(16, ServiceConfig::default()).await;
    let mut watching = Watching::open(&server).await;
    let prefix = |key: &'static str, end: &'static str| pb::WatchCreateRequest {
        key: key.into(),
        range_end: end.into(),
        ..Default::default()
    };
    assert_eq!(
        watching.create(pb::WatchCreateRequest { prev_kv: true, ..prefix("a", "b") }).await.watch_id,
        0
    );
    let no_puts = pb::WatchCreateRequest { watch_id: 42, filters: vec![0], ..prefix("a", "b") };
    assert_eq!(watching.create(no_puts.clone()).await.watch_id, 42);
    let duplicate = watching.create(no_puts).await;
    assert!(duplicate.created && duplicate.canceled && duplicate.watch_id == -1);
    assert_eq!(duplicate.cancel_reason, "mvcc: duplicate watch ID provided on the WatchStream");
    let empty = watching.create(prefix("b", "a")).await;
    assert_eq!((empty.canceled, empty.cancel_reason.as_str()), (true, "mvcc: watcher range is empty"));
    assert_eq!(
        watching.create(pb::WatchCreateRequest { start_revision: 5, ..prefix("z", "") }).await.watch_id,
        1
    );

    server.member.apply(Command::Put(put("a1", "one"))).expect("2");
    let response = watching.next().await;
    assert_eq!((response.watch_id, response.events[0].prev_kv.as_ref()), (0, None));
    server.member.apply(Command::Put(put("z", "too early"))).expect("3");
    let delete = pb::DeleteRangeRequest { key: "a1".into(), ..Default::default() };
    server.member.apply(Command::DeleteRange(delete)).expect("4");
    let mut both = [watching.next().await, watching.next().await];
    both.sort_by_key(|response| response.watch_id);
    assert_eq!(both[0].events[0].prev_kv.as_ref().map(|kv| kv.value.as_ref()), Some(&b"one"[..]));
    assert_eq!((both[1].watch_id, both[1].events[0].r#type()), (42, EventType::Delete));
    server.member.apply(Command::Put(put("z", "in time"))).expect("5");
    let response = watching.next().await;
    assert_eq!((response.watch_id, response.events.len()), (1, 1));

    watching.send(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: 0 })).await;
    let cancelled = watching.next().await;
    assert!(cancelled.canceled && cancelled.watch_id == 0 && cancelled.compact_revision == 0);
    server.member.apply(Command::Put(put("a2", "unseen"))).expect("6");
    watching.send(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).await;
    let progress = watching.next().await;
    assert_eq!((progress.watch_id, progress.events.len()), (-1, 0));
    assert_eq!(progress.header.expect("a header").revision, 6);
}

#[tokio::test]
async fn a_large_revision_comes_in_fragments_to_those_who_can_take_them() {
    let config = ServiceConfig { request_bytes_max: 100_000, ..ServiceConfig::default() };
    let server = serve(16, config).await;
    let mut watching = Watching::open(&server).await;
    let id = watching.create(pb::WatchCreateRequest { fragment: true, ..watch_all() }).await.watch_id;
    let whole = watching.create(watch_all()).await.watch_id;
    let success = (0..10)
        .map(|n| pb::RequestOp {
            request: Some(pb::request_op::Request::RequestPut(put(format!("k{n}"), vec![b'v'; 40_000]))),
        })
        .collect();
    server.member.apply(Command::Txn(pb::TxnRequest { success, ..Default::default() })).expect("puts");
    let (mut pieces, mut fragmented, mut in_one) = (0, 0, 0);
    while fragmented < 10 || in_one < 10 {
        let response = watching.next().await;
        if response.watch_id == whole {
            in_one += response.events.len();
            assert!(in_one == 10 && !response.fragment);
        } else {
            assert_eq!(response.watch_id, id);
            pieces += 1;
            fragmented += response.events.len();
            assert_eq!(response.fragment, fragmented < 10);
        }
    }
    assert_eq!(pieces, 5);
}

#[tokio::test]
async fn quiet_watchers_are_told_how_far_they_are() {
    let config =
        ServiceConfig { watch_progress_interval: Duration::from_millis(50), ..ServiceConfig::default() };
    let server = serve(16, config).await;
    server.member.apply(Command::Put(put("elsewhere", "v"))).expect("puts");
    let mut watching = Watching::open(&server).await;
    let quiet = pb::WatchCreateRequest { key: "quiet".into(), progress_notify: true, ..Default::default() };
    watching.create(quiet).await;
    let progress = watching.next().await;
    assert!(progress.events.is_empty() && !progress.created && !progress.canceled && progress.watch_id == 0);
    assert_eq!(progress.header.expect("a header").revision, 2);
}

#[tokio::test]
async fn a_client_that_has_no_more_to_ask_still_gets_what_it_asked_for() {
    let server = serve(16, ServiceConfig::default()).await;
    let mut watching = Watching::open(&server).await;
    watching.create(watch_all()).await;
    let (requests, _) = mpsc::channel(1);
    drop(std::mem::replace(&mut watching.requests, requests));
    // A call on the same connection comes back after the end of the requests has been seen.
    let mut kv = KvClient::new(server.channel.clone());
    kv.put(put("k", "v")).await.expect("puts");
    assert_eq!(watching.next().await.events.len(), 1);
}

#[tokio::test]
async fn a_stream_that_needs_a_leader_is_refused_without_one() {
    let server = serve(16, ServiceConfig::default()).await;
    server.member.set_leader(0);
    let (_requests, receiver) = mpsc::channel(1);
    let mut request = Request::new(ReceiverStream::new(receiver));
    request.metadata_mut().insert("hasleader", "true".parse().expect("ascii"));
    let status = WatchClient::new(server.channel.clone()).watch(request).await.expect_err("no leader");
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "etcdserver: no leader"));
}

#[tokio::test]
async fn a_lease_is_kept_alive_and_takes_its_keys_along_when_it_ends() {
    let server = serve(16, ServiceConfig::default()).await;
    let stop = CancellationToken::new();
    tokio::spawn(Arc::clone(&server.member.leases).run(Arc::clone(&server.member), stop.clone()));
    let _stop = stop.drop_guard();
    let mut leases = LeaseClient::new(server.channel.clone());
    let granted =
        leases.lease_grant(pb::LeaseGrantRequest { ttl: 1, id: 0 }).await.expect("grants").into_inner();
    assert_eq!(granted.ttl, 2, "raised to the minimum");
    assert!(granted.id > 0);
    let id = granted.id;
    let mut kv = KvClient::new(server.channel.clone());
    let revision =
        kv.put(pb::PutRequest { lease: id, ..put("leased", "v") }).await.expect("puts").into_inner();
    let revision = revision.header.expect("a header").revision;

    let (requests, receiver) = mpsc::channel(4);
    let renewals = leases.lease_keep_alive(ReceiverStream::new(receiver)).await;
    let mut renewals = renewals.expect("opens").into_inner();
    for (asked, expected) in [(id, 2), (id + 1, 0)] {
        requests.send(pb::LeaseKeepAliveRequest { id: asked }).await.expect("open");
        let answer = renewals.message().await.expect("no error").expect("not ended");
        assert_eq!((answer.id, answer.ttl), (asked, expected));
    }
    let left = pb::LeaseTimeToLiveRequest { id, keys: true };
    let left = leases.lease_time_to_live(left).await.expect("asks").into_inner();
    assert!((1..=2).contains(&left.ttl) && left.granted_ttl == 2);
    assert_eq!(left.keys, ["leased"]);
    let all = leases.lease_leases(pb::LeaseLeasesRequest {}).await.expect("lists").into_inner();
    assert_eq!(all.leases, [pb::LeaseStatus { id }]);

    let mut watching = Watching::open(&server).await;
    watching.create(pb::WatchCreateRequest { start_revision: revision + 1, ..watch_all() }).await;
    let gone = watching.next().await;
    assert_eq!(gone.events[0].r#type(), EventType::Delete);
    assert_eq!(gone.events[0].kv.as_ref().map(|kv| kv.key.as_ref()), Some(&b"leased"[..]));
    let left = pb::LeaseTimeToLiveRequest { id, keys: true };
    assert_eq!(leases.lease_time_to_live(left).await.expect("asks").into_inner().ttl, -1);
    let status = leases.lease_revoke(pb::LeaseRevokeRequest { id }).await.expect_err("gone");
    assert_eq!((status.code(), status.message()), (Code::NotFound, "etcdserver: requested lease not found"));
}

async fn get(server: &Server, path: &str) -> (u16, String) {
    use http_body_util::BodyExt;
    let stream = tokio::net::TcpStream::connect(server.address).await.expect("connects");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    let request = http::Request::get(path).header("host", "x").body(String::new()).expect("a request");
    let response = sender.send_request(request).await.expect("an answer");
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn plain_http_tells_health_version_and_metrics_on_the_same_port() {
    let server = serve(16, ServiceConfig::default()).await;
    server.member.apply(Command::Put(put("k", "v"))).expect("puts");
    assert_eq!(get(&server, "/health").await, (200, r#"{"health":"true","reason":""}"#.to_owned()));
    assert_eq!(get(&server, "/readyz").await, (200, "ok\n".to_owned()));
    let (status, body) = get(&server, "/livez?verbose").await;
    assert_eq!((status, body.as_str()), (200, "[+]serializable_read ok\nok\n"));
    let (_, version) = get(&server, "/version").await;
    assert_eq!(
        version,
        format!(r#"{{"etcdserver":"{}","etcdcluster":"not_decided"}}"#, component_base::version::ETCD)
    );
    let (_, metrics) = get(&server, "/metrics").await;
    for line in ["etcd_server_has_leader 1", "etcd_debugging_mvcc_keys_total 1", "etcd_mvcc_put_total 0"] {
        assert!(metrics.lines().any(|l| l == line || l == format!("{line}.0")), "{line} in\n{metrics}");
    }
    assert_eq!(get(&server, "/nothing").await.0, 404);

    server.member.set_leader(0);
    let (status, body) = get(&server, "/health").await;
    assert_eq!((status, body.as_str()), (503, "{\"health\":\"false\",\"reason\":\"RAFT NO LEADER\"}\n"));
    assert_eq!(get(&server, "/livez").await.0, 200, "a restart would not help");
    let (status, body) = get(&server, "/readyz").await;
    assert_eq!(status, 503);
    assert!(body.contains("[-]linearizable_read failed: etcdserver: no leader"), "{body}");
}

#[tokio::test]
async fn a_raised_alarm_shows_in_status_health_and_refused_puts_until_it_is_disarmed() {
    use pb::alarm_request::AlarmAction;
    let server = serve(16, ServiceConfig::default()).await;
    let mut maintenance = MaintenanceClient::new(server.channel.clone());
    let alarm = |action: AlarmAction| pb::AlarmRequest {
        action: action.into(),
        member_id: 1,
        alarm: pb::AlarmType::Nospace.into(),
    };
    let raised = maintenance.alarm(alarm(AlarmAction::Activate)).await.expect("activate").into_inner();
    assert_eq!(raised.header.expect("header").member_id, 1);
    let status = maintenance.status(pb::StatusRequest {}).await.expect("status").into_inner();
    assert_eq!(status.errors, ["memberID:1 alarm:NOSPACE "]);
    let mut kv = KvClient::new(server.channel.clone());
    let refused = kv.put(put("k", "v")).await.expect_err("no space");
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded")
    );
    let unhealthy = (503, "{\"health\":\"false\",\"reason\":\"ALARM NOSPACE\"}\n".to_owned());
    assert_eq!(get(&server, "/health").await, unhealthy);
    assert_eq!(get(&server, "/health?exclude=NOSPACE").await.0, 200);
    assert_eq!(get(&server, "/readyz").await.0, 200, "only corruption keeps a member from being used");
    maintenance.alarm(alarm(AlarmAction::Deactivate)).await.expect("deactivate");
    let listed = maintenance.alarm(alarm(AlarmAction::Get)).await.expect("get").into_inner();
    assert_eq!(listed.alarms, []);
    kv.put(put("k", "v")).await.expect("put");
    assert_eq!(get(&server, "/health").await.0, 200);
}
