//! Label selectors made ready for matching many times. Owns the meaning of `matchLabels` and `matchExpressions`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
}

/// A selector as a list of rules that must all hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    rules: Vec<(String, Rule)>,
    /// A missing selector, or one with an operator we do not know, selects nothing.
    nothing: bool,
}

impl Selector {
    /// From the API's form; `None` selects nothing, an empty one everything.
    pub fn new(selector: Option<&LabelSelector>) -> Self {
        let Some(selector) = selector else { return Self { rules: Vec::new(), nothing: true } };
        let mut compiled = Self::default();
        compiled.add(selector);
        compiled
    }

    /// Demands the rules of another selector too.
    pub fn add(&mut self, selector: &LabelSelector) {
        for (key, value) in selector.match_labels.iter().flatten() {
            self.require(key, value);
        }
        for expression in selector.match_expressions.iter().flatten() {
            let values = expression.values.clone().unwrap_or_default();
            let rule = match expression.operator.as_str() {
                "In" => Rule::In(values),
                "NotIn" => Rule::NotIn(values),
                "Exists" => Rule::Exists,
                "DoesNotExist" => Rule::DoesNotExist,
                _ => {
                    self.nothing = true;
                    return;
                }
            };
            self.rules.push((expression.key.clone(), rule));
        }
    }

    /// Demands that a label has this value.
    pub fn require(&mut self, key: &str, value: &str) {
        self.rules.push((key.to_owned(), Rule::In(vec![value.to_owned()])));
    }

    /// Whether it has no rules, which selects everything.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty() && !self.nothing
    }

    /// Whether these labels satisfy all rules.
    pub fn matches(&self, labels: &Labels) -> bool {
        !self.nothing
            && self.rules.iter().all(|(key, rule)| {
                let value = labels.get(key);
                match rule {
                    Rule::In(values) => value.is_some_and(|value| values.contains(value)),
                    Rule::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
                    Rule::Exists => value.is_some(),
                    Rule::DoesNotExist => value.is_none(),
                }
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;

    fn expression(key: &str, operator: &str, values: &[&str]) -> LabelSelector {
        LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: key.into(),
                operator: operator.into(),
                values: Some(values.iter().map(|value| (*value).to_owned()).collect()),
            }]),
            ..Default::default()
        }
    }

    #[test]
    fn operators_mean_what_the_api_says() {
        let labels = Labels::from([("app".to_owned(), "web".to_owned())]);
        for (operator, key, values, expected) in [
            ("In", "app", vec!["web", "db"], true),
            ("In", "tier", vec!["a"], false),
            ("NotIn", "app", vec!["web"], false),
            ("NotIn", "tier", vec!["a"], true),
            ("Exists", "app", vec![], true),
            ("DoesNotExist", "app", vec![], false),
            ("Bogus", "app", vec![], false),
        ] {
            let selector = Selector::new(Some(&expression(key, operator, &values)));
            assert_eq!(selector.matches(&labels), expected, "{operator} {key}");
        }
        assert!(!Selector::new(None).matches(&labels), "no selector selects nothing");
        assert!(Selector::new(Some(&LabelSelector::default())).matches(&labels), "an empty one everything");
    }
}
