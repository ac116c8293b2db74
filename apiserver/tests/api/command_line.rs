//! What flags of start scripts do to the port and to the requests on it, over HTTPS.

use std::convert::Infallible;

use crate::common::{Cluster, Server, wait_for};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures::StreamExt;
use http::{Request, StatusCode};
use http_body_util::{Empty, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// A connection to the server as `host`, with the administrator's certificate.
async fn connect(
    cluster: &Cluster,
    server: &Server,
    host: &'static str,
    alpn: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    let at = |file: &str| cluster.dir.path().join(file);
    let identity = (at("admin.crt"), at("admin.key"));
    let config = component_base::tls::client_config(
        Some(&at("ca.crt")),
        Some((identity.0.as_path(), identity.1.as_path())),
        alpn,
    );
    let connector = tokio_rustls::TlsConnector::from(config.expect("TLS"));
    let stream = TcpStream::connect(("127.0.0.1", server.port)).await?;
    connector.connect(ServerName::try_from(host).expect("a name"), stream).await
}

/// How many of `requests` one HTTP/2 connection takes before it ends.
async fn answered(cluster: &Cluster, server: &Server, requests: usize) -> usize {
    let stream = connect(cluster, server, "localhost", &["h2"]).await.expect("connects");
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("a handshake");
    tokio::spawn(connection);
    for done in 0..requests {
        if sender.ready().await.is_err() {
            return done;
        }
        let request =
            Request::get("https://localhost/version").body(Empty::<Bytes>::new()).expect("a request");
        match sender.send_request(request).await {
            Ok(answer) => assert_eq!(answer.status(), StatusCode::OK),
            // It ended between the look and the request.
            Err(error) => {
                let unharmed = error.is_closed()
                    || error.is_canceled()
                    || format!("{error:?}").contains("GoAway(b\"\", NO_ERROR");
                assert!(unharmed, "{error:?}");
                return done;
            }
        }
    }
    requests
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_end_by_chance_without_harm_to_requests() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    assert_eq!(answered(&cluster, &server, 300).await, 300);
    server.finish().await;
    let server = cluster.server(&["--goaway-chance=0.02"]).await;
    // That all of them are spared happens once in 10^17 runs.
    let before_the_end = answered(&cluster, &server, 2000).await;
    assert!((1..2000).contains(&before_the_end), "{before_the_end}");
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn late_requests_are_told_to_come_back_while_those_in_work_are_finished() {
    let cluster = Cluster::new();
    let server = cluster.server(&["--shutdown-send-retry-after=true"]).await;
    let stream = connect(&cluster, &server, "localhost", &["http/1.1"]).await.expect("connects");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a handshake");
    tokio::spawn(connection);
    let (body, parts) = futures::channel::mpsc::unbounded::<Bytes>();
    let parts = parts.map(|part| Ok::<_, Infallible>(Frame::data(part)));
    let request = Request::post("/api/v1/namespaces/default/configmaps")
        .header("host", "localhost")
        .header("content-type", "application/json")
        .body(StreamBody::new(parts))
        .expect("a request");
    let working = tokio::spawn(async move { sender.send_request(request).await });
    body.unbounded_send(Bytes::from_static(b"{\"metadata\": {\"name\": ")).expect("is read");
    let admin = cluster.client(&server, Some("admin"));
    wait_for("the request to be in work", || async {
        let text = admin.get("/metrics").await.expect("an answer").bytes;
        String::from_utf8_lossy(&text)
            .contains("apiserver_current_inflight_requests{request_kind=\"mutating\"} 1")
    })
    .await;
    server.stop.cancel();
    wait_for("a refusal", || async {
        let answer = admin.get("/api/v1/namespaces").await.expect("the port is open");
        if answer.status == StatusCode::OK {
            return false;
        }
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(answer.headers["retry-after"], "5");
        assert_eq!(answer.headers["connection"], "close");
        assert_eq!(answer.body, "The apiserver is shutting down, please try again later.\n");
        true
    })
    .await;
    assert_eq!(admin.get("/livez").await.expect("an answer").status, StatusCode::OK);
    assert_eq!(admin.get("/readyz").await.expect("an answer").status, StatusCode::INTERNAL_SERVER_ERROR);
    body.unbounded_send(Bytes::from_static(b"\"late\"}}")).expect("is read");
    drop(body);
    let answer = working.await.expect("no panic").expect("an answer");
    assert_eq!(answer.status(), StatusCode::CREATED);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_that_are_switched_off_are_not_served() {
    let cluster = Cluster::new();
    let server = cluster
        .server(&["--runtime-config=batch/v1=false", "--runtime-config=autoscaling/v1=false,api/all=true"])
        .await;
    let admin = cluster.client(&server, Some("admin"));
    let get = async |path: &str| admin.get(path).await.expect("an answer");
    for path in ["/apis/batch/v1/jobs", "/apis/batch", "/apis/batch/v1", "/openapi/v3/apis/batch/v1"] {
        assert_eq!(get(path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    for path in ["/apis/autoscaling/v2/horizontalpodautoscalers", "/openapi/v3/apis/apps/v1", "/api/v1/pods"]
    {
        assert_eq!(get(path).await.status, StatusCode::OK, "{path}");
    }
    assert_eq!(get("/apis/autoscaling/v1/horizontalpodautoscalers").await.status, StatusCode::NOT_FOUND);
    let groups = get("/apis").await.body;
    let named =
        |group: &str| groups["groups"].as_array().expect("a list").iter().any(|one| one["name"] == group);
    assert!(named("apps") && named("autoscaling") && !named("batch"), "{groups}");
    wait_for("the other versions to be registered", || async {
        get("/apis/apiregistration.k8s.io/v1/apiservices/v1.apps").await.status == StatusCode::OK
    })
    .await;
    let path = "/apis/apiregistration.k8s.io/v1/apiservices/v1.batch";
    assert_eq!(get(path).await.status, StatusCode::NOT_FOUND);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_have_certificates_of_their_own() {
    let cluster = Cluster::new();
    cluster.pki.issue_for("other", "other", &[], &["other.test"]);
    let server = cluster.server(&["--disable-http2-serving=true"]).await;
    let refused = connect(&cluster, &server, "other.test", &["h2", "http/1.1"]).await;
    assert!(refused.is_err(), "the server's own certificate is for localhost");
    let stream = connect(&cluster, &server, "localhost", &["h2", "http/1.1"]).await.expect("connects");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    server.finish().await;
    let at = |file: &str| cluster.dir.path().join(file).display().to_string();
    let pair = format!("--tls-sni-cert-key={},{}", at("other.crt"), at("other.key"));
    let server = cluster.server(&[&pair, "--tls-min-version=VersionTLS13"]).await;
    for host in ["other.test", "localhost"] {
        let stream = connect(&cluster, &server, host, &["h2", "http/1.1"]).await.expect(host);
        let connection = stream.get_ref().1;
        assert_eq!(connection.alpn_protocol(), Some(&b"h2"[..]));
        assert_eq!(connection.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    }
    server.finish().await;
}

fn claims(token: &Value) -> Value {
    let payload = token.as_str().expect("a token").split('.').nth(1).expect("three parts");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).expect("base64")).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_pods_and_tokens_follow_the_flags() {
    let cluster = Cluster::new();
    let flags = [
        "--strict-transport-security-directives=max-age=31536000,includeSubDomains",
        "--default-not-ready-toleration-seconds=20",
        "--default-unreachable-toleration-seconds=30",
        "--disable-admission-plugins=ServiceAccount",
    ];
    let server = cluster.server(&flags).await;
    let admin = cluster.client(&server, Some("admin"));
    let answer = admin.get("/version").await.expect("an answer");
    assert_eq!(answer.headers["strict-transport-security"], "max-age=31536000; includeSubDomains");
    let account = json!({"metadata": {"name": "robot"}});
    let made = admin.json("POST", "/api/v1/namespaces/default/serviceaccounts", &account).await;
    assert_eq!(made.status, StatusCode::CREATED);
    let pod = json!({"metadata": {"name": "p"}, "spec": {"serviceAccountName": "robot",
        "containers": [{"name": "c", "image": "i"}]}});
    let pod = admin.json("POST", "/api/v1/namespaces/default/pods", &pod).await;
    assert_eq!(pod.status, StatusCode::CREATED, "{pod:?}");
    let seconds: Vec<_> = pod.body["spec"]["tolerations"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| one["tolerationSeconds"].clone())
        .collect();
    assert_eq!(seconds, [json!(20), json!(30)]);

    let path = "/api/v1/namespaces/default/serviceaccounts/robot/token";
    let bound = json!({"kind": "Pod", "apiVersion": "v1", "name": "p"});
    let of_pod = json!({"spec": {"expirationSeconds": 3607, "boundObjectRef": bound}});
    // What pods are given is good for a year; whoever reads it again is told to do so after an hour.
    let token = admin.json("POST", path, &of_pod).await.body;
    let found = claims(&token["status"]["token"]);
    let lasts =
        |claims: &Value| claims["exp"].as_i64().zip(claims["iat"].as_i64()).map(|(end, start)| end - start);
    assert_eq!(lasts(&found), Some(365 * 24 * 60 * 60));
    assert_eq!(found["kubernetes.io"]["warnafter"], found["iat"].as_i64().expect("a time") + 3607);
    let token = admin.json("POST", path, &json!({"spec": {"expirationSeconds": 3607}})).await.body;
    assert_eq!(lasts(&claims(&token["status"]["token"])), Some(3607), "it is bound to no pod");
    server.finish().await;

    let server = cluster
        .server(&[
            "--service-account-extend-token-expiration=false",
            "--service-account-max-token-expiration=1h",
            "--disable-admission-plugins=ServiceAccount",
        ])
        .await;
    let admin = cluster.client(&server, Some("admin"));
    let answer = admin.json("POST", path, &of_pod).await;
    assert_eq!(lasts(&claims(&answer.body["status"]["token"])), Some(3600));
    assert_eq!(answer.body["spec"]["expirationSeconds"], 3600);
    let warning = answer.headers["warning"].to_str().expect("a text");
    assert!(warning.contains("requested expiration of 3607 seconds shortened to 3600 seconds"), "{warning}");
    assert!(answer.headers.get("strict-transport-security").is_none());
    server.finish().await;
}
