//! Whether a node is one that a pod demands (`nodeSelector`, required node affinity) and tolerates (taints). What a
//! node selector means is `coracle-api`'s.

use coracle_api::selector::node as node_selector;
use k8s_openapi::api::core::v1::{Node, PodSpec, Taint};

use crate::object_meta::name;
use crate::taint_eviction::tolerates;

/// Whether the node is one of those that the pod demands.
pub fn is_demanded(spec: &PodSpec, node: &Node) -> bool {
    node_selector::is_demanded(spec, name(&node.metadata), node.metadata.labels.as_ref())
}

/// Whether the pod tolerates all taints of the node with one of these effects.
pub fn is_tolerated(spec: &PodSpec, node: &Node, effects: &[&str]) -> bool {
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let harmless = |taint: &Taint| tolerations.iter().any(|toleration| tolerates(toleration, taint));
    taints.filter(|taint| effects.contains(&taint.effect.as_str())).all(harmless)
}
