//! Admission plugins that run when a flag names them, and what they make of requests.

use crate::common::{Answer, Cluster, wait_for};
use http::StatusCode;
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(name: &str, spec: &Value) -> Value {
    let mut pod = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    for (key, value) in spec.as_object().into_iter().flatten() {
        pod["spec"][key] = value.clone();
    }
    pod
}

fn refused(answer: &Answer, text: &str) {
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{}", answer.body);
    assert_eq!(answer.body["message"], text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_pod_carries_the_zone_of_its_node() {
    let cluster = Cluster::new();
    let server = cluster.server(&[]).await;
    let admin = cluster.client(&server, Some("admin"));
    admin.with_account("default").await;
    let labels =
        json!({"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r", "other": "x"});
    let node = json!({"metadata": {"name": "n", "labels": labels}});
    assert_eq!(admin.json("POST", "/api/v1/nodes", &node).await.status, StatusCode::CREATED);
    assert_eq!(admin.json("POST", PODS, &pod("a", &json!({}))).await.status, StatusCode::CREATED);
    let binding = json!({"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "n"}});
    let bound = admin.json("POST", &format!("{PODS}/a/binding"), &binding).await;
    assert_eq!(bound.status, StatusCode::CREATED, "{}", bound.body);
    let made = admin.json("POST", PODS, &pod("b", &json!({"nodeName": "n"}))).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    for name in ["a", "b"] {
        let pod = admin.get(&format!("{PODS}/{name}")).await.expect("answer").body;
        let wanted = json!({"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r"});
        assert_eq!(pod["metadata"]["labels"], wanted, "{name}");
    }
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_changed_and_refused_as_flags_ask() {
    let cluster = Cluster::new();
    let configuration = cluster.dir.path().join("admission.yaml");
    std::fs::write(
        &configuration,
        "{apiVersion: apiserver.config.k8s.io/v1, kind: AdmissionConfiguration, plugins: [{name: PodNodeSelector, configuration: \
         {podNodeSelectorPluginConfig: {clusterDefaultNodeSelector: disk=ssd}}}]}",
    )
    .expect("file");
    let plugins = "AlwaysPullImages,DenyServiceExternalIPs,ExtendedResourceToleration,LimitPodHardAntiAffinityTopology,NamespaceAutoProvision,\
                   PodNodeSelector,PodTolerationRestriction,AlwaysAdmit";
    let server = cluster
        .server(&[
            &format!("--enable-admission-plugins={plugins}"),
            &format!("--admission-control-config-file={}", configuration.display()),
        ])
        .await;
    let admin = cluster.client(&server, Some("admin"));
    admin.with_account("fresh").await;
    let namespace = "/api/v1/namespaces/fresh";
    assert_eq!(admin.get(namespace).await.expect("answer").status, StatusCode::OK, "it was made on the way");
    let annotations = json!({"metadata": {"annotations": {
        "scheduler.alpha.kubernetes.io/defaultTolerations": r#"[{"key":"a","operator":"Exists"}]"#}}});
    let patched = admin.patch(namespace, "application/merge-patch+json", &annotations).await;
    assert_eq!(patched.status, StatusCode::OK, "{}", patched.body);

    let pods = format!("{namespace}/pods");
    let device = json!({"containers": [{"name": "c", "image": "i", "imagePullPolicy": "Never",
        "resources": {"limits": {"example.com/device": "1"}}}]});
    wait_for("the annotation counts", || async {
        let tried = admin.json("POST", &format!("{pods}?dryRun=All"), &pod("a", &device)).await;
        tried.body["spec"]["tolerations"][0]["key"] == "a"
    })
    .await;
    let made = admin.json("POST", &pods, &pod("a", &device)).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    let spec = &made.body["spec"];
    assert_eq!(spec["containers"][0]["imagePullPolicy"], "Always");
    assert_eq!(spec["nodeSelector"], json!({"disk": "ssd"}));
    let tolerated: Vec<&str> =
        spec["tolerations"].as_array().into_iter().flatten().filter_map(|one| one["key"].as_str()).collect();
    assert!(tolerated.contains(&"example.com/device"), "{tolerated:?}");

    let elsewhere = admin.json("POST", &pods, &pod("b", &json!({"nodeSelector": {"disk": "hdd"}}))).await;
    refused(
        &elsewhere,
        "pods \"b\" is forbidden: pod node label selector conflicts with its namespace node label selector",
    );
    let terms = json!([{"labelSelector": {}, "topologyKey": "zone"}]);
    let wide =
        json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}});
    refused(
        &admin.json("POST", &pods, &pod("c", &wide)).await,
        "pods \"c\" is forbidden: affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey zone but only key kubernetes.io/hostname is allowed",
    );
    let service =
        json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}], "externalIPs": ["192.0.2.1"]}});
    refused(
        &admin.json("POST", &format!("{namespace}/services"), &service).await,
        "services \"s\" is forbidden: Use of external IPs is denied by admission control",
    );
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_need_permissions_where_that_is_asked_for() {
    let cluster = Cluster::new();
    cluster.pki.issue("ann", "ann", &[]);
    let server = cluster.server(&["--enable-admission-plugins=OwnerReferencesPermissionEnforcement"]).await;
    let (admin, ann) = (cluster.client(&server, Some("admin")), cluster.client(&server, Some("ann")));
    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let may = |verbs: Value, finalizes: bool| {
        let mut rules = vec![json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": verbs})];
        if finalizes {
            rules.push(
                json!({"apiGroups": [""], "resources": ["configmaps/finalizers"], "verbs": ["update"]}),
            );
        }
        json!({"metadata": {"name": "r"}, "rules": rules})
    };
    let role = may(json!(["create"]), false);
    assert_eq!(admin.json("POST", &format!("{roles}/roles"), &role).await.status, StatusCode::CREATED);
    let binding = json!({"metadata": {"name": "b"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "ann"}]});
    assert_eq!(
        admin.json("POST", &format!("{roles}/rolebindings"), &binding).await.status,
        StatusCode::CREATED
    );

    let maps = "/api/v1/namespaces/default/configmaps?dryRun=All";
    let owned = |blocks: bool| {
        let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "1", "blockOwnerDeletion": blocks});
        json!({"metadata": {"name": "m", "ownerReferences": [owner]}})
    };
    wait_for("the role counts", || async {
        ann.json("POST", maps, &json!({"metadata": {"name": "m"}})).await.status == StatusCode::CREATED
    })
    .await;
    let answer = ann.json("POST", maps, &owned(false)).await;
    refused(
        &answer,
        "configmaps \"m\" is forbidden: cannot set an ownerRef on a resource you can't delete: , <nil>",
    );
    let wider =
        admin.json("PUT", &format!("{roles}/roles/r"), &may(json!(["create", "delete"]), false)).await;
    assert_eq!(wider.status, StatusCode::OK);
    wait_for("the wider role counts", || async {
        ann.json("POST", maps, &owned(false)).await.status == StatusCode::CREATED
    })
    .await;
    let answer = ann.json("POST", maps, &owned(true)).await;
    refused(
        &answer,
        "configmaps \"m\" is forbidden: cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: , <nil>",
    );
    admin.json("PUT", &format!("{roles}/roles/r"), &may(json!(["create", "delete"]), true)).await;
    wait_for("the widest role counts", || async {
        ann.json("POST", maps, &owned(true)).await.status == StatusCode::CREATED
    })
    .await;
    server.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_is_refused_where_that_is_asked_for() {
    let cluster = Cluster::new();
    let server = cluster.server(&["--enable-admission-plugins=NamespaceExists"]).await;
    let admin = cluster.client(&server, Some("admin"));
    let nowhere = admin
        .json("POST", "/api/v1/namespaces/nowhere/configmaps", &json!({"metadata": {"name": "m"}}))
        .await;
    assert_eq!(nowhere.status, StatusCode::NOT_FOUND);
    assert_eq!(nowhere.body["message"], "namespaces \"nowhere\" not found");
    let denying = cluster.server(&["--enable-admission-plugins=AlwaysDeny"]).await;
    let other = cluster.client(&denying, Some("admin"));
    refused(
        &other
            .json("POST", "/api/v1/namespaces/default/configmaps", &json!({"metadata": {"name": "m"}}))
            .await,
        "configmaps \"m\" is forbidden: admission control is denying all modifications",
    );
    denying.finish().await;
    server.finish().await;
}
