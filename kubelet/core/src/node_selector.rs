//! Whether a node's labels meet a NodeSelector: a pod's required node affinity, or a volume's.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement};

/// Whether any term of the selector holds. A term without requirements holds for no node.
pub fn matches(selector: &NodeSelector, labels: &BTreeMap<String, String>, node_name: &str) -> bool {
    selector.node_selector_terms.iter().any(|term| {
        let expressions = term.match_expressions.iter().flatten();
        let fields = term.match_fields.iter().flatten();
        let mut all = expressions
            .map(|wanted| holds(wanted, labels.get(&wanted.key).map(String::as_str)))
            .chain(
                fields.map(|wanted| holds(wanted, Some(node_name).filter(|_| wanted.key == "metadata.name"))),
            )
            .peekable();
        all.peek().is_some() && all.all(|holds| holds)
    })
}

fn holds(wanted: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = wanted.values.as_deref().unwrap_or_default();
    let listed = value.is_some_and(|value| values.iter().any(|one| one == value));
    let compared = |order: std::cmp::Ordering| {
        let number = |text: &str| text.parse::<i64>().ok();
        match (value.and_then(number), values.first().and_then(|text| number(text))) {
            (Some(have), Some(limit)) => have.cmp(&limit) == order,
            _ => false,
        }
    };
    match wanted.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compared(std::cmp::Ordering::Greater),
        "Lt" => compared(std::cmp::Ordering::Less),
        _ => false,
    }
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
            assert_eq!(matches(&selector, &labels, "n"), expected, "{key} {operator} {values}");
        }
        let by_name = |name: &str| {
            serde_json::from_value(json!({"nodeSelectorTerms": [{},
                {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]}]}))
            .unwrap()
        };
        assert!(matches(&by_name("n"), &labels, "n"));
        assert!(!matches(&by_name("m"), &labels, "n"), "an empty term holds for no node");
    }
}
