//! Preemption by the scheduler's core on full clusters drawn from a seed: it never takes a pod that a budget protects when there is a node where others
//! are enough, and never more than it needs.

use std::collections::BTreeMap;
use std::sync::Arc;

use scheduler_core::pod_info::{PodInfo, PodToSchedule};
use scheduler_core::profile::Profile;
use scheduler_core::schedule::{Decision, Relief, Turn, schedule};
use scheduler_core::snapshot::Snapshot;
use serde_json::{Value, json};

use crate::random::Random;

/// Pods of one CPU each that fill a node.
const PER_NODE: u64 = 4;

fn pod(name: &str, app: &str, priority: i64, cpus: u64) -> Result<PodInfo, serde_json::Error> {
    let fields = json!({
        "metadata": { "name": name, "namespace": "default", "uid": format!("uid-{name}"), "labels": { "app": app } },
        "spec": {
            "priority": priority,
            "containers": [{ "name": "c", "resources": { "requests": { "cpu": cpus.to_string() } } }],
        },
        "status": { "phase": "Running", "startTime": "2026-01-01T00:00:00Z" },
    });
    Ok(PodInfo::new(Arc::new(serde_json::from_value(fields)?)))
}

fn node(name: &str) -> Value {
    let room = json!({ "cpu": PER_NODE.to_string(), "memory": "8Gi", "pods": "50" });
    json!({ "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } }, "status": { "capacity": room, "allocatable": room } })
}

/// Decides for a seed; what is wrong.
///
/// # Errors
/// An object is none.
pub fn run(seed: u64) -> Result<Option<String>, serde_json::Error> {
    let mut random = Random::new(seed, 5);
    let mut snapshot = Snapshot::default();
    let apps = ["a", "b", "c"];
    let mut allowed = BTreeMap::<&str, i64>::new();
    for app in apps {
        if random.percent(60) {
            allowed.insert(app, i64::try_from(random.below(0..3)).unwrap_or(0));
        }
    }
    for (app, allowed) in &allowed {
        let budget = json!({
            "metadata": { "namespace": "default", "name": app }, "spec": { "selector": { "matchLabels": { "app": app } } },
            "status": { "disruptionsAllowed": allowed, "currentHealthy": 9, "desiredHealthy": 1, "expectedPods": 9 },
        });
        snapshot.budgets.set(&serde_json::from_value(budget)?);
    }
    let needed = random.below(1..PER_NODE + 1);
    let mut peaceful = Vec::new();
    for node_name in ["n1", "n2", "n3"] {
        snapshot.set_node(Arc::new(serde_json::from_value(node(node_name))?));
        let (mut free, mut spent) = (0, BTreeMap::<&str, i64>::new());
        for at in 0..PER_NODE {
            let app = *random.pick(&apps).unwrap_or(&"a");
            // One of three has the newcomer's own priority and stays.
            let priority =
                if random.percent(30) { 10 } else { i64::try_from(random.below(0..9)).unwrap_or(0) };
            if priority < 10 {
                let spent = spent.entry(app).or_default();
                *spent += 1;
                free += u64::from(allowed.get(app).is_none_or(|allowed| *spent <= *allowed));
            }
            snapshot.place(Arc::new(pod(&format!("{node_name}-{at}"), app, priority, 1)?), node_name);
        }
        if free >= needed {
            peaceful.push(node_name);
        }
    }
    let urgent = pod("urgent", "urgent", 10, needed)?;
    let urgent = PodToSchedule::new(Arc::clone(&urgent.pod));
    let turn = Turn { seed: random.next(), start: 0 };
    let Decision::Unschedulable(_, Relief::Preempt(preemption)) =
        schedule(&Profile::new("default-scheduler"), &urgent, &snapshot, turn)
    else {
        return Ok((!peaceful.is_empty())
            .then(|| format!("nothing is preempted though {peaceful:?} could give room")));
    };
    let victims: Vec<&str> = preemption.victims.iter().map(|victim| victim.name()).collect();
    if victims.len() as u64 != needed {
        return Ok(Some(format!("{victims:?} go, and {needed} would do")));
    }
    let mut spent = BTreeMap::<&str, i64>::new();
    for victim in &preemption.victims {
        *spent.entry(victim.labels().get("app").map(|app| &**app).unwrap_or_default()).or_default() += 1;
    }
    let broken: Vec<_> = spent
        .iter()
        .filter(|(app, count)| allowed.get(**app).is_some_and(|allowed| *count > allowed))
        .map(|(app, count)| format!("{count} of {app}, of which {} may", allowed[app]))
        .collect();
    let needless = !broken.is_empty() && !peaceful.is_empty();
    Ok(needless.then(|| {
        format!("{} go, though {peaceful:?} could give room within the budgets", broken.join(" and "))
    }))
}
