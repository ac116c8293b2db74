//! Lock, Election, health, reflection and the JSON gateway over a real connection, with a member that has no log.

use bytes::Bytes;
use coracle_proto::etcdserverpb as pb;
use coracle_proto::etcdserverpb::kv_client::KvClient;
use coracle_proto::etcdserverpb::lease_client::LeaseClient;
use coracle_proto::health::HealthCheckRequest;
use coracle_proto::health::health_check_response::ServingStatus;
use coracle_proto::health::health_client::HealthClient;
use coracle_proto::v3electionpb as election;
use coracle_proto::v3electionpb::election_client::ElectionClient;
use coracle_proto::v3lockpb as lock;
use coracle_proto::v3lockpb::lock_client::LockClient;
use etcd_lite_core::Request as Command;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use tonic::{Code, Streaming};

use super::ServiceConfig;
use super::plain_http::AccessConfig;
use super::tests::{DEADLINE, Server, put, serve};

async fn lease(server: &Server) -> i64 {
    let grant = pb::LeaseGrantRequest { ttl: 60, id: 0 };
    LeaseClient::new(server.channel.clone()).lease_grant(grant).await.expect("a lease").into_inner().id
}

async fn keys(server: &Server, prefix: &str) -> Vec<Bytes> {
    let key = Bytes::copy_from_slice(prefix.as_bytes());
    let range_end = super::in_process::end_of_prefix(&key);
    let range = pb::RangeRequest { key, range_end, ..Default::default() };
    let found = KvClient::new(server.channel.clone()).range(range).await.expect("reads").into_inner();
    found.kvs.into_iter().map(|kv| kv.key).collect()
}

async fn until_keys(server: &Server, prefix: &str, count: usize) {
    let wait = async {
        while keys(server, prefix).await.len() != count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, wait).await.unwrap_or_else(|_| panic!("{count} keys under {prefix}"));
}

#[tokio::test]
async fn a_lock_is_held_by_one_and_goes_to_the_next_in_line() {
    let server = serve(64, ServiceConfig::default()).await;
    let client = LockClient::new(server.channel.clone());
    let lock = async |lease: i64| {
        let request = lock::LockRequest { name: "l".into(), lease };
        client.clone().lock(request).await.map(|answer| answer.into_inner())
    };
    let (first, second, third) = (lease(&server).await, lease(&server).await, lease(&server).await);
    let held = lock(first).await.expect("held");
    assert_eq!(held.key, format!("l/{first:x}"));
    assert_eq!(lock(first).await.expect("held already").key, held.key);
    let waiting = {
        let (mut client, request) = (client.clone(), lock::LockRequest { name: "l".into(), lease: second });
        tokio::spawn(async move { client.lock(request).await.map(|answer| answer.into_inner()) })
    };
    until_keys(&server, "l/", 2).await;
    // One that goes away while it waits leaves no key behind.
    let gone = {
        let (mut client, request) = (client.clone(), lock::LockRequest { name: "l".into(), lease: third });
        tokio::spawn(async move { client.lock(request).await })
    };
    until_keys(&server, "l/", 3).await;
    gone.abort();
    until_keys(&server, "l/", 2).await;
    assert!(!waiting.is_finished());
    client.clone().unlock(lock::UnlockRequest { key: held.key }).await.expect("unlocks");
    let next = tokio::time::timeout(DEADLINE, waiting).await.expect("in time").expect("no panic");
    assert_eq!(next.expect("held").key, format!("l/{second:x}"));

    let own = lock::LockRequest { name: "other".into(), lease: 0 };
    let own = client.clone().lock(own).await.expect("held with a lease of its own").into_inner();
    assert!(own.key.starts_with(b"other/"));
    let refused = lock(12345).await.expect_err("no such lease");
    assert_eq!((refused.code(), refused.message()), (Code::Unknown, "etcdserver: requested lease not found"));
}

#[tokio::test]
async fn a_waiter_whose_lease_is_revoked_does_not_get_the_lock() {
    let server = serve(64, ServiceConfig::default()).await;
    let mut client = LockClient::new(server.channel.clone());
    let (first, second) = (lease(&server).await, lease(&server).await);
    let held = client.lock(lock::LockRequest { name: "l".into(), lease: first }).await.expect("held");
    let waiting = {
        let mut client = client.clone();
        let request = lock::LockRequest { name: "l".into(), lease: second };
        tokio::spawn(async move { client.lock(request).await })
    };
    until_keys(&server, "l/", 2).await;
    let revoke = pb::LeaseRevokeRequest { id: second };
    LeaseClient::new(server.channel.clone()).lease_revoke(revoke).await.expect("revoked");
    client.unlock(lock::UnlockRequest { key: held.into_inner().key }).await.expect("unlocks");
    let refused = tokio::time::timeout(DEADLINE, waiting).await.expect("in time").expect("no panic");
    assert_eq!(refused.expect_err("expired").message(), "mutex: session is expired");
}

async fn observed(leaders: &mut Streaming<election::LeaderResponse>) -> Bytes {
    let leader = tokio::time::timeout(DEADLINE, leaders.message()).await.expect("in time");
    leader.expect("no error").expect("not ended").kv.expect("a leader").value
}

#[tokio::test]
async fn leaders_follow_each_other_and_observers_see_them() {
    let server = serve(64, ServiceConfig::default()).await;
    let mut client = ElectionClient::new(server.channel.clone());
    let named = || election::LeaderRequest { name: "e".into() };
    let nobody = client.leader(named()).await.expect_err("nobody yet");
    assert_eq!((nobody.code(), nobody.message()), (Code::Unknown, "election: no leader"));
    let (first, second) = (lease(&server).await, lease(&server).await);
    let candidate = client.clone();
    let campaign = |lease: i64, value: &'static str| {
        let mut client = candidate.clone();
        let request = election::CampaignRequest { name: "e".into(), lease, value: value.into() };
        tokio::spawn(async move { client.campaign(request).await.map(|answer| answer.into_inner()) })
    };
    let mut leaders = client.observe(named()).await.expect("observes").into_inner();
    let elected = campaign(first, "one").await.expect("no panic").expect("elected").leader.expect("leader");
    assert_eq!((&elected.name[..], elected.lease), (&b"e"[..], first));
    assert_eq!(observed(&mut leaders).await, "one");
    let waiting = campaign(second, "two");
    until_keys(&server, "e/", 2).await;
    let proclaim = |leader, value: &'static str| election::ProclaimRequest { leader, value: value.into() };
    client.proclaim(proclaim(Some(elected.clone()), "uno")).await.expect("proclaims");
    assert_eq!(observed(&mut leaders).await, "uno");
    let leader = client.leader(named()).await.expect("a leader").into_inner().kv.expect("a key");
    assert_eq!((leader.key, leader.value), (elected.key.clone(), "uno".into()));
    client.resign(election::ResignRequest { leader: Some(elected.clone()) }).await.expect("resigns");
    waiting.await.expect("no panic").expect("elected");
    assert_eq!(observed(&mut leaders).await, "two");
    for (leader, why) in
        [(Some(elected), "election: not leader"), (None, "\"leader\" field must be provided")]
    {
        let refused = client.proclaim(proclaim(leader, "x")).await.expect_err(why);
        assert_eq!((refused.code(), refused.message()), (Code::Unknown, why));
    }
}

#[tokio::test]
async fn health_is_told_of_the_whole_server_and_of_no_service_by_name() {
    let server = serve(16, ServiceConfig::default()).await;
    let mut client = HealthClient::new(server.channel.clone());
    let of = |service: &str| HealthCheckRequest { service: service.to_owned() };
    let whole = client.check(of("")).await.expect("known").into_inner();
    assert_eq!(whole.status(), ServingStatus::Serving);
    let unknown = client.check(of("etcdserverpb.KV")).await.expect_err("unknown");
    assert_eq!((unknown.code(), unknown.message()), (Code::NotFound, "unknown service"));
    for (service, status) in [("", ServingStatus::Serving), ("x", ServingStatus::ServiceUnknown)] {
        let mut watch = client.watch(of(service)).await.expect("watches").into_inner();
        assert_eq!(watch.message().await.expect("no error").expect("a status").status(), status);
    }
}

#[tokio::test]
async fn reflection_knows_the_services_in_both_versions() {
    use tonic_reflection::pb::{v1, v1alpha};
    let server = serve(16, ServiceConfig::default()).await;
    let ask = v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(String::new())),
    };
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(server.channel.clone());
    let answers = client.server_reflection_info(futures::stream::iter([ask])).await.expect("asks");
    let answer = answers.into_inner().message().await.expect("no error").expect("an answer");
    let Some(v1::server_reflection_response::MessageResponse::ListServicesResponse(list)) =
        answer.message_response
    else {
        panic!("{answer:?}");
    };
    let names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    assert!(names.contains(&"etcdserverpb.KV".to_owned()), "{names:?}");
    assert!(!names.iter().any(|name| name.starts_with("coracle")), "{names:?}");
    let ask = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(
            "v3lockpb.Lock".into(),
        )),
    };
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(server.channel.clone());
    let answers = client.server_reflection_info(futures::stream::iter([ask])).await.expect("asks");
    let answer = answers.into_inner().message().await.expect("no error").expect("an answer");
    assert!(
        matches!(
            answer.message_response,
            Some(v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse(_))
        ),
        "{answer:?}"
    );
}

/// Sends a request by HTTP/1.1 and gives the answer with its body unread.
async fn send(server: &Server, request: http::Request<String>) -> http::Response<hyper::body::Incoming> {
    let stream = tokio::net::TcpStream::connect(server.address).await.expect("connects");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    tokio::time::timeout(DEADLINE, sender.send_request(request)).await.expect("in time").expect("an answer")
}

async fn post(server: &Server, path: &str, json: &str) -> (u16, String) {
    let request = http::Request::post(path).header("host", "x").body(json.to_owned()).expect("a request");
    let response = send(server, request).await;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

const HEADER: &str = r#""cluster_id":"77","member_id":"1""#;

#[tokio::test]
async fn json_goes_to_the_services_and_comes_back_as_from_etcd() {
    let server = serve(16, ServiceConfig::default()).await;
    let header = |revision: i64| format!(r#""header":{{{HEADER},"revision":"{revision}","raft_term":"1"}}"#);
    assert_eq!(
        post(&server, "/v3/kv/put", r#"{"key":"Zm9v","value":"YmFy"}"#).await,
        (200, format!("{{{}}}", header(2)))
    );
    let kv = r#"{"key":"Zm9v","create_revision":"2","mod_revision":"2","version":"1","value":"YmFy"}"#;
    let found = format!(r#"{{{},"kvs":[{kv}],"count":"1"}}"#, header(2));
    assert_eq!(post(&server, "/v3/kv/range", r#"{"key":"Zm9v"}"#).await, (200, found.clone()));
    assert_eq!(post(&server, "/v3beta/kv/range", r#"{"key":"Zm9v"}"#).await, (200, found));
    let error = |code: i32, text: &str| format!(r#"{{"error":"{text}","code":{code},"message":"{text}"}}"#);
    for (path, json, status, body) in [
        ("/v3/kv/put", "", 400, error(3, "etcdserver: key is not provided")),
        (
            "/v3/kv/range",
            r#"{"key":"Zm9v","revision":9}"#,
            400,
            error(11, "etcdserver: mvcc: required revision is a future revision"),
        ),
        ("/v3/lease/revoke", r#"{"ID":9}"#, 404, error(5, "etcdserver: requested lease not found")),
        (
            "/v3/lock/lock",
            r#"{"name":"bA==","lease":9}"#,
            500,
            error(2, "etcdserver: requested lease not found"),
        ),
        ("/v3/nothing", "{}", 404, "Not Found\n".to_owned()),
        ("/v3alpha/kv/range", "{}", 404, "404 page not found\n".to_owned()),
    ] {
        assert_eq!(post(&server, path, json).await, (status, body), "{path} {json}");
    }
    let get = http::Request::get("/v3/kv/range").header("host", "x").body(String::new()).expect("a request");
    assert_eq!(send(&server, get).await.status(), 405);
    let large = format!(r#"{{"key":"Zm9v","value":"{}"}}"#, "A".repeat(4 << 20));
    assert_eq!(post(&server, "/v3/kv/put", &large).await.0, 429);
}

#[tokio::test]
async fn json_watches_stream_a_line_an_answer_until_the_client_goes() {
    let server = serve(16, ServiceConfig::default()).await;
    server.member.apply(Command::Put(put("foo", "bar"))).expect("puts");
    let create = r#"{"create_request":{"key":"Zm9v","start_revision":"1"}}"#;
    let request =
        http::Request::post("/v3/watch").header("host", "x").body(create.to_owned()).expect("a request");
    let response = send(&server, request).await;
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    let mut text = String::new();
    let mut lines_until = async |count: usize| {
        while text.lines().count() < count {
            let frame = tokio::time::timeout(DEADLINE, body.frame()).await.expect("in time");
            let data = frame.expect("not ended").expect("no error").into_data().expect("data");
            text.push_str(&String::from_utf8_lossy(&data));
        }
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let lines = lines_until(2).await;
    assert!(lines[0].ends_with(r#","created":true}}"#), "{lines:?}");
    assert!(lines[1].contains(r#""events":[{"kv":{"key":"Zm9v""#), "{lines:?}");
    server.member.apply(Command::Put(put("foo", "new"))).expect("puts");
    let lines = lines_until(3).await;
    assert!(lines[2].contains(r#""value":"bmV3""#), "{lines:?}");
}

#[tokio::test]
async fn origins_and_host_names_are_those_allowed() {
    let access = AccessConfig { origins: vec!["http://page".into()], hosts: vec!["known".into()] };
    let server = serve(16, ServiceConfig { access, ..Default::default() }).await;
    let ask = async |host: &str, origin: &str| {
        let request = http::Request::options("/v3/kv/range").header("host", host).header("origin", origin);
        let response = send(&server, request.body(String::new()).expect("a request")).await;
        let allowed = response.headers().get("access-control-allow-origin").cloned();
        (response.status().as_u16(), allowed.map(|v| v.to_str().expect("text").to_owned()))
    };
    assert_eq!(ask("known:2379", "http://page").await, (200, Some("http://page".into())));
    assert_eq!(ask("known", "http://other").await, (200, None));
    assert_eq!(ask("unknown", "http://page").await.0, 421);
    let server = serve(16, ServiceConfig { has_gateway: false, ..Default::default() }).await;
    assert_eq!(post(&server, "/v3/kv/range", "{}").await.0, 404, "not served");
}
