//! NodeResourcesFit: what the pod requests must be free on the node; nodes with more left over score higher (LeastAllocated,
//! CPU and memory with equal weight).

use std::borrow::Cow;

use crate::framework::{Cycle, FilterPlugin, MAX_NODE_SCORE, NodeScore, Prepared, Rejection, ScorePlugin};
use crate::node_info::NodeInfo;
use crate::resources::Resources;

/// The plugin's name.
pub const NAME: &str = "NodeResourcesFit";

/// The plugin.
pub struct NodeResourcesFit;

impl FilterPlugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare<'a>(&self, cycle: Cycle<'a>) -> Prepared<'a> {
        let requests = &cycle.pod.info.requests;
        Prepared::Check(Box::new(move |node: &NodeInfo| fits(requests, node)))
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

struct LeastAllocated<'a> {
    requests: &'a Resources,
}

impl ScorePlugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare<'a>(&self, cycle: Cycle<'a>, _nodes: &[&'a NodeInfo]) -> Option<Box<dyn NodeScore + 'a>> {
        Some(Box::new(LeastAllocated { requests: &cycle.pod.info.non_zero }))
    }
}

impl NodeScore for LeastAllocated<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let (used, capacity) = (&node.non_zero_requested, &node.allocatable);
        let parts = [
            (used.milli_cpu + self.requests.milli_cpu, capacity.milli_cpu),
            (used.memory + self.requests.memory, capacity.memory),
        ];
        let known = parts.iter().filter(|(_, capacity)| *capacity > 0).count() as i64;
        if known == 0 {
            return 0;
        }
        let free = |(requested, capacity): &(i64, i64)| {
            if *capacity <= 0 || requested > capacity {
                0
            } else {
                (capacity - requested) * MAX_NODE_SCORE / capacity
            }
        };
        parts.iter().map(free).sum::<i64>() / known
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod_info::PodInfo;
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
        let wanted = requests(json!({"cpu": "1", "memory": "2Gi"}));
        let score = LeastAllocated { requests: &wanted };
        // 3 of 4 cores and 6 of 8 GiB are left.
        assert_eq!(score.score(&node_with(json!({}))), 75);
        assert_eq!(
            score.score(&node_with(json!({"status": {"allocatable": {"cpu": "1", "memory": "2Gi"}}}))),
            0
        );
    }
}
