//! Rules of custom resources over HTTPS on a real etcd: create, update, status and apply.

use crate::common::{Answer, Client, Cluster, wait_for};
use http::StatusCode;
use serde_json::{Value, json};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const CATS: &str = "/apis/example.com/v1/namespaces/default/cats";

fn definition(schema: Value) -> Value {
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "cats.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "cats", "kind": "Cat"},
            "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}}, "schema": {"openAPIV3Schema": schema}}]}})
}

fn schema() -> Value {
    json!({"type": "object", "properties": {
        "spec": {"type": "object", "required": ["x"], "x-kubernetes-validations": [{"rule": "self.x + self.y > 0"}], "properties": {
            "x": {"type": "integer"}, "y": {"type": "integer", "default": 0},
            "fixed": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "fixed is immutable", "reason": "FieldValueForbidden"}]}}},
        "status": {"type": "object", "properties": {"health": {"type": "string"}},
            "x-kubernetes-validations": [{"rule": "self.health == 'ok' || self.health == 'unhealthy'"}]}}})
}

fn cat(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Cat", "metadata": {"name": name}, "spec": spec})
}

async fn serve(admin: &Client) {
    admin.json("POST", "/api/v1/namespaces", &json!({"metadata": {"name": "default"}})).await;
    let created = admin.json("POST", DEFINITIONS, &definition(schema())).await;
    assert_eq!(created.status, StatusCode::CREATED, "{created:?}");
    wait_for("serving", || async {
        admin.get(CATS).await.is_ok_and(|answer| answer.status == StatusCode::OK)
    })
    .await;
}

fn refused(answer: &Answer, text: &str) {
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{answer:?}");
    let message = answer.body["message"].as_str().unwrap_or_default();
    assert!(message.contains(text), "{text} in {message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn custom_resources_are_held_to_their_rules() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    serve(&admin).await;
    let answer = admin.json("POST", CATS, &cat("tom", json!({"x": 0}))).await;
    refused(
        &answer,
        "Cat.example.com \"tom\" is invalid: spec: Invalid value: failed rule: self.x + self.y > 0",
    );
    assert_eq!(answer.body["details"]["causes"][0]["field"], "spec");
    // Errors of the schema come first.
    let answer = admin.json("POST", CATS, &cat("tom", json!({}))).await;
    refused(
        &answer,
        "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation",
    );
    let mut tom = admin.json("POST", CATS, &cat("tom", json!({"x": 1, "fixed": "a"}))).await;
    assert_eq!(tom.status, StatusCode::CREATED, "{tom:?}");

    let path = format!("{CATS}/tom");
    tom.body["spec"]["fixed"] = "b".into();
    refused(&admin.json("PUT", &path, &tom.body).await, "spec.fixed: Forbidden: fixed is immutable");
    let patch = json!({"spec": {"x": -1}});
    refused(&admin.patch(&path, "application/merge-patch+json", &patch).await, "failed rule");
    let applied = cat("tom", json!({"x": -3}));
    let apply = format!("{path}?fieldManager=me&force=true");
    refused(&admin.patch(&apply, "application/apply-patch+yaml", &applied).await, "failed rule");
    let status = json!({"status": {"health": "odd"}});
    let at = format!("{path}/status");
    refused(
        &admin.patch(&at, "application/merge-patch+json", &status).await,
        "status: Invalid value: failed rule: self.health == 'ok'",
    );
    let status = json!({"status": {"health": "ok"}});
    let changed = admin.patch(&at, "application/merge-patch+json", &status).await;
    assert_eq!(changed.status, StatusCode::OK, "{changed:?}");
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_rules_are_refused_and_old_violations_stay() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    let mut wrong = schema();
    wrong["properties"]["spec"]["x-kubernetes-validations"] = json!([{"rule": "self.z == 100"}]);
    let answer = admin.json("POST", DEFINITIONS, &definition(wrong)).await;
    refused(&answer, "undefined field 'z'");
    refused(&answer, "x-kubernetes-validations[0].rule: Invalid value: ");

    serve(&admin).await;
    let created = admin.json("POST", CATS, &cat("tom", json!({"x": 1}))).await;
    assert_eq!(created.status, StatusCode::CREATED, "{created:?}");
    // A rule that comes later does not refuse changes of other parts.
    let stricter = json!({"spec": {"versions": definition({
        let mut schema = schema();
        schema["properties"]["spec"]["properties"]["x"]["x-kubernetes-validations"] = json!([{"rule": "self > 5"}]);
        schema
    })["spec"]["versions"]}});
    let path = format!("{DEFINITIONS}/cats.example.com");
    let answer = admin.patch(&path, "application/merge-patch+json", &stricter).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    wait_for("the stricter rule", || async {
        let answer = admin.json("POST", &format!("{CATS}?dryRun=All"), &cat("new", json!({"x": 1}))).await;
        answer.status == StatusCode::UNPROCESSABLE_ENTITY
    })
    .await;
    let path = format!("{CATS}/tom");
    let patch = json!({"spec": {"y": 3}});
    let answer = admin.patch(&path, "application/merge-patch+json", &patch).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let warning = answer.headers.get("warning").and_then(|value| value.to_str().ok()).unwrap_or_default();
    assert!(warning.contains("failed rule: self > 5"), "{warning}");
    server.finish().await;
}
