//! What admission fills in and refuses: ranges, quotas, pod security, default classes, runtime classes.

use crate::common::{Client, Cluster};
use http::StatusCode;
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(name: &str, resources: Value) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i", "resources": resources}]}})
}

async fn create(client: &Client, path: &str, object: &Value) -> Value {
    let made = client.json("POST", path, object).await;
    assert_eq!(made.status, StatusCode::CREATED, "{path}: {}", made.body);
    made.body
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_fill_in_containers_and_bound_them() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    admin.with_account("default").await;
    let range = json!({"metadata": {"name": "r"}, "spec": {"limits": [
        {"type": "Container", "max": {"cpu": "1"}, "defaultRequest": {"cpu": "100m"}}]}});
    create(&admin, "/api/v1/namespaces/default/limitranges", &range).await;
    crate::common::wait_for("the range counts", || async {
        let tried = admin.json("POST", &format!("{PODS}?dryRun=All"), &pod("a", json!({}))).await;
        tried.body["spec"]["containers"][0]["resources"]
            == json!({"limits": {"cpu": "1"}, "requests": {"cpu": "100m"}})
    })
    .await;
    let made = create(&admin, PODS, &pod("a", json!({}))).await;
    assert_eq!(
        made["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
    );
    let refused = admin.json("POST", PODS, &pod("b", json!({"limits": {"cpu": "2"}}))).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert_eq!(
        refused.body["message"],
        "pods \"b\" is forbidden: maximum cpu usage per Container is 1, but limit is 2"
    );
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn creates_at_the_same_time_on_two_servers_never_exceed_a_quota() {
    let cluster = Cluster::new();
    let (one, other) = (cluster.server(&[]).await, cluster.server(&[]).await);
    let clients = [cluster.client(&one, Some("admin")), cluster.client(&other, Some("admin"))];
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    let hard = json!({"configmaps": "5"});
    let mut quota =
        create(&clients[0], quotas, &json!({"metadata": {"name": "q"}, "spec": {"hard": hard}})).await;
    // What the quota controller does.
    quota["status"] = json!({"hard": hard, "used": {"configmaps": "0"}});
    let counted = clients[0].json("PUT", &format!("{quotas}/q/status"), &quota).await;
    assert_eq!(counted.status, StatusCode::OK, "{}", counted.body);
    for client in &clients {
        crate::common::wait_for("the quota is known", || async {
            let read = client.get(&format!("{quotas}/q?resourceVersion=0")).await.expect("an answer");
            read.body["status"]["hard"] == hard
        })
        .await;
    }
    let tries = (0..20).map(|number| {
        let client = &clients[number % 2];
        async move {
            let object = json!({"metadata": {"name": format!("c{number}")}, "data": {}});
            client.json("POST", "/api/v1/namespaces/default/configmaps", &object).await
        }
    });
    let answers = futures::future::join_all(tries).await;
    let made = answers.iter().filter(|answer| answer.status == StatusCode::CREATED).count();
    assert_eq!(made, 5);
    let refused = answers.iter().find(|answer| answer.status == StatusCode::FORBIDDEN).expect("a refusal");
    let text = refused.body["message"].as_str().unwrap_or_default();
    assert!(
        text.ends_with("is forbidden: exceeded quota: q, requested: configmaps=1, used: configmaps=5, limited: configmaps=5"),
        "{text}"
    );
    let after = clients[1].get(&format!("{quotas}/q")).await.expect("an answer");
    assert_eq!(after.body["status"]["used"]["configmaps"], "5");
    one.finish().await;
    other.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn labelled_namespaces_refuse_and_warn_about_pods() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    let labels = json!({"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/warn": "restricted"});
    create(&admin, "/api/v1/namespaces", &json!({"metadata": {"name": "safe", "labels": labels}})).await;
    admin.with_account("safe").await;
    let path = "/api/v1/namespaces/safe/pods";
    let mut bad = pod("p", json!({}));
    bad["spec"]["hostNetwork"] = true.into();
    let refused = admin.json("POST", path, &bad).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.body);
    assert_eq!(
        refused.body["message"],
        "pods \"p\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)"
    );
    let warned = admin.json("POST", path, &pod("p", json!({}))).await;
    assert_eq!(warned.status, StatusCode::CREATED, "{}", warned.body);
    let warnings: Vec<&str> =
        warned.headers.get_all("warning").iter().filter_map(|value| value.to_str().ok()).collect();
    assert!(
        warnings
            .iter()
            .any(|warning| warning.contains("would violate PodSecurity \\\"restricted:latest\\\"")),
        "{warnings:?}"
    );
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn classes_give_claims_and_pods_what_they_do_not_say() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    admin.with_account("default").await;
    let class = json!({"provisioner": "example.com/p", "metadata": {"name": "fast",
        "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}});
    create(&admin, "/apis/storage.k8s.io/v1/storageclasses", &class).await;
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}});
    crate::common::wait_for("the class counts", || async {
        let tried = admin.json("POST", &format!("{claims}?dryRun=All"), &claim).await;
        tried.body["spec"]["storageClassName"] == "fast"
    })
    .await;
    let runtime = json!({"metadata": {"name": "vm"}, "handler": "kata", "overhead": {"podFixed": {"memory": "64Mi"}},
        "scheduling": {"nodeSelector": {"vm": "yes"}}});
    create(&admin, "/apis/node.k8s.io/v1/runtimeclasses", &runtime).await;
    let mut object = pod("p", json!({}));
    object["spec"]["runtimeClassName"] = "vm".into();
    let made = create(&admin, PODS, &object).await;
    assert_eq!(
        (&made["spec"]["overhead"]["memory"], &made["spec"]["nodeSelector"]["vm"]),
        (&json!("64Mi"), &json!("yes"))
    );
    let mut unknown = pod("q", json!({}));
    unknown["spec"]["runtimeClassName"] = "none".into();
    let refused = admin.json("POST", PODS, &unknown).await;
    assert_eq!(
        refused.body["message"],
        "pods \"q\" is forbidden: pod rejected: RuntimeClass \"none\" not found"
    );
    server.finish().await;
}
