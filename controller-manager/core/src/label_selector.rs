//! Whether labels match a `metav1.LabelSelector`. Owns nothing else.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// Whether the selector has no requirement at all (it would match everything).
pub fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}

/// Whether `labels` fulfil all requirements. An unknown operator, which validation never lets through, matches nothing.
pub fn matches(selector: &LabelSelector, labels: Option<&Labels>) -> bool {
    let value = |key: &str| labels.and_then(|labels| labels.get(key));
    let equal = selector.match_labels.iter().flatten().all(|(key, wanted)| value(key) == Some(wanted));
    equal
        && selector.match_expressions.iter().flatten().all(|requirement| {
            let found = value(&requirement.key);
            let listed = found.is_some_and(|found| requirement.values.iter().flatten().any(|v| v == found));
            match requirement.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => found.is_some(),
                "DoesNotExist" => found.is_none(),
                _ => false,
            }
        })
}

/// Whether `labels` contain all of a Service's `selector`.
pub fn matches_map(selector: &Labels, labels: Option<&Labels>) -> bool {
    selector.iter().all(|(key, wanted)| labels.and_then(|labels| labels.get(key)) == Some(wanted))
}

/// A selector as upstream prints it into texts for people.
pub fn printed(selector: Option<&LabelSelector>) -> String {
    let Some(selector) = selector else { return "nil".to_owned() };
    let labels: String =
        selector.match_labels.iter().flatten().map(|(key, value)| format!("{key}: {value},")).collect();
    let expressions: String = selector
        .match_expressions
        .iter()
        .flatten()
        .map(|one| {
            let values = one.values.clone().unwrap_or_default().join(" ");
            format!(
                "LabelSelectorRequirement{{Key:{},Operator:{},Values:[{values}],}},",
                one.key, one.operator
            )
        })
        .collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;

    #[test]
    fn each_operator_matches_as_documented() {
        let labels: Labels = [("tier".to_owned(), "web".to_owned())].into();
        let cases = [
            ("tier", "In", &["web", "db"][..], true),
            ("tier", "In", &["db"][..], false),
            ("tier", "NotIn", &["db"][..], true),
            ("zone", "NotIn", &["a"][..], true),
            ("tier", "Exists", &[][..], true),
            ("zone", "Exists", &[][..], false),
            ("zone", "DoesNotExist", &[][..], true),
            ("tier", "Sideways", &[][..], false),
        ];
        for (key, operator, values, expected) in cases {
            let selector = LabelSelector {
                match_expressions: Some(vec![LabelSelectorRequirement {
                    key: key.into(),
                    operator: operator.into(),
                    values: Some(values.iter().map(|v| (*v).to_owned()).collect()),
                }]),
                match_labels: None,
            };
            assert_eq!(matches(&selector, Some(&labels)), expected, "{key} {operator} {values:?}");
        }
        assert!(is_empty(&LabelSelector::default()));
    }
}
