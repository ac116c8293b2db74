//! Who may do what, over HTTPS: roles, bindings, escalation, nodes, reviews.

use crate::common::{Answer, Client, Cluster, Server, wait_for};
use http::StatusCode;
use serde_json::{Value, json};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const PODS: &str = "/api/v1/namespaces/default/pods";
const REVIEWS: &str = "/apis/authorization.k8s.io/v1";

fn message(answer: &Answer) -> &str {
    answer.body["message"].as_str().unwrap_or_default()
}

/// Someone with no rights but everybody's.
fn bob(cluster: &Cluster, server: &Server) -> Client {
    cluster.client(server, Some("admin")).with_header("impersonate-user", "bob")
}

async fn create(client: &Client, path: &str, object: Value) -> Answer {
    let answer = client.json("POST", path, &object).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{path}: {}", answer.body);
    answer
}

fn role(name: &str, rules: Value) -> Value {
    json!({"metadata": {"name": name}, "rules": rules})
}

fn binding(name: &str, kind: &str, role: &str, user: &str) -> Value {
    json!({"metadata": {"name": name}, "roleRef": {"kind": kind, "name": role}, "subjects": [{"kind": "User", "name": user}]})
}

async fn may(client: &Client, path: &str) -> bool {
    client.get(path).await.expect("answer").status == StatusCode::OK
}

async fn wait_until_allowed(client: &Client, path: &str) {
    wait_for(path, || may(client, path)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binding_gives_a_role_in_its_namespace_until_it_is_gone() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let (admin, bob) = (cluster.client(&server, Some("admin")), bob(&cluster, &server));
    assert!(!may(&bob, PODS).await);
    let rules = json!([{"apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": ["get", "list"]}]);
    create(&admin, &format!("{RBAC}/namespaces/default/roles"), role("reader", rules)).await;
    let bindings = format!("{RBAC}/namespaces/default/rolebindings");
    let made = create(&admin, &bindings, binding("bob-reads", "Role", "reader", "bob")).await;
    assert_eq!(made.body["roleRef"]["apiGroup"], "rbac.authorization.k8s.io");
    assert_eq!(made.body["subjects"][0]["apiGroup"], "rbac.authorization.k8s.io");
    wait_until_allowed(&bob, PODS).await;
    assert!(!may(&bob, "/api/v1/namespaces/kube-system/pods").await && !may(&bob, "/api/v1/pods").await);
    let refused = bob.delete(&format!("{PODS}/x")).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert_eq!(
        message(&refused),
        "pods \"x\" is forbidden: User \"bob\" cannot delete resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    let mut changed = made.body.clone();
    changed["roleRef"]["name"] = "other".into();
    let refused = admin.json("PUT", &format!("{bindings}/bob-reads"), &changed).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        message(&refused).ends_with("\"Name\":\"other\"}: cannot change roleRef"),
        "{}",
        message(&refused)
    );
    assert_eq!(admin.delete(&format!("{bindings}/bob-reads")).await.status, StatusCode::OK);
    wait_for("the right is gone", || async { !may(&bob, PODS).await }).await;
    create(&admin, &bindings, binding("dangling", "Role", "nothing", "bob")).await;
    wait_for("the reason", || async {
        let refused = bob.get(PODS).await.expect("answer");
        message(&refused).ends_with(
            "in the namespace \"default\": RBAC: role.rbac.authorization.k8s.io \"nothing\" not found",
        )
    })
    .await;
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_roles_are_there_and_come_back() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    let view = format!("{RBAC}/clusterroles/view");
    wait_for("view is aggregated", || async {
        let view = admin.get(&view).await.expect("answer").body;
        view["rules"].as_array().is_some_and(|rules| rules.len() == 11)
    })
    .await;
    wait_for("admin is aggregated from edit, which is from view", || async {
        let role = admin.get(&format!("{RBAC}/clusterroles/admin")).await.expect("answer").body;
        role["rules"].as_array().is_some_and(|rules| rules.len() == 27)
    })
    .await;
    let mine = json!([{"apiGroups": ["example.com"], "resources": ["things"], "verbs": ["get"]}]);
    let mut extension = role("things-view", mine.clone());
    extension["metadata"]["labels"] = json!({"rbac.authorization.k8s.io/aggregate-to-view": "true"});
    create(&admin, &format!("{RBAC}/clusterroles"), extension).await;
    wait_for("view has the extension", || async {
        let view = admin.get(&view).await.expect("answer").body;
        view["rules"].as_array().is_some_and(|rules| rules.contains(&mine[0]))
    })
    .await;
    let (dns, discovery) = (
        format!("{RBAC}/clusterroles/system:kube-dns"),
        format!("{RBAC}/clusterrolebindings/system:discovery"),
    );
    assert_eq!(admin.delete(&discovery).await.status, StatusCode::OK);
    let stripped = json!({"rules": [{"apiGroups": ["mine"], "resources": ["x"], "verbs": ["get"]}]});
    assert_eq!(admin.patch(&dns, "application/merge-patch+json", &stripped).await.status, StatusCode::OK);
    let left_alone = json!({"metadata": {"annotations": {"rbac.authorization.kubernetes.io/autoupdate": "false"}}, "rules": []});
    let heapster = format!("{RBAC}/clusterroles/system:heapster");
    assert_eq!(
        admin.patch(&heapster, "application/merge-patch+json", &left_alone).await.status,
        StatusCode::OK
    );
    server.finish().await;
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    assert_eq!(admin.get(&discovery).await.expect("answer").status, StatusCode::OK);
    let rules = admin.get(&dns).await.expect("answer").body["rules"].clone();
    assert_eq!(rules.as_array().map(Vec::len), Some(5), "{rules}");
    let heapster = admin.get(&heapster).await.expect("answer").body;
    assert!(heapster["rules"].as_array().is_none_or(Vec::is_empty), "{heapster}");
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_reads_discovery_and_nobody_only_health() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let (anonymous, known) = (cluster.client(&server, None), cluster.client(&server, Some("nobody")));
    for path in ["/healthz", "/livez", "/readyz", "/version"] {
        assert!(may(&anonymous, path).await, "{path}");
    }
    for path in ["/api", "/apis", "/apis/apps/v1", "/openapi/v3"] {
        assert!(may(&known, path).await && !may(&anonymous, path).await, "{path}");
    }
    assert!(!may(&known, "/metrics").await && !may(&known, "/livez/etcd").await);
    assert!(!may(&known, "/openid/v1/jwks").await);
    let robot = cluster
        .client(&server, Some("admin"))
        .with_header("impersonate-user", "system:serviceaccount:default:default");
    assert!(may(&robot, "/openid/v1/jwks").await && may(&robot, "/.well-known/openid-configuration").await);
    let monitor = bob(&cluster, &server).with_header("impersonate-group", "system:monitoring");
    assert!(may(&monitor, "/metrics").await);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gives_away_more_than_he_has() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let (admin, bob) = (cluster.client(&server, Some("admin")), bob(&cluster, &server));
    let roles = format!("{RBAC}/namespaces/default/roles");
    let bindings = format!("{RBAC}/namespaces/default/rolebindings");
    create(&admin, &bindings, binding("bob-admin", "ClusterRole", "admin", "bob")).await;
    wait_until_allowed(&bob, &roles).await;
    wait_until_allowed(&bob, PODS).await;
    let held = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
    create(&bob, &roles, role("held", held.clone())).await;
    let more = json!([{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "delete"]}]);
    let refused = bob.json("POST", &roles, &role("more", more.clone())).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert_eq!(
        message(&refused),
        "roles.rbac.authorization.k8s.io \"more\" is forbidden: user \"bob\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"get\" \"delete\"]}"
    );
    let refused =
        bob.patch(&format!("{roles}/held"), "application/merge-patch+json", &json!({"rules": more})).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.body);
    let refused = bob.json("POST", &bindings, &binding("up", "ClusterRole", "cluster-admin", "bob")).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert!(
        message(&refused).starts_with(
            "rolebindings.rbac.authorization.k8s.io \"up\" is forbidden: user \"bob\" (groups=[\"system:authenticated\"]) is attempting"
        ),
        "{}",
        message(&refused)
    );
    let refused = bob.json("POST", &bindings, &binding("none", "ClusterRole", "no-such", "bob")).await;
    assert_eq!(refused.status, StatusCode::NOT_FOUND);
    assert_eq!(message(&refused), "clusterrole.rbac.authorization.k8s.io \"no-such\" not found");
    create(&bob, &bindings, binding("down", "ClusterRole", "view", "eve")).await;
    let powers = json!([
        {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"], "verbs": ["escalate"]},
        {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "resourceNames": ["cluster-admin"], "verbs": ["bind"]},
    ]);
    create(&admin, &roles, role("powers", powers)).await;
    create(&admin, &bindings, binding("bob-powers", "Role", "powers", "bob")).await;
    wait_for("escalate", || async {
        bob.json("POST", &roles, &role("more", more.clone())).await.status == StatusCode::CREATED
    })
    .await;
    create(&bob, &bindings, binding("up", "ClusterRole", "cluster-admin", "bob")).await;
    let clusterroles = format!("{RBAC}/clusterroles");
    let makes = json!([{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "verbs": ["create"]}]);
    create(&admin, &clusterroles, role("makes-roles", makes)).await;
    create(
        &admin,
        &format!("{RBAC}/clusterrolebindings"),
        binding("eve", "ClusterRole", "makes-roles", "eve"),
    )
    .await;
    let eve = cluster.client(&server, Some("admin")).with_header("impersonate-user", "eve");
    let mut gathers = role("gathers", json!([]));
    gathers["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {"x": "y"}}]});
    wait_for("eve may make ClusterRoles, but none that gathers others", || async {
        let refused = eve.json("POST", &clusterroles, &gathers).await;
        message(&refused).ends_with("must have cluster-admin privileges to use the aggregationRule")
    })
    .await;
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_reaches_its_own_and_no_more() {
    let cluster = Cluster::new();
    cluster.pki.issue("node", "system:node:a", &["system:nodes"]);
    let server = cluster.server(&["--enable-admission-plugins=NodeRestriction"]).await;
    let (admin, node) = (cluster.client(&server, Some("admin")), cluster.client(&server, Some("node")));
    let secrets = "/api/v1/namespaces/default/secrets";
    for name in ["used", "other"] {
        create(&admin, secrets, json!({"metadata": {"name": name}})).await;
    }
    create(&node, "/api/v1/nodes", json!({"metadata": {"name": "a"}})).await;
    assert!(!may(&node, &format!("{secrets}/used")).await);
    create(&admin, "/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}}))
        .await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {
        "nodeName": "a",
        "automountServiceAccountToken": false,
        "containers": [{"name": "c", "image": "i", "envFrom": [{"secretRef": {"name": "used"}}]}],
    }});
    let pod = create(&admin, PODS, pod).await.body;
    wait_until_allowed(&node, &format!("{secrets}/used")).await;
    assert!(may(&node, &format!("{secrets}?fieldSelector=metadata.name%3Dused")).await);
    let refused = node.get(&format!("{secrets}/other")).await.expect("answer");
    assert_eq!(
        message(&refused),
        "secrets \"other\" is forbidden: User \"system:node:a\" cannot get resource \"secrets\" in API group \"\" in the namespace \"default\": no relationship found between node 'a' and this object"
    );
    assert!(may(&node, "/api/v1/pods?fieldSelector=spec.nodeName%3Da").await);
    assert!(
        !may(&node, "/api/v1/pods").await && !may(&node, "/api/v1/nodes").await && !may(&node, secrets).await
    );
    assert!(may(&node, "/api/v1/nodes/a").await && may(&node, "/api/v1/services").await);
    let token = format!("{}/default/token", "/api/v1/namespaces/default/serviceaccounts");
    let bound = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": pod["metadata"]["uid"]});
    let request = json!({"spec": {"audiences": ["x"], "boundObjectRef": bound}});
    create(&node, &token, request.clone()).await;
    let refused = node.json("POST", &token, &json!({"spec": {"audiences": ["x"]}})).await;
    assert_eq!(
        message(&refused),
        "serviceaccounts \"default\" is forbidden: node requested token not bound to a pod"
    );
    let refused = node.json("POST", &token.replace("default/token", "builder/token"), &request).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reviews_answer_with_the_reasons_and_the_rules() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let (admin, bob) = (cluster.client(&server, Some("admin")), bob(&cluster, &server));
    create(&admin, &format!("{RBAC}/clusterrolebindings"), binding("viewers", "ClusterRole", "view", "bob"))
        .await;
    wait_until_allowed(&bob, PODS).await;
    let review = |verb: &str| json!({"spec": {"user": "bob", "resourceAttributes": {"verb": verb, "resource": "pods", "namespace": "default"}}});
    let path = format!("{REVIEWS}/subjectaccessreviews");
    let answer = create(&admin, &path, review("list")).await;
    assert_eq!(
        answer.body["status"],
        json!({"allowed": true, "reason": "RBAC: allowed by ClusterRoleBinding \"viewers\" of ClusterRole \"view\" to User \"bob\""})
    );
    assert_eq!(create(&admin, &path, review("delete")).await.body["status"], json!({"allowed": false}));
    let refused = bob.json("POST", &path, &review("list")).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let own =
        json!({"spec": {"resourceAttributes": {"verb": "list", "resource": "pods", "namespace": "default"}}});
    let answer = create(&bob, &format!("{REVIEWS}/selfsubjectaccessreviews"), own).await;
    assert_eq!(answer.body["status"]["allowed"], true);
    let rules = json!({"spec": {"namespace": "default"}});
    let path = format!("{REVIEWS}/selfsubjectrulesreviews");
    let status = create(&bob, &path, rules.clone()).await.body["status"].clone();
    assert_eq!(status["incomplete"], false);
    let about_resources = status["resourceRules"].as_array().expect("rules");
    assert!(about_resources.iter().any(|rule| rule["resources"] == json!(["selfsubjectreviews"])));
    assert!(about_resources.iter().any(|rule| rule["resources"] == json!(["namespaces"])), "{status}");
    let paths = status["nonResourceRules"].as_array().expect("rules");
    assert!(paths.iter().any(|rule| {
        rule["nonResourceURLs"].as_array().is_some_and(|urls| urls.contains(&json!("/openapi/*")))
    }));
    let status = create(&admin, &path, rules).await.body["status"].clone();
    let all = json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]});
    assert!(status["resourceRules"].as_array().is_some_and(|rules| rules.contains(&all)), "{status}");
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acting_as_others_is_allowed_by_name() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    let rules = json!([
        {"apiGroups": [""], "resources": ["users"], "resourceNames": ["bob"], "verbs": ["impersonate"]},
        {"apiGroups": ["authentication.k8s.io"], "resources": ["userextras/team"], "verbs": ["impersonate"]},
    ]);
    create(&admin, &format!("{RBAC}/clusterroles"), role("acts", rules)).await;
    create(&admin, &format!("{RBAC}/clusterrolebindings"), binding("acts", "ClusterRole", "acts", "nobody"))
        .await;
    let nobody = cluster.client(&server, Some("nobody"));
    let as_bob = nobody.clone().with_header("impersonate-user", "bob");
    wait_until_allowed(&as_bob, "/api").await;
    assert!(may(&as_bob.clone().with_header("impersonate-extra-team", "x"), "/api").await);
    let refused =
        as_bob.clone().with_header("impersonate-extra-rank", "x").get("/api").await.expect("answer");
    assert_eq!(
        message(&refused),
        "userextras.authentication.k8s.io \"x\" is forbidden: User \"nobody\" cannot impersonate resource \"userextras/rank\" in API group \"authentication.k8s.io\" at the cluster scope"
    );
    assert!(!may(&as_bob.with_header("impersonate-group", "system:masters"), "/api").await);
    assert!(!may(&nobody.with_header("impersonate-user", "eve"), "/api").await);
    server.finish().await;
}
