//! Custom resources whose versions a webhook converts: every way to read and write them, in every version.

use crate::common::extension::Extension;
use crate::common::{Answer, Client, Cluster, wait_for};
use http::StatusCode;
use serde_json::{Value, json};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const DEFINITION: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/hosts.example.com";
const OLD: &str = "/apis/example.com/v1/namespaces/default/hosts";
const NEW: &str = "/apis/example.com/v2/namespaces/default/hosts";

/// v1 has `hostPort`, v2 has `host` and `port`.
fn definition(stored: &str, client: &Value) -> Value {
    let version = |name: &str, fields: &[&str]| {
        let fields: serde_json::Map<String, Value> =
            fields.iter().map(|field| ((*field).to_owned(), json!({"type": "string"}))).collect();
        json!({"name": name, "served": true, "storage": name == stored,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": fields}}})
    };
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "hosts.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "hosts", "kind": "Host"},
            "versions": [version("v1", &["hostPort"]), version("v2", &["host", "port"])],
            "conversion": {"strategy": "Webhook",
                "webhook": {"clientConfig": client, "conversionReviewVersions": ["v1"]}}}})
}

fn convert(object: &Value, wanted: &Value) -> Value {
    let mut converted = object.clone();
    converted["apiVersion"] = wanted.clone();
    converted["metadata"]["annotations"] = json!({"converted": "yes"});
    let fields = converted.as_object_mut().expect("an object");
    if wanted == "example.com/v2" {
        let both = fields.remove("hostPort").unwrap_or_default();
        let (host, port) = both.as_str().unwrap_or_default().split_once(':').unwrap_or_default();
        fields.extend([("host".to_owned(), host.into()), ("port".to_owned(), port.into())]);
        fields.insert("unknown".to_owned(), 1.into());
    } else {
        let part =
            |value: Option<Value>| value.and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
        let both = format!("{}:{}", part(fields.remove("host")), part(fields.remove("port")));
        fields.insert("hostPort".to_owned(), both.into());
    }
    converted
}

async fn converting(cluster: &Cluster) -> Extension {
    Extension::start(cluster, |seen| {
        let request = &seen.body["request"];
        let objects: Vec<Value> = request["objects"]
            .as_array()
            .expect("objects")
            .iter()
            .map(|object| convert(object, &request["desiredAPIVersion"]))
            .collect();
        let broken = objects.iter().any(|object| object["metadata"]["name"] == "broken");
        let result = match broken {
            true => json!({"status": "Failed", "message": "cannot make sense of it"}),
            false => json!({"status": "Success"}),
        };
        let response = json!({"uid": request["uid"], "convertedObjects": objects, "result": result});
        (200, json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1", "response": response}))
    })
    .await
}

async fn put_definition(admin: &Client, definition: &Value) {
    admin.json("POST", "/api/v1/namespaces", &json!({"metadata": {"name": "default"}})).await;
    let made = admin.json("POST", DEFINITIONS, definition).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    wait_for("the resource is served", || async {
        admin.get(NEW).await.expect("an answer").status == StatusCode::OK
    })
    .await;
}

async fn read(admin: &Client, path: &str) -> Answer {
    let answer = admin.get(path).await.expect("an answer");
    assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.body);
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_read_and_written_in_every_version() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    let hook = converting(&cluster).await;
    put_definition(&admin, &definition("v1", &hook.by_url(&cluster, "/convert"))).await;
    let mut watch = admin.watch(&format!("{NEW}?watch=1&resourceVersion=0")).await;

    let one = json!({"apiVersion": "example.com/v1", "kind": "Host", "metadata": {"name": "one"}, "hostPort": "a:1"});
    let made = admin.json("POST", OLD, &one).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    let two = json!({"apiVersion": "example.com/v2", "kind": "Host", "metadata": {"name": "two"}, "host": "b", "port": "2"});
    let made = admin.json("POST", NEW, &two).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    assert_eq!((&made.body["apiVersion"], &made.body["host"]), (&json!("example.com/v2"), &json!("b")));
    assert_eq!(made.body.get("unknown"), None, "{}", made.body);

    let seen = read(&admin, &format!("{OLD}/two")).await.body;
    assert_eq!(
        (&seen["hostPort"], &seen["metadata"]["annotations"]["converted"]),
        (&json!("b:2"), &json!("yes"))
    );
    assert_eq!(seen["metadata"]["uid"], made.body["metadata"]["uid"]);
    let list = read(&admin, NEW).await.body;
    let hosts: Vec<&Value> =
        list["items"].as_array().expect("items").iter().map(|item| &item["host"]).collect();
    assert_eq!(hosts, [&json!("a"), &json!("b")]);
    assert!(
        list["items"].as_array().expect("items").iter().all(|item| item["apiVersion"] == "example.com/v2")
    );

    let patch = json!({"port": "3"});
    let patched = admin.patch(&format!("{NEW}/one"), "application/merge-patch+json", &patch).await;
    assert_eq!(
        (patched.status, &patched.body["host"], &patched.body["port"]),
        (StatusCode::OK, &json!("a"), &json!("3"))
    );
    assert_eq!(read(&admin, &format!("{OLD}/one")).await.body["hostPort"], "a:3");
    assert_eq!(admin.delete(&format!("{NEW}/two")).await.status, StatusCode::OK);
    let mut events = Vec::new();
    while events.len() < 4 {
        let event = watch.next().await.expect("another event");
        let object = &event["object"];
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        events.push(format!("{} {}:{}", text(&event["type"]), text(&object["host"]), text(&object["port"])));
    }
    assert_eq!(events, ["ADDED a:1", "ADDED b:2", "MODIFIED a:3", "DELETED b:2"]);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_stored_in_another_version_is_converted_too() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    let hook = converting(&cluster).await;
    let client = hook.by_url(&cluster, "/convert");
    put_definition(&admin, &definition("v1", &client)).await;
    let one = json!({"apiVersion": "example.com/v1", "kind": "Host", "metadata": {"name": "one"}, "hostPort": "a:1"});
    assert_eq!(admin.json("POST", OLD, &one).await.status, StatusCode::CREATED);
    let spec = json!({"spec": definition("v2", &client)["spec"]});
    let changed = admin.patch(DEFINITION, "application/merge-patch+json", &spec).await;
    assert_eq!(changed.status, StatusCode::OK, "{}", changed.body);
    assert_eq!(changed.body["status"]["storedVersions"], json!(["v1", "v2"]));
    wait_for("the new version is stored", || async {
        let two = json!({"apiVersion": "example.com/v2", "kind": "Host", "metadata": {"name": "two"}, "host": "b", "port": "2"});
        admin.json("POST", NEW, &two).await;
        let stored = cluster.etcd.etcdctl(&["get", "/registry/example.com/hosts/default/two", "--print-value-only"]);
        if stored.contains("example.com/v2") {
            return true;
        }
        admin.delete(&format!("{NEW}/two")).await;
        false
    })
    .await;
    let list = read(&admin, NEW).await.body;
    let hosts: Vec<&Value> =
        list["items"].as_array().expect("items").iter().map(|item| &item["host"]).collect();
    assert_eq!(hosts, [&json!("a"), &json!("b")], "{list}");
    assert_eq!(read(&admin, &format!("{OLD}/two")).await.body["hostPort"], "b:2");
    assert_eq!(read(&admin, &format!("{NEW}/one")).await.body["port"], "1");
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_fails_is_named_and_spoils_only_what_needs_it() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    let hook = converting(&cluster).await;
    put_definition(&admin, &definition("v1", &hook.by_url(&cluster, "/convert"))).await;
    let broken = json!({"apiVersion": "example.com/v1", "kind": "Host", "metadata": {"name": "broken"}, "hostPort": "a:1"});
    assert_eq!(admin.json("POST", OLD, &broken).await.status, StatusCode::CREATED);
    for path in [NEW.to_owned(), format!("{NEW}/broken")] {
        let refused = admin.get(&path).await.expect("an answer");
        assert_eq!(refused.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(
            (refused.body["message"].as_str(), refused.body.get("reason")),
            (Some("conversion webhook for example.com/v1, Kind=Host failed: cannot make sense of it"), None)
        );
    }
    assert_eq!(read(&admin, OLD).await.body["items"][0]["hostPort"], "a:1");
    let mut wrong = definition("v1", &json!({}));
    wrong["metadata"]["name"] = "pets.example.com".into();
    wrong["spec"]["names"] = json!({"plural": "pets", "kind": "Pet"});
    let refused = admin.json("POST", DEFINITIONS, &wrong).await;
    assert_eq!(
        refused.body["message"],
        "CustomResourceDefinition.apiextensions.k8s.io \"pets.example.com\" is invalid: \
         spec.conversion.webhookClientConfig: Required value: exactly one of url or service is required"
    );
    assert_eq!(admin.delete(DEFINITION).await.status, StatusCode::OK);
    wait_for("the definition is gone", || async {
        admin.get(DEFINITION).await.expect("an answer").status == StatusCode::NOT_FOUND
    })
    .await;
    server.finish().await;
}
