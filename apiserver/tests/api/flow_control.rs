//! Priority and fairness over HTTP: the default objects, what requests are taken for, and who is served when there is too much to do.

use crate::common::{Cluster, wait_for};
use http::StatusCode;
use serde_json::{Value, json};

const GROUP: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";

fn dangling(schema: &Value) -> (String, String) {
    let condition = &schema["status"]["conditions"][0];
    let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"))
}

#[tokio::test]
async fn the_default_objects_are_made_and_kept_and_schemas_know_whether_their_level_is_there() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    let schemas = format!("{GROUP}/flowschemas");
    wait_for("the default schemas with their conditions", || async {
        let found = admin.get(&schemas).await.expect("an answer").body;
        let items = found["items"].as_array().cloned().unwrap_or_default();
        items.len() == 13 && items.iter().all(|schema| dangling(schema) == ("False".into(), "Found".into()))
    })
    .await;
    let levels = admin.get(&format!("{GROUP}/prioritylevelconfigurations")).await.expect("an answer").body;
    assert_eq!(levels["items"].as_array().map(Vec::len), Some(8));

    // A mandatory object comes back as it was; a suggested one is the operator's once it says so.
    let exempt = format!("{GROUP}/flowschemas/exempt");
    assert_eq!(admin.delete(&exempt).await.status, StatusCode::OK);
    wait_for("the mandatory schema", || async {
        admin.get(&exempt).await.expect("an answer").status == StatusCode::OK
    })
    .await;
    let patch = |auto: &str| {
        json!({"metadata": {"annotations": {"apf.kubernetes.io/autoupdate-spec": auto}},
            "spec": {"limited": {"nominalConcurrencyShares": 77}}})
    };
    let shares = |name: &'static str| {
        let admin = admin.clone();
        async move {
            let level =
                admin.get(&format!("{GROUP}/prioritylevelconfigurations/{name}")).await.expect("an answer");
            level.body["spec"]["limited"]["nominalConcurrencyShares"].as_i64()
        }
    };
    let merge = "application/merge-patch+json";
    let own = format!("{GROUP}/prioritylevelconfigurations/workload-low");
    assert_eq!(admin.patch(&own, merge, &patch("false")).await.status, StatusCode::OK);
    let kept = format!("{GROUP}/prioritylevelconfigurations/workload-high");
    assert_eq!(admin.patch(&kept, merge, &patch("true")).await.status, StatusCode::OK);
    wait_for("the suggested level", || async { shares("workload-high").await == Some(40) }).await;
    assert_eq!(shares("workload-low").await, Some(77));

    let schema =
        json!({"metadata": {"name": "mine"}, "spec": {"priorityLevelConfiguration": {"name": "missing"}}});
    assert_eq!(admin.json("POST", &schemas, &schema).await.status, StatusCode::CREATED);
    wait_for("the dangling schema", || async {
        let found = admin.get(&format!("{schemas}/mine")).await.expect("an answer").body;
        dangling(&found) == ("True".into(), "NotFound".into())
    })
    .await;
    server.finish().await;
}

#[tokio::test]
async fn answers_say_what_a_request_was_taken_for() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    let uid = |plural: &'static str, name: &'static str| {
        let admin = admin.clone();
        async move {
            let found = admin.get(&format!("{GROUP}/{plural}/{name}")).await.expect("an answer");
            found.body["metadata"]["uid"].as_str().unwrap_or_default().to_owned()
        }
    };
    let nobody = cluster.client(&server, Some("nobody"));
    wait_for("the schema's uid in answers", || async {
        let answer = nobody.get("/api/v1/pods").await.expect("an answer");
        let header = |name: &str| {
            answer.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        let found = uid("flowschemas", "global-default").await;
        !found.is_empty()
            && header("x-kubernetes-pf-flowschema-uid") == found
            && header("x-kubernetes-pf-prioritylevel-uid")
                == uid("prioritylevelconfigurations", "global-default").await
    })
    .await;
    let dump = admin.get("/debug/api_priority_and_fairness/dump_priority_levels").await.expect("an answer");
    let text = dump.body.as_str().unwrap_or_default().to_owned();
    assert!(text.starts_with("PriorityLevelName, ActiveQueues, IsIdle, IsQuiescing,"), "{text}");
    assert!(text.contains("\nglobal-default, 0, true, false, 0, 0, "), "{text}");
    let metrics = admin.get("/metrics").await.expect("an answer").body;
    let metrics = metrics.as_str().unwrap_or_default();
    for series in [
        "apiserver_flowcontrol_dispatched_requests_total{flow_schema=\"global-default\",priority_level=\"global-default\"}",
        "apiserver_flowcontrol_nominal_limit_seats{priority_level=\"catch-all\"} 13",
        "apiserver_flowcontrol_current_limit_seats{priority_level=\"system\"}",
    ] {
        assert!(metrics.contains(series), "{series}");
    }
    server.finish().await;
}

#[tokio::test]
async fn a_level_without_queues_turns_away_what_is_too_much_and_others_are_served() {
    let cluster = Cluster::new();
    // One seat for each level.
    let server = cluster.server(&["--max-requests-inflight=1", "--max-mutating-requests-inflight=1"]).await;
    let admin = cluster.client(&server, Some("admin"));
    let level = json!({"metadata": {"name": "tight"}, "spec": {"type": "Limited", "limited":
        {"nominalConcurrencyShares": 1, "borrowingLimitPercent": 0, "limitResponse": {"type": "Reject"}}}});
    let created = admin.json("POST", &format!("{GROUP}/prioritylevelconfigurations"), &level).await;
    assert_eq!(created.status, StatusCode::CREATED, "{}", created.body);
    let schema = json!({"metadata": {"name": "tight"}, "spec": {
        "priorityLevelConfiguration": {"name": "tight"}, "matchingPrecedence": 10,
        "rules": [{"subjects": [{"kind": "User", "user": {"name": "nobody"}}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true}]}]}});
    let created = admin.json("POST", &format!("{GROUP}/flowschemas"), &schema).await;
    assert_eq!(created.status, StatusCode::CREATED, "{}", created.body);
    let nobody = cluster.client(&server, Some("nobody"));
    let binding = json!({"metadata": {"name": "tight"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "nobody"}]});
    let created =
        admin.json("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding).await;
    assert_eq!(created.status, StatusCode::CREATED, "{}", created.body);
    let map = json!({"metadata": {"generateName": "many-"}});
    let refused = || async {
        let one = || nobody.json("POST", "/api/v1/namespaces/default/configmaps", &map);
        let many = futures::future::join_all((0..40).map(|_| one())).await;
        many.into_iter().find(|answer| answer.status == StatusCode::TOO_MANY_REQUESTS)
    };
    wait_for("a refusal", || async { refused().await.is_some() }).await;
    let answer = loop {
        if let Some(answer) = refused().await {
            break answer;
        }
    };
    assert_eq!(answer.headers["retry-after"], "1");
    assert_eq!(answer.bytes, "Too many requests, please try again later.\n");
    let (flood, served) = tokio::join!(refused(), admin.get("/api/v1/pods"));
    assert_eq!(served.expect("an answer").status, StatusCode::OK);
    drop(flood);
    server.finish().await;
}
