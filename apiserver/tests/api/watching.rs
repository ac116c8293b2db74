//! Watches over HTTPS on a real etcd.

use crate::common::{Client, Cluster};
use http::StatusCode;
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const MERGE: &str = "application/merge-patch+json";

async fn create(client: &Client, name: &str, labels: Value) -> String {
    client.json("POST", "/api/v1/namespaces", &json!({"metadata": {"name": "default"}})).await;
    let body = json!({"metadata": {"name": name, "labels": labels}});
    let created = client.json("POST", MAPS, &body).await;
    assert_eq!(created.status, StatusCode::CREATED, "{created:?}");
    created.body["metadata"]["resourceVersion"].as_str().expect("version").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_in_order_and_a_watch_resumes_where_it_was() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    let version = create(&admin, "a", json!({})).await;
    let mut watch = admin.watch(&format!("{MAPS}?watch=1&resourceVersion={version}")).await;
    create(&admin, "b", json!({})).await;
    admin.patch(&format!("{MAPS}/a"), MERGE, &json!({"data": {"k": "v"}})).await;
    admin.delete(&format!("{MAPS}/b")).await;
    for wanted in ["ADDED b", "MODIFIED a", "DELETED b"] {
        assert_eq!(watch.brief().await, wanted);
    }
    let mut again =
        admin.watch(&format!("/api/v1/watch/namespaces/default/configmaps?resourceVersion={version}")).await;
    assert_eq!(again.brief().await, "ADDED b");
    let old = admin.get(&format!("{MAPS}?watch=1&resourceVersion=0&timeoutSeconds=1")).await.expect("answer");
    assert_eq!(old.status, StatusCode::OK, "0 is whatever there is");
    server.finish().await;
    let mut last = None;
    while let Some(event) = watch.next().await {
        last = Some(event);
    }
    assert_eq!(last, None, "shutdown ends watches without an error");
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_that_come_to_match_are_added_and_those_that_cease_to_are_deleted() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    let version = create(&admin, "x", json!({"app": "web"})).await;
    let mut watch =
        admin.watch(&format!("{MAPS}?watch=1&labelSelector=app%3Dweb&resourceVersion={version}")).await;
    let label = |value: Value| json!({"metadata": {"labels": {"app": value}}});
    let changed = admin.patch(&format!("{MAPS}/x"), MERGE, &label(json!("db"))).await;
    let gone = watch.next().await.expect("event");
    assert_eq!(
        (&gone["type"], &gone["object"]["metadata"]["labels"]["app"]),
        (&json!("DELETED"), &json!("web"))
    );
    assert_eq!(
        gone["object"]["metadata"]["resourceVersion"], changed.body["metadata"]["resourceVersion"],
        "the last state that matched, at the revision of the change"
    );
    admin.patch(&format!("{MAPS}/x"), MERGE, &label(json!("web"))).await;
    assert_eq!(watch.brief().await, "ADDED x");
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_streamed_list_ends_with_a_bookmark_and_goes_on() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    create(&admin, "only", json!({"mine": "1"})).await;
    let query = "watch=1&labelSelector=mine&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=2";
    let mut watch = admin.watch(&format!("{MAPS}?{query}")).await;
    assert_eq!(watch.brief().await, "ADDED only");
    let end = watch.next().await.expect("bookmark");
    assert_eq!(end["type"], "BOOKMARK");
    assert_eq!(end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let later = create(&admin, "later", json!({"mine": "1"})).await;
    assert_eq!(watch.brief().await, "ADDED later");
    let last = watch.next().await.expect("a bookmark at the timeout");
    assert_eq!(last["type"], "BOOKMARK");
    // The server's own objects may have been written since.
    let number = |version: &str| version.parse::<u64>().expect("a number");
    let reached = last["object"]["metadata"]["resourceVersion"].as_str().expect("resourceVersion");
    assert!(number(reached) >= number(&later), "{reached} {later}");
    assert_eq!(watch.next().await, None);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_before_the_last_round_of_compaction_is_gone_with_the_server_that_knew_it() {
    let cluster = Cluster::new();
    let first = cluster.server(&[]).await;
    let admin = cluster.client(&first, Some("admin"));
    let version = create(&admin, "a", json!({})).await;
    let announced = create(&admin, "b", json!({})).await;
    cluster.etcd.etcdctl(&["put", "compact_rev_key", &announced]);
    first.finish().await;
    let second = cluster.server(&[]).await;
    let admin = cluster.client(&second, Some("admin"));
    // Told by an event, as upstream does it: clients take a refused request for a passing failure and would ask the same again.
    let mut watch = admin.watch(&format!("{MAPS}?watch=1&resourceVersion={version}")).await;
    let event = watch.next().await.expect("an event");
    let status = &event["object"];
    assert_eq!(
        (&event["type"], &status["code"], &status["reason"]),
        (&json!("ERROR"), &json!(410), &json!("Expired"))
    );
    assert!(status["message"].as_str().is_some_and(|m| m.starts_with("too old resource version: ")));
    assert_eq!(watch.next().await, None);
    second.finish().await;
}
