//! The ways through the server to nodes, pods and Services, over HTTPS: the proxy subresource, and logs by WebSocket.

use crate::common::extension::Extension;
use crate::common::{Client, Cluster};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const NODE: &str = "/api/v1/nodes/n";

async fn make_node(client: &Client, port: u16) {
    let node = json!({"metadata": {"name": "n"}});
    assert_eq!(client.json("POST", "/api/v1/nodes", &node).await.status, StatusCode::CREATED);
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}});
    let patched = client.patch(&format!("{NODE}/status"), "application/merge-patch+json", &status).await;
    assert_eq!(patched.status, StatusCode::OK, "{}", patched.body);
}

/// Says what it was asked.
async fn kubelet(cluster: &Cluster) -> Extension {
    Extension::start(cluster, |seen| {
        let header =
            |name: &str| seen.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let said = json!({"method": seen.method, "uri": seen.uri, "body": seen.body,
            "authorization": header("authorization"), "forwarded": header("x-forwarded-uri")});
        (if seen.path() == "/teapot" { 418 } else { 200 }, said)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_are_asked_through_the_server() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    let kubelet = kubelet(&cluster).await;
    make_node(&admin, kubelet.port).await;
    let secret = admin.clone().with_header("authorization", "Basic abc");
    for method in ["DELETE", "GET", "OPTIONS", "PATCH", "POST", "PUT"] {
        let path = format!("{NODE}:{}/proxy/stats/a%20b/?dryRun=x&y=1", kubelet.port);
        let answer = secret.json(method, &path, &json!({"a": 1})).await;
        assert_eq!(answer.status, StatusCode::OK, "{method}: {}", answer.body);
        assert_eq!(answer.body["method"], method);
        assert_eq!(answer.body["uri"], "/stats/a%20b/?dryRun=x&y=1");
        assert_eq!(answer.body["body"], json!({"a": 1}), "{method}");
        assert_eq!(answer.body["authorization"], Value::Null, "credentials stay here");
        assert_eq!(answer.body["forwarded"], path.split('?').next().unwrap_or_default());
    }
    let head = admin.request("HEAD", &format!("{NODE}/proxy/a"), "", "").await.expect("an answer");
    assert_eq!((head.status, head.bytes.len()), (StatusCode::OK, 0));
    let refused = admin.get(&format!("{NODE}/proxy/teapot")).await.expect("an answer");
    assert_eq!((refused.status.as_u16(), &refused.body["uri"]), (418, &json!("/teapot")));
    let moved = admin.get(&format!("{NODE}/proxy?a=b")).await.expect("an answer");
    assert_eq!(moved.status, StatusCode::MOVED_PERMANENTLY);
    assert_eq!(moved.headers["location"], format!("{NODE}/proxy/?a=b"));
    let posted = admin.json("POST", &format!("{NODE}/proxy?a=b"), &json!({})).await;
    assert_eq!(posted.body["uri"], "/?a=b");
    // Whoever is not allowed is not told what is there.
    let nobody = cluster.client(&server, Some("nobody"));
    let answer = nobody.get(&format!("{NODE}/proxy/a")).await.expect("an answer");
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    // Both ways after an upgrade.
    let mut stream = admin.upgrade(&format!("{NODE}/proxy/stream"), "test").await;
    let mut back = [0; 4];
    stream.write_all(b"echo").await.expect("written");
    stream.read_exact(&mut back).await.expect("read");
    assert_eq!(&back, b"echo");
    server.finish().await;
}

async fn make(client: &Client, plural: &str, object: &Value) {
    let path = match plural {
        "namespaces" => "/api/v1/namespaces".to_owned(),
        _ => format!("/api/v1/namespaces/ways/{plural}"),
    };
    let made = client.json("POST", &path, object).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_and_services_say_why_they_cannot_be_reached() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    make(&admin, "namespaces", &json!({"metadata": {"name": "ways"}})).await;
    make(&admin, "serviceaccounts", &json!({"metadata": {"name": "default"}})).await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "i"}]}});
    make(&admin, "pods", &pod).await;
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"name": "web", "port": 80}]}});
    make(&admin, "services", &service).await;
    for (path, code, text) in [
        ("pods/ftp:p:1/proxy/", 400, "invalid pod request \"ftp:p:1\""),
        ("pods/p/proxy/", 400, "address not allowed"),
        ("pods/q/proxy/", 404, "pods \"q\" not found"),
        ("services/s:81/proxy/", 503, "no service port 81 found for service \"s\""),
        ("services/s:web/proxy/", 503, "no endpoints available for service \"s:web\""),
        ("services/s/proxy/", 503, "no endpoints available for service \"s\""),
    ] {
        let answer = admin.get(&format!("/api/v1/namespaces/ways/{path}")).await.expect("an answer");
        assert_eq!((answer.status.as_u16(), &answer.body["message"]), (code, &json!(text)), "{path}");
    }
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_come_by_websocket() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    let kubelet = kubelet(&cluster).await;
    make_node(&admin, kubelet.port).await;
    make(&admin, "namespaces", &json!({"metadata": {"name": "ways"}})).await;
    make(&admin, "serviceaccounts", &json!({"metadata": {"name": "default"}})).await;
    let pod = json!({"metadata": {"name": "p"},
        "spec": {"nodeName": "n", "containers": [{"name": "a", "image": "i"}]}});
    make(&admin, "pods", &pod).await;
    let browser = admin
        .with_header("sec-websocket-version", "13")
        .with_header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .with_header("sec-websocket-protocol", "binary.k8s.io");
    let mut socket = browser.upgrade("/api/v1/namespaces/ways/pods/p/log?container=a", "websocket").await;
    let mut bytes = Vec::new();
    let read = socket.read_to_end(&mut bytes);
    tokio::time::timeout(crate::common::PATIENCE, read).await.expect("in time").expect("read");
    // An empty message, the log, and the end; none is longer than 125 bytes.
    assert_eq!(bytes[..3], [0x82, 0, 0x82], "{bytes:?}");
    let end = 4 + usize::from(bytes[3]);
    let log: Value = serde_json::from_slice(&bytes[4..end]).expect("the log");
    assert_eq!(log["uri"], "/containerLogs/ways/p/a");
    assert_eq!(bytes[end..], [0x88, 2, 3, 0xE8]);
    server.finish().await;
}
