//! Node selectors and node affinity made ready for matching many nodes. Owns how
//! terms combine; what a requirement means is `coracle-api`'s.

use std::collections::BTreeSet;

use coracle_api::selector::node::NAME_FIELD;
use coracle_api::selector::{LabelRequirement, Operator};
use k8s_openapi::api::core::v1::{
    Node, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, TopologySelectorTerm,
};

use crate::label_selector::Labels;

/// One term: all its requirements must hold. A term without any matches nothing.
#[derive(Clone, Debug)]
pub struct Term {
    labels: Vec<LabelRequirement>,
    fields: Vec<LabelRequirement>,
    /// One of its operators does not exist.
    never: bool,
}

impl Term {
    /// From the API's form.
    pub fn new(term: &NodeSelectorTerm) -> Self {
        let mut never = false;
        let mut compile = |list: &Option<Vec<NodeSelectorRequirement>>| -> Vec<LabelRequirement> {
            let compiled = list.iter().flatten().map(|given| {
                let ready = LabelRequirement::spelt(&given.key, &given.operator, given.values.as_ref());
                never |= ready.is_none();
                ready
            });
            compiled.flatten().collect()
        };
        let (labels, fields) = (compile(&term.match_expressions), compile(&term.match_fields));
        Self { labels, fields, never }
    }

    /// Whether a node with this name and these labels satisfies the term.
    pub fn matches(&self, name: &str, labels: &Labels) -> bool {
        if self.never || (self.labels.is_empty() && self.fields.is_empty()) {
            return false;
        }
        let label = |rule: &LabelRequirement| rule.matches(labels.get(&rule.key).map(String::as_str));
        let field = |rule: &LabelRequirement| rule.matches((rule.key == NAME_FIELD).then_some(name));
        self.labels.iter().all(label) && self.fields.iter().all(field)
    }

    /// The node names the term is limited to by `metadata.name In`, if it is.
    fn names(&self) -> Option<BTreeSet<String>> {
        let mut names: Option<BTreeSet<String>> = None;
        for rule in self.fields.iter().filter(|rule| rule.key == NAME_FIELD && rule.operator == Operator::In)
        {
            let values: BTreeSet<_> = rule.values.iter().cloned().collect();
            names =
                Some(names.map_or(values.clone(), |names| names.intersection(&values).cloned().collect()));
        }
        names
    }
}

/// The same demand as a term for nodes.
pub fn term_of_topology(topology: &TopologySelectorTerm) -> NodeSelectorTerm {
    let requirement =
        |expression: &k8s_openapi::api::core::v1::TopologySelectorLabelRequirement| NodeSelectorRequirement {
            key: expression.key.clone(),
            operator: "In".to_owned(),
            values: Some(expression.values.clone()),
        };
    let expressions = topology.match_label_expressions.iter().flatten();
    NodeSelectorTerm { match_expressions: Some(expressions.map(requirement).collect()), match_fields: None }
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

    /// From node affinity alone.
    pub fn of_terms(terms: &[NodeSelectorTerm]) -> Self {
        Self { selector: Vec::new(), terms: Some(terms.iter().map(Term::new).collect()) }
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

    fn matches(operator: &str, values: &[&str], value: Option<&str>) -> bool {
        let term = Term::new(&NodeSelectorTerm {
            match_expressions: Some(vec![NodeSelectorRequirement {
                key: "key".into(),
                operator: operator.into(),
                values: Some(values.iter().map(|value| (*value).to_owned()).collect()),
            }]),
            match_fields: None,
        });
        let labels = value.into_iter().map(|value| ("key".to_owned(), value.to_owned())).collect();
        term.matches("node", &labels)
    }

    #[test]
    fn operators_match_as_documented() {
        assert!(matches("Gt", &["4"], Some("5")));
        assert!(!matches("Gt", &["4"], Some("4")));
        assert!(matches("Lt", &["4"], Some("3")));
        assert!(!matches("Lt", &["x"], Some("3")));
        assert!(!matches("Gt", &["4"], None));
        assert!(matches("NotIn", &["a"], None));
        assert!(!matches("Like", &["a"], Some("a")));
    }

    #[test]
    fn an_empty_term_matches_no_node() {
        assert!(!Term::new(&NodeSelectorTerm::default()).matches("n", &Labels::new()));
    }
}
