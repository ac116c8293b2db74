//! NodeResourcesBalancedAllocation: prefers nodes whose CPU and memory would be used to the same share. Pods that request
//! neither do not care.

use crate::framework::{Cycle, MAX_NODE_SCORE, NodeScore, ScorePlugin};
use crate::node_info::NodeInfo;
use crate::resources::Resources;

/// The plugin's name.
pub const NAME: &str = "NodeResourcesBalancedAllocation";

/// The plugin.
pub struct NodeResourcesBalancedAllocation;

struct Score<'a> {
    requests: &'a Resources,
}

impl ScorePlugin for NodeResourcesBalancedAllocation {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare<'a>(&self, cycle: Cycle<'a>, _nodes: &[&'a NodeInfo]) -> Option<Box<dyn NodeScore + 'a>> {
        let requests = &cycle.pod.info.requests;
        if requests.milli_cpu == 0 && requests.memory == 0 {
            None
        } else {
            Some(Box::new(Score { requests }))
        }
    }
}

impl NodeScore for Score<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let share = |used: i64, wanted: i64, capacity: i64| {
            (capacity > 0).then(|| ((used + wanted) as f64 / capacity as f64).min(1.0))
        };
        let (used, capacity) = (&node.requested, &node.allocatable);
        let cpu = share(used.milli_cpu, self.requests.milli_cpu, capacity.milli_cpu);
        let memory = share(used.memory, self.requests.memory, capacity.memory);
        // Of two values the standard deviation is half their distance; of one it is zero.
        let deviation = match (cpu, memory) {
            (Some(cpu), Some(memory)) => ((cpu - memory) / 2.0).abs(),
            _ => 0.0,
        };
        ((1.0 - deviation) * MAX_NODE_SCORE as f64) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::node_from;
    use serde_json::json;

    #[test]
    fn an_even_use_of_cpu_and_memory_scores_full() {
        let mut node = NodeInfo::default();
        node.set_node(node_from("n", json!({"status": {"allocatable": {"cpu": "4", "memory": "4Gi"}}})));
        let even = Resources { milli_cpu: 2000, memory: 2 << 30, ..Resources::default() };
        let lopsided = Resources { milli_cpu: 4000, ..Resources::default() };
        assert_eq!(Score { requests: &even }.score(&node), 100);
        assert_eq!(Score { requests: &lopsided }.score(&node), 50);
    }
}
