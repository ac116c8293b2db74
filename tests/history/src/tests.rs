//! Short histories that keep and break each promise.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{Change, Key, check};

/// A history that is written down step by step, a second between two.
#[derive(Default)]
struct History(Vec<Change>);

impl History {
    fn at(mut self, seconds: u64, key: &str, object: Value) -> Self {
        let mut parts = key.splitn(2, ' ');
        let (resource, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let namespace = if resource == "minions" { "" } else { "default" };
        let object = if object.is_null() {
            None
        } else {
            let mut object = object;
            object["metadata"]["name"] = json!(name);
            if object["metadata"]["uid"].is_null() {
                object["metadata"]["uid"] = json!(format!("uid-{name}"));
            }
            if object["metadata"]["generation"].is_null() {
                object["metadata"]["generation"] = json!(1);
            }
            Some(object)
        };
        let revision = self.0.len() as u64 + 1;
        self.0.push(Change {
            revision,
            at: Duration::from_secs(seconds),
            key: Key::new(resource, namespace, name),
            object,
        });
        self
    }

    fn then(self, key: &str, object: Value) -> Self {
        let at = self.0.last().map_or(0, |last| last.at.as_secs()) + 1;
        self.at(at, key, object)
    }

    fn finds(self, invariant: &str) -> String {
        let found = check(self.0);
        let names: Vec<_> = found.iter().map(|violation| violation.invariant).collect();
        assert_eq!(names, [invariant], "{found:?}");
        found[0].to_string()
    }

    fn keeps_all(self) {
        let found = check(self.0);
        assert!(found.is_empty(), "{found:?}");
    }
}

fn owned(kind: &str, owner: &str) -> Value {
    json!([{ "kind": kind, "name": owner, "uid": format!("uid-{owner}"), "controller": true }])
}

fn pod(kind: &str, owner: &str, ready: bool) -> Value {
    json!({
        "metadata": { "labels": { "app": "web" }, "ownerReferences": owned(kind, owner) },
        "spec": { "nodeName": "n1", "containers": [{}] },
        "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }] },
    })
}

fn going(mut pod: Value) -> Value {
    pod["metadata"]["deletionTimestamp"] = json!("2024-01-01T00:00:00Z");
    pod
}

fn set(replicas: i64, generation: i64, observed: i64) -> Value {
    json!({
        "metadata": { "generation": generation, "ownerReferences": owned("Deployment", "web") },
        "spec": { "replicas": replicas }, "status": { "observedGeneration": observed, "availableReplicas": 2 },
    })
}

fn deployment(replicas: i64) -> Value {
    json!({
        "spec": {
            "replicas": replicas, "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } },
        },
        "status": { "observedGeneration": 1 },
    })
}

#[test]
fn a_replica_set_may_act_on_the_size_it_has_seen_and_on_no_other() {
    let two = || {
        History::default()
            .then("deployments web", deployment(9))
            .then("replicasets a", set(2, 1, 1))
            .then("pods p1", pod("ReplicaSet", "a", true))
            .then("pods p2", pod("ReplicaSet", "a", true))
    };
    let said = two().then("pods p3", pod("ReplicaSet", "a", true)).finds("ReplicaSetsStayWithinTheirNumber");
    assert!(said.contains("at revision 5 (pods default/p3)") && said.contains("3th"), "{said}");
    two()
        .then("pods p1", going(pod("ReplicaSet", "a", true)))
        .then("pods p3", pod("ReplicaSet", "a", true))
        .keeps_all();
    let shrunk = |observed| two().then("pods p1", Value::Null).then("replicasets a", set(1, 2, observed));
    shrunk(1).then("pods p3", pod("ReplicaSet", "a", true)).keeps_all();
    shrunk(2).then("pods p3", pod("ReplicaSet", "a", true)).finds("ReplicaSetsStayWithinTheirNumber");
}

#[test]
fn a_rollout_stays_between_surge_and_unavailable() {
    let begun = || {
        History::default()
            .then("deployments web", deployment(2))
            .then("replicasets a", set(2, 1, 1))
            .then("pods p1", pod("ReplicaSet", "a", true))
            .then("pods p2", pod("ReplicaSet", "a", true))
            .at(100, "replicasets b", set(1, 1, 1))
    };
    let said = begun().then("replicasets b", set(2, 2, 1)).finds("DeploymentsKeepTheirBounds");
    assert!(said.contains("grew to 4") && said.contains("3 are allowed"), "{said}");
    let said = begun().then("replicasets a", set(1, 2, 1)).finds("DeploymentsKeepTheirBounds");
    assert!(said.contains("1 available pods of 2"), "{said}");
    begun().then("pods q1", pod("ReplicaSet", "b", true)).then("replicasets a", set(1, 2, 1)).keeps_all();
    begun().then("pods p1", Value::Null).then("replicasets a", set(1, 2, 1)).keeps_all();
}

#[test]
fn stateful_pods_end_before_their_successors_come_and_come_in_order() {
    let begun = || {
        History::default()
            .then("minions n1", json!({}))
            .then("statefulsets db", json!({ "spec": { "replicas": 3 } }))
            .then("pods db-0", pod("StatefulSet", "db", true))
    };
    begun()
        .then("pods db-0", going(pod("StatefulSet", "db", true)))
        .then("pods db-0", Value::Null)
        .keeps_all();
    begun().then("pods db-0", Value::Null).finds("StatefulSetsKeepIdentities");
    begun().then("pods db-1", pod("StatefulSet", "db", false)).keeps_all();
    begun().then("pods db-2", pod("StatefulSet", "db", false)).finds("StatefulSetsKeepIdentities");
}

#[test]
fn a_job_counts_what_has_ended_once() {
    let ended = |finalizers: Value| {
        let mut pod = pod("Job", "pi", false);
        pod["metadata"]["finalizers"] = finalizers;
        pod["status"]["phase"] = json!("Succeeded");
        pod
    };
    let job = |succeeded: i64, noted: Value| {
        json!({
            "spec": { "parallelism": 1, "completions": 5 },
            "status": { "succeeded": succeeded, "uncountedTerminatedPods": { "succeeded": noted } },
        })
    };
    let finalizers = || json!(["batch.kubernetes.io/job-tracking"]);
    let begun = || {
        History::default()
            .then("jobs pi", job(0, json!([])))
            .then("pods a", ended(finalizers()))
            .then("jobs pi", job(0, json!(["uid-a"])))
    };
    begun().then("pods a", ended(json!([]))).then("jobs pi", job(1, json!([]))).keeps_all();
    begun().then("jobs pi", job(1, json!(["uid-a"]))).finds("JobsCountPodsOnce");
    begun().then("jobs pi", job(1, json!([]))).then("jobs pi", job(0, json!([]))).finds("JobsCountPodsOnce");
    let said = History::default()
        .then("jobs pi", job(0, json!([])))
        .then("pods a", ended(finalizers()))
        .then("pods a", ended(json!([])))
        .finds("JobsCountPodsOnce");
    assert!(said.contains("before the Job noted"), "{said}");
    let mut running = pod("Job", "pi", false);
    running["metadata"]["labels"] = json!({});
    begun().then("pods b", running.clone()).then("pods c", running).finds("JobsCountPodsOnce");
}

#[test]
fn a_budget_is_charged_before_and_keeps_what_it_wants() {
    let budget = |allowed: i64, charged: Value| {
        json!({
            "spec": { "selector": { "matchLabels": { "app": "web" } } },
            "status": { "disruptionsAllowed": allowed, "desiredHealthy": 1, "disruptedPods": charged },
        })
    };
    let begun = |allowed| {
        History::default()
            .then("replicasets a", set(2, 1, 1))
            .then("deployments web", deployment(2))
            .then("pods p1", pod("ReplicaSet", "a", true))
            .then("pods p2", pod("ReplicaSet", "a", true))
            .at(100, "poddisruptionbudgets web", budget(allowed, json!({})))
    };
    let evicted = || {
        let mut pod = going(pod("ReplicaSet", "a", true));
        pod["status"]["conditions"] =
            json!([{ "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI" }]);
        pod
    };
    let charged = || begun(1).then("poddisruptionbudgets web", budget(0, json!({ "p1": "now" })));
    // The set's owner comes after it here, which is none of this test's business.
    let clean = |history: History| {
        let found = check(history.0);
        let found: Vec<_> = found.iter().filter(|one| one.invariant == "DisruptionBudgetsHold").collect();
        found.is_empty()
    };
    assert!(clean(charged().then("pods p1", evicted())));
    assert!(!clean(begun(1).then("pods p1", evicted())), "not charged");
    assert!(
        !clean(begun(2).then("poddisruptionbudgets web", budget(0, json!({ "p1": "now" })))),
        "one for two"
    );
    assert!(
        !clean(begun(2).then("poddisruptionbudgets web", budget(0, json!({ "p1": "now", "p2": "now" })))),
        "too few left"
    );
}

#[test]
fn a_full_quota_a_full_node_and_a_second_binding_are_seen() {
    let bare = |node: &str| {
        json!({
            "metadata": { "labels": {} }, "status": { "phase": "Pending" },
            "spec": { "nodeName": node, "containers": [{ "resources": { "requests": { "cpu": "600m" } } }] },
        })
    };
    History::default()
        .then("resourcequotas q", json!({ "spec": { "hard": { "pods": "1" } } }))
        .at(100, "pods a", bare("n1"))
        .then("pods b", bare("n1"))
        .finds("QuotasAreKept");
    let mut unbound = bare("");
    unbound["spec"]["nodeName"] = Value::Null;
    let node = json!({ "status": { "allocatable": { "cpu": "1", "pods": "10" } } });
    let full = |second: &str| {
        History::default()
            .then("minions n1", node.clone())
            .then("minions n2", node.clone())
            .then("pods a", unbound.clone())
            .then("pods a", bare("n1"))
            .then("pods b", unbound.clone())
            .then("pods b", bare(second))
    };
    full("n2").keeps_all();
    let said = full("n1").finds("NodesAreNotOverfilled");
    assert!(said.contains("cpu"), "{said}");
    full("n2").then("pods b", bare("n1")).finds("PodsAreBoundOnce");
}

#[test]
fn adopters_are_alive() {
    let mut orphan = pod("ReplicaSet", "a", true);
    orphan["metadata"]["ownerReferences"] = json!([]);
    let begun = || {
        History::default()
            .then("deployments web", deployment(9))
            .then("replicasets a", set(2, 1, 1))
            .then("pods p1", orphan.clone())
            .then("replicasets a", Value::Null)
    };
    begun().then("pods p1", pod("ReplicaSet", "a", true)).keeps_all();
    begun().at(60, "pods p1", pod("ReplicaSet", "a", true)).finds("OwnersExist");
    begun().then("pods p1", pod("ReplicaSet", "nobody", true)).finds("OwnersExist");
}

#[test]
fn a_daemon_set_has_one_pod_a_node() {
    let agent = |node: &str| {
        let mut pod = pod("DaemonSet", "agent", true);
        pod["spec"]["nodeName"] = json!(node);
        pod
    };
    let begun = || History::default().then("daemonsets agent", json!({})).then("pods a", agent("n1"));
    begun().then("pods b", agent("n2")).keeps_all();
    begun().then("pods b", agent("n1")).finds("DaemonSetsHaveOnePodANode");
}

#[test]
fn keys_are_read_as_the_store_has_them() {
    assert_eq!(Key::parse("/registry/pods/default/web-1"), Some(Key::new("pods", "default", "web-1")));
    assert_eq!(Key::parse("/registry/minions/n1"), Some(Key::new("minions", "", "n1")));
    assert_eq!(Key::parse("/registry/example.com/boats/default/a"), None);
    assert_eq!(Key::parse("/registry/apiregistration.k8s.io/apiservices/v1."), None);
    assert_eq!(Key::parse("compact_rev_key"), None);
}
