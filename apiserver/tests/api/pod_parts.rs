//! The parts of pods that have a subresource of their own, over HTTPS: ephemeral containers and resizes.

use crate::common::{Client, Cluster};
use http::StatusCode;
use serde_json::{Value, json};

const STRATEGIC: &str = "application/strategic-merge-patch+json";
const POD: &str = "/api/v1/namespaces/debugging/pods/web";

async fn make_pod(client: &Client, resources: Value) {
    let namespace = json!({"metadata": {"name": "debugging"}});
    assert_eq!(client.json("POST", "/api/v1/namespaces", &namespace).await.status, StatusCode::CREATED);
    client.with_account("debugging").await;
    let pod = json!({"metadata": {"name": "web"}, "spec": {
        "containers": [{"name": "app", "image": "i:1", "resources": resources}]}});
    let made = client.json("POST", "/api/v1/namespaces/debugging/pods", &pod).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_debugger_is_put_into_a_pod() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    make_pod(&admin, json!({})).await;
    // As `kubectl debug` does.
    let debugger = json!({"name": "debugger", "image": "busybox", "stdin": true, "tty": true, "targetContainerName": "app"});
    let path = format!("{POD}/ephemeralcontainers");
    let patch = json!({"spec": {"ephemeralContainers": [debugger]}});
    let added = admin.patch(&path, STRATEGIC, &patch).await;
    assert_eq!(added.status, StatusCode::OK, "{}", added.body);
    let container = &added.body["spec"]["ephemeralContainers"][0];
    assert_eq!(container["imagePullPolicy"], "Always");
    assert_eq!(added.body["metadata"]["generation"], 2);
    let manager = &added.body["metadata"]["managedFields"];
    assert!(
        manager
            .as_array()
            .is_some_and(|all| all.iter().any(|one| one["subresource"] == "ephemeralcontainers")),
        "{manager}"
    );
    // By the front door it is refused, and what is there stays.
    let front = admin
        .patch(POD, STRATEGIC, &json!({"spec": {"ephemeralContainers": [{"name": "x", "image": "i"}]}}))
        .await;
    assert_eq!(front.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", front.body);
    let mut pod = admin.get(&path).await.expect("an answer").body;
    pod["spec"]["ephemeralContainers"][0]["image"] = json!("other");
    let changed = admin.json("PUT", &path, &pod).await;
    assert_eq!(changed.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        changed.body["message"].as_str().is_some_and(
            |text| text.contains("existing ephemeral containers \"debugger\" may not be changed")
        ),
        "{}",
        changed.body
    );
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_resized_within_its_quota() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    make_pod(&admin, json!({"requests": {"cpu": "100m", "memory": "64Mi"}})).await;
    let quotas = "/api/v1/namespaces/debugging/resourcequotas";
    let quota = json!({"metadata": {"name": "cpu"}, "spec": {"hard": {"requests.cpu": "1"}}});
    assert_eq!(admin.json("POST", quotas, &quota).await.status, StatusCode::CREATED);
    let known = json!({"status": {"hard": {"requests.cpu": "1"}, "used": {"requests.cpu": "100m"}}});
    let written = admin.patch(&format!("{quotas}/cpu/status"), "application/merge-patch+json", &known).await;
    assert_eq!(written.status, StatusCode::OK, "{}", written.body);
    let path = format!("{POD}/resize");
    let of = |cpu: &str| json!({"spec": {"containers": [{"name": "app", "image": "ignored", "resources": {"requests": {"cpu": cpu}}}]}});
    let resized = admin.patch(&path, STRATEGIC, &of("900m")).await;
    assert_eq!(resized.status, StatusCode::OK, "{}", resized.body);
    let container = &resized.body["spec"]["containers"][0];
    assert_eq!(container["resources"]["requests"], json!({"cpu": "900m", "memory": "64Mi"}));
    assert_eq!(container["image"], "i:1");
    assert_eq!(resized.body["metadata"]["generation"], 2);
    let used = admin.get(&format!("{quotas}/cpu")).await.expect("an answer").body;
    assert_eq!(used["status"]["used"]["requests.cpu"], "900m");
    let over = admin.patch(&path, STRATEGIC, &of("1100m")).await;
    assert_eq!(over.status, StatusCode::FORBIDDEN, "{}", over.body);
    let best_effort = admin
        .patch(
            &path,
            STRATEGIC,
            &json!({"spec": {"containers": [{"name": "app", "resources": {"requests": {"cpu": null}}}]}}),
        )
        .await;
    assert_eq!(best_effort.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        best_effort.body["message"]
            .as_str()
            .is_some_and(|text| text.contains("resource requests cannot be removed")),
        "{}",
        best_effort.body
    );
    server.finish().await;
}
