//! The FlowSchemas and PriorityLevelConfigurations that every cluster has: mandatory ones, which are what they are, and suggested ones, which are the
//! operator's to change. Facts of upstream's v1.35. Pure.

use std::slice::from_ref;

use serde_json::{Value, json};

const API_VERSION: &str = "flowcontrol.apiserver.k8s.io/v1";
/// Says that the server keeps the object what it is by default.
pub const AUTO_UPDATE: &str = "apf.kubernetes.io/autoupdate-spec";

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": {"name": name, "annotations": {AUTO_UPDATE: "true"}},
        "spec": spec,
    })
}

/// The levels, each with whether it is mandatory.
pub fn priority_levels() -> Vec<(bool, Value)> {
    let limited = |shares: u32, lendable: u32, response: Value| {
        json!({"type": "Limited", "limited": {
            "nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response}})
    };
    let queue = |queues: u32, hand: u32| json!({"type": "Queue", "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": 50}});
    let level = |name, spec| object("PriorityLevelConfiguration", name, spec);
    let exempt = json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}});
    vec![
        (true, level("exempt", exempt)),
        (true, level("catch-all", limited(5, 0, json!({"type": "Reject"})))),
        (false, level("system", limited(30, 33, queue(64, 6)))),
        (false, level("node-high", limited(40, 25, queue(64, 6)))),
        (false, level("leader-election", limited(10, 0, queue(16, 4)))),
        (false, level("workload-high", limited(40, 50, queue(128, 6)))),
        (false, level("workload-low", limited(100, 90, queue(128, 6)))),
        (false, level("global-default", limited(20, 50, queue(128, 6)))),
    ]
}

/// The schemas, each with whether it is mandatory.
pub fn flow_schemas() -> Vec<(bool, Value)> {
    let user = |name: &str| json!({"kind": "User", "user": {"name": name}});
    let group = |name: &str| json!({"kind": "Group", "group": {"name": name}});
    let account = |name: &str| json!({"kind": "ServiceAccount", "serviceAccount": {"name": name, "namespace": "kube-system"}});
    let everybody = [group("system:unauthenticated"), group("system:authenticated")];
    let paths = |verbs: &[&str], paths: &[&str]| json!({"verbs": verbs, "nonResourceURLs": paths});
    let resources = |verbs: &[&str], group: &str, resources: &[&str], cluster_scope: bool| {
        let mut rule =
            json!({"verbs": verbs, "apiGroups": [group], "resources": resources, "namespaces": ["*"]});
        if cluster_scope {
            rule["clusterScope"] = true.into();
        }
        rule
    };
    let everything = |subjects: &[Value]| {
        json!([{
            "subjects": subjects,
            "resourceRules": [resources(&["*"], "*", &["*"], true)],
            "nonResourceRules": [paths(&["*"], &["*"])],
        }])
    };
    let schema = |name: &str, level: &str, precedence: u32, method: &str, rules: Value| {
        let mut spec = json!({
            "priorityLevelConfiguration": {"name": level},
            "matchingPrecedence": precedence,
            "rules": rules,
        });
        if !method.is_empty() {
            spec["distinguisherMethod"] = json!({"type": method});
        }
        object("FlowSchema", name, spec)
    };
    let election = ["get", "create", "update"];
    let leases = || resources(&election, "coordination.k8s.io", &["leases"], false);
    let (manager, scheduler) = (user("system:kube-controller-manager"), user("system:kube-scheduler"));
    let nodes = [group("system:nodes")];
    let probes = json!([{
        "subjects": everybody, "nonResourceRules": [paths(&["get"], &["/healthz", "/readyz", "/livez"])]}]);
    let system_election = json!([{
        "subjects": [manager, scheduler, account("*")], "resourceRules": [leases()]}]);
    let workload_election = json!([{
        "subjects": [account("*")],
        "resourceRules": [resources(&election, "", &["endpoints", "configmaps"], false), leases()]}]);
    let endpoints = json!([{
        "subjects": [manager, account("endpoint-controller"), account("endpointslicemirroring-controller")],
        "resourceRules": [resources(&election, "", &["endpoints"], false)]}]);
    let node_high = json!([{
    "subjects": nodes,
    "resourceRules": [
        resources(&["*"], "", &["nodes", "nodes/status"], true),
        resources(&["*"], "coordination.k8s.io", &["leases"], false),
    ]}]);
    vec![
        (true, schema("exempt", "exempt", 1, "", everything(&[group("system:masters")]))),
        (true, schema("catch-all", "catch-all", 10_000, "ByUser", everything(&everybody))),
        (false, schema("probes", "exempt", 2, "", probes)),
        (false, schema("system-leader-election", "leader-election", 100, "ByUser", system_election)),
        (false, schema("endpoint-controller", "workload-high", 150, "ByUser", endpoints)),
        (false, schema("workload-leader-election", "leader-election", 200, "ByUser", workload_election)),
        (false, schema("system-node-high", "node-high", 400, "ByUser", node_high)),
        (false, schema("system-nodes", "system", 500, "ByUser", everything(&nodes))),
        (
            false,
            schema(
                "kube-controller-manager",
                "workload-high",
                800,
                "ByNamespace",
                everything(from_ref(&manager)),
            ),
        ),
        (
            false,
            schema("kube-scheduler", "workload-high", 800, "ByNamespace", everything(from_ref(&scheduler))),
        ),
        (
            false,
            schema(
                "kube-system-service-accounts",
                "workload-high",
                900,
                "ByNamespace",
                everything(&[account("*")]),
            ),
        ),
        (
            false,
            schema(
                "service-accounts",
                "workload-low",
                9_000,
                "ByUser",
                everything(&[group("system:serviceaccounts")]),
            ),
        ),
        (false, schema("global-default", "global-default", 9_900, "ByUser", everything(&everybody))),
    ]
}
