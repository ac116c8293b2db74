//! Who a request is from and what it may do, over HTTPS.

use crate::common::Cluster;
use http::StatusCode;
use serde_json::json;

const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test(flavor = "multi_thread")]
async fn certificates_tokens_and_nobody_are_told_apart() {
    let cluster = Cluster::new();
    let tokens = cluster.dir.path().join("tokens.csv");
    std::fs::write(&tokens, "secret,root,1,\"system:masters\"\nweak,bob,2\n").expect("write");
    let server = cluster.server(&[&format!("--token-auth-file={}", tokens.display())]).await;
    let status = |client: crate::common::Client| async move { client.get(PODS).await.expect("answer") };
    let anonymous = || cluster.client(&server, None);
    assert_eq!(status(cluster.client(&server, Some("admin"))).await.status, StatusCode::OK);
    assert_eq!(
        status(anonymous().with_header("authorization", "Bearer secret")).await.status,
        StatusCode::OK
    );
    let bob = status(anonymous().with_header("authorization", "Bearer weak")).await;
    assert_eq!(bob.status, StatusCode::FORBIDDEN);
    assert_eq!(
        bob.body["message"],
        "pods is forbidden: User \"bob\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    let wrong = status(anonymous().with_header("authorization", "Bearer wrong")).await;
    assert_eq!((wrong.status, &wrong.body["message"]), (StatusCode::UNAUTHORIZED, &json!("Unauthorized")));
    assert_eq!(status(anonymous()).await.status, StatusCode::FORBIDDEN);
    assert_eq!(status(cluster.client(&server, Some("nobody"))).await.status, StatusCode::FORBIDDEN);
    assert_eq!(anonymous().get("/version").await.expect("answer").status, StatusCode::OK);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_ca_is_unauthorized_and_not_a_broken_connection() {
    let (cluster, other) = (Cluster::new(), tempfile::tempdir().expect("dir"));
    let foreign = crate::common::Pki::new(other.path());
    let (cert, key) = foreign.issue("intruder", "intruder", &["system:masters"]);
    std::fs::copy(cert, cluster.dir.path().join("intruder.crt")).expect("copy");
    std::fs::copy(key, cluster.dir.path().join("intruder.key")).expect("copy");
    let server = cluster.server(&[]).await;
    let answer = cluster.client(&server, Some("intruder")).get(PODS).await.expect("answer");
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn administrators_act_as_others_and_others_do_not() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let as_bob = |identity| cluster.client(&server, Some(identity)).with_header("impersonate-user", "bob");
    let answer = as_bob("admin").get(PODS).await.expect("answer");
    assert!(
        answer.body["message"].as_str().is_some_and(|m| m.contains("User \"bob\" cannot list")),
        "{answer:?}"
    );
    let answer = as_bob("nobody").get(PODS).await.expect("answer");
    assert!(
        answer.body["message"]
            .as_str()
            .is_some_and(|m| m.contains("User \"nobody\" cannot impersonate resource \"users\"")),
        "{answer:?}"
    );
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_requests_under_upstreams_names() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    admin.get(PODS).await.expect("answer");
    let metrics = admin.get("/metrics").await.expect("answer");
    let text = metrics.body.as_str().expect("text");
    for wanted in [
        "apiserver_request_total{verb=\"LIST\",group=\"\",version=\"v1\",resource=\"pods\"",
        "apiserver_request_duration_seconds_bucket{",
        "etcd_request_duration_seconds_bucket{",
        "process_resident_memory_bytes",
    ] {
        assert!(text.contains(wanted), "{wanted} in\n{text}");
    }
    server.finish().await;
}
