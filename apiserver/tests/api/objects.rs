//! Objects over HTTPS on a real etcd: every verb, with the answers clients depend on.

use crate::common::{Cluster, Etcd};
use http::StatusCode;
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const MERGE: &str = "application/merge-patch+json";

fn map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": {"k": value}})
}

/// Bootstrap may make the namespace too; either way it is there afterwards.
async fn default_namespace(client: &crate::common::Client) {
    let answer = client.json("POST", "/api/v1/namespaces", &json!({"metadata": {"name": "default"}})).await;
    assert!(matches!(answer.status, StatusCode::CREATED | StatusCode::CONFLICT), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_lives_from_create_to_delete() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    default_namespace(&admin).await;

    let created = admin.json("POST", MAPS, &map("a", "1")).await;
    assert_eq!(created.status, StatusCode::CREATED);
    let version = created.body["metadata"]["resourceVersion"].clone();
    assert!(created.body["metadata"]["uid"].is_string() && version.is_string());
    let again = admin.json("POST", MAPS, &map("a", "1")).await;
    assert_eq!(
        (again.status, &again.body["message"]),
        (StatusCode::CONFLICT, &json!("configmaps \"a\" already exists"))
    );

    let mut stale = created.body.clone();
    let patched = admin.patch(&format!("{MAPS}/a"), MERGE, &json!({"data": {"k": "2"}})).await;
    assert_eq!((patched.status, &patched.body["data"]["k"]), (StatusCode::OK, &json!("2")));
    assert_eq!(patched.body["metadata"]["uid"], created.body["metadata"]["uid"]);
    stale["data"]["k"] = json!("3");
    let lost = admin.json("PUT", &format!("{MAPS}/a"), &stale).await;
    assert_eq!(lost.status, StatusCode::CONFLICT);
    assert_eq!(
        lost.body["message"],
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to the latest version and try again"
    );

    let same = admin.patch(&format!("{MAPS}/a"), MERGE, &json!({"data": {"k": "2"}})).await;
    assert_eq!(
        same.body["metadata"]["resourceVersion"], patched.body["metadata"]["resourceVersion"],
        "a change of nothing is not written"
    );

    let stored: Value = serde_json::from_str(&cluster.etcd.etcdctl(&[
        "get",
        "--print-value-only",
        "/registry/configmaps/default/a",
    ]))
    .expect("JSON in the store");
    assert_eq!((&stored["data"]["k"], stored["metadata"].get("resourceVersion")), (&json!("2"), None));

    let dry = admin.delete(&format!("{MAPS}/a?dryRun=All")).await;
    assert_eq!(dry.status, StatusCode::OK);
    let wrong = admin
        .json(
            "DELETE",
            &format!("{MAPS}/a"),
            &json!({"kind": "DeleteOptions", "preconditions": {"uid": "other"}}),
        )
        .await;
    assert_eq!(wrong.status, StatusCode::CONFLICT);
    let deleted = admin.delete(&format!("{MAPS}/a")).await;
    assert_eq!((deleted.status, &deleted.body["status"]), (StatusCode::OK, &json!("Success")));
    assert_eq!(deleted.body["details"]["uid"], created.body["metadata"]["uid"]);
    let gone = admin.get(&format!("{MAPS}/a")).await.expect("answer");
    assert_eq!(
        (gone.status, &gone.body["message"]),
        (StatusCode::NOT_FOUND, &json!("configmaps \"a\" not found"))
    );
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn finalizers_hold_a_deleted_object_until_they_are_gone() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    default_namespace(&admin).await;
    let mut held = map("held", "1");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    admin.json("POST", MAPS, &held).await;
    let pending = admin.delete(&format!("{MAPS}/held")).await;
    assert_eq!(pending.status, StatusCode::OK);
    assert!(pending.body["metadata"]["deletionTimestamp"].is_string(), "{:?}", pending.body);
    assert_eq!(admin.get(&format!("{MAPS}/held")).await.expect("answer").status, StatusCode::OK);
    admin.patch(&format!("{MAPS}/held"), MERGE, &json!({"metadata": {"finalizers": null}})).await;
    assert_eq!(admin.get(&format!("{MAPS}/held")).await.expect("answer").status, StatusCode::NOT_FOUND);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_show_one_state_although_objects_change_meanwhile() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    default_namespace(&admin).await;
    for n in 0..7 {
        assert_eq!(admin.json("POST", MAPS, &map(&format!("m{n}"), "1")).await.status, StatusCode::CREATED);
    }
    let selector = "labelSelector=!none&";
    let first = admin.get(&format!("{MAPS}?limit=3")).await.expect("answer").body;
    let version = first["metadata"]["resourceVersion"].clone();
    assert!(first["metadata"]["remainingItemCount"].as_i64() >= Some(4));
    admin.delete(&format!("{MAPS}/m5")).await;
    let mut names: Vec<String> = Vec::new();
    let mut page = first;
    loop {
        names.extend(
            page["items"]
                .as_array()
                .expect("items")
                .iter()
                .map(|i| i["metadata"]["name"].as_str().expect("name").to_owned()),
        );
        assert_eq!(page["metadata"]["resourceVersion"], version);
        let Some(token) = page["metadata"]["continue"].as_str().filter(|token| !token.is_empty()) else {
            break;
        };
        page = admin.get(&format!("{MAPS}?limit=3&continue={token}")).await.expect("answer").body;
    }
    names.retain(|name| name.starts_with('m'));
    assert_eq!(names, ["m0", "m1", "m2", "m3", "m4", "m5", "m6"]);
    let now = admin.get(&format!("{MAPS}?{selector}limit=500")).await.expect("answer").body;
    assert!(now["items"].as_array().expect("items").iter().all(|item| item["metadata"]["name"] != "m5"));
    let future = admin
        .get(&format!("{MAPS}?resourceVersion=999999&resourceVersionMatch=NotOlderThan"))
        .await
        .expect("answer");
    assert_eq!(future.status, StatusCode::GATEWAY_TIMEOUT);
    let invalid = admin.get(&format!("{MAPS}?resourceVersionMatch=Exact")).await.expect("answer");
    assert_eq!(invalid.status, StatusCode::UNPROCESSABLE_ENTITY);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_through_one_server_is_read_through_the_other_at_once() {
    let cluster = Cluster::new();
    let (one, other) = (cluster.server(&[]).await, cluster.server(&[]).await);
    let (writer, reader) = (cluster.client(&one, Some("admin")), cluster.client(&other, Some("admin")));
    default_namespace(&writer).await;
    for n in 0..20 {
        writer.json("POST", MAPS, &map(&format!("w{n}"), "1")).await;
        let list = reader.get(&format!("{MAPS}?fieldSelector=metadata.name=w{n}")).await.expect("answer");
        assert_eq!(list.body["items"].as_array().map(Vec::len), Some(1), "w{n}");
        let changed = reader.patch(&format!("{MAPS}/w{n}"), MERGE, &json!({"data": {"k": "2"}})).await;
        assert_eq!(changed.status, StatusCode::OK);
    }
    one.finish().await;
    other.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_sent_as_protobuf_is_stored_like_one_sent_as_json() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    default_namespace(&admin).await;
    let object = "k8s\0\n\x0f\n\x02v1\x12\tConfigMap\x12\x0e\n\x04\n\x02pb\x12\x06\n\x01a\x12\x01b";
    let created =
        admin.request("POST", MAPS, "application/vnd.kubernetes.protobuf", object).await.expect("answer");
    assert_eq!((created.status, &created.body["data"]), (StatusCode::CREATED, &json!({"a": "b"})));
    let stored = admin.get(&format!("{MAPS}/pb")).await.expect("answer");
    assert_eq!((stored.status, &stored.body["kind"]), (StatusCode::OK, &json!("ConfigMap")));
    // DeleteOptions whose precondition names another object.
    let options = "k8s\0\n\x13\n\x02v1\x12\rDeleteOptions\x12\x07\x12\x05\n\x03old";
    let path = format!("{MAPS}/pb");
    let refused =
        admin.request("DELETE", &path, "application/vnd.kubernetes.protobuf", options).await.expect("answer");
    assert_eq!(refused.status, StatusCode::CONFLICT);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_bodies_get_clear_answers() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    default_namespace(&admin).await;
    let broken = admin.request("POST", MAPS, "application/json", "{").await.expect("answer");
    assert_eq!(broken.status, StatusCode::BAD_REQUEST);
    let large = admin.json("POST", MAPS, &map("big", &"x".repeat(4 << 20))).await;
    assert_eq!(
        (large.status, &large.body["message"]),
        (StatusCode::PAYLOAD_TOO_LARGE, &json!("Request entity too large: limit is 3145728"))
    );
    let protobuf =
        admin.request("POST", MAPS, "application/vnd.kubernetes.protobuf", "k8s").await.expect("answer");
    assert_eq!(protobuf.status, StatusCode::BAD_REQUEST);
    let text = admin.request("POST", MAPS, "text/plain", "{}").await.expect("answer");
    assert_eq!(text.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let mut unknown = map("u", "1");
    unknown["foo"] = json!(1);
    let strict = admin.json("POST", &format!("{MAPS}?fieldValidation=Strict"), &unknown).await;
    assert_eq!(strict.status, StatusCode::BAD_REQUEST);
    assert!(
        strict.body["message"].as_str().is_some_and(|m| m.contains("unknown field \"foo\"")),
        "{strict:?}"
    );
    let warned = admin.json("POST", MAPS, &unknown).await;
    assert_eq!(warned.status, StatusCode::CREATED);
    assert_eq!(warned.headers["warning"], "299 - \"unknown field \\\"foo\\\"\"");
    assert_eq!(warned.body.get("foo"), None);
    let yaml = admin
        .request("POST", MAPS, "application/yaml", "metadata: {name: y}\ndata: {a: b}\n")
        .await
        .expect("answer");
    assert_eq!(yaml.status, StatusCode::CREATED);
    let nowhere = admin.get("/api/v1/unicorns").await.expect("answer");
    assert_eq!((nowhere.status, &nowhere.body), (StatusCode::NOT_FOUND, &json!("404 page not found\n")));
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_range_of_cluster_ips_is_an_object_that_is_ready() {
    const RANGE: &str = "/apis/networking.k8s.io/v1/servicecidrs/kubernetes";
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    crate::common::wait_for("the default range is ready", || async {
        let found = admin.get(RANGE).await;
        found.is_ok_and(|answer| answer.body["status"]["conditions"][0]["status"] == "True")
    })
    .await;
    let range = admin.get(&format!("{RANGE}/status")).await.expect("answer").body;
    assert_eq!(range["kind"], "ServiceCIDR");
    assert_eq!(range["status"]["conditions"][0]["message"], "Kubernetes default Service CIDR is ready");
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_dies_and_comes_back_loses_nothing() {
    let mut cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    default_namespace(&admin).await;
    admin.json("POST", MAPS, &map("before", "1")).await;
    let mut watch = admin.watch(&format!("{MAPS}?watch=1&fieldSelector=metadata.name=after")).await;
    Etcd::kill(&mut cluster.etcd);
    let writer = admin.clone();
    let waiting = tokio::spawn(async move { writer.json("POST", MAPS, &map("after", "1")).await });
    cluster.etcd.restart();
    let answer = waiting.await.expect("no panic");
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    assert_eq!(watch.brief().await, "ADDED after", "the watch goes on");
    let list = admin.get(MAPS).await.expect("answer");
    let names: Vec<&str> = list.body["items"]
        .as_array()
        .expect("items")
        .iter()
        .filter_map(|i| i["metadata"]["name"].as_str())
        .collect();
    assert!(names.contains(&"before") && names.contains(&"after"), "{names:?}");
    server.finish().await;
}
