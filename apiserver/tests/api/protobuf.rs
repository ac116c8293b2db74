//! Kubernetes' protobuf form over HTTPS on a real etcd: what typed clients send and get.

use crate::common::{Answer, Client, Cluster, PATIENCE, wait_for};
use apiserver::protobuf::{self, MEDIA_TYPE};
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn default_namespace(client: &Client) {
    client.json("POST", "/api/v1/namespaces", &json!({"metadata": {"name": "default"}})).await;
}

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"mine": "1"}}, "data": {"k": "v"}})
}

fn accepting(client: &Client, accept: &str) -> Client {
    client.clone().with_header("accept", accept)
}

fn content_type(answer: &Answer) -> &str {
    answer.headers["content-type"].to_str().expect("text")
}

/// The object of an answer in protobuf.
fn object(answer: &Answer) -> Value {
    assert_eq!(content_type(answer), MEDIA_TYPE, "{answer:?}");
    protobuf::decode(&answer.bytes, "", "").expect("an object")
}

fn bytes_of(object: &Value) -> Vec<u8> {
    protobuf::encode(object).expect("a protobuf form").envelope
}

/// A stream of frames.
struct Frames {
    body: Incoming,
    pending: BytesMut,
}

impl Frames {
    async fn open(client: &Client, path: &str) -> Self {
        let response = client.send("GET", path, "", Bytes::new()).await.expect("an answer");
        assert_eq!(response.headers()["content-type"], "application/vnd.kubernetes.protobuf;stream=watch");
        Self { body: response.into_body(), pending: BytesMut::new() }
    }

    /// The next event's type and object.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some(length) = self.pending.first_chunk::<4>() {
                let end = 4 + u32::from_be_bytes(*length) as usize;
                if self.pending.len() >= end {
                    return Some(event(&self.pending.split_to(end)[4..]));
                }
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.expect("an event in time")?;
            self.pending.extend_from_slice(frame.expect("a whole watch").data_ref().expect("data"));
        }
    }
}

/// `{1: type, 2: {1: object}}`, each with its length.
fn event(message: &[u8]) -> (String, Value) {
    let field = |bytes: &[u8], tag: u8| -> (Vec<u8>, Vec<u8>) {
        assert_eq!(bytes[0], tag << 3 | 2);
        let (mut length, mut at) = (0, 1);
        loop {
            length |= usize::from(bytes[at] & 0x7f) << (7 * (at - 1));
            at += 1;
            if bytes[at - 1] < 0x80 {
                break;
            }
        }
        (bytes[at..at + length].to_vec(), bytes[at + length..].to_vec())
    };
    let (event_type, rest) = field(message, 1);
    let (raw, rest) = field(&rest, 2);
    assert!(rest.is_empty());
    let (object, rest) = field(&raw, 1);
    assert!(rest.is_empty());
    let object = protobuf::decode(&object, "", "").expect("an object");
    (String::from_utf8(event_type).expect("text"), object)
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_lists_and_errors_come_in_the_bytes_that_upstream_writes() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    let typed = accepting(&admin, "application/vnd.kubernetes.protobuf,application/json");
    default_namespace(&admin).await;

    let created = typed.request("POST", MAPS, MEDIA_TYPE, bytes_of(&map("a"))).await.expect("an answer");
    assert_eq!(created.status, StatusCode::CREATED);
    assert_eq!(object(&created)["data"], json!({"k": "v"}));
    admin.json("POST", MAPS, &map("b")).await;

    for path in [format!("{MAPS}/a"), format!("{MAPS}/a?resourceVersion=0")] {
        let (json, got) = (admin.get(&path).await.expect("json"), typed.get(&path).await.expect("protobuf"));
        assert_eq!(content_type(&got), MEDIA_TYPE);
        assert_eq!(got.bytes, bytes_of(&json.body));
        assert_eq!(object(&got)["metadata"]["managedFields"], json.body["metadata"]["managedFields"]);
    }

    let missing = typed.get(&format!("{MAPS}/none")).await.expect("an answer");
    let status = object(&missing);
    assert_eq!((missing.status, &status["kind"]), (StatusCode::NOT_FOUND, &json!("Status")));
    assert_eq!((&status["reason"], &status["code"]), (&json!("NotFound"), &json!(404)));
    assert_eq!(status["details"], json!({"name": "none", "kind": "configmaps"}));
    let deleted = object(&typed.delete(&format!("{MAPS}/a")).await);
    assert_eq!((&deleted["kind"], &deleted["status"]), (&json!("Status"), &json!("Success")));
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_of_resources_come_and_go_in_protobuf_their_resources_do_not() {
    const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    let typed = accepting(&admin, "application/vnd.kubernetes.protobuf,application/json");
    default_namespace(&admin).await;
    let properties = json!({
        "x": {"type": "integer", "minimum": 0, "default": 1},
        "tags": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
        "any": {"type": "object", "additionalProperties": {"x-kubernetes-preserve-unknown-fields": true}},
    });
    let rules = json!([{"rule": "self.x < 10", "message": "too many"}]);
    let spec = json!({"type": "object", "properties": properties, "x-kubernetes-validations": rules});
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}},
            }],
        },
    });

    let created =
        typed.request("POST", DEFINITIONS, MEDIA_TYPE, bytes_of(&definition)).await.expect("answer");
    assert_eq!(created.status, StatusCode::CREATED, "{created:?}");
    let version = &object(&created)["spec"]["versions"][0];
    assert_eq!(version["schema"]["openAPIV3Schema"]["properties"]["spec"], spec);
    assert_eq!(version["subresources"], json!({"status": {}}));

    let widgets = "/apis/example.com/v1/namespaces/default/widgets";
    wait_for("the widgets are served", || async {
        admin.get(widgets).await.is_ok_and(|got| got.status == 200)
    })
    .await;
    let path = format!("{DEFINITIONS}/widgets.example.com");
    let (json, got) = (admin.get(&path).await.expect("json"), typed.get(&path).await.expect("protobuf"));
    assert_eq!((content_type(&got), &got.bytes[..]), (MEDIA_TYPE, &bytes_of(&json.body)[..]));
    // Pinned, as other objects are written meanwhile.
    let version = json.body["metadata"]["resourceVersion"].as_str().expect("a version");
    let pinned = format!("{DEFINITIONS}?resourceVersion={version}&resourceVersionMatch=Exact");
    let (json, got) = (admin.get(&pinned).await.expect("json"), typed.get(&pinned).await.expect("protobuf"));
    let items = json.body["items"].as_array().map(Vec::len);
    assert_eq!((items, &got.bytes[..]), (Some(1), &bytes_of(&json.body)[..]));

    let widget = |x: i32| json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": format!("w{x}")}, "spec": {"x": x}});
    let refused = admin.json("POST", widgets, &widget(10)).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{refused:?}");
    assert_eq!(admin.json("POST", widgets, &widget(9)).await.status, StatusCode::CREATED);
    let custom = typed.get(&format!("{widgets}/w9")).await.expect("answer");
    assert_eq!(content_type(&custom), "application/json", "custom resources have no protobuf form");
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_has_the_same_items_in_both_forms() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    default_namespace(&admin).await;
    admin.json("POST", MAPS, &map("a")).await;
    let last = admin.json("POST", MAPS, &map("b")).await;
    let version = last.body["metadata"]["resourceVersion"].as_str().expect("version").to_owned();
    for query in ["", "&limit=1"] {
        let path = format!("{MAPS}?resourceVersion={version}&resourceVersionMatch=Exact{query}");
        let json = admin.get(&path).await.expect("json");
        assert_eq!(json.status, StatusCode::OK, "{json:?}");
        let got = accepting(&admin, MEDIA_TYPE).get(&path).await.expect("protobuf");
        assert_eq!(got.bytes, bytes_of(&json.body), "{path}");
        assert_eq!(got.headers["content-length"], got.bytes.len().to_string());
    }
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_are_frames_with_whole_objects_and_bookmarks() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    let typed = accepting(&admin, "application/vnd.kubernetes.protobuf;stream=watch");
    default_namespace(&admin).await;
    admin.json("POST", MAPS, &map("a")).await;
    let query = "watch=1&labelSelector=mine&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = Frames::open(&typed, &format!("{MAPS}?{query}")).await;
    let mut lines = admin.watch(&format!("{MAPS}?{query}")).await;
    for _ in 0..2 {
        let ((event_type, object), line) =
            (watch.next().await.expect("event"), lines.next().await.expect("line"));
        assert_eq!(line["type"], json!(event_type));
        if event_type == "BOOKMARK" {
            assert_eq!(object["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
        } else {
            assert_eq!(object, line["object"]);
        }
    }
    let merge = "application/merge-patch+json";
    admin.patch(&format!("{MAPS}/a"), merge, &json!({"data": {"k": "2"}})).await;
    admin.patch(&format!("{MAPS}/a"), merge, &json!({"metadata": {"labels": null}})).await;
    for wanted in ["MODIFIED", "DELETED"] {
        let ((event_type, object), line) =
            (watch.next().await.expect("event"), lines.next().await.expect("line"));
        assert_eq!((event_type.as_str(), &line["type"], &line["object"]), (wanted, &json!(wanted), &object));
    }
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_comes_in_protobuf_and_tables_do_not() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    default_namespace(&admin).await;
    admin.json("POST", MAPS, &map("a")).await;
    let form = |kind: &str| format!("application/vnd.kubernetes.protobuf;as={kind};g=meta.k8s.io;v=v1");
    let one = accepting(&admin, &form("PartialObjectMetadata"));
    let got = object(&one.get(&format!("{MAPS}/a")).await.expect("an answer"));
    assert_eq!((&got["kind"], &got["metadata"]["name"]), (&json!("PartialObjectMetadata"), &json!("a")));
    assert_eq!(got.get("data"), None);
    let mut watch = Frames::open(&one, &format!("{MAPS}?watch=1&labelSelector=mine")).await;
    let (event_type, event) = watch.next().await.expect("event");
    assert_eq!((event_type.as_str(), &event), ("ADDED", &got));

    let all = accepting(&admin, &form("PartialObjectMetadataList"));
    let list = all.get(&format!("{MAPS}?labelSelector=mine")).await.expect("an answer");
    let name = b"PartialObjectMetadataList";
    assert!(list.bytes.windows(name.len()).any(|window| window == name), "{list:?}");

    let table = accepting(&admin, &form("Table")).get(MAPS).await.expect("an answer");
    assert_eq!((table.status, content_type(&table)), (StatusCode::NOT_ACCEPTABLE, "application/json"));
    let accept = format!("{},application/json;as=Table;g=meta.k8s.io;v=v1", form("Table"));
    let table = accepting(&admin, &accept).get(MAPS).await.expect("an answer");
    assert_eq!((table.status, &table.body["kind"]), (StatusCode::OK, &json!("Table")));
    server.finish().await;
}
