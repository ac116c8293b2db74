//! NodeAffinity: `nodeSelector` and required node affinity rule nodes out; preferred node affinity scores them.

use crate::framework::{
    Cycle, FilterPlugin, NodeFilter, NodeScore, Prepared, Rejection, ScorePlugin, normalize_by_highest,
};
use crate::node_info::NodeInfo;
use crate::node_selector::{RequiredNodeAffinity, Term};

/// The plugin's name.
pub const NAME: &str = "NodeAffinity";

const NOT_ENFORCED: &str = "node(s) didn't match scheduler-enforced node affinity";

/// The plugin with its arguments.
#[derive(Clone, Debug, Default)]
pub struct NodeAffinity {
    /// What the scheduler demands for every pod.
    pub added_required: RequiredNodeAffinity,
    /// What the scheduler prefers for every pod, with weights.
    pub added_preferred: Vec<(i64, Term)>,
}

impl FilterPlugin for NodeAffinity {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare<'a>(&self, cycle: Cycle<'a>) -> Prepared<'a> {
        let required = &cycle.pod.required_affinity;
        let added = self.added_required.clone();
        if required.is_empty() && added.is_empty() {
            return Prepared::Skip;
        }
        let check: Box<dyn NodeFilter + 'a> = Box::new(move |node: &NodeInfo| {
            if !node.node.as_ref().is_some_and(|node| added.matches(node)) {
                Err(Rejection::unresolvable(NAME, NOT_ENFORCED))
            } else if node.node.as_ref().is_some_and(|node| required.matches(node)) {
                Ok(())
            } else {
                Err(Rejection::unresolvable(NAME, "node(s) didn't match Pod's node affinity/selector"))
            }
        });
        match required.node_names() {
            Some(names) if names.is_empty() => Prepared::Reject("pod affinity terms conflict".to_owned()),
            Some(names) => Prepared::Only(names, check),
            None => Prepared::Check(check),
        }
    }
}

struct Score<'a> {
    preferred: &'a [(i64, Term)],
    added: Vec<(i64, Term)>,
}

impl ScorePlugin for NodeAffinity {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare<'a>(&self, cycle: Cycle<'a>, _nodes: &[&'a NodeInfo]) -> Option<Box<dyn NodeScore + 'a>> {
        let preferred = &cycle.pod.preferred_affinity;
        if preferred.is_empty() && self.added_preferred.is_empty() {
            return None;
        }
        Some(Box::new(Score { preferred, added: self.added_preferred.clone() }))
    }
}

impl NodeScore for Score<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let all = self.preferred.iter().chain(&self.added);
        let matching = all.filter(|(_, term)| term.matches(&node.name, node.labels()));
        matching.map(|(weight, _)| weight).sum()
    }

    fn normalize(&self, scores: &mut [i64]) {
        normalize_by_highest(scores, false);
    }
}
