//! TaintToleration: NoSchedule and NoExecute taints rule a node out unless tolerated; untolerated PreferNoSchedule taints
//! count against it.

use k8s_openapi::api::core::v1::{Taint, Toleration};

use crate::framework::{
    Cycle, FilterPlugin, NodeScore, Prepared, Rejection, ScorePlugin, normalize_by_highest,
};
use crate::node_info::NodeInfo;

/// The plugin's name.
pub const NAME: &str = "TaintToleration";

/// The plugin.
pub struct TaintToleration;

/// Whether any toleration covers the taint.
pub fn tolerated(taint: &Taint, tolerations: &[Toleration]) -> bool {
    tolerations.iter().any(|toleration| {
        let effect = toleration.effect.as_deref().unwrap_or_default();
        let key = toleration.key.as_deref().unwrap_or_default();
        if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
            return false;
        }
        match toleration.operator.as_deref().unwrap_or_default() {
            "Exists" => true,
            "" | "Equal" => {
                toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default()
            }
            _ => false,
        }
    })
}

/// The first taint that keeps a pod with these tolerations off the node.
pub fn untolerated<'n>(node: &'n NodeInfo, tolerations: &[Toleration]) -> Option<&'n Taint> {
    node.taints().iter().find(|taint| {
        matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute") && !tolerated(taint, tolerations)
    })
}

impl FilterPlugin for TaintToleration {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare<'a>(&self, cycle: Cycle<'a>) -> Prepared<'a> {
        let tolerations = cycle.pod.spec().tolerations.as_deref().unwrap_or_default();
        Prepared::Check(Box::new(move |node: &NodeInfo| match untolerated(node, tolerations) {
            None => Ok(()),
            Some(_) => Err(Rejection::unresolvable(NAME, "node(s) had untolerated taint(s)")),
        }))
    }
}

struct Score<'a> {
    tolerations: Vec<&'a Toleration>,
}

impl ScorePlugin for TaintToleration {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare<'a>(&self, cycle: Cycle<'a>, nodes: &[&'a NodeInfo]) -> Option<Box<dyn NodeScore + 'a>> {
        let preferred = |taint: &Taint| taint.effect == "PreferNoSchedule";
        if !nodes.iter().any(|node| node.taints().iter().any(preferred)) {
            // All nodes would get the same score.
            return None;
        }
        let tolerations = cycle.pod.spec().tolerations.iter().flatten();
        let relevant = |toleration: &&Toleration| {
            matches!(toleration.effect.as_deref().unwrap_or_default(), "" | "PreferNoSchedule")
        };
        Some(Box::new(Score { tolerations: tolerations.filter(relevant).collect() }))
    }
}

impl NodeScore for Score<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let untolerated = node.taints().iter().filter(|taint| {
            taint.effect == "PreferNoSchedule"
                && !self
                    .tolerations
                    .iter()
                    .any(|toleration| tolerated(taint, std::slice::from_ref(*toleration)))
        });
        untolerated.count() as i64
    }

    fn normalize(&self, scores: &mut [i64]) {
        normalize_by_highest(scores, true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toleration(key: &str, operator: &str, value: &str, effect: &str) -> Toleration {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Toleration {
            key: text(key),
            operator: text(operator),
            value: text(value),
            effect: text(effect),
            toleration_seconds: None,
        }
    }

    #[test]
    fn tolerations_cover_taints_by_key_value_and_effect() {
        let taint = Taint {
            key: "gpu".into(),
            value: Some("big".into()),
            effect: "NoSchedule".into(),
            time_added: None,
        };
        for (toleration, expected) in [
            (toleration("", "Exists", "", ""), true),
            (toleration("gpu", "Exists", "", ""), true),
            (toleration("gpu", "", "big", ""), true),
            (toleration("gpu", "Equal", "small", ""), false),
            (toleration("gpu", "Exists", "", "NoExecute"), false),
            (toleration("other", "Exists", "", ""), false),
            (toleration("gpu", "Like", "big", ""), false),
        ] {
            assert_eq!(tolerated(&taint, std::slice::from_ref(&toleration)), expected, "{toleration:?}");
        }
    }
}
