//! MutatingAdmissionPolicies over HTTPS on a real etcd: what they make of objects, with parameters and conditions, in which order and how often, and what
//! becomes of their mistakes.

use crate::common::{Answer, Client, Cluster, Server, wait_for};
use http::StatusCode;
use serde_json::{Value, json};

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1beta1";
const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1beta1/mutatingadmissionpolicies";
const BINDINGS: &str = "/apis/admissionregistration.k8s.io/v1beta1/mutatingadmissionpolicybindings";
const CONFIG_MAPS: &str = "/api/v1/namespaces/a/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/a/deployments";
const SERVED: &str = "--runtime-config=admissionregistration.k8s.io/v1beta1=true";
const GATE: &str = "--feature-gates=MutatingAdmissionPolicy=true";

fn extended(mut spec: Value, rest: Value) -> Value {
    if let (Some(spec), Value::Object(rest)) = (spec.as_object_mut(), rest) {
        spec.extend(rest);
    }
    spec
}

fn policy(name: &str, group: &str, resource: &str, mutations: &[Value], rest: Value) -> Value {
    let spec = json!({"reinvocationPolicy": "Never", "mutations": mutations, "matchConstraints": {"resourceRules": [
        {"apiGroups": [group], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": [resource]}]}});
    json!({"apiVersion": "admissionregistration.k8s.io/v1beta1", "kind": "MutatingAdmissionPolicy", "metadata": {"name": name},
        "spec": extended(spec, rest)})
}

fn binding(policy: &str, rest: Value) -> Value {
    let spec = json!({"policyName": policy});
    json!({"apiVersion": "admissionregistration.k8s.io/v1beta1", "kind": "MutatingAdmissionPolicyBinding", "metadata": {"name": policy},
        "spec": extended(spec, rest)})
}

fn apply(expression: &str) -> Value {
    json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}})
}

fn json_patch(expression: &str) -> Value {
    json!({"patchType": "JSONPatch", "jsonPatch": {"expression": expression}})
}

fn config_map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}})
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
    let server = cluster.server(&[SERVED, GATE]).await;
    let admin = cluster.client(&server, Some("admin"));
    made(&admin, "/api/v1/namespaces", &json!({"metadata": {"name": "a", "labels": {"policed": "true"}}}))
        .await;
    (server, admin)
}

/// What trying to make an object gives, once it is as expected.
async fn tried(
    admin: &Client,
    path: &str,
    object: &Value,
    what: &str,
    expected: impl Fn(&Answer) -> bool,
) -> Answer {
    let dry = format!("{path}?dryRun=All");
    wait_for(what, || async { expected(&admin.json("POST", &dry, object).await) }).await;
    admin.json("POST", &dry, object).await
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_changed_by_both_kinds_of_patches() {
    let cluster = Cluster::new();
    let (server, admin) = start(&cluster).await;
    let spec = "Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{initContainers: [\
        Object.spec.template.spec.initContainers{name: 'mesh', image: variables.image, restartPolicy: 'Always'}]}}}}";
    let labels =
        "has(object.metadata.labels) ? [] : [JSONPatch{op: 'add', path: '/metadata/labels', value: {}}]";
    let label = "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('example.com/by'), value: request.userInfo.username}]";
    made(
        &admin,
        POLICIES,
        &policy(
            "mesh.example.com",
            "apps",
            "deployments",
            &[apply(spec), json_patch(labels), json_patch(label)],
            json!({"variables": [{"name": "image", "expression": "'proxy:' + params.data.version"}],
            "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "matchConditions": [{"name": "wants-it", "expression": "object.metadata.name != 'plain'"}]}),
        ),
    )
    .await;
    let mut params = config_map("mesh");
    params["data"] = json!({"version": "7"});
    made(&admin, CONFIG_MAPS, &params).await;
    made(
        &admin,
        BINDINGS,
        &binding(
            "mesh.example.com",
            json!({"paramRef": {"name": "mesh", "parameterNotFoundAction": "Deny"},
        "matchResources": {"namespaceSelector": {"matchLabels": {"policed": "true"}}}}),
        ),
    )
    .await;
    let deployment = |name: &str| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {
            "selector": {"matchLabels": {"app": "x"}}, "template": {"metadata": {"labels": {"app": "x"}},
                "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
    };
    let is_changed = |answer: &Answer| answer.body["metadata"]["labels"]["example.com/by"] == "admin";
    tried(&admin, DEPLOYMENTS, &deployment("web"), "the policy", is_changed).await;
    let answer = made(&admin, DEPLOYMENTS, &deployment("web")).await;
    let pod = &answer.body["spec"]["template"]["spec"];
    assert_eq!(pod["initContainers"][0]["image"], "proxy:7");
    // What was added is defaulted, and what was there stays.
    assert_eq!(pod["initContainers"][0]["imagePullPolicy"], "IfNotPresent");
    assert_eq!(pod["containers"][0]["name"], "c");
    assert_eq!(answer.body["metadata"]["labels"], json!({"example.com/by": "admin"}));
    assert_eq!(
        admin.get(&format!("{DEPLOYMENTS}/web")).await.expect("an answer").body["spec"],
        answer.body["spec"]
    );
    let answer = made(&admin, DEPLOYMENTS, &deployment("plain")).await;
    assert!(
        answer.body["metadata"]["labels"].is_null()
            && answer.body["spec"]["template"]["spec"]["initContainers"].is_null()
    );
    // Changes too.
    let path = format!("{DEPLOYMENTS}/web");
    let patch = json!({"metadata": {"labels": {"example.com/by": "somebody"}}});
    let answer = admin.patch(&path, "application/merge-patch+json", &patch).await;
    assert_eq!(answer.body["metadata"]["labels"]["example.com/by"], "admin", "{answer:?}");
    assert!(admin.delete(&path).await.status.is_success());
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_want_it_see_what_others_changed_after_them() {
    let cluster = Cluster::new();
    let (server, admin) = start(&cluster).await;
    // Each counts how often it was asked, in the order of their names; `b` adds what `a` and `c` look for.
    let counting = |name: &str| {
        json_patch(&format!(
            "[JSONPatch{{op: 'add', path: '/data/{name}', value: has(object.data.seen) ? 'seen' : 'not seen'}}]"
        ))
    };
    let seen = json_patch("[JSONPatch{op: 'add', path: '/data/seen', value: 'yes'}]");
    let only = |name: &str| json!({"matchConditions": [{"name": "only", "expression": format!("object.metadata.name == '{name}'")}]});
    let with = |name: &str, again: &str| extended(only(name), json!({"reinvocationPolicy": again}));
    for (name, mutation, rest) in [
        ("a-again", counting("again"), with("x", "IfNeeded")),
        ("a-once", counting("once"), with("x", "Never")),
        ("b", seen, with("x", "Never")),
        ("c-after", counting("after"), with("x", "IfNeeded")),
    ] {
        made(&admin, POLICIES, &policy(name, "", "configmaps", &[mutation], rest)).await;
        made(&admin, BINDINGS, &binding(name, json!({}))).await;
    }
    let mut object = config_map("x");
    object["data"] = json!({"own": ""});
    let expected = json!({"own": "", "seen": "yes", "again": "seen", "once": "not seen", "after": "seen"});
    let is_expected = |answer: &Answer| answer.body["data"] == expected;
    let answer = tried(&admin, CONFIG_MAPS, &object, "the order", is_expected).await;
    assert_eq!(answer.body["data"], expected);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_count_unless_a_policy_may_fail() {
    let cluster = Cluster::new();
    let (server, admin) = start(&cluster).await;
    for (name, mutation, text) in [
        (
            "typo",
            apply("Object{metadata: Object.metadata{labels: object.none}}"),
            "expression 'Object{metadata: Object.metadata{labels: object.none}}' resulted in error: no such key: none",
        ),
        (
            "wrong-type",
            apply("Object{metadata: Object.meta{}}"),
            "type mismatch: unexpected type name \"Object.meta\", expected \"Object.metadata\", which matches field name path from root Object type",
        ),
        (
            "unknown",
            apply("Object{spec: Object.spec{}}"),
            "error applying patch: failed to convert patch object to typed object: .spec: field not declared in schema",
        ),
        (
            "atomic",
            apply("Object{metadata: Object.metadata{ownerReferences: [], labels: {}}, immutable: true}"),
            "",
        ),
    ] {
        let only = json!({"matchConditions": [{"name": "only", "expression": format!("object.metadata.name == '{name}'")}]});
        made(&admin, POLICIES, &policy(name, "", "configmaps", &[mutation], only)).await;
        made(&admin, BINDINGS, &binding(name, json!({}))).await;
        if text.is_empty() {
            let is_changed = |answer: &Answer| answer.body["immutable"] == true;
            tried(&admin, CONFIG_MAPS, &config_map(name), "a change", is_changed).await;
            continue;
        }
        let is_refused = |answer: &Answer| !answer.status.is_success();
        let answer = tried(&admin, CONFIG_MAPS, &config_map(name), "a refusal", is_refused).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{answer:?}");
        assert_eq!(message(&answer), format!("policy '{name}' with binding '{name}' denied request: {text}"));
        assert_eq!(answer.body["reason"], "Invalid");
        assert_eq!(answer.body["details"]["causes"][0]["message"], message(&answer));
        let may_fail = json!({"spec": {"failurePolicy": "Ignore"}});
        let path = format!("{POLICIES}/{name}");
        let changed = admin.patch(&path, "application/merge-patch+json", &may_fail).await;
        assert_eq!(changed.status, StatusCode::OK, "{changed:?}");
        let is_let_pass = |answer: &Answer| answer.status == StatusCode::CREATED;
        tried(&admin, CONFIG_MAPS, &config_map(name), "the policy to let pass", is_let_pass).await;
    }
    // What is no object of the kind is the server's error, whatever the policy may.
    let unknown = json_patch("[JSONPatch{op: 'add', path: '/spec', value: {}}]");
    let rest = json!({"failurePolicy": "Ignore", "matchConditions": [{"name": "only", "expression": "object.metadata.name == 'strict'"}]});
    made(&admin, POLICIES, &policy("strict", "", "configmaps", &[unknown], rest)).await;
    made(&admin, BINDINGS, &binding("strict", json!({}))).await;
    let is_refused = |answer: &Answer| !answer.status.is_success();
    let answer = tried(&admin, CONFIG_MAPS, &config_map("strict"), "a refusal", is_refused).await;
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR, "{answer:?}");
    assert_eq!(message(&answer), "Internal error occurred: strict decoding error: unknown field \"spec\"");
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn they_are_validated_and_shown_and_do_nothing_unless_asked_for() {
    let cluster = Cluster::new();
    let (server, admin) = start(&cluster).await;
    let wrong = policy("p", "", "configmaps", &[json_patch("Object{}")], json!({"reinvocationPolicy": null}));
    let answer = admin.json("POST", POLICIES, &wrong).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{answer:?}");
    let text = "spec.mutations[0].jsonPatch.expression: Invalid value: \"Object{}\": must evaluate to list(JSONPatch) but got Object";
    assert!(message(&answer).contains(text), "{}", message(&answer));
    assert!(message(&answer).contains("spec.reinvocationPolicy: Required value"), "{}", message(&answer));
    let mutation = apply("Object{immutable: true}");
    let answer = made(&admin, POLICIES, &policy("p", "", "configmaps", &[mutation], json!({}))).await;
    assert_eq!(answer.body["spec"]["failurePolicy"], "Fail");
    assert_eq!(answer.body["metadata"]["generation"], 1);
    made(&admin, BINDINGS, &binding("p", json!({}))).await;
    let table = admin.clone().with_header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
    let cells = |answer: Answer| answer.body["rows"][0]["cells"].as_array().expect("cells")[..3].to_vec();
    assert_eq!(
        cells(table.get(POLICIES).await.expect("an answer")),
        [json!("p"), json!(1), json!("<unset>")]
    );
    assert_eq!(
        cells(table.get(BINDINGS).await.expect("an answer")),
        [json!("p"), json!("p"), json!("<unset>")]
    );
    let is_changed = |answer: &Answer| answer.body["immutable"] == true;
    tried(&admin, CONFIG_MAPS, &config_map("x"), "the policy", is_changed).await;
    let schemas = admin.get(&format!("/openapi/v3{GROUP}")).await.expect("an answer").body;
    assert!(
        schemas["components"]["schemas"]["io.k8s.api.admissionregistration.v1beta1.Mutation"].is_object()
    );
    server.finish().await;

    // Served but not in force, and not served.
    let server = cluster.server(&[SERVED]).await;
    let admin = cluster.client(&server, Some("admin"));
    assert_eq!(admin.get(&format!("{POLICIES}/p")).await.expect("an answer").status, StatusCode::OK);
    assert!(made(&admin, CONFIG_MAPS, &config_map("y")).await.body["immutable"].is_null());
    server.finish().await;
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    assert_eq!(admin.get(POLICIES).await.expect("an answer").status, StatusCode::NOT_FOUND);
    server.finish().await;
}
