//! Who may do what by webhooks and policy files, over HTTPS.

use crate::common::Cluster;
use crate::common::extension::Extension;
use http::StatusCode;
use serde_json::{Value, json};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";

fn kubeconfig(cluster: &Cluster, port: u16) -> String {
    let path = cluster.dir.path().join("authz.conf");
    let text = format!(
        "current-context: x\nclusters: [{{name: c, cluster: {{server: 'https://localhost:{port}/authorize', certificate-authority: ca.crt}}}}]\n\
         users: []\ncontexts: [{{name: x, context: {{cluster: c}}}}]\n"
    );
    std::fs::write(&path, text).expect("write");
    path.display().to_string()
}

/// Allows what is done to ConfigMaps, refuses what is done to Secrets, and leaves the rest to others.
async fn hook(cluster: &Cluster) -> Extension {
    Extension::start(cluster, |seen| {
        let resource = &seen.body["spec"]["resourceAttributes"]["resource"];
        let status = match resource.as_str().unwrap_or_default() {
            "configmaps" => json!({"allowed": true, "reason": "the hook says so"}),
            "secrets" => json!({"allowed": false, "denied": true, "reason": "not these"}),
            _ => json!({"allowed": false}),
        };
        (200, json!({"apiVersion": seen.body["apiVersion"], "kind": "SubjectAccessReview", "status": status}))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_allow_refuse_and_leave_to_others_by_the_configuration() {
    let cluster = Cluster::new();
    let hook = hook(&cluster).await;
    let file = cluster.dir.path().join("authz.yaml");
    let configuration = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthorizationConfiguration",
        "authorizers": [
            {"type": "Webhook", "name": "hook", "webhook": {
                "timeout": "3s", "subjectAccessReviewVersion": "v1", "matchConditionSubjectAccessReviewVersion": "v1", "failurePolicy": "Deny",
                "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": kubeconfig(&cluster, hook.port)},
                "matchConditions": [{"expression": "request.user == 'nobody'"}, {"expression": "has(request.resourceAttributes)"}]}},
            {"type": "RBAC", "name": "rbac"},
        ],
    });
    std::fs::write(&file, configuration.to_string()).expect("write");
    // The file stands in the place of the flag.
    let server = cluster
        .server_with(&["--authorization-mode"], &[&format!("--authorization-config={}", file.display())])
        .await;
    let nobody = cluster.client(&server, Some("nobody"));
    for _ in 0..2 {
        let listed = nobody.get(&format!("{CONFIG_MAPS}?labelSelector=a%3Db")).await.expect("an answer");
        assert_eq!(listed.status, StatusCode::OK, "{listed:?}");
    }
    let refused = nobody.get(SECRETS).await.expect("an answer");
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert!(
        refused.body["message"]
            .as_str()
            .is_some_and(|text| text.ends_with("namespace \"default\": not these")),
        "{refused:?}"
    );
    assert_eq!(nobody.get("/api/v1/nodes").await.expect("an answer").status, StatusCode::FORBIDDEN);
    let seen = hook.seen();
    let of = |resource: &str| -> Vec<&Value> {
        let spec = seen.iter().map(|one| &one.body["spec"]);
        spec.filter(|spec| spec["resourceAttributes"]["resource"] == resource).collect()
    };
    assert_eq!(of("configmaps").len(), 1, "the second answer is remembered");
    let asked = of("configmaps")[0];
    assert_eq!((&asked["user"], &asked["groups"]), (&json!("nobody"), &json!(["system:authenticated"])));
    assert_eq!(
        asked["resourceAttributes"],
        json!({"verb": "list", "version": "v1", "resource": "configmaps", "namespace": "default",
            "labelSelector": {"requirements": [{"key": "a", "operator": "In", "values": ["b"]}]}})
    );
    let admin = cluster.client(&server, Some("admin"));
    let review = json!({"spec": {"user": "nobody", "resourceAttributes": {"verb": "get", "resource": "secrets", "namespace": "default"}}});
    let reviewed = admin.json("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", &review).await;
    assert_eq!(reviewed.body["status"], json!({"allowed": false, "denied": true, "reason": "not these"}));
    // A hook that does not answer refuses, as its failure policy says.
    drop(hook);
    assert_eq!(nobody.get("/api/v1/pods").await.expect("an answer").status, StatusCode::FORBIDDEN);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn modes_of_the_flags_are_asked_in_their_order() {
    let cluster = Cluster::new();
    let hook = hook(&cluster).await;
    let policies = cluster.dir.path().join("abac.jsonl");
    let policy = json!({"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy",
        "spec": {"user": "nobody", "namespace": "*", "resource": "secrets", "apiGroup": "*", "readonly": true}});
    std::fs::write(&policies, policy.to_string()).expect("write");
    let file = kubeconfig(&cluster, hook.port);
    let server = cluster
        .server_with(
            &["--authorization-mode"],
            &[
                "--authorization-mode=ABAC,Webhook,RBAC",
                &format!("--authorization-policy-file={}", policies.display()),
                &format!("--authorization-webhook-config-file={file}"),
            ],
        )
        .await;
    let nobody = cluster.client(&server, Some("nobody"));
    // The policies come first, so that the hook is not asked.
    assert_eq!(nobody.get(SECRETS).await.expect("an answer").status, StatusCode::OK);
    assert_eq!(nobody.get(CONFIG_MAPS).await.expect("an answer").status, StatusCode::OK);
    assert_eq!(nobody.delete(&format!("{SECRETS}/x")).await.status, StatusCode::FORBIDDEN);
    let review = json!({"spec": {"namespace": "default"}});
    let rules = nobody.json("POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", &review).await;
    assert_eq!(rules.body["status"]["incomplete"], true);
    assert_eq!(
        rules.body["status"]["evaluationError"],
        "webhook authorizer does not support user rule resolution"
    );
    let older = hook.seen().pop().expect("was asked").body;
    assert_eq!(
        (&older["apiVersion"], &older["spec"]["group"]),
        (&json!("authorization.k8s.io/v1beta1"), &json!(["system:authenticated"]))
    );
    server.finish().await;
}
