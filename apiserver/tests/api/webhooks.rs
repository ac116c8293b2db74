//! Admission webhooks: what they are asked, in which order, what their answers and their silence do.

use crate::common::extension::{Extension, SERVICE_HOST, ca_bundle};
use crate::common::{Client, Cluster, wait_for};
use http::StatusCode;
use serde_json::{Value, json};

const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
const VALIDATING: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn rule(operations: &[&str], resource: &str) -> Value {
    json!({"operations": operations, "apiGroups": ["*"], "apiVersions": ["*"], "resources": [resource]})
}

fn webhook(name: &str, client: Value, rule: Value) -> Value {
    json!({"name": format!("{name}.example.com"), "clientConfig": client, "rules": [rule], "sideEffects": "None",
        "admissionReviewVersions": ["v1"], "timeoutSeconds": 5, "objectSelector": {"matchLabels": {"hooked": "yes"}}})
}

fn map(name: &str, data: Value) -> Value {
    json!({"metadata": {"name": name, "labels": {"hooked": "yes"}}, "data": data})
}

/// Makes a configuration and waits until it counts: until a marked object is asked about.
async fn install(client: &Client, path: &str, name: &str, webhooks: Vec<Value>) {
    let made = client.json("POST", path, &json!({"metadata": {"name": name}, "webhooks": webhooks})).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    assert!(made.headers.get("warning").is_none(), "{:?}", made.headers);
    let version = made.body["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    wait_for("the configuration is known", || async {
        let read = client.get(&format!("{path}/{name}?resourceVersion={version}")).await.expect("an answer");
        read.status == StatusCode::OK
    })
    .await;
}

fn message(answer: &crate::common::Answer) -> &str {
    answer.body["message"].as_str().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_change_objects_in_order_and_see_what_others_changed_after_them() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    let hooks = Extension::start(&cluster, |seen| {
        let data = &seen.body["request"]["object"]["data"];
        match seen.path() {
            // Counts its calls.
            "/count" => {
                let calls = data["calls"].as_str().map_or(0, str::len) + 1;
                seen.patch(json!([{"op": "add", "path": "/data/calls", "value": "x".repeat(calls)}]))
            }
            _ if data["late"].is_null() => {
                seen.patch(json!([{"op": "add", "path": "/data/late", "value": data["calls"]}]))
            }
            _ => seen.review(json!({"allowed": true, "warnings": ["seen it before"]})),
        }
    })
    .await;
    let rules = || rule(&["CREATE"], "configmaps");
    let mut counting = webhook("count", hooks.by_url(&cluster, "/count"), rules());
    counting["reinvocationPolicy"] = "IfNeeded".into();
    install(&admin, MUTATING, "b", vec![webhook("late", hooks.by_url(&cluster, "/late"), rules())]).await;
    install(&admin, MUTATING, "a", vec![counting]).await;

    let made = admin.json("POST", MAPS, &map("one", json!({}))).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    // "a" came first, was called again after "b" changed the object, and "b" was not.
    assert_eq!(made.body["data"], json!({"calls": "xx", "late": "x"}));
    let paths: Vec<String> = hooks.seen().iter().map(|seen| seen.path().to_owned()).collect();
    assert_eq!(paths, ["/count", "/late", "/count"]);
    let first = &hooks.seen()[0];
    assert!(first.uri.ends_with("?timeout=5s"), "{}", first.uri);
    let request = &first.body["request"];
    assert_eq!(
        (&request["operation"], &request["name"], &request["namespace"], &request["userInfo"]["username"]),
        (&json!("CREATE"), &json!("one"), &json!("default"), &json!("admin"))
    );
    assert_eq!(request["object"]["metadata"].get("uid"), None);
    assert_eq!(request["options"]["kind"], "CreateOptions");

    let known = admin.json("POST", MAPS, &map("two", json!({"late": "no"}))).await;
    assert_eq!(known.body["data"], json!({"calls": "x", "late": "no"}));
    let warning = known.headers.get("warning").and_then(|value| value.to_str().ok()).unwrap_or_default();
    assert!(warning.contains("seen it before"), "{warning}");
    // Not selected, by label or by operation.
    let plain = admin.json("POST", MAPS, &json!({"metadata": {"name": "plain"}})).await;
    assert_eq!(plain.body.get("data"), None, "{}", plain.body);
    let before = hooks.seen().len();
    assert_eq!(admin.json("PUT", &format!("{MAPS}/two"), &known.body).await.status, StatusCode::OK);
    assert_eq!(hooks.seen().len(), before);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_refuse_writes_with_their_own_words() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    let hooks = Extension::start(&cluster, |seen| {
        let status = match seen.path() {
            "/long" => json!({"message": "not here", "code": 403, "reason": "Forbidden"}),
            _ => Value::Null,
        };
        seen.review(json!({"allowed": false, "status": status}))
    })
    .await;
    let update = rule(&["UPDATE", "DELETE"], "configmaps");
    install(&admin, VALIDATING, "v", vec![webhook("long", hooks.by_url(&cluster, "/long"), update)]).await;
    let create = rule(&["CREATE"], "secrets");
    install(&admin, VALIDATING, "w", vec![webhook("short", hooks.by_url(&cluster, "/"), create)]).await;

    let secrets = "/api/v1/namespaces/default/secrets";
    let refused = admin.json("POST", secrets, &map("s", Value::Null)).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert_eq!(
        message(&refused),
        "admission webhook \"short.example.com\" denied the request without explanation"
    );
    let made = admin.json("POST", MAPS, &map("m", json!({}))).await;
    assert_eq!(made.status, StatusCode::CREATED);
    let mut changed = made.body.clone();
    changed["data"] = json!({"a": "b"});
    let refused = admin.json("PUT", &format!("{MAPS}/m"), &changed).await;
    assert_eq!((refused.status, &refused.body["reason"]), (StatusCode::FORBIDDEN, &json!("Forbidden")));
    assert_eq!(message(&refused), "admission webhook \"long.example.com\" denied the request: not here");
    let refused = admin.delete(&format!("{MAPS}/m?gracePeriodSeconds=0")).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.body);
    let seen = hooks.seen();
    let deletion = &seen.last().expect("was asked").body["request"];
    assert_eq!((&deletion["operation"], &deletion["object"]), (&json!("DELETE"), &Value::Null));
    assert_eq!(deletion["oldObject"]["metadata"]["uid"], made.body["metadata"]["uid"]);
    assert_eq!(deletion["options"]["gracePeriodSeconds"], 0);
    let refused = admin.delete(MAPS).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.body);
    // Configurations themselves are never asked about.
    let all = rule(&["*"], "*/*");
    let mut everything = webhook("all", hooks.by_url(&cluster, "/"), all);
    everything["objectSelector"] = json!({});
    install(&admin, VALIDATING, "x", vec![everything]).await;
    assert_eq!(
        admin.json("POST", MAPS, &json!({"metadata": {"name": "n"}})).await.status,
        StatusCode::BAD_REQUEST
    );
    for name in ["v", "w", "x"] {
        assert_eq!(admin.delete(&format!("{VALIDATING}/{name}")).await.status, StatusCode::OK);
    }
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_does_not_answer_fails_the_request_unless_it_may_fail() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    let hooks = Extension::start(&cluster, |seen| match seen.path() {
        "/broken" => (500, json!("out of order")),
        "/confused" => (200, json!({"response": {"uid": "other", "allowed": true}})),
        _ => seen.patch(json!([{"op": "remove", "path": "/data/none"}])),
    })
    .await;
    let port = crate::common::free_port();
    let nowhere = json!({"url": format!("https://localhost:{port}/x"), "caBundle": ca_bundle(&cluster)});
    let unknown = json!({"service": {"namespace": "default", "name": "gone", "path": "/p"}, "caBundle": ca_bundle(&cluster)});
    let mut untrusted = hooks.by_url(&cluster, "/");
    let other = rcgen::generate_simple_self_signed(vec!["localhost".into()]).expect("signs");
    untrusted["caBundle"] =
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, other.cert.pem()).into();
    for (number, (client, text)) in [
        (nowhere, format!("Post \"https://localhost:{port}/x?timeout=5s\": dial tcp localhost:{port}: connect: connection refused")),
        (unknown, "Post \"https://gone.default.svc:443/p?timeout=5s\": service \"gone\" not found".to_owned()),
        (
            untrusted,
            format!("Post \"https://localhost:{}/?timeout=5s\": tls: failed to verify certificate: x509: certificate signed by unknown authority", hooks.port),
        ),
        (
            hooks.by_url(&cluster, "/broken"),
            "an error on the server (\"\\\"out of order\\\"\") has prevented the request from succeeding".to_owned(),
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let mut hook = webhook("hook", client, rule(&["CREATE"], "configmaps"));
        install(&admin, VALIDATING, "v", vec![hook.clone()]).await;
        let refused = admin.json("POST", MAPS, &map("m", json!({}))).await;
        assert_eq!(refused.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(
            message(&refused),
            format!("Internal error occurred: failed calling webhook \"hook.example.com\": failed to call webhook: {text}")
        );
        assert_eq!(admin.delete(&format!("{VALIDATING}/v")).await.status, StatusCode::OK);
        hook["failurePolicy"] = "Ignore".into();
        install(&admin, MUTATING, &format!("m{number}"), vec![hook]).await;
        wait_for("the strict one is gone", || async {
            let name = format!("m{number}");
            admin.json("POST", MAPS, &map(&name, json!({}))).await.status == StatusCode::CREATED
        })
        .await;
        assert_eq!(admin.delete(&format!("{MUTATING}/m{number}")).await.status, StatusCode::OK);
    }
    let confused = webhook("hook", hooks.by_url(&cluster, "/confused"), rule(&["CREATE"], "configmaps"));
    install(&admin, MUTATING, "c", vec![confused]).await;
    let refused = admin.json("POST", MAPS, &map("c", json!({}))).await;
    assert!(
        message(&refused).contains("received invalid webhook response: expected response.uid="),
        "{}",
        refused.body
    );
    assert_eq!(admin.delete(&format!("{MUTATING}/c")).await.status, StatusCode::OK);
    // A patch that does not fit is an error whatever the failure policy says.
    let mut misfit = webhook("hook", hooks.by_url(&cluster, "/misfit"), rule(&["CREATE"], "configmaps"));
    misfit["failurePolicy"] = "Ignore".into();
    install(&admin, MUTATING, "d", vec![misfit]).await;
    let refused = admin.json("POST", MAPS, &map("d", json!({}))).await;
    assert_eq!(refused.status, StatusCode::INTERNAL_SERVER_ERROR, "{}", refused.body);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_subresources_streams_and_dry_runs_are_asked_about() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    let hooks = Extension::start(&cluster, |seen| match seen.path() {
        "/scale" => seen.patch(json!([{"op": "replace", "path": "/spec/replicas", "value": 3}])),
        "/connect" => seen.review(json!({"allowed": false, "status": {"message": "no shells"}})),
        _ => seen.review(json!({"allowed": true})),
    })
    .await;
    let service =
        json!({"metadata": {"name": "hooks"}, "spec": {"type": "ExternalName", "externalName": "localhost"}});
    let made = admin.json("POST", "/api/v1/namespaces/default/services", &service).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    let by_service = |path: &str| {
        json!({"caBundle": ca_bundle(&cluster),
            "service": {"namespace": "default", "name": "hooks", "path": path, "port": hooks.port}})
    };
    let mut scale = webhook("scale", by_service("/scale"), rule(&["UPDATE"], "deployments/scale"));
    let mut connect = webhook("connect", by_service("/connect"), rule(&["CONNECT"], "pods/exec"));
    let mut careless = webhook("careless", by_service("/"), rule(&["CREATE"], "configmaps"));
    careless["sideEffects"] = "NoneOnDryRun".into();
    for hook in [&mut scale, &mut connect] {
        hook["objectSelector"] = json!({});
    }
    install(&admin, MUTATING, "m", vec![scale]).await;
    install(&admin, VALIDATING, "v", vec![connect, careless]).await;

    let labels = json!({"app": "web"});
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = json!({"metadata": {"name": "web"}, "spec": {"replicas": 1, "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    assert_eq!(admin.json("POST", deployments, &deployment).await.status, StatusCode::CREATED);
    let patch = json!({"spec": {"replicas": 7}});
    let scaled =
        admin.patch(&format!("{deployments}/web/scale"), "application/merge-patch+json", &patch).await;
    assert_eq!(
        (scaled.status, &scaled.body["spec"]["replicas"]),
        (StatusCode::OK, &json!(3)),
        "{}",
        scaled.body
    );
    let seen = hooks.seen();
    let asked = &seen.last().expect("was asked");
    assert_eq!(
        asked.headers.get("host").and_then(|host| host.to_str().ok()),
        Some(format!("{SERVICE_HOST}:{}", hooks.port).as_str())
    );
    let request = &asked.body["request"];
    assert_eq!(
        (&request["kind"]["kind"], &request["subResource"], &request["object"]["spec"]["replicas"]),
        (&json!("Scale"), &json!("scale"), &json!(7))
    );

    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    admin.json("POST", accounts, &json!({"metadata": {"name": "default"}})).await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let pods = "/api/v1/namespaces/default/pods";
    assert_eq!(admin.json("POST", pods, &pod).await.status, StatusCode::CREATED);
    let refused = admin.get(&format!("{pods}/p/exec?command=sh&stdin=true")).await.expect("an answer");
    assert_eq!(message(&refused), "admission webhook \"connect.example.com\" denied the request: no shells");
    let seen = hooks.seen();
    let request = &seen.last().expect("was asked").body["request"];
    assert_eq!(
        request["object"],
        json!({"kind": "PodExecOptions", "apiVersion": "v1", "stdin": true, "stdout": true, "stderr": true, "command": ["sh"]})
    );
    assert_eq!(
        (&request["operation"], &request["kind"]["kind"]),
        (&json!("CONNECT"), &json!("PodExecOptions"))
    );

    let tried = admin.json("POST", &format!("{MAPS}?dryRun=All"), &map("dry", json!({}))).await;
    assert_eq!(tried.status, StatusCode::CREATED, "{}", tried.body);
    let seen = hooks.seen();
    let request = &seen.last().expect("was asked").body["request"];
    assert_eq!((&request["dryRun"], &request["options"]["dryRun"]), (&json!(true), &json!(["All"])));
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_are_asked_only_where_their_conditions_hold() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    let hooks = Extension::start(&cluster, |seen| seen.review(json!({"allowed": false}))).await;
    let mut hook = webhook("v", hooks.by_url(&cluster, "/"), rule(&["CREATE"], "configmaps"));
    hook["matchConditions"] = json!([{"name": "wrong", "expression": "object.metadata"}]);
    let made =
        admin.json("POST", VALIDATING, &json!({"metadata": {"name": "v"}, "webhooks": [hook.clone()]})).await;
    assert_eq!(made.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", made.body);
    assert!(message(&made).contains("webhooks[0].matchConditions[0].expression: Invalid value: \"object.metadata\": must evaluate to bool"), "{}", message(&made));
    hook["matchConditions"] = json!([
        {"name": "named", "expression": "object.metadata.name.startsWith('asked') && request.userInfo.username == 'admin'"},
        {"name": "data", "expression": "object.data.state == 'new'"}]);
    install(&admin, VALIDATING, "v", vec![hook]).await;
    let refused = admin.json("POST", MAPS, &map("asked", json!({"state": "new"}))).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{}", refused.body);
    for (name, data) in
        [("other", json!({"state": "new"})), ("asked", json!({"state": "old"})), ("another", json!({}))]
    {
        let made = admin.json("POST", MAPS, &map(name, data)).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    }
    // What cannot be told refuses, as the failure policy says.
    let refused = admin.json("POST", MAPS, &map("asked-too", json!({"else": ""}))).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.body);
    assert!(
        message(&refused)
            .contains("expression 'object.data.state == 'new'' resulted in error: no such key: state"),
        "{}",
        message(&refused)
    );
    assert_eq!(hooks.seen().len(), 1);
    server.finish().await;
}
