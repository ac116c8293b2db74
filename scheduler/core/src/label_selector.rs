//! Label selectors made ready for matching many times. Owns their ready form; what a requirement means is `coracle-api`'s.

use std::collections::BTreeMap;

use coracle_api::selector::{LabelRequirement, Operator};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// A selector as a list of requirements that must all hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    requirements: Vec<LabelRequirement>,
    /// A missing selector, or one with an operator we do not know, selects nothing.
    nothing: bool,
}

impl Selector {
    /// From the API's form; `None` selects nothing, an empty one everything.
    pub fn new(selector: Option<&LabelSelector>) -> Self {
        let Some(selector) = selector else { return Self { requirements: Vec::new(), nothing: true } };
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
            match LabelRequirement::spelt(&expression.key, &expression.operator, expression.values.as_ref()) {
                Some(requirement) => self.requirements.push(requirement),
                None => self.nothing = true,
            }
        }
    }

    /// Demands that a label has this value.
    pub fn require(&mut self, key: &str, value: &str) {
        let values = vec![value.to_owned()];
        self.requirements.push(LabelRequirement { key: key.to_owned(), operator: Operator::Equals, values });
    }

    /// Demands that a label does not have this value.
    pub fn forbid(&mut self, key: &str, value: &str) {
        let values = vec![value.to_owned()];
        self.requirements.push(LabelRequirement { key: key.to_owned(), operator: Operator::NotIn, values });
    }

    /// Whether it demands nothing, which selects everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    /// Whether these labels satisfy all requirements.
    pub fn matches(&self, labels: &Labels) -> bool {
        let holds = |requirement: &LabelRequirement| {
            requirement.matches(labels.get(&requirement.key).map(String::as_str))
        };
        !self.nothing && self.requirements.iter().all(holds)
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
