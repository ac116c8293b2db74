//! NodeResourcesBalancedAllocation: prefers nodes whose resources would be used to the same share, CPU and memory unless told otherwise.
//! Pods that request none of them do not care.

use crate::framework::{Cycle, MAX_NODE_SCORE, NodeScore, ScorePlugin};
use crate::node_info::NodeInfo;
use crate::plugins::scoring_strategy::taken_and_capacity;
use crate::pod_info::PodInfo;

/// The plugin's name.
pub const NAME: &str = "NodeResourcesBalancedAllocation";

/// The plugin with its arguments.
#[derive(Clone, Debug)]
pub struct NodeResourcesBalancedAllocation {
    /// Names of the resources that count.
    pub resources: Vec<String>,
}

impl Default for NodeResourcesBalancedAllocation {
    fn default() -> Self {
        Self { resources: vec!["cpu".to_owned(), "memory".to_owned()] }
    }
}

struct Score<'a> {
    pod: &'a PodInfo,
    resources: Vec<String>,
}

impl ScorePlugin for NodeResourcesBalancedAllocation {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare<'a>(&self, cycle: Cycle<'a>, _nodes: &[&'a NodeInfo]) -> Option<Box<dyn NodeScore + 'a>> {
        let pod = &cycle.pod.info;
        let asks = self.resources.iter().any(|name| pod.requests.amount(name) > 0);
        asks.then(|| Box::new(Score { pod, resources: self.resources.clone() }) as Box<dyn NodeScore>)
    }
}

impl NodeScore for Score<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let shares: Vec<f64> = self
            .resources
            .iter()
            .filter_map(|name| taken_and_capacity(self.pod, node, name, false))
            .map(|(taken, capacity)| (taken as f64 / capacity as f64).min(1.0))
            .collect();
        let deviation = match shares.as_slice() {
            [] | [_] => 0.0,
            // Of two values the standard deviation is half their distance.
            [one, other] => ((one - other) / 2.0).abs(),
            several => {
                let count = several.len() as f64;
                let mean = several.iter().sum::<f64>() / count;
                (several.iter().map(|share| (share - mean).powi(2)).sum::<f64>() / count).sqrt()
            }
        };
        ((1.0 - deviation) * MAX_NODE_SCORE as f64) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node_from, pod_from};
    use serde_json::{Value, json};

    fn score(requests: Value, resources: &[&str]) -> i64 {
        let mut node = NodeInfo::default();
        let allocatable = json!({"cpu": "4", "memory": "4Gi", "example.com/gpu": "4"});
        node.set_node(node_from("n", json!({"status": {"allocatable": allocatable}})));
        let pod =
            pod_from(json!({"spec": {"containers": [{"name": "c", "resources": {"requests": requests}}]}}));
        let resources = resources.iter().map(|name| (*name).to_owned()).collect();
        Score { pod: &PodInfo::new(pod), resources }.score(&node)
    }

    #[test]
    fn an_even_use_scores_full() {
        let usual = ["cpu", "memory"];
        assert_eq!(score(json!({"cpu": "2", "memory": "2Gi"}), &usual), 100);
        assert_eq!(score(json!({"cpu": "4"}), &usual), 50);
        let three = ["cpu", "memory", "example.com/gpu"];
        assert_eq!(score(json!({"cpu": "4", "memory": "4Gi", "example.com/gpu": "1"}), &three), 64);
        assert_eq!(
            score(json!({"cpu": "4", "memory": "4Gi"}), &three),
            100,
            "who asks for no gpu does not mind it"
        );
    }
}
