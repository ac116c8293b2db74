//! Patches and server-side apply over HTTPS on a real etcd.

use crate::common::{Answer, Client, Cluster};
use http::StatusCode;
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn apply(client: &Client, manager: &str, extra: &str, data: Value) -> Answer {
    client.json("POST", "/api/v1/namespaces", &json!({"metadata": {"name": "default"}})).await;
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data});
    client
        .patch(&format!("{MAPS}/a?fieldManager={manager}{extra}"), "application/apply-patch+yaml", &body)
        .await
}

fn managers(object: &Value) -> Vec<(&str, &str)> {
    object["metadata"]["managedFields"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|entry| {
            (entry["manager"].as_str().unwrap_or_default(), entry["operation"].as_str().unwrap_or_default())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_creates_shares_conflicts_and_takes_over() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    let created = apply(&admin, "one", "", json!({"k": "1"})).await;
    assert_eq!(created.status, StatusCode::CREATED, "{created:?}");
    assert_eq!(managers(&created.body), [("one", "Apply")]);
    let same = apply(&admin, "one", "", json!({"k": "1"})).await;
    assert_eq!(same.status, StatusCode::OK);
    assert_eq!(same.body, created.body, "nothing changes, nothing is written");
    let conflict = apply(&admin, "two", "", json!({"k": "2"})).await;
    assert_eq!((conflict.status, &conflict.body["reason"]), (StatusCode::CONFLICT, &json!("Conflict")));
    assert_eq!(conflict.body["details"]["causes"][0]["field"], ".data.k");
    let forced = apply(&admin, "two", "&force=true", json!({"k": "2"})).await;
    assert_eq!((forced.status, &forced.body["data"]["k"]), (StatusCode::OK, &json!("2")));
    assert!(managers(&forced.body).contains(&("two", "Apply")));
    let removed = apply(&admin, "two", "", json!({})).await;
    assert_eq!(removed.body["data"].get("k"), None, "what nobody else owns goes");
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn managers_of_other_writes_come_from_the_user_agent() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    admin.json("POST", "/api/v1/namespaces", &json!({"metadata": {"name": "default"}})).await;
    let created = admin.json("POST", MAPS, &json!({"metadata": {"name": "b"}, "data": {"k": "v"}})).await;
    assert_eq!(managers(&created.body), [("test", "Update")]);
    let ops = json!([{"op": "test", "path": "/data/k", "value": "v"}, {"op": "replace", "path": "/data/k", "value": "w"}]);
    let patched =
        admin.patch(&format!("{MAPS}/b?fieldManager=other"), "application/json-patch+json", &ops).await;
    assert_eq!(patched.body["data"]["k"], "w");
    assert!(managers(&patched.body).contains(&("other", "Update")), "{patched:?}");
    let failed = admin.patch(&format!("{MAPS}/b"), "application/json-patch+json", &ops).await;
    assert_eq!(failed.status, StatusCode::UNPROCESSABLE_ENTITY);
    let unnamed = admin.patch(&format!("{MAPS}/b"), "application/apply-patch+yaml", &json!({})).await;
    assert_eq!(unnamed.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(unnamed.body["message"].as_str().is_some_and(|m| m.contains("fieldManager: Required value")));
    let unknown = admin.patch(&format!("{MAPS}/b"), "text/plain", &json!({})).await;
    assert_eq!(unknown.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    server.finish().await;
}
