//! Pod affinity and anti-affinity made ready for matching many pods. Owns what a term selects; what follows from that is
//! [`crate::plugins::inter_pod_affinity`]'s.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Affinity, PodAffinityTerm, WeightedPodAffinityTerm};

use crate::label_selector::{Labels, Selector};

/// Which pods a term is about, and within which domain.
#[derive(Debug)]
pub struct AffinityTerm {
    /// The node label whose values are the domains.
    pub topology_key: String,
    /// The same for equal terms, different for others.
    pub key: Arc<str>,
    selector: Selector,
    namespaces: BTreeSet<String>,
    namespace_selector: Selector,
}

impl AffinityTerm {
    /// From the API's form, in a pod with this namespace and these labels.
    fn new(term: &PodAffinityTerm, namespace: &str, labels: &Labels) -> Arc<Self> {
        let mut selector = Selector::new(term.label_selector.as_ref());
        for key in term.match_label_keys.iter().flatten() {
            if let Some(value) = labels.get(key) {
                selector.require(key, value);
            }
        }
        for key in term.mismatch_label_keys.iter().flatten() {
            if let Some(value) = labels.get(key) {
                selector.forbid(key, value);
            }
        }
        let mut namespaces: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.insert(namespace.to_owned());
        }
        let namespace_selector = Selector::new(term.namespace_selector.as_ref());
        let topology_key = term.topology_key.clone();
        let key = format!("{topology_key} {selector:?} {namespaces:?} {namespace_selector:?}");
        Arc::new(Self { topology_key, key: Arc::from(key), selector, namespaces, namespace_selector })
    }

    /// Whether it selects a pod with these labels in this namespace, which has labels too.
    pub fn matches(&self, namespace: &str, namespace_labels: &Labels, labels: &Labels) -> bool {
        (self.namespaces.contains(namespace) || self.namespace_selector.matches(namespace_labels))
            && self.selector.matches(labels)
    }
}

/// All terms of a pod.
#[derive(Debug, Default)]
pub struct PodAffinity {
    /// It has to run where such pods run.
    pub required: Vec<Arc<AffinityTerm>>,
    /// It must not run where such pods run.
    pub required_apart: Vec<Arc<AffinityTerm>>,
    /// It would rather (or, below 0, rather not) run where such pods run.
    pub preferred: Vec<(i64, Arc<AffinityTerm>)>,
}

impl PodAffinity {
    /// From the API's form; `None` if there are no terms.
    pub fn new(affinity: Option<&Affinity>, namespace: &str, labels: &Labels) -> Option<Box<Self>> {
        let affinity = affinity?;
        let hard = |terms: &Option<Vec<PodAffinityTerm>>| -> Vec<_> {
            terms.iter().flatten().map(|term| AffinityTerm::new(term, namespace, labels)).collect()
        };
        let mut all = Self::default();
        let mut soft = |terms: &Option<Vec<WeightedPodAffinityTerm>>, sign: i64| {
            all.preferred.extend(terms.iter().flatten().map(|term| {
                let ready = AffinityTerm::new(&term.pod_affinity_term, namespace, labels);
                (sign * i64::from(term.weight), ready)
            }));
        };
        if let Some(near) = &affinity.pod_affinity {
            soft(&near.preferred_during_scheduling_ignored_during_execution, 1);
        }
        if let Some(apart) = &affinity.pod_anti_affinity {
            soft(&apart.preferred_during_scheduling_ignored_during_execution, -1);
        }
        if let Some(near) = &affinity.pod_affinity {
            all.required = hard(&near.required_during_scheduling_ignored_during_execution);
        }
        if let Some(apart) = &affinity.pod_anti_affinity {
            all.required_apart = hard(&apart.required_during_scheduling_ignored_during_execution);
        }
        let empty = all.required.is_empty() && all.required_apart.is_empty() && all.preferred.is_empty();
        (!empty).then(|| Box::new(all))
    }
}
