//! NodeResourcesFit: what the pod requests must be free on the node; nodes are compared by a [`ScoringStrategy`].

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::framework::{Cycle, FilterPlugin, NodeScore, Prepared, Rejection, ScorePlugin};
use crate::node_info::NodeInfo;
use crate::plugins::scoring_strategy::ScoringStrategy;
use crate::pod_info::PodInfo;
use crate::resources::Resources;

/// The plugin's name.
pub const NAME: &str = "NodeResourcesFit";

/// The plugin with its arguments.
#[derive(Clone, Debug, Default)]
pub struct NodeResourcesFit {
    /// How nodes are compared.
    pub strategy: ScoringStrategy,
    /// Extended resources that need not be free, by name.
    pub ignored_resources: BTreeSet<String>,
    /// The same by the part of the name before the slash.
    pub ignored_resource_groups: BTreeSet<String>,
}

impl NodeResourcesFit {
    fn ignores(&self, name: &str) -> bool {
        let group = name.split_once('/').map_or("", |(group, _)| group);
        self.ignored_resources.contains(name) || self.ignored_resource_groups.contains(group)
    }
}

impl FilterPlugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare<'a>(&self, cycle: Cycle<'a>) -> Prepared<'a> {
        let mut requests = cycle.pod.info.requests.clone();
        requests.scalar.retain(|name, _| !self.ignores(name));
        Prepared::Check(Box::new(move |node: &NodeInfo| fits(&requests, node)))
    }
}

fn fits(requests: &Resources, node: &NodeInfo) -> Result<(), Rejection> {
    let mut reasons: Vec<Cow<'static, str>> = Vec::new();
    let mut resolvable = true;
    if node.pods.len() as i64 + 1 > node.allocatable.pods {
        reasons.push("Too many pods".into());
    }
    let mut check = |reason: &dyn Fn() -> Cow<'static, str>, wanted: i64, used: i64, capacity: i64| {
        if wanted > 0 && wanted > capacity - used {
            reasons.push(reason());
            resolvable &= wanted <= capacity;
        }
    };
    let (used, capacity) = (&node.requested, &node.allocatable);
    check(&|| "Insufficient cpu".into(), requests.milli_cpu, used.milli_cpu, capacity.milli_cpu);
    check(&|| "Insufficient memory".into(), requests.memory, used.memory, capacity.memory);
    check(
        &|| "Insufficient ephemeral-storage".into(),
        requests.ephemeral_storage,
        used.ephemeral_storage,
        capacity.ephemeral_storage,
    );
    for (name, wanted) in &requests.scalar {
        let amount = |of: &Resources| of.scalar.get(name).copied().unwrap_or(0);
        check(&|| format!("Insufficient {name}").into(), *wanted, amount(used), amount(capacity));
    }
    if reasons.is_empty() { Ok(()) } else { Err(Rejection { plugin: NAME, reasons, resolvable }) }
}

struct Score<'a> {
    strategy: ScoringStrategy,
    pod: &'a PodInfo,
}

impl ScorePlugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare<'a>(&self, cycle: Cycle<'a>, _nodes: &[&'a NodeInfo]) -> Option<Box<dyn NodeScore + 'a>> {
        Some(Box::new(Score { strategy: self.strategy.clone(), pod: &cycle.pod.info }))
    }
}

impl NodeScore for Score<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        self.strategy.score(self.pod, node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node_from, pod_from};
    use serde_json::json;

    fn node_with(fields: serde_json::Value) -> NodeInfo {
        let mut info = NodeInfo::default();
        info.set_node(node_from("n", fields));
        info
    }

    fn requests(list: serde_json::Value) -> Resources {
        PodInfo::new(pod_from(
            json!({"spec": {"containers": [{"name": "c", "resources": {"requests": list}}]}}),
        ))
        .requests
    }

    #[test]
    fn every_shortage_is_a_reason_and_only_too_small_a_node_is_hopeless() {
        let small = node_with(json!({"status": {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "0"}}}));
        let rejection =
            fits(&requests(json!({"cpu": "2", "example.com/gpu": "1"})), &small).expect_err("too small");
        assert_eq!(rejection.reasons, ["Too many pods", "Insufficient cpu", "Insufficient example.com/gpu"]);
        assert!(!rejection.resolvable);
        let full = node_with(json!({"status": {"allocatable": {"pods": "0"}}}));
        let rejection = fits(&requests(json!({"cpu": "1"})), &full).expect_err("full");
        assert!(rejection.resolvable);
        assert!(fits(&requests(json!({"cpu": "4"})), &node_with(json!({}))).is_ok(), "exactly full is fine");
    }

    #[test]
    fn an_emptier_node_scores_higher() {
        let pod = PodInfo::new(pod_from(json!({"spec": {"containers": [
            {"name": "c", "resources": {"requests": {"cpu": "1", "memory": "2Gi"}}}]}})));
        let score = Score { strategy: ScoringStrategy::default(), pod: &pod };
        // 3 of 4 cores and 6 of 8 GiB are left.
        assert_eq!(score.score(&node_with(json!({}))), 75);
        assert_eq!(
            score.score(&node_with(json!({"status": {"allocatable": {"cpu": "1", "memory": "2Gi"}}}))),
            0
        );
    }
}
