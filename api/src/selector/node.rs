//! Which nodes a pod or a volume demands, by their names and labels. Owns how terms combine; what a requirement means is
//! [`LabelRequirement`]'s. Taints are another matter.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec};

use super::LabelRequirement;

/// The field by which a term can name nodes.
pub const NAME_FIELD: &str = "metadata.name";

type Labels = BTreeMap<String, String>;

/// Whether a node is one of those that a pod demands by `nodeSelector` and required node affinity.
pub fn is_demanded(spec: &PodSpec, name: &str, labels: Option<&Labels>) -> bool {
    let has = |key: &String, value: &String| labels.and_then(|labels| labels.get(key)) == Some(value);
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required =
        affinity.and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    spec.node_selector.iter().flatten().all(|(key, value)| has(key, value))
        && required.is_none_or(|required| matches(required, name, labels))
}

/// Whether any term of the selector holds for a node.
pub fn matches(selector: &NodeSelector, name: &str, labels: Option<&Labels>) -> bool {
    selector.node_selector_terms.iter().any(|term| term_matches(term, name, labels))
}

/// A term without any requirement matches nothing.
fn term_matches(term: &NodeSelectorTerm, name: &str, labels: Option<&Labels>) -> bool {
    let label = |key: &str| labels.and_then(|labels| labels.get(key)).map(String::as_str);
    let field = |key: &str| (key == NAME_FIELD).then_some(name);
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    !(expressions.is_empty() && fields.is_empty())
        && expressions.iter().all(|given| holds(given, label(&given.key)))
        && fields.iter().all(|given| holds(given, field(&given.key)))
}

/// Whether a value fulfils a requirement. An operator that does not exist is never fulfilled.
fn holds(given: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    LabelRequirement::spelt(&given.key, &given.operator, given.values.as_ref())
        .is_some_and(|requirement| requirement.matches(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn operators_are_obeyed() {
        let labels =
            BTreeMap::from([("zone".to_owned(), "a".to_owned()), ("cores".to_owned(), "4".to_owned())]);
        for (key, operator, values, expected) in [
            ("zone", "In", json!(["a", "b"]), true),
            ("zone", "NotIn", json!(["a"]), false),
            ("none", "NotIn", json!(["a"]), true),
            ("zone", "Exists", json!([]), true),
            ("zone", "DoesNotExist", json!([]), false),
            ("cores", "Gt", json!(["3"]), true),
            ("cores", "Lt", json!(["4"]), false),
            ("zone", "Gt", json!(["1"]), false),
        ] {
            let selector = serde_json::from_value(json!({"nodeSelectorTerms": [
                {"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]}))
            .unwrap();
            assert_eq!(matches(&selector, "n", Some(&labels)), expected, "{key} {operator} {values}");
        }
        let by_name = |name: &str| {
            serde_json::from_value(json!({"nodeSelectorTerms": [{},
                {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]}]}))
            .unwrap()
        };
        assert!(matches(&by_name("n"), "n", Some(&labels)));
        assert!(!matches(&by_name("m"), "n", Some(&labels)), "an empty term holds for no node");
    }
}
