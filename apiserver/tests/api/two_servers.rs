//! Two API servers on one store behind one endpoint, while one of them is killed again and again: a client reads what it wrote, whichever server answers,
//! and watches resume on the other server without a gap or a repeat.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::common::process::Process;
use crate::common::{Client, Cluster, PATIENCE, free_port, wait_for};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// How often a server is killed in this test.
const KILLS: usize = 6;
/// How long both serve between kills.
const BREATH: Duration = Duration::from_secs(2);

/// Hands connections to the servers in turn; one that does not take a connection is passed over.
async fn balance(listener: TcpListener, ports: [u16; 2]) {
    let turn = Arc::new(AtomicUsize::new(0));
    loop {
        let Ok((mut client, _)) = listener.accept().await else { continue };
        let turn = Arc::clone(&turn);
        tokio::spawn(async move {
            let first = turn.fetch_add(1, Ordering::Relaxed);
            for step in 0..2 {
                if let Ok(mut server) = TcpStream::connect(("127.0.0.1", ports[(first + step) % 2])).await {
                    let _ = copy_bidirectional(&mut client, &mut server).await;
                    return;
                }
            }
        });
    }
}

/// Tries until the answer is one of a server at work.
async fn until_answered(client: &Client, method: &str, path: &str, body: &Value) -> (StatusCode, Value) {
    let end = Instant::now() + PATIENCE;
    loop {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        match client.request(method, path, "application/json", text).await {
            Ok(answer) if !matches!(answer.status.as_u16(), 429 | 500.. | 403) => {
                return (answer.status, answer.body);
            }
            other => assert!(Instant::now() < end, "{method} {path}: {other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What a watcher has seen: per revision the object and its number.
type Seen = BTreeMap<u64, (String, String)>;

fn number(object: &Value) -> String {
    object["data"]["n"].as_str().unwrap_or_default().to_owned()
}

fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// Watches from `version` on and resumes where it was cut off, until `done` and everything up to `last` is seen.
async fn watch(
    client: Client,
    mut version: u64,
    last: Arc<AtomicUsize>,
    done: Arc<AtomicBool>,
) -> (Seen, usize) {
    let (mut seen, mut resumed) = (Seen::new(), 0);
    let end = Instant::now() + Duration::from_secs(120);
    loop {
        assert!(
            Instant::now() < end,
            "the watch at {version} does not come to {}",
            last.load(Ordering::Relaxed)
        );
        let path = format!("{MAPS}?watch=1&resourceVersion={version}&timeoutSeconds=3");
        let Ok(response) = client.send("GET", &path, "", bytes::Bytes::new()).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        if response.status() != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        }
        resumed += 1;
        let (mut body, mut pending) = (response.into_body(), Vec::new());
        while let Some(Ok(frame)) = http_body_util::BodyExt::frame(&mut body).await {
            pending.extend_from_slice(frame.data_ref().expect("data"));
            while let Some(newline) = pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = pending.drain(..=newline).collect();
                let event: Value = serde_json::from_slice(&line).expect("a line of JSON");
                assert_ne!(event["type"], "ERROR", "{event}");
                let object = &event["object"];
                let at = revision(object);
                assert!(at > version, "{at} comes after {version}: {event}");
                version = at;
                let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                if event["type"] != "BOOKMARK" && name.starts_with("own-") {
                    assert!(seen.insert(at, (name, number(object))).is_none(), "{at} is repeated");
                }
            }
        }
        if done.load(Ordering::Relaxed) && version >= last.load(Ordering::Relaxed) as u64 {
            return (seen, resumed);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_two_servers_notices_nothing_when_one_is_killed() {
    let cluster = Cluster::new();
    let mut servers =
        [Process::start(&cluster, free_port(), &[]), Process::start(&cluster, free_port(), &[])];
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let endpoint = listener.local_addr().expect("an address").port();
    let balancer = tokio::spawn(balance(listener, [servers[0].port, servers[1].port]));
    let client = cluster.client_of_port(endpoint, Some("admin"));
    for server in &servers {
        let direct = cluster.client_of_port(server.port, None);
        wait_for("both servers", || async {
            direct.get("/readyz").await.is_ok_and(|answer| answer.status == StatusCode::OK)
        })
        .await;
    }
    let (_, list) = until_answered(&client, "GET", MAPS, &Value::Null).await;
    let (last, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let watchers: Vec<_> = (0..3)
        .map(|_| tokio::spawn(watch(client.clone(), revision(&list), Arc::clone(&last), Arc::clone(&done))))
        .collect();

    // Writes an object again and again and reads it back by whichever server answers.
    let writer = {
        let (client, last, done) = (client.clone(), Arc::clone(&last), Arc::clone(&done));
        tokio::spawn(async move {
            let mut written = Seen::new();
            let mut n = 0_u32;
            while !done.load(Ordering::Relaxed) {
                n += 1;
                let name = format!("own-{}", n % 5);
                let path = format!("{MAPS}/{name}");
                let object = json!({"metadata": {"name": name}, "data": {"n": n.to_string()}});
                let (status, mut answer) = until_answered(&client, "PUT", &path, &object).await;
                if status == StatusCode::NOT_FOUND {
                    answer = until_answered(&client, "POST", MAPS, &object).await.1;
                }
                let (_, read) = until_answered(&client, "GET", &path, &Value::Null).await;
                assert_eq!(number(&read), n.to_string(), "written {answer}, read {read}");
                // A write whose answer was lost has happened all the same: what was read back counts.
                written.insert(revision(&read), (name, n.to_string()));
                last.store(revision(&read) as usize, Ordering::Relaxed);
                let (_, list) = until_answered(&client, "GET", MAPS, &Value::Null).await;
                assert!(revision(&list) >= revision(&read), "a list is older than what was written");
            }
            written
        })
    };
    for kill in 0..KILLS {
        let until = Instant::now() + BREATH;
        let before = last.load(Ordering::Relaxed);
        wait_for("writes between kills", || async {
            Instant::now() > until && last.load(Ordering::Relaxed) > before
        })
        .await;
        servers[kill % 2].restart(&cluster);
        let direct = cluster.client_of_port(servers[kill % 2].port, None);
        wait_for("the killed server to be back", || async {
            direct.get("/readyz").await.is_ok_and(|answer| answer.status == StatusCode::OK)
        })
        .await;
    }
    done.store(true, Ordering::Relaxed);
    let written = writer.await.expect("the writer reads what it wrote");
    assert!(written.len() > KILLS, "{}", written.len());
    for watcher in watchers {
        let (seen, resumed) = watcher.await.expect("a watch without gaps and repeats");
        assert!(resumed > 1, "the watch was never cut off");
        for (at, object) in &written {
            assert_eq!(seen.get(at), Some(object), "the event of revision {at}");
        }
    }
    balancer.abort();
}

/// The objects of a watch of so many seconds, with the type of each event.
async fn events_of(client: &Client, version: u64, seconds: u64) -> Vec<(String, String, String)> {
    let path = format!("{MAPS}?watch=1&resourceVersion={version}&timeoutSeconds={seconds}");
    let answer = client.send("GET", &path, "", bytes::Bytes::new()).await.expect("an answer");
    let body = http_body_util::BodyExt::collect(answer.into_body()).await.expect("a body").to_bytes();
    let events = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(|line| {
        let event: Value = serde_json::from_slice(line).expect("a line of JSON");
        let (object, kind) = (&event["object"], event["type"].as_str().unwrap_or_default());
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        (kind.to_owned(), name.to_owned(), number(object))
    });
    events.filter(|(_, name, _)| name.starts_with("own-")).collect()
}

#[tokio::test]
async fn a_server_knows_what_happened_shortly_before_its_start() {
    let cluster = Cluster::new();
    let ready = async |server: &Process| {
        let client = cluster.client_of_port(server.port, Some("admin"));
        wait_for("the server", || async {
            client.get("/readyz").await.is_ok_and(|answer| answer.status == StatusCode::OK)
        })
        .await;
        client
    };
    let map = |name: &str, n: &str| json!({"metadata": {"name": name}, "data": {"n": n}});
    let first = Process::start(&cluster, free_port(), &[]);
    let client = ready(&first).await;
    let (_, list) = until_answered(&client, "GET", MAPS, &Value::Null).await;
    for (method, path, object) in [
        ("POST", MAPS.to_owned(), map("own-a", "1")),
        ("POST", MAPS.to_owned(), map("own-b", "1")),
        ("PUT", format!("{MAPS}/own-a"), map("own-a", "2")),
        ("DELETE", format!("{MAPS}/own-b"), Value::Null),
    ] {
        let (status, answer) = until_answered(&client, method, &path, &object).await;
        assert!(status.is_success(), "{answer}");
    }
    let second = Process::start(&cluster, free_port(), &[]);
    let other = ready(&second).await;
    until_answered(&client, "PUT", &format!("{MAPS}/own-a"), &map("own-a", "3")).await;
    let seen = events_of(&other, revision(&list), 2).await;
    let seen: Vec<(&str, &str, &str)> = seen.iter().map(|(k, n, v)| (&**k, &**n, &**v)).collect();
    let expected = [
        ("ADDED", "own-a", "1"),
        ("ADDED", "own-b", "1"),
        ("MODIFIED", "own-a", "2"),
        ("DELETED", "own-b", "1"),
        ("MODIFIED", "own-a", "3"),
    ];
    assert_eq!(seen, expected);
}

/// A definition says that it is established wherever it is read; whoever reads that may turn to the other server next.
#[tokio::test]
async fn what_one_server_has_established_the_other_serves() {
    const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let cluster = Cluster::new();
    let servers = [Process::start(&cluster, free_port(), &[]), Process::start(&cluster, free_port(), &[])];
    let [one, other] =
        [&servers[0], &servers[1]].map(|server| cluster.client_of_port(server.port, Some("admin")));
    for client in [&one, &other] {
        wait_for("the servers", || async {
            client.get("/readyz").await.is_ok_and(|answer| answer.status == StatusCode::OK)
        })
        .await;
    }
    for number in 0..20 {
        let group = format!("group-{number}.example.com");
        let definition = json!({
            "metadata": {"name": format!("things.{group}")},
            "spec": {
                "group": group, "scope": "Cluster", "names": {"plural": "things", "kind": "Thing"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}],
            },
        });
        let (status, answer) = until_answered(&one, "POST", DEFINITIONS, &definition).await;
        assert_eq!(status, StatusCode::CREATED, "{answer}");
        let mut events =
            one.watch(&format!("{DEFINITIONS}?watch=1&resourceVersion={}", revision(&answer))).await;
        while !coracle_api::custom::condition(
            &events.next().await.expect("another event")["object"],
            "Established",
        ) {}
        // Discovery and the objects by turns: whichever comes first is the one that could be too early.
        let mut paths =
            [format!("/apis/{group}/v1"), format!("/apis/{group}/v1/things"), format!("/apis/{group}")];
        paths.rotate_left(number % 3);
        for path in paths {
            let answer = other.get(&path).await.expect("an answer");
            assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.body);
        }
    }
}
