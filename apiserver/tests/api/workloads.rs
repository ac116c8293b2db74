//! The kinds of workloads over HTTPS: what they are given, what is refused, and the parts that other kinds do not have.

use crate::common::{Client, Cluster};
use http::StatusCode;
use serde_json::{Value, json};

const MERGE: &str = "application/merge-patch+json";

async fn in_namespace(client: &Client) {
    let answer = client.json("POST", "/api/v1/namespaces", &json!({"metadata": {"name": "default"}})).await;
    assert!(matches!(answer.status, StatusCode::CREATED | StatusCode::CONFLICT), "{answer:?}");
}

fn template(labels: Value, policy: &str) -> Value {
    json!({"metadata": {"labels": labels}, "spec": {"restartPolicy": policy, "containers": [{"name": "c", "image": "i:1"}]}})
}

async fn created(client: &Client, path: &str, object: Value) -> Value {
    let answer = client.json("POST", path, &object).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{path}: {}", answer.body);
    answer.body
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_is_made_changed_shown_and_deleted() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    in_namespace(&admin).await;
    let labels = json!({"app": "web"});
    let selector = json!({"matchLabels": labels});
    let endless = template(labels.clone(), "Always");
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    let kinds = [
        ("/apis/apps/v1", "statefulsets", json!({"spec": {"selector": selector, "template": endless}})),
        ("/apis/apps/v1", "daemonsets", json!({"spec": {"selector": selector, "template": endless}})),
        ("/apis/apps/v1", "controllerrevisions", json!({"data": {"spec": {}}, "revision": 1})),
        ("/apis/batch/v1", "jobs", json!({"spec": {"template": template(json!({}), "Never")}})),
        (
            "/apis/batch/v1",
            "cronjobs",
            json!({"spec": {"schedule": "@daily", "jobTemplate": {"spec": {"template": template(json!({}), "Never")}}}}),
        ),
        (
            "/apis/autoscaling/v2",
            "horizontalpodautoscalers",
            json!({"spec": {"maxReplicas": 3, "scaleTargetRef": target}}),
        ),
        (
            "/apis/policy/v1",
            "poddisruptionbudgets",
            json!({"spec": {"minAvailable": 1, "selector": selector}}),
        ),
        ("/api/v1", "replicationcontrollers", json!({"spec": {"template": endless}})),
        ("/api/v1", "podtemplates", json!({"template": endless})),
    ];
    let as_table = admin.clone().with_header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
    for (group, plural, mut object) in kinds {
        object["metadata"] = json!({"name": "web"});
        let path = format!("{group}/namespaces/default/{plural}");
        created(&admin, &path, object).await;
        let one = format!("{path}/web");
        let changed = admin.patch(&one, MERGE, &json!({"metadata": {"labels": {"a": "b"}}})).await;
        assert_eq!(changed.status, StatusCode::OK, "{plural}: {}", changed.body);
        assert_eq!(changed.body["metadata"]["labels"]["a"], "b", "{plural}");
        let table = as_table.get(&path).await.expect("an answer");
        assert_eq!(table.body["kind"], "Table", "{plural}");
        assert_eq!(table.body["rows"][0]["cells"][0], "web", "{plural}");
        let deleted = admin.delete(&format!("{one}?propagationPolicy=Background")).await;
        assert_eq!(deleted.status, StatusCode::OK, "{plural}: {}", deleted.body);
        assert_eq!(admin.get(&one).await.expect("an answer").status, StatusCode::NOT_FOUND, "{plural}");
    }
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stateful_sets_and_replication_controllers_are_scaled() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    in_namespace(&admin).await;
    let labels = json!({"app": "db"});
    let endless = template(labels.clone(), "Always");
    let sets = "/apis/apps/v1/namespaces/default/statefulsets";
    let controllers = "/api/v1/namespaces/default/replicationcontrollers";
    let set = json!({"metadata": {"name": "db"}, "spec": {"selector": {"matchLabels": labels}, "template": endless}});
    assert_eq!(created(&admin, sets, set).await["spec"]["podManagementPolicy"], "OrderedReady");
    let controller = json!({"metadata": {"name": "db"}, "spec": {"template": endless}});
    assert_eq!(created(&admin, controllers, controller).await["spec"]["selector"], labels);
    for path in [sets, controllers] {
        let scale = format!("{path}/db/scale");
        let answer = admin.patch(&scale, MERGE, &json!({"spec": {"replicas": 4}})).await;
        assert_eq!((answer.status, &answer.body["spec"]["replicas"]), (StatusCode::OK, &json!(4)));
        assert_eq!(answer.body["status"]["selector"], "app=db", "{path}");
        let object = admin.get(&format!("{path}/db")).await.expect("an answer").body;
        assert_eq!((&object["spec"]["replicas"], &object["metadata"]["generation"]), (&json!(4), &json!(2)));
    }
    let refused = admin.patch(&format!("{sets}/db"), MERGE, &json!({"spec": {"serviceName": "other"}})).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        refused.body["message"],
        "StatefulSet.apps \"db\" is invalid: spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
    );
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_get_their_selector_and_leave_their_pods() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    in_namespace(&admin).await;
    let jobs = "/apis/batch/v1/namespaces/default/jobs";
    let job = json!({"metadata": {"name": "pi"}, "spec": {"template": template(json!({}), "Never")}});
    let job = created(&admin, jobs, job).await;
    let uid = &job["metadata"]["uid"];
    assert_eq!(&job["spec"]["selector"]["matchLabels"]["batch.kubernetes.io/controller-uid"], uid);
    assert_eq!(job["spec"]["template"]["metadata"]["labels"]["job-name"], "pi");
    assert_eq!(job["metadata"]["generation"], 1);
    let deleted = admin.delete(&format!("{jobs}/pi")).await;
    let warning = deleted.headers.get("warning").and_then(|value| value.to_str().ok()).unwrap_or_default();
    assert!(warning.contains("child pods are preserved by default when jobs are deleted"), "{warning:?}");
    let kept = admin.get(&format!("{jobs}/pi")).await.expect("an answer");
    assert_eq!(kept.body["metadata"]["finalizers"], json!(["orphan"]));
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn autoscalers_are_one_object_in_two_versions() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    in_namespace(&admin).await;
    let path =
        |version: &str| format!("/apis/autoscaling/{version}/namespaces/default/horizontalpodautoscalers");
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    let object = json!({"metadata": {"name": "web"}, "spec": {"maxReplicas": 3, "scaleTargetRef": target}});
    let old = created(&admin, &path("v1"), object).await;
    assert_eq!(
        (&old["apiVersion"], &old["spec"]["targetCPUUtilizationPercentage"]),
        (&json!("autoscaling/v1"), &json!(80))
    );
    let new = admin.get(&format!("{}/web", path("v2"))).await.expect("an answer").body;
    assert_eq!((&new["apiVersion"], &new["spec"]["minReplicas"]), (&json!("autoscaling/v2"), &json!(1)));
    assert_eq!(new["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 80);
    let behavior = json!({"spec": {"behavior": {"scaleUp": {"stabilizationWindowSeconds": 60}}}});
    let changed = admin.patch(&format!("{}/web", path("v2")), MERGE, &behavior).await;
    assert_eq!(changed.status, StatusCode::OK, "{}", changed.body);
    let half = json!({"spec": {"targetCPUUtilizationPercentage": 50}});
    let changed = admin.patch(&format!("{}/web", path("v1")), MERGE, &half).await;
    assert_eq!(changed.status, StatusCode::OK, "{}", changed.body);
    let new = admin.get(&format!("{}/web", path("v2"))).await.expect("an answer").body;
    assert_eq!(new["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 50);
    assert_eq!(
        new["spec"]["behavior"]["scaleUp"]["stabilizationWindowSeconds"], 60,
        "what v1 has no field for stays"
    );
    assert!(new["metadata"].get("annotations").is_none(), "{}", new["metadata"]);
    let list = admin.get(&path("v1")).await.expect("an answer").body;
    assert_eq!(list["items"][0]["spec"]["targetCPUUtilizationPercentage"], 50);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn evictions_keep_to_the_budget() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    in_namespace(&admin).await;
    let pods = "/api/v1/namespaces/default/pods";
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    admin.with_account("default").await;
    let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    for name in ["a", "b"] {
        let pod = json!({"metadata": {"name": name, "labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}});
        created(&admin, pods, pod).await;
        let running = admin.patch(&format!("{pods}/{name}/status"), MERGE, &ready).await;
        assert_eq!(running.status, StatusCode::OK, "{}", running.body);
    }
    let budget = json!({"metadata": {"name": "web"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}});
    created(&admin, budgets, budget).await;
    let evict = |name: &str| {
        let (admin, eviction) = (admin.clone(), json!({"metadata": {"name": name}}));
        let path = format!("{pods}/{name}/eviction");
        async move { admin.json("POST", &path, &eviction).await }
    };
    let early = evict("a").await;
    assert_eq!(
        (early.status, &early.body["reason"]),
        (StatusCode::TOO_MANY_REQUESTS, &json!("TooManyRequests"))
    );
    assert_eq!(early.headers.get("retry-after").and_then(|value| value.to_str().ok()), Some("10"));
    let counted = json!({"status": {"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2}});
    let counted = admin.patch(&format!("{budgets}/web/status"), MERGE, &counted).await;
    assert_eq!(counted.status, StatusCode::OK, "{}", counted.body);
    assert_eq!(evict("a").await.status, StatusCode::CREATED);
    assert_eq!(admin.get(&format!("{pods}/a")).await.expect("an answer").status, StatusCode::NOT_FOUND);
    let seen = json!({"status": {"currentHealthy": 1}});
    admin.patch(&format!("{budgets}/web/status"), MERGE, &seen).await;
    let refused = evict("b").await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.body["message"], "Cannot evict pod as it would violate the pod's disruption budget.");
    assert_eq!(
        refused.body["details"]["causes"],
        json!([{"reason": "DisruptionBudget", "message": "The disruption budget web needs 1 healthy pods and has 1 currently"}])
    );
    let left = admin.get(&format!("{budgets}/web")).await.expect("an answer").body;
    assert_eq!(left["status"]["disruptionsAllowed"], 0);
    assert!(left["status"]["disruptedPods"]["a"].is_string());
    server.finish().await;
}
