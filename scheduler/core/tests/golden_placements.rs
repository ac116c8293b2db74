//! Placements written from upstream's documentation: a cluster, a pod, and where it may go or why it cannot. The cases are data
//! (`golden_placements/*.json`, one line each); this runs them all with the default profile.
//!
//! `expect` is a node; a list of nodes that are all chosen in turn; `fits`: nodes that will do, in whichever order they score;
//! `within`: nodes one of which is chosen; `refused`: the reasons in the pod's message; `preempts`: the node and the pods that have to go.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use scheduler_core::filtering::{Filters, Preparation};
use scheduler_core::framework::Cycle;
use scheduler_core::pod_info::{PodInfo, PodToSchedule};
use scheduler_core::profile::Profile;
use scheduler_core::schedule::{Decision, Relief, Turn, schedule};
use scheduler_core::snapshot::Snapshot;
use serde::Deserialize;
use serde_json::{Value, json};

/// Enough for each of a few equal nodes to be chosen.
const SEEDS: u64 = 64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    nodes: BTreeMap<String, Value>,
    #[serde(default)]
    pods: Vec<Value>,
    pod: Value,
    expect: Expect,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Expect {
    Node(String),
    AllOf(BTreeSet<String>),
    Told(Told),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Told {
    Fits(BTreeSet<String>),
    Within(BTreeSet<String>),
    Refused(String),
    RefusedWhole(String),
    Preempts(BTreeMap<String, Vec<String>>),
}

fn merge(target: &mut Value, patch: Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(target.entry(key).or_insert(Value::Null), value);
            }
        }
        (target, patch) => *target = patch,
    }
}

fn node(name: &str, fields: &Value) -> Arc<Node> {
    let mut node = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110", "ephemeral-storage": "10Gi"}},
    });
    merge(&mut node, fields.clone());
    Arc::new(serde_json::from_value(node).expect("a node"))
}

fn pod(fields: &Value) -> Arc<Pod> {
    let mut pod =
        json!({"metadata": {"name": "subject", "namespace": "default"}, "spec": {"containers": []}});
    merge(&mut pod, fields.clone());
    pod["metadata"]["uid"] = pod["metadata"]["name"].clone();
    Arc::new(serde_json::from_value(pod).expect("a pod"))
}

fn run(case: &Case) -> Result<(), String> {
    let mut snapshot = Snapshot::default();
    for (name, fields) in &case.nodes {
        snapshot.set_node(node(name, fields));
    }
    for placed in &case.pods {
        let mut fields = placed.clone();
        let on = fields.as_object_mut().and_then(|fields| fields.remove("on")).unwrap_or_default();
        snapshot.place(Arc::new(PodInfo::new(pod(&fields))), on.as_str().expect("on"));
    }
    let subject = PodToSchedule::new(pod(&case.pod));
    let profile = Profile::new("default-scheduler");
    let decide = |seed| schedule(&profile, &subject, &snapshot, Turn { seed, start: 0 });
    let chosen = || -> Result<BTreeSet<String>, String> {
        (0..SEEDS)
            .map(|seed| match decide(seed) {
                Decision::Assigned(assignment) => Ok(assignment.node.to_string()),
                Decision::Unschedulable(error, _) => Err(error.to_string()),
                Decision::Failed(error) => Err(error),
            })
            .collect()
    };
    let same = |found: BTreeSet<String>, wanted: &BTreeSet<String>| {
        if found == *wanted { Ok(()) } else { Err(format!("{found:?}")) }
    };
    let refusal = || match decide(0) {
        Decision::Assigned(assignment) => Err(format!("assigned to {}", assignment.node)),
        Decision::Unschedulable(_, Relief::Preempt(preemption)) => {
            Err(format!("preempts on {}", preemption.node))
        }
        Decision::Unschedulable(error, _) => Ok(error.to_string()),
        Decision::Failed(error) => Err(error),
    };
    match &case.expect {
        Expect::Node(name) => same(chosen()?, &BTreeSet::from([name.clone()])),
        Expect::AllOf(names) => same(chosen()?, names),
        Expect::Told(Told::Within(names)) => {
            let found = chosen()?;
            if found.is_subset(names) { Ok(()) } else { Err(format!("{found:?}")) }
        }
        Expect::Told(Told::Fits(names)) => {
            let cycle = Cycle { pod: &subject, snapshot: &snapshot, extenders: &[] };
            let Preparation::Ready(filters) = Filters::prepare(&profile, cycle) else {
                return Err("refused before any node".to_owned());
            };
            let fitting = snapshot.nodes().filter(|node| filters.check(node).is_ok());
            same(fitting.map(|node| node.name.to_string()).collect(), names)
        }
        Expect::Told(Told::Refused(reasons)) => {
            let (message, start) =
                (refusal()?, format!("0/{} nodes are available: {reasons} ", case.nodes.len()));
            if message.starts_with(&start) { Ok(()) } else { Err(message) }
        }
        Expect::Told(Told::RefusedWhole(text)) => {
            let message = refusal()?;
            if message == *text { Ok(()) } else { Err(message) }
        }
        Expect::Told(Told::Preempts(wanted)) => match decide(0) {
            Decision::Failed(error) => Err(error),
            Decision::Unschedulable(_, Relief::Preempt(preemption)) => {
                let victims = preemption.victims.iter().map(|victim| victim.name().to_owned()).collect();
                let found = BTreeMap::from([(preemption.node.to_string(), victims)]);
                if found == *wanted { Ok(()) } else { Err(format!("{found:?}")) }
            }
            Decision::Unschedulable(error, _) => Err(error.to_string()),
            Decision::Assigned(assignment) => Err(format!("assigned to {}", assignment.node)),
        },
    }
}

#[test]
fn pods_go_where_the_documentation_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden_placements");
    let (mut count, mut wrong) = (0, Vec::new());
    for file in std::fs::read_dir(folder).expect("the cases") {
        let path = file.expect("a file").path();
        let text = std::fs::read_to_string(&path).expect("readable");
        let cases: Vec<Case> =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for case in &cases {
            count += 1;
            if let Err(found) = run(case) {
                let file = path.file_stem().unwrap_or_default().display().to_string();
                wrong.push(format!("{file}: {}: {found}", case.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {count} cases are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count >= 200, "only {count} cases were found");
}
