//! How NodeResourcesFit compares nodes: by what would be left (LeastAllocated), by what would be taken (MostAllocated, which packs
//! pods together) or by a curve (RequestedToCapacityRatio). Owns the arithmetic over the resources that count.

use crate::framework::MAX_NODE_SCORE;
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::resources::Resources;

/// A point of a curve: at this share of a resource in use, this score.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CurvePoint {
    /// In percent.
    pub utilization: i64,
    /// From 0 to [`MAX_NODE_SCORE`].
    pub score: i64,
}

/// What makes a node better.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StrategyKind {
    /// More left over.
    LeastAllocated,
    /// Less left over.
    MostAllocated,
    /// What the curve says, its points in order of utilization.
    RequestedToCapacityRatio(Vec<CurvePoint>),
}

/// A strategy and the resources that count, with their weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScoringStrategy {
    /// What makes a node better.
    pub kind: StrategyKind,
    /// Names of resources and how much each counts.
    pub resources: Vec<(String, i64)>,
}

impl Default for ScoringStrategy {
    fn default() -> Self {
        let resources = vec![("cpu".to_owned(), 1), ("memory".to_owned(), 1)];
        Self { kind: StrategyKind::LeastAllocated, resources }
    }
}

/// Whether everyone has a resource, or only nodes that say so.
fn is_extended(name: &str) -> bool {
    !matches!(name, "cpu" | "memory" | "ephemeral-storage")
}

/// What would be taken of a resource with the pod there, and what there is; `None` if the resource does not matter here.
pub fn taken_and_capacity(pod: &PodInfo, node: &NodeInfo, name: &str, non_zero: bool) -> Option<(i64, i64)> {
    if is_extended(name) && pod.requests.amount(name) == 0 {
        return None;
    }
    let (of_pod, of_node): (&Resources, &Resources) = match name {
        "cpu" | "memory" if non_zero => (&pod.non_zero, &node.non_zero_requested),
        _ => (&pod.requests, &node.requested),
    };
    let capacity = node.allocatable.amount(name);
    (capacity > 0).then(|| (of_node.amount(name) + of_pod.amount(name), capacity))
}

impl ScoringStrategy {
    /// The score of a node, from 0 to [`MAX_NODE_SCORE`].
    pub fn score(&self, pod: &PodInfo, node: &NodeInfo) -> i64 {
        let (mut sum, mut weights) = (0, 0);
        for (name, weight) in &self.resources {
            let Some((taken, capacity)) = taken_and_capacity(pod, node, name, true) else { continue };
            let score = match &self.kind {
                StrategyKind::LeastAllocated if taken > capacity => 0,
                StrategyKind::LeastAllocated => (capacity - taken) * MAX_NODE_SCORE / capacity,
                StrategyKind::MostAllocated => taken.min(capacity) * MAX_NODE_SCORE / capacity,
                StrategyKind::RequestedToCapacityRatio(curve) => {
                    let used = if taken > capacity { 100 } else { taken * 100 / capacity };
                    let score = on_curve(curve, used);
                    if score <= 0 {
                        continue;
                    }
                    score
                }
            };
            sum += score * weight;
            weights += weight;
        }
        match &self.kind {
            _ if weights == 0 => 0,
            StrategyKind::RequestedToCapacityRatio(_) => (sum as f64 / weights as f64).round() as i64,
            _ => sum / weights,
        }
    }
}

/// The height of the broken line at `x`; level before its first and after its last point.
fn on_curve(curve: &[CurvePoint], x: i64) -> i64 {
    let Some(at) = curve.iter().position(|point| x <= point.utilization) else {
        return curve.last().map_or(0, |point| point.score);
    };
    let right = curve[at];
    match at.checked_sub(1).map(|before| curve[before]) {
        None => right.score,
        Some(left) => {
            let slope = (right.score - left.score) * (x - left.utilization);
            left.score + slope / (right.utilization - left.utilization)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{node_from, pod, pod_from};
    use serde_json::json;

    fn node() -> NodeInfo {
        let mut info = NodeInfo::default();
        let allocatable = json!({"cpu": "4", "memory": "8Gi", "pods": "110", "example.com/gpu": "4"});
        info.set_node(node_from("n", json!({"status": {"allocatable": allocatable}})));
        info
    }

    fn strategy(kind: StrategyKind, resources: &[(&str, i64)]) -> ScoringStrategy {
        let resources = resources.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect();
        ScoringStrategy { kind, resources }
    }

    #[test]
    fn packing_is_the_reverse_of_spreading() {
        let one = PodInfo::new(pod("one", "1"));
        let cpu = [("cpu", 1)];
        assert_eq!(strategy(StrategyKind::LeastAllocated, &cpu).score(&one, &node()), 75);
        assert_eq!(strategy(StrategyKind::MostAllocated, &cpu).score(&one, &node()), 25);
        let huge = PodInfo::new(pod("huge", "9"));
        assert_eq!(strategy(StrategyKind::LeastAllocated, &cpu).score(&huge, &node()), 0);
        assert_eq!(strategy(StrategyKind::MostAllocated, &cpu).score(&huge, &node()), 100);
    }

    #[test]
    fn the_curve_of_the_documentation_gives_its_scores() {
        // Utilization 0 scores 0 and 100 scores 10 (of 10), weights 5 and 1: the example of "Resource Bin Packing".
        let curve =
            vec![CurvePoint { utilization: 0, score: 0 }, CurvePoint { utilization: 100, score: 100 }];
        let kind = StrategyKind::RequestedToCapacityRatio(curve);
        let wants = pod_from(json!({"spec": {"containers": [
            {"name": "c", "resources": {"requests": {"cpu": "2", "memory": "2Gi", "example.com/gpu": "2"}}}]}}));
        let score =
            strategy(kind, &[("example.com/gpu", 5), ("memory", 1)]).score(&PodInfo::new(wants), &node());
        // gpu: 50 of 100, five times; memory: 25, once.
        assert_eq!(score, 46);
        let point = |utilization, score| CurvePoint { utilization, score };
        let broken = [point(10, 20), point(50, 60), point(90, 0)];
        let heights: Vec<_> = [0, 10, 30, 50, 70, 95].iter().map(|x| on_curve(&broken, *x)).collect();
        assert_eq!(heights, [20, 20, 40, 60, 30, 0]);
    }

    #[test]
    fn an_extended_resource_matters_to_those_alone_who_ask_for_it() {
        let one = PodInfo::new(pod("one", "1"));
        let both = strategy(StrategyKind::LeastAllocated, &[("cpu", 1), ("example.com/gpu", 3)]);
        assert_eq!(both.score(&one, &node()), 75);
    }
}
