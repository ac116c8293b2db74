//! ValidatingAdmissionPolicies over HTTPS on a real etcd: what they deny, warn of and let pass, with parameters, and their status.

use crate::common::{Answer, Client, Cluster, Server, wait_for};
use http::StatusCode;
use serde_json::{Value, json};

const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
const BINDINGS: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";
const CONFIG_MAPS: &str = "/api/v1/namespaces/a/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/a/deployments";

fn policy(name: &str, groups: Value, resources: Value, rest: Value) -> Value {
    let mut spec = json!({"matchConstraints": {"resourceRules": [
        {"apiGroups": groups, "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": resources}]}});
    if let (Some(spec), Some(rest)) = (spec.as_object_mut(), rest.as_object()) {
        spec.extend(rest.clone());
    }
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name}, "spec": spec})
}

fn binding(name: &str, policy: &str, rest: Value) -> Value {
    let mut spec = json!({"policyName": policy, "validationActions": ["Deny"],
        "matchResources": {"namespaceSelector": {"matchLabels": {"policed": "true"}}}});
    if let (Some(spec), Some(rest)) = (spec.as_object_mut(), rest.as_object()) {
        spec.extend(rest.clone());
    }
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": name}, "spec": spec})
}

fn config_map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

fn deployment(name: &str, replicas: i64) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {"replicas": replicas,
        "selector": {"matchLabels": {"app": "x"}}, "template": {"metadata": {"labels": {"app": "x"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

fn message(answer: &Answer) -> &str {
    answer.body["message"].as_str().unwrap_or_default()
}

async fn made(admin: &Client, path: &str, object: &Value) -> Answer {
    let answer = admin.json("POST", path, object).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{answer:?}");
    answer
}

async fn start(cluster: &Cluster) -> (Server, Client) {
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    for (name, labels) in [("a", json!({"policed": "true"})), ("b", json!({}))] {
        made(&admin, "/api/v1/namespaces", &json!({"metadata": {"name": name, "labels": labels}})).await;
    }
    (server, admin)
}

/// Tries the write without storing it until the policy is in force.
async fn denied(admin: &Client, path: &str, object: &Value) -> Answer {
    let dry = format!("{path}?dryRun=All");
    wait_for("a refusal", || async { !admin.json("POST", &dry, object).await.status.is_success() }).await;
    admin.json("POST", path, object).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_policy_denies_is_denied_where_it_is_bound() {
    let cluster = Cluster::new();
    let (server, admin) = start(&cluster).await;
    let answer = made(&admin, POLICIES, &policy("few.example.com", json!(["apps"]), json!(["deployments"]), json!({
        "variables": [{"name": "replicas", "expression": "object.spec.replicas"}],
        "validations": [{"expression": "variables.replicas > 1", "messageExpression": "'wants replicas > 1, got ' + string(variables.replicas)"}]}))).await;
    assert!(answer.headers.get("warning").is_none(), "{answer:?}");
    made(&admin, BINDINGS, &binding("few-in-a", "few.example.com", json!({}))).await;
    let answer = denied(&admin, DEPLOYMENTS, &deployment("one", 1)).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{answer:?}");
    assert_eq!(
        message(&answer),
        "deployments.apps \"one\" is forbidden: ValidatingAdmissionPolicy 'few.example.com' with binding 'few-in-a' denied request: wants replicas > 1, got 1"
    );
    assert_eq!((&answer.body["reason"], &answer.body["code"]), (&json!("Invalid"), &json!(422)));
    let cause = answer.body["details"]["causes"][0]["message"].as_str().unwrap_or_default();
    assert!(cause.starts_with("ValidatingAdmissionPolicy 'few.example.com'"), "{cause}");
    made(&admin, DEPLOYMENTS, &deployment("two", 2)).await;
    made(&admin, "/apis/apps/v1/namespaces/b/deployments", &deployment("one", 1)).await;
    // Changes too.
    let patch = json!({"spec": {"replicas": 1}});
    let path = format!("{DEPLOYMENTS}/two");
    let answer = admin.patch(&path, "application/merge-patch+json", &patch).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{answer:?}");
    // Without the binding nothing is denied.
    assert!(admin.delete(&format!("{BINDINGS}/few-in-a")).await.status.is_success());
    wait_for("the end of the binding", || async {
        admin.patch(&path, "application/merge-patch+json", &patch).await.status == StatusCode::OK
    })
    .await;
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_reasons_conditions_and_warnings() {
    let cluster = Cluster::new();
    let (server, admin) = start(&cluster).await;
    made(&admin, CONFIG_MAPS, &config_map("limits", json!({"max": "3"}))).await;
    made(&admin, POLICIES, &policy("size.example.com", json!([""]), json!(["configmaps"]), json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConditions": [{"name": "not-the-limits", "expression": "object.metadata.name != 'limits' && request.userInfo.username == 'admin'"}],
        "validations": [{"expression": "!has(object.data) || size(object.data) <= int(params.data.max)", "message": "too much data", "reason": "RequestEntityTooLarge"},
            {"expression": "authorizer.group('').resource('secrets').namespace(request.namespace).check('create').allowed()"}]}))).await;
    let reference = json!({"name": "limits", "parameterNotFoundAction": "Deny"});
    made(&admin, BINDINGS, &binding("size", "size.example.com", json!({"paramRef": reference}))).await;
    let large = config_map("large", json!({"a": "", "b": "", "c": "", "d": ""}));
    let answer = denied(&admin, CONFIG_MAPS, &large).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE, "{answer:?}");
    assert!(message(&answer).ends_with("denied request: too much data"), "{}", message(&answer));
    made(&admin, CONFIG_MAPS, &config_map("small", json!({"a": ""}))).await;

    // Only a warning, once the binding says so.
    let warn = json!({"spec": {"validationActions": ["Warn", "Audit"]}});
    let path = format!("{BINDINGS}/size");
    let answer = admin.patch(&path, "application/merge-patch+json", &warn).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    wait_for("a warning", || async {
        admin.json("POST", &format!("{CONFIG_MAPS}?dryRun=All"), &large).await.status.is_success()
    })
    .await;
    let answer = made(&admin, CONFIG_MAPS, &large).await;
    let warning = answer.headers.get("warning").and_then(|value| value.to_str().ok()).unwrap_or_default();
    assert!(warning.contains("Validation failed for ValidatingAdmissionPolicy 'size.example.com' with binding 'size': too much data"), "{warning}");

    // Parameters that are not there deny, unless they may be missing.
    let deny = json!({"spec": {"validationActions": ["Deny"], "paramRef": {"name": "none", "parameterNotFoundAction": "Deny"}}});
    admin.patch(&path, "application/merge-patch+json", &deny).await;
    let answer = denied(&admin, CONFIG_MAPS, &config_map("other", json!({}))).await;
    assert!(message(&answer).contains("failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"), "{}", message(&answer));
    let allow = json!({"spec": {"paramRef": {"parameterNotFoundAction": "Allow"}}});
    admin.patch(&path, "application/merge-patch+json", &allow).await;
    wait_for("the binding to allow", || async {
        admin.json("POST", CONFIG_MAPS, &config_map("other", json!({}))).await.status.is_success()
    })
    .await;
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_expressions_are_refused_and_odd_ones_told_in_the_status() {
    let cluster = Cluster::new();
    let (server, admin) = start(&cluster).await;
    let with = |validation: Value| {
        policy("p.example.com", json!(["apps"]), json!(["deployments"]), json!({"validations": [validation]}))
    };
    for (validation, text) in [
        (
            json!({"expression": "object.spec.replicas >"}),
            "spec.validations[0].expression: Invalid value: \"object.spec.replicas >\": compilation failed: ERROR: <input>",
        ),
        (json!({"expression": "object.spec"}), "must evaluate to bool"),
        (json!({"expression": "params.x == 1"}), "undeclared reference to 'params'"),
        (json!({"expression": "variables.x"}), "undefined field 'x'"),
        (
            json!({"expression": "true", "messageExpression": "1"}),
            "spec.validations[0].messageExpression: Invalid value: \"1\": must evaluate to string",
        ),
    ] {
        let answer = admin.json("POST", POLICIES, &with(validation)).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{answer:?}");
        assert!(message(&answer).contains(text), "{text} in {}", message(&answer));
    }
    made(&admin, POLICIES, &with(json!({"expression": "object.spec.replicas > '1'"}))).await;
    let path = format!("{POLICIES}/p.example.com");
    wait_for("the status", || async {
        let answer = admin.get(&path).await.expect("an answer");
        answer.body["status"]["observedGeneration"] == 1
    })
    .await;
    let status = admin.get(&path).await.expect("an answer").body["status"].clone();
    let warning = &status["typeChecking"]["expressionWarnings"][0];
    assert_eq!(warning["fieldRef"], "spec.validations[0].expression");
    let text = warning["warning"].as_str().unwrap_or_default();
    assert!(text.contains("found no matching overload for '_>_' applied to '(int, string)'"), "{text}");
    server.finish().await;
}
