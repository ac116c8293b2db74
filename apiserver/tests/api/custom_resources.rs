//! CustomResourceDefinitions and custom resources over HTTPS on a real etcd.

use crate::common::{Answer, Client, Cluster, wait_for};
use http::StatusCode;
use serde_json::{Value, json};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const CATS: &str = "/apis/example.com/v1/namespaces/default/cats";

fn definition(plural: &str, kind: &str, versions: Value) -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.example.com")},
        "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind, "shortNames": [format!("{}x", &plural[..2])], "categories": ["all"]},
            "versions": versions}})
}

fn cats() -> Value {
    let version = json!({"name": "v1", "served": true, "storage": true,
        "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"}},
        "additionalPrinterColumns": [
            {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"},
            {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status", "priority": 1}],
        "selectableFields": [{"jsonPath": ".spec.color"}],
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {
            "spec": {"type": "object", "required": ["color"], "description": "What the cat is to be.", "properties": {
                "color": {"type": "string", "enum": ["red", "black"]},
                "replicas": {"type": "integer", "default": 1, "maximum": 10},
                "toys": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                    "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "size": {"type": "integer"}}}},
                "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}},
            "status": {"type": "object", "properties": {
                "replicas": {"type": "integer"}, "selector": {"type": "string"},
                "conditions": {"type": "array", "items": {"type": "object", "properties": {"type": {"type": "string"}, "status": {"type": "string"}}}}}}}}}});
    definition("cats", "Cat", json!([version]))
}

fn cat(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Cat", "metadata": {"name": name}, "spec": spec})
}

fn is(definition: &Value, condition: &str) -> bool {
    coracle_api::custom::condition(definition, condition)
}

async fn establish(admin: &Client, definition: &Value) -> Answer {
    admin.json("POST", "/api/v1/namespaces", &json!({"metadata": {"name": "default"}})).await;
    let created = admin.json("POST", DEFINITIONS, definition).await;
    assert_eq!(created.status, StatusCode::CREATED, "{created:?}");
    let path = format!("{DEFINITIONS}/{}", definition["metadata"]["name"].as_str().expect("a name"));
    let mut watch = admin
        .watch(&format!(
            "{DEFINITIONS}?watch=1&fieldSelector=metadata.name={}",
            definition["metadata"]["name"].as_str().expect("a name")
        ))
        .await;
    loop {
        let event = watch.next().await.expect("another event");
        if is(&event["object"], "Established") {
            break;
        }
    }
    admin.get(&path).await.expect("an answer")
}

fn message(answer: &Answer) -> &str {
    answer.body["message"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_is_established_and_serves_all_verbs_at_once() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    let established = establish(&admin, &cats()).await;
    assert_eq!(established.body["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(established.body["status"]["acceptedNames"]["listKind"], "CatList");
    let created = admin.json("POST", CATS, &cat("tom", json!({"color": "red", "odd": 1}))).await;
    assert_eq!(created.status, StatusCode::CREATED, "the moment it is established: {created:?}");
    assert_eq!(created.body["spec"], json!({"color": "red", "replicas": 1}), "pruned and with defaults");
    assert_eq!(created.body["metadata"]["generation"], 1);
    assert!(
        created.headers["warning"].to_str().is_ok_and(|text| text.contains("unknown field \\\"spec.odd\\\""))
    );
    let stored =
        cluster.etcd.etcdctl(&["get", "--print-value-only", "/registry/example.com/cats/default/tom"]);
    assert_eq!(serde_json::from_str::<Value>(&stored).expect("JSON")["kind"], "Cat");
    let mut watch = admin.watch(&format!("{CATS}?watch=1")).await;
    assert_eq!(watch.brief().await, "ADDED tom");

    let merge = "application/merge-patch+json";
    let patched = admin.patch(&format!("{CATS}/tom"), merge, &json!({"spec": {"replicas": 2}})).await;
    assert_eq!((patched.status, &patched.body["metadata"]["generation"]), (StatusCode::OK, &json!(2)));
    assert_eq!(watch.brief().await, "MODIFIED tom");
    let ops = json!([{"op": "replace", "path": "/spec/color", "value": "black"}]);
    let patched = admin.patch(&format!("{CATS}/tom"), "application/json-patch+json", &ops).await;
    assert_eq!(patched.body["spec"]["color"], "black");
    let strategic =
        admin.patch(&format!("{CATS}/tom"), "application/strategic-merge-patch+json", &json!({})).await;
    assert_eq!(strategic.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert!(message(&strategic).contains("application/apply-patch+yaml"), "{strategic:?}");

    let status = json!({"status": {"replicas": 2, "selector": "a=b"}, "spec": {"color": "red"}});
    let patched = admin.patch(&format!("{CATS}/tom/status"), merge, &status).await;
    assert_eq!(patched.body["spec"]["color"], "black", "the status alone changes");
    assert_eq!(patched.body["metadata"]["generation"], 3);
    let scale = admin.get(&format!("{CATS}/tom/scale")).await.expect("an answer").body;
    assert_eq!(
        (&scale["spec"]["replicas"], &scale["status"]),
        (&json!(2), &json!({"replicas": 2, "selector": "a=b"}))
    );
    let scaled = admin.patch(&format!("{CATS}/tom/scale"), merge, &json!({"spec": {"replicas": 5}})).await;
    assert_eq!(scaled.body["spec"]["replicas"], 5, "{scaled:?}");

    let table = admin.clone().with_header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
    let table = table.get(CATS).await.expect("an answer").body;
    assert_eq!(table["columnDefinitions"][1]["name"], "Replicas");
    assert_eq!(table["rows"][0]["cells"], json!(["tom", 5, null]));
    let list = admin.get(&format!("{CATS}?fieldSelector=spec.color=black")).await.expect("an answer").body;
    assert_eq!((&list["kind"], list["items"].as_array().map(Vec::len)), (&json!("CatList"), Some(1)));
    let none = admin.get(&format!("{CATS}?fieldSelector=spec.color=red")).await.expect("an answer").body;
    assert_eq!(none["items"], json!([]));
    let wrong = admin.get(&format!("{CATS}?fieldSelector=spec.other=red")).await.expect("an answer");
    assert_eq!(
        (wrong.status, message(&wrong)),
        (StatusCode::BAD_REQUEST, "field label not supported: spec.other")
    );
    let gone = admin.delete(&format!("{CATS}/tom")).await;
    assert_eq!(gone.body["status"], "Success");
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_schema_refuses_is_named_and_field_validation_is_heeded() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    establish(&admin, &cats()).await;
    let refused = admin.json("POST", CATS, &cat("tom", json!({"color": "green", "replicas": 11}))).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        message(&refused),
        "Cat.example.com \"tom\" is invalid: [spec.color: Unsupported value: \"green\": supported values: \"red\", \"black\", spec.replicas: Invalid value: 11: spec.replicas in body should be less than or equal to 10]"
    );
    let strict = format!("{CATS}?fieldValidation=Strict");
    let refused = admin.json("POST", &strict, &cat("tom", json!({"color": "red", "odd": 1}))).await;
    assert_eq!(
        (refused.status, message(&refused)),
        (
            StatusCode::BAD_REQUEST,
            "Cat in version \"v1\" cannot be handled as a Cat: strict decoding error: unknown field \"spec.odd\""
        )
    );
    let ignored = admin
        .json(
            "POST",
            &format!("{CATS}?fieldValidation=Ignore"),
            &cat("tom", json!({"color": "red", "odd": 1, "any": {"x": 1}})),
        )
        .await;
    assert_eq!(ignored.body["spec"]["any"], json!({"x": 1}), "{ignored:?}");
    assert!(!ignored.headers.contains_key("warning"));
    let mut unstated = cat("tom", json!({"color": "black"}));
    let unlocked = admin.json("PUT", &format!("{CATS}/tom"), &unstated).await;
    assert!(message(&unlocked).contains("must be specified for an update"), "{unlocked:?}");
    unstated["metadata"]["resourceVersion"] = ignored.body["metadata"]["resourceVersion"].clone();
    assert_eq!(admin.json("PUT", &format!("{CATS}/tom"), &unstated).await.status, StatusCode::OK);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn apply_merges_lists_by_the_keys_of_the_schema() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    establish(&admin, &cats()).await;
    let apply = async |manager: &str, spec: Value| {
        let path = format!("{CATS}/tom?fieldManager={manager}");
        admin.patch(&path, "application/apply-patch+yaml", &cat("tom", spec)).await
    };
    let made = apply("one", json!({"color": "red", "toys": [{"name": "ball", "size": 1}]})).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let joined = apply("two", json!({"toys": [{"name": "mouse", "size": 2}]})).await;
    assert_eq!(
        joined.body["spec"]["toys"],
        json!([{"name": "ball", "size": 1}, {"name": "mouse", "size": 2}]),
        "{joined:?}"
    );
    let conflict = apply("two", json!({"color": "black"})).await;
    assert_eq!(
        (conflict.status, &conflict.body["details"]["causes"][0]["field"]),
        (StatusCode::CONFLICT, &json!(".spec.color"))
    );
    let left = apply("one", json!({"color": "red"})).await;
    assert_eq!(left.body["spec"]["toys"], json!([{"name": "mouse", "size": 2}]));
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_and_openapi_follow_the_definitions() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    let before = admin.get("/openapi/v3").await.expect("an answer").body;
    assert!(before["paths"].get("apis/example.com/v1").is_none());
    establish(&admin, &cats()).await;
    let resources = admin.get("/apis/example.com/v1").await.expect("an answer").body["resources"].clone();
    let names: Vec<&str> =
        resources.as_array().into_iter().flatten().filter_map(|r| r["name"].as_str()).collect();
    assert_eq!(names, ["cats", "cats/status", "cats/scale"]);
    assert_eq!(resources[0]["shortNames"], json!(["cax"]));
    let groups = admin.get("/apis").await.expect("an answer").body["groups"].to_string();
    assert!(groups.contains("example.com/v1"));
    let aggregated = admin
        .clone()
        .with_header("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
    assert!(aggregated.get("/apis").await.expect("an answer").body.to_string().contains("\"Cat\""));
    let index = admin.get("/openapi/v3").await.expect("an answer").body;
    let url = index["paths"]["apis/example.com/v1"]["serverRelativeURL"].as_str().expect("is listed");
    let document = admin.get(url).await.expect("an answer").body;
    let schema = &document["components"]["schemas"]["com.example.v1.Cat"];
    assert_eq!(schema["properties"]["spec"]["description"], "What the cat is to be.");
    assert_eq!(schema["x-kubernetes-group-version-kind"][0]["kind"], "Cat");
    assert!(
        schema["properties"]["metadata"]["allOf"][0]["$ref"]
            .as_str()
            .is_some_and(|target| target.ends_with("ObjectMeta"))
    );
    let v2 = admin.get("/openapi/v2").await.expect("an answer").body;
    assert!(v2["definitions"].get("com.example.v1.Cat").is_some());
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_definition_takes_its_objects_with_it() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    establish(&admin, &cats()).await;
    let mut held = cat("tom", json!({"color": "red"}));
    held["metadata"]["finalizers"] = json!(["example.com/wait"]);
    admin.json("POST", CATS, &held).await;
    admin.json("POST", CATS, &cat("kitty", json!({"color": "red"}))).await;
    let path = format!("{DEFINITIONS}/cats.example.com");
    let deleted = admin.delete(&path).await;
    assert_eq!(
        deleted.body["metadata"]["finalizers"],
        json!(["customresourcecleanup.apiextensions.k8s.io"]),
        "{deleted:?}"
    );
    assert!(is(&deleted.body, "Terminating"));
    wait_for("the deletion of the objects", || async {
        let left = admin.get(CATS).await.expect("an answer").body;
        let items = left["items"].as_array().expect("a list").clone();
        items.len() == 1 && items[0]["metadata"]["deletionTimestamp"].is_string()
    })
    .await;
    let late = admin.json("POST", CATS, &cat("late", json!({"color": "red"}))).await;
    assert_eq!(
        (late.status, message(&late)),
        (
            StatusCode::METHOD_NOT_ALLOWED,
            "create not allowed while custom resource definition is terminating"
        )
    );
    let free = json!({"metadata": {"finalizers": null}});
    admin.patch(&format!("{CATS}/tom"), "application/merge-patch+json", &free).await;
    wait_for("the definition's end", || async {
        admin.get(&path).await.expect("an answer").status == StatusCode::NOT_FOUND
    })
    .await;
    wait_for("the resource's end", || async {
        admin.get(CATS).await.expect("an answer").status == StatusCode::NOT_FOUND
    })
    .await;
    assert_eq!(
        cluster.etcd.etcdctl(&["get", "--prefix", "--keys-only", "/registry/example.com/"]).trim(),
        ""
    );
    establish(&admin, &cats()).await;
    assert_eq!(admin.get(CATS).await.expect("an answer").body["items"], json!([]), "it can come again");
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_converted_and_a_changed_schema_holds_at_once() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    let version = |name: &str, storage: bool, fields: Value| {
        json!({"name": name, "served": true, "storage": storage, "deprecated": name == "v1beta1",
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": fields}}}}})
    };
    let (old, both) = (
        json!({"a": {"type": "string"}}),
        json!({"a": {"type": "string"}, "b": {"type": "string", "default": "B"}}),
    );
    let versions = json!([version("v1beta1", true, old.clone())]);
    let established = establish(&admin, &definition("dogs", "Dog", versions)).await;
    let dogs = |version: &str| format!("/apis/example.com/{version}/namespaces/default/dogs");
    let dog = json!({"metadata": {"name": "rex"}, "spec": {"a": "x"}});
    let made = admin.json("POST", &dogs("v1beta1"), &dog).await;
    assert!(
        made.headers["warning"]
            .to_str()
            .is_ok_and(|text| text.contains("example.com/v1beta1 Dog is deprecated")),
        "{made:?}"
    );
    let mut next = established.body.clone();
    next["spec"]["versions"] = json!([version("v1", true, both), version("v1beta1", false, old)]);
    let changed = admin.json("PUT", &format!("{DEFINITIONS}/dogs.example.com"), &next).await;
    assert_eq!(changed.status, StatusCode::OK, "{changed:?}");
    assert_eq!(changed.body["status"]["storedVersions"], json!(["v1beta1", "v1"]));
    wait_for("the new version", || async {
        admin.get(&dogs("v1")).await.expect("an answer").status == StatusCode::OK
    })
    .await;
    let read = admin.get(&format!("{}/rex", dogs("v1"))).await.expect("an answer").body;
    assert_eq!((&read["apiVersion"], &read["spec"]), (&json!("example.com/v1"), &json!({"a": "x"})));
    let patch = json!({"spec": {"a": "y"}});
    let patched = admin.patch(&format!("{}/rex", dogs("v1")), "application/merge-patch+json", &patch).await;
    assert_eq!(patched.body["spec"], json!({"a": "y", "b": "B"}));
    let read = admin.get(&format!("{}/rex", dogs("v1beta1"))).await.expect("an answer").body;
    assert_eq!((&read["apiVersion"], &read["spec"]), (&json!("example.com/v1beta1"), &json!({"a": "y"})));
    let listed = admin.get(&dogs("v1beta1")).await.expect("an answer").body;
    assert_eq!(listed["items"][0]["apiVersion"], "example.com/v1beta1");
    let group = admin.get("/apis/example.com").await.expect("an answer").body;
    assert_eq!(group["preferredVersion"]["version"], "v1");
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_given_once_and_bad_definitions_are_refused() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    establish(&admin, &cats()).await;
    let mut other = cats();
    other["metadata"]["name"] = "felines.example.com".into();
    other["spec"]["names"]["plural"] = "felines".into();
    admin.json("POST", DEFINITIONS, &other).await;
    let path = format!("{DEFINITIONS}/felines.example.com");
    wait_for("the refusal of the names", || async {
        let read = admin.get(&path).await.expect("an answer").body;
        let conditions = read["status"]["conditions"].to_string();
        conditions.contains("already in use") && conditions.contains("\"NotAccepted\"")
    })
    .await;
    assert_eq!(
        admin.get("/apis/example.com/v1/felines").await.expect("an answer").status,
        StatusCode::NOT_FOUND
    );
    admin.delete(&format!("{DEFINITIONS}/cats.example.com")).await;
    wait_for("the names' release", || async {
        is(&admin.get(&path).await.expect("an answer").body, "Established")
    })
    .await;
    let mut bad = cats();
    bad["metadata"]["name"] = "mice.example.com".into();
    let refused = admin.json("POST", DEFINITIONS, &bad).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(message(&refused).contains("must be spec.names.plural+\".\"+spec.group"), "{refused:?}");
    server.finish().await;
}
