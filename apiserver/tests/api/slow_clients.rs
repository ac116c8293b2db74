//! Clients that take their time, never read, go away halfway or ask for too much: the server stays up, stays small and serves others. The server is a
//! process of its own, so that its memory can be measured.

use std::future::Future;
use std::time::Duration;

use crate::common::http2::{self, Http2, Part};
use crate::common::process::Process;
use crate::common::{Client, Cluster, PATIENCE, free_port, wait_for};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::client::TlsStream;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const MEBIBYTE: u64 = 1024 * 1024;

/// A server with more flags that is ready and has made its namespaces.
async fn started(cluster: &Cluster, extra: &[&str]) -> Process {
    let server = Process::start(cluster, free_port(), extra);
    let client = server.client(cluster);
    for (what, path) in [("readyz", "/readyz"), ("the namespace", "/api/v1/namespaces/default")] {
        wait_for(what, || async {
            client.get(path).await.is_ok_and(|answer| answer.status == StatusCode::OK)
        })
        .await;
    }
    server
}

/// Asks for a path and waits for the head of the answer.
async fn ask(client: &Http2, path: &str, fields: &[(&str, &str)]) -> http2::Answer {
    let mut answer = client.send("GET", path, fields, true);
    assert_eq!(in_time("the head of an answer", answer.next()).await, Some(Part::Head(true)), "{path}");
    answer
}

async fn in_time<T>(what: &str, wanted: impl Future<Output = T>) -> T {
    timeout(PATIENCE, wanted).await.unwrap_or_else(|_| panic!("{what} did not come in time"))
}

/// Somebody else asks, and is answered soon.
async fn others_are_served(client: &Client) {
    let start = Instant::now();
    let answer = client.get("/api/v1/namespaces/default").await.expect("an answer");
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

fn map(name: &str, bytes: usize) -> Value {
    json!({"metadata": {"name": name}, "data": {"k": "v".repeat(bytes)}})
}

async fn create(client: &Client, name: &str, bytes: usize) {
    let answer = client.json("POST", MAPS, &map(name, bytes)).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{name}");
}

/// Reads until the other side ends the connection, in whatever way.
async fn until_ended(stream: &mut TlsStream<TcpStream>) -> usize {
    let (mut total, mut buffer) = (0, vec![0; 64 * 1024]);
    loop {
        match in_time("the end of a connection", stream.read(&mut buffer)).await {
            Ok(0) | Err(_) => return total,
            Ok(read) => total += read,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_and_bodies_that_drip_are_not_waited_for() {
    const CLIENTS: usize = 40;
    let cluster = Cluster::new();
    let server = started(&cluster, &["--request-timeout=2s"]).await;
    let client = server.client(&cluster);
    let body = format!(
        "POST {MAPS} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n{{"
    );
    let mut clients = FuturesUnordered::new();
    for start in ["GET /version HTTP/1.1\r\nhost: localhost\r\nx: ", &body] {
        for _ in 0..CLIENTS {
            let mut stream = server.connect(&cluster, "http/1.1").await;
            clients.push(async move {
                stream.write_all(start.as_bytes()).await.expect("written");
                let began = Instant::now();
                let mut pace = tokio::time::interval(Duration::from_millis(50));
                let mut answer = Vec::new();
                let mut buffer = [0; 4096];
                loop {
                    tokio::select! {
                        _ = pace.tick() => if stream.write_all(b" ").await.is_err() { break },
                        read = stream.read(&mut buffer) => match read {
                            Ok(0) | Err(_) => break,
                            Ok(read) => answer.extend_from_slice(&buffer[..read]),
                        },
                    }
                    assert!(
                        began.elapsed() < PATIENCE,
                        "still there: {:?}",
                        String::from_utf8_lossy(&answer)
                    );
                }
                (start.starts_with("POST"), began.elapsed(), String::from_utf8_lossy(&answer).into_owned())
            });
        }
    }
    others_are_served(&client).await;
    while let Some((is_post, lasted, answer)) = clients.next().await {
        assert!(lasted > Duration::from_secs(1), "{lasted:?}: {answer}");
        assert_eq!(is_post, answer.starts_with("HTTP/1.1 504"), "{answer}");
    }
    others_are_served(&client).await;

    // The same over HTTP/2, where only a body can drip.
    let requests = server.http2(&cluster, 65_535).await;
    let answers = (0..CLIENTS).map(|_| async {
        let began = Instant::now();
        let mut answer = requests.send("POST", MAPS, &[("content-type", "application/json")], false);
        let mut pace = tokio::time::interval(Duration::from_millis(50));
        loop {
            tokio::select! {
                _ = pace.tick() => requests.send_data(answer.stream, b" "),
                part = in_time("an answer", answer.next()) => {
                    assert_eq!(part, Some(Part::Head(false)));
                    return assert!(began.elapsed() > Duration::from_secs(1));
                }
            }
        }
    });
    futures::future::join_all(answers).await;
    others_are_served(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_that_nobody_reads_take_little_memory_and_are_cut() {
    const OBJECTS: usize = 20;
    const OBJECT_BYTES: usize = 1_000_000;
    const LISTS: usize = 40;
    let cluster = Cluster::new();
    // Long enough for all of them to be stuck at the same time.
    let server = started(&cluster, &["--request-timeout=8s"]).await;
    let client = server.client(&cluster);
    for number in 0..OBJECTS {
        create(&client, &format!("large-{number}"), OBJECT_BYTES).await;
    }
    let whole = client.get(MAPS).await.expect("an answer").bytes.len();
    assert!(whole > OBJECTS * OBJECT_BYTES);
    let before = server.memory();

    let mut connections = Vec::new();
    for _ in 0..LISTS / 4 {
        let mut stream = server.connect(&cluster, "http/1.1").await;
        stream
            .write_all(format!("GET {MAPS} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes())
            .await
            .expect("written");
        // The head has come, so the rest is on its way.
        in_time("an answer", stream.read_u8()).await.expect("a byte");
        connections.push(stream);
    }
    let (mut clients, mut unread) = (Vec::new(), Vec::new());
    for room in [0, 1, 65_535] {
        let requests = server.http2(&cluster, room).await;
        for _ in 0..LISTS / 4 {
            unread.push(ask(&requests, MAPS, &[]).await);
        }
        clients.push(requests);
    }
    others_are_served(&client).await;
    let grown = server.memory().saturating_sub(before);
    eprintln!("{LISTS} unread lists of {} MiB: {} MiB more", whole as u64 / MEBIBYTE, grown / MEBIBYTE);
    assert!(grown < 100 * MEBIBYTE, "{} MiB for {LISTS} lists", grown / MEBIBYTE);

    for mut answer in unread {
        let cut = async {
            loop {
                match answer.next().await {
                    Some(Part::Data(_)) => {}
                    part => return part,
                }
            }
        };
        let reason = u32::from_be_bytes(http2::CANCEL);
        assert_eq!(in_time("the end of a stream", cut).await, Some(Part::Reset(reason)));
    }
    // These were asked for earlier, so their time is over too.
    for mut stream in connections {
        assert!(until_ended(&mut stream).await < whole);
    }
    others_are_served(&client).await;
}

/// How watchers of metadata ask, whose events are made for each of them.
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

#[tokio::test(flavor = "multi_thread")]
async fn watches_that_nobody_reads_take_little_memory() {
    const WATCHES: usize = 60;
    const CHANGES: usize = 40;
    const BYTES: usize = 200_000;
    let cluster = Cluster::new();
    let server = started(&cluster, &[]).await;
    let client = server.client(&cluster);
    create(&client, "busy", 1).await;
    let change = async |number: usize| {
        let mut object = map("busy", 1);
        object["metadata"]["annotations"] = json!({"large": "v".repeat(BYTES), "number": number.to_string()});
        let answer = client.json("PUT", &format!("{MAPS}/busy"), &object).await;
        assert_eq!(answer.status, StatusCode::OK);
    };
    // The ring of events is full, and what writing takes has been taken.
    for number in 0..25 {
        change(number).await;
    }
    let path = format!("{MAPS}?watch=true");
    let (mut clients, mut unread) = (Vec::new(), Vec::new());
    for room in [0, 1, 65_535] {
        let requests = server.http2(&cluster, room).await;
        for _ in 0..WATCHES / 4 {
            unread.push(ask(&requests, &path, &[("accept", METADATA)]).await);
        }
        clients.push(requests);
    }
    let mut connections = Vec::new();
    for _ in 0..WATCHES / 4 {
        let mut stream = server.connect(&cluster, "http/1.1").await;
        let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\naccept: {METADATA}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("written");
        in_time("an answer", stream.read_u8()).await.expect("a byte");
        connections.push(stream);
    }
    let mut reader = client.watch(&path).await;
    assert_eq!(reader.brief().await, "ADDED busy");
    let before = server.memory();
    for number in 0..CHANGES {
        change(number).await;
    }
    // Whoever reads has all of them.
    while reader.next().await.expect("another event")["object"]["metadata"]["annotations"]["number"]
        != json!((CHANGES - 1).to_string())
    {}
    let grown = server.memory().saturating_sub(before) / MEBIBYTE;
    let of_events = (WATCHES * CHANGES * BYTES) as u64 / MEBIBYTE;
    eprintln!("{WATCHES} unread watches of {of_events} MiB of events: {grown} MiB more");
    assert!(grown < of_events / 6, "{grown} MiB");
    others_are_served(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_idle_watches_cost_little_and_all_of_them_wake() {
    const CONNECTIONS: usize = 20;
    const WATCHES: usize = 500;
    let cluster = Cluster::new();
    let server = started(&cluster, &[]).await;
    let client = server.client(&cluster);
    let before = server.memory();
    // From the cache: what etcd can bear is not asked here.
    let path = format!("{MAPS}?watch=true&resourceVersion=0&fieldSelector=metadata.name%3Dawaited");
    let mut connections = FuturesUnordered::new();
    for _ in 0..CONNECTIONS {
        let requests = server.http2(&cluster, 65_535).await;
        let path = path.clone();
        connections.push(tokio::spawn(async move {
            let asked = (0..WATCHES).map(|_| ask(&requests, &path, &[]));
            let watches: Vec<_> = futures::stream::iter(asked).buffer_unordered(10).collect().await;
            (requests, watches)
        }));
    }
    let start = Instant::now();
    let (mut clients, mut watches) = (Vec::new(), Vec::new());
    while let Some(opened) = connections.next().await {
        let (client, answers) = opened.expect("no panic");
        clients.push(client);
        watches.extend(answers);
    }
    let grown = server.memory().saturating_sub(before);
    eprintln!(
        "{} watches in {:?}: {} MiB, {} KiB each",
        watches.len(),
        start.elapsed(),
        grown / MEBIBYTE,
        grown / 1024 / watches.len() as u64
    );
    assert!(grown < 200 * MEBIBYTE, "{} MiB", grown / MEBIBYTE);
    others_are_served(&client).await;
    create(&client, "ignored", 1).await;
    create(&client, "awaited", 1).await;
    let woken = watches.into_iter().map(|mut answer| async move {
        let Some(Part::Data(event)) = in_time("an event", answer.next()).await else { panic!("it goes on") };
        let event: Value = serde_json::from_slice(&event).expect("JSON");
        assert_eq!(
            (&event["type"], &event["object"]["metadata"]["name"]),
            (&json!("ADDED"), &json!("awaited"))
        );
    });
    futures::future::join_all(woken).await;
    others_are_served(&client).await;
}

/// What `/metrics` says of watches of ConfigMaps that are being served.
async fn watches_served(client: &Client) -> u64 {
    let bytes = client.get("/metrics").await.expect("an answer").bytes;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let is_of_maps = |line: &&str| {
        line.starts_with("apiserver_registered_watchers{") && line.contains("resource=\"configmaps\"")
    };
    let lines = text.lines().filter(is_of_maps);
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn half_closed_connections_are_ended() {
    const CLIENTS: usize = 20;
    let cluster = Cluster::new();
    let server = started(&cluster, &[]).await;
    let client = server.client(&cluster);
    let watch = format!("GET {MAPS}?watch=true HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let half = &watch[..watch.len() / 2];
    let mut streams = Vec::new();
    for start in ["", half, &watch] {
        for politely in [true, false] {
            for _ in 0..CLIENTS / 2 {
                let mut stream = server.connect(&cluster, "http/1.1").await;
                stream.write_all(start.as_bytes()).await.expect("written");
                if start == watch {
                    in_time("an answer", stream.read_u8()).await.expect("a byte");
                }
                streams.push((politely, stream));
            }
        }
    }
    assert_eq!(watches_served(&client).await, CLIENTS as u64);
    for (politely, stream) in &mut streams {
        if *politely {
            stream.shutdown().await.expect("TLS says goodbye");
        } else {
            // The direction is closed below TLS, which learns nothing of it.
            stream.get_mut().0.shutdown().await.expect("half closed");
        }
    }
    for (_, stream) in &mut streams {
        until_ended(stream).await;
    }
    wait_for("the watches to end", || async { watches_served(&client).await == 0 }).await;
    others_are_served(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_are_taken_back_at_once_do_no_harm() {
    const CONNECTIONS: usize = 10;
    const REQUESTS: usize = 20_000;
    let cluster = Cluster::new();
    let server = started(&cluster, &[]).await;
    let client = server.client(&cluster);
    others_are_served(&client).await;
    let before = server.memory();
    let attack = Bytes::from(http2::taken_back(REQUESTS));
    let mut connections = FuturesUnordered::new();
    for _ in 0..CONNECTIONS {
        let (stream, attack) = (server.connect(&cluster, "h2").await, attack.clone());
        connections.push(tokio::spawn(async move {
            let (mut answers, mut requests) = tokio::io::split(stream);
            // The server may have had enough before it has seen all.
            let writing = tokio::spawn(async move { requests.write_all(&attack).await.is_ok() });
            let mut text = Vec::new();
            let _ = in_time("the end of a connection", answers.read_to_end(&mut text)).await;
            writing.abort();
            text
        }));
    }
    loop {
        tokio::select! {
            ended = connections.next() => match ended {
                Some(answers) => {
                    // GOAWAY, told to be calm.
                    let goaway = answers.expect("no panic").windows(17).any(|frame| frame[3] == 7 && frame[16] == 11);
                    assert!(goaway, "the server did not mind");
                }
                None => break,
            },
            () = others_are_served(&client) => {}
        }
    }
    let grown = server.memory().saturating_sub(before) / MEBIBYTE;
    assert!(grown < 100, "{grown} MiB");
    others_are_served(&client).await;
}
