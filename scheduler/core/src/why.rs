//! Why a pod goes where it goes, or nowhere: what each plugin says of each node, the scores of those that will do, and the smallest
//! change that would let the pod in. Owns the explanation; it decides nothing.

use crate::filtering::{Filters, Preparation};
use crate::framework::{Cycle, Rejection};
use crate::node_info::NodeInfo;
use crate::plugins::taint_toleration::tolerated;
use crate::plugins::{node_affinity, node_resources_fit, node_unschedulable, taint_toleration};
use crate::pod_info::PodToSchedule;
use crate::profile::Profile;
use crate::schedule::{Decision, Turn, schedule};
use crate::snapshot::Snapshot;

/// What one plugin makes of a node that will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginScore {
    /// The plugin.
    pub plugin: &'static str,
    /// From 0 to [`crate::framework::MAX_NODE_SCORE`].
    pub score: i64,
    /// How much it counts.
    pub weight: i64,
}

/// What all plugins make of a node.
#[derive(Clone, Debug)]
pub struct NodeVerdict {
    /// The node's name.
    pub node: String,
    /// What speaks against it; nothing if it will do.
    pub objections: Vec<Rejection>,
    /// What speaks for it, if it will do.
    pub scores: Vec<PluginScore>,
    /// The weighted sum.
    pub total: i64,
}

/// What would have to be different on one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The node.
    pub node: String,
    /// Everything that has to be done there.
    pub steps: Vec<String>,
}

/// Why.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// The node that would be chosen, or the message of the pod's condition.
    pub outcome: Result<String, String>,
    /// What a plugin said before any node was looked at; the nodes are not judged then.
    pub before: Option<String>,
    /// Every node.
    pub nodes: Vec<NodeVerdict>,
    /// The node that needs the fewest changes, if none will do.
    pub change: Option<Change>,
}

impl Explanation {
    /// Of a pod that may not enter the queue: no node is looked at.
    pub fn of_waiting(reason: String) -> Self {
        Self { outcome: Err(reason.clone()), before: Some(reason), nodes: Vec::new(), change: None }
    }
}

/// Explains a pod that is not on any node of the snapshot.
pub fn explain(profile: &Profile, pod: &PodToSchedule, snapshot: &Snapshot) -> Explanation {
    let cycle = Cycle { pod, snapshot, extenders: &profile.extenders };
    let outcome = match schedule(profile, pod, snapshot, Turn::default()) {
        Decision::Assigned(assignment) => Ok(assignment.node.to_string()),
        Decision::Unschedulable(error, _) => Err(error.to_string()),
        Decision::Failed(error) => Err(error),
    };
    let filters = match Filters::prepare(profile, cycle) {
        Preparation::Ready(filters) => filters,
        Preparation::Rejected { message, .. } => {
            return Explanation { outcome, ..Explanation::of_waiting(message) };
        }
    };
    let judged: Vec<_> = snapshot.nodes().map(|node| (node, filters.objections(node))).collect();
    let change = if judged.iter().any(|(_, objections)| objections.is_empty()) {
        None
    } else {
        let changes = judged.iter().map(|(node, objections)| Change {
            node: node.name.to_string(),
            steps: objections.iter().flat_map(|objection| steps(pod, node, objection)).collect(),
        });
        changes.min_by_key(|change| change.steps.len())
    };
    let feasible: Vec<_> =
        judged.iter().filter(|(_, objections)| objections.is_empty()).map(|(node, _)| *node).collect();
    let scores = scores(profile, cycle, &feasible);
    let nodes = judged.into_iter().map(|(node, objections)| {
        let at = feasible.iter().position(|other| other.slot == node.slot);
        let scores = at.map(|at| scores[at].clone()).unwrap_or_default();
        let total = scores.iter().map(|score| score.score * score.weight).sum();
        NodeVerdict { node: node.name.to_string(), objections, scores, total }
    });
    Explanation { outcome, before: None, nodes: nodes.collect(), change }
}

/// What each plugin makes of each of these nodes.
fn scores<'a>(profile: &Profile, cycle: Cycle<'a>, nodes: &[&'a NodeInfo]) -> Vec<Vec<PluginScore>> {
    let mut all = vec![Vec::new(); nodes.len()];
    for weighted in &profile.scores {
        let Some(plugin) = weighted.plugin.prepare(cycle, nodes) else { continue };
        let mut scores: Vec<_> = nodes.iter().map(|node| plugin.score(node)).collect();
        plugin.normalize(&mut scores);
        for (list, score) in all.iter_mut().zip(scores) {
            list.push(PluginScore { plugin: weighted.plugin.name(), score, weight: weighted.weight });
        }
    }
    all
}

/// What would silence an objection.
fn steps(pod: &PodToSchedule, node: &NodeInfo, objection: &Rejection) -> Vec<String> {
    match objection.plugin {
        node_resources_fit::NAME => objection.reasons.iter().map(|reason| room(pod, node, reason)).collect(),
        node_unschedulable::NAME => vec!["uncordon the node".to_owned()],
        taint_toleration::NAME => {
            let tolerations = pod.spec().tolerations.as_deref().unwrap_or_default();
            let kept_off = node.taints().iter().filter(|taint| {
                matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute") && !tolerated(taint, tolerations)
            });
            let step = |taint: &k8s_openapi::api::core::v1::Taint| {
                let value = taint.value.as_deref().map(|value| format!("={value}")).unwrap_or_default();
                format!("tolerate or remove the taint {}{value}:{}", taint.key, taint.effect)
            };
            kept_off.map(step).collect()
        }
        node_affinity::NAME => {
            vec!["label the node as the pod's node selector and affinity ask, or change these".to_owned()]
        }
        plugin => objection.reasons.iter().map(|reason| format!("{plugin}: {reason}")).collect(),
    }
}

fn room(pod: &PodToSchedule, node: &NodeInfo, reason: &str) -> String {
    let Some(resource) = reason.strip_prefix("Insufficient ") else {
        return "one pod fewer on the node".to_owned();
    };
    let wanted = pod.info.requests.amount(resource);
    let (used, capacity) = (node.requested.amount(resource), node.allocatable.amount(resource));
    let unit = if resource == "cpu" { "m" } else { "" };
    let short = wanted - (capacity - used).max(0);
    if wanted > capacity {
        format!("request {}{unit} of {resource} at most, the node has no more", capacity)
    } else {
        format!("{short}{unit} more of {resource} free on the node, or that much less requested")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::pod_info::PodInfo;
    use crate::testing::{node, node_from, pod};

    #[test]
    fn every_objection_is_heard_and_the_nearest_node_is_named() {
        let mut snapshot = Snapshot::default();
        let far = json!({"spec": {"unschedulable": true, "taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}});
        snapshot.set_node(node_from("far", far));
        snapshot.set_node(node("near", "4", "z"));
        snapshot.place(Arc::new(PodInfo::new(pod("there", "3"))), "near");
        let wants = PodToSchedule::new(pod("wants", "1500m"));
        let why = explain(&Profile::new("s"), &wants, &snapshot);
        assert!(why.outcome.expect_err("no node").starts_with("0/2 nodes are available"));
        let far = why.nodes.iter().find(|verdict| verdict.node == "far").expect("far");
        let plugins: Vec<_> = far.objections.iter().map(|objection| objection.plugin).collect();
        assert_eq!(plugins, ["NodeUnschedulable", "TaintToleration"]);
        let change = why.change.expect("a change");
        assert_eq!(change.node, "near");
        assert_eq!(change.steps, ["500m more of cpu free on the node, or that much less requested"]);
    }

    #[test]
    fn the_scores_of_the_chosen_node_are_the_highest() {
        let mut snapshot = Snapshot::default();
        snapshot.set_node(node("full", "4", "z"));
        snapshot.set_node(node("empty", "4", "z"));
        snapshot.place(Arc::new(PodInfo::new(pod("there", "2"))), "full");
        let why = explain(&Profile::new("s"), &PodToSchedule::new(pod("wants", "1")), &snapshot);
        assert_eq!(why.outcome, Ok("empty".to_owned()));
        assert!(why.change.is_none());
        let best = why.nodes.iter().max_by_key(|verdict| verdict.total).expect("nodes");
        assert_eq!(best.node, "empty");
        let fit = best.scores.iter().find(|score| score.plugin == "NodeResourcesFit").expect("its score");
        assert!(fit.score > 50 && fit.weight == 1);
    }
}
