//! Whether a node is one that a pod demands (`nodeSelector`, required node affinity) and tolerates (taints). Owns how terms
//! combine; what a requirement means is `coracle-api`'s.

use coracle_api::selector::{LabelRequirement, Operator};
use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint};

use crate::object_meta::name;
use crate::taint_eviction::tolerates;

/// The field by which a term can name nodes.
pub const NAME_FIELD: &str = "metadata.name";

/// Whether a value fulfils a requirement. An operator that does not exist is never fulfilled.
fn holds(given: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let operator = match given.operator.as_str() {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => Operator::GreaterThan,
        "Lt" => Operator::LessThan,
        _ => return false,
    };
    let values = given.values.clone().unwrap_or_default();
    LabelRequirement { key: given.key.clone(), operator, values }.matches(value)
}

/// A term without any requirement matches nothing.
fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let labels = node.metadata.labels.as_ref();
    let label = |key: &str| labels.and_then(|labels| labels.get(key)).map(String::as_str);
    let field = |key: &str| (key == NAME_FIELD).then(|| name(&node.metadata));
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    !(expressions.is_empty() && fields.is_empty())
        && expressions.iter().all(|given| holds(given, label(&given.key)))
        && fields.iter().all(|given| holds(given, field(&given.key)))
}

/// Whether the node is one of those that the pod demands.
pub fn is_demanded(spec: &PodSpec, node: &Node) -> bool {
    let labels = node.metadata.labels.as_ref();
    let selected = spec
        .node_selector
        .iter()
        .flatten()
        .all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value));
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required =
        affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    selected
        && required
            .is_none_or(|required| required.node_selector_terms.iter().any(|term| term_matches(term, node)))
}

/// Whether the pod tolerates all taints of the node with one of these effects.
pub fn is_tolerated(spec: &PodSpec, node: &Node, effects: &[&str]) -> bool {
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let harmless = |taint: &Taint| tolerations.iter().any(|toleration| tolerates(toleration, taint));
    taints.filter(|taint| effects.contains(&taint.effect.as_str())).all(harmless)
}
