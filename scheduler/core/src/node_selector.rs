//! Node selectors and node affinity made ready for matching many nodes. Owns the meaning of their operators.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, PodSpec};

use crate::label_selector::Labels;

#[derive(Clone, Debug)]
enum Rule {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
    Gt(i64),
    Lt(i64),
    /// An operator or value that makes no sense: matches no node.
    Never,
}

impl Rule {
    fn new(requirement: &NodeSelectorRequirement) -> Self {
        let values = requirement.values.clone().unwrap_or_default();
        let number = || values.first().and_then(|value| value.parse().ok());
        match requirement.operator.as_str() {
            "In" => Self::In(values),
            "NotIn" => Self::NotIn(values),
            "Exists" => Self::Exists,
            "DoesNotExist" => Self::DoesNotExist,
            "Gt" => number().map_or(Self::Never, Self::Gt),
            "Lt" => number().map_or(Self::Never, Self::Lt),
            _ => Self::Never,
        }
    }

    fn matches(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match self {
            Self::In(values) => value.is_some_and(|value| values.iter().any(|wanted| wanted == value)),
            Self::NotIn(values) => value.is_none_or(|value| !values.iter().any(|wanted| wanted == value)),
            Self::Exists => value.is_some(),
            Self::DoesNotExist => value.is_none(),
            Self::Gt(limit) => number().is_some_and(|number| number > *limit),
            Self::Lt(limit) => number().is_some_and(|number| number < *limit),
            Self::Never => false,
        }
    }
}

/// One term: all its rules must hold. A term without rules matches nothing.
#[derive(Clone, Debug)]
pub struct Term {
    labels: Vec<(String, Rule)>,
    fields: Vec<(String, Rule)>,
}

impl Term {
    /// From the API's form.
    pub fn new(term: &NodeSelectorTerm) -> Self {
        let compile = |list: &Option<Vec<NodeSelectorRequirement>>| {
            list.iter()
                .flatten()
                .map(|requirement| (requirement.key.clone(), Rule::new(requirement)))
                .collect()
        };
        Self { labels: compile(&term.match_expressions), fields: compile(&term.match_fields) }
    }

    /// Whether a node with this name and these labels satisfies the term.
    pub fn matches(&self, name: &str, labels: &Labels) -> bool {
        if self.labels.is_empty() && self.fields.is_empty() {
            return false;
        }
        self.labels.iter().all(|(key, rule)| rule.matches(labels.get(key).map(String::as_str)))
            && self.fields.iter().all(|(key, rule)| rule.matches((key == "metadata.name").then_some(name)))
    }

    /// The node names the term is limited to by `metadata.name In`, if it is.
    fn names(&self) -> Option<BTreeSet<String>> {
        let mut names: Option<BTreeSet<String>> = None;
        for (key, rule) in &self.fields {
            if let (true, Rule::In(values)) = (key == "metadata.name", rule) {
                let values: BTreeSet<_> = values.iter().cloned().collect();
                names = Some(
                    names.map_or(values.clone(), |names| names.intersection(&values).cloned().collect()),
                );
            }
        }
        names
    }
}

/// What a pod demands of its node by `nodeSelector` and required node affinity.
#[derive(Clone, Debug, Default)]
pub struct RequiredNodeAffinity {
    selector: Vec<(String, String)>,
    /// Any of these; `None` if the pod has no required affinity.
    terms: Option<Vec<Term>>,
}

impl RequiredNodeAffinity {
    /// From a pod's spec.
    pub fn new(spec: &PodSpec) -> Self {
        let required = spec
            .affinity
            .as_ref()
            .and_then(|affinity| affinity.node_affinity.as_ref())
            .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
        Self {
            selector: spec
                .node_selector
                .iter()
                .flatten()
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
            terms: required.map(|required| required.node_selector_terms.iter().map(Term::new).collect()),
        }
    }

    /// Whether there is nothing to check.
    pub fn is_empty(&self) -> bool {
        self.selector.is_empty() && self.terms.is_none()
    }

    /// Whether a node satisfies it.
    pub fn matches(&self, node: &Node) -> bool {
        if self.is_empty() {
            return true;
        }
        let empty = Labels::new();
        let labels = node.metadata.labels.as_ref().unwrap_or(&empty);
        let name = node.metadata.name.as_deref().unwrap_or_default();
        self.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.terms.as_ref().is_none_or(|terms| terms.iter().any(|term| term.matches(name, labels)))
    }

    /// The only nodes that can match, if every term names its nodes. Saves looking at all the others.
    pub fn node_names(&self) -> Option<BTreeSet<String>> {
        let mut all = BTreeSet::new();
        let terms = self.terms.as_ref().filter(|terms| !terms.is_empty())?;
        for term in terms {
            all.extend(term.names()?);
        }
        Some(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(operator: &str, values: &[&str]) -> Rule {
        Rule::new(&NodeSelectorRequirement {
            key: String::new(),
            operator: operator.into(),
            values: Some(values.iter().map(|value| (*value).to_owned()).collect()),
        })
    }

    #[test]
    fn operators_match_as_documented() {
        assert!(rule("Gt", &["4"]).matches(Some("5")));
        assert!(!rule("Gt", &["4"]).matches(Some("4")));
        assert!(rule("Lt", &["4"]).matches(Some("3")));
        assert!(!rule("Lt", &["x"]).matches(Some("3")));
        assert!(!rule("Gt", &["4"]).matches(None));
        assert!(rule("NotIn", &["a"]).matches(None));
        assert!(!rule("Like", &["a"]).matches(Some("a")));
    }

    #[test]
    fn an_empty_term_matches_no_node() {
        assert!(!Term::new(&NodeSelectorTerm::default()).matches("n", &Labels::new()));
    }
}
