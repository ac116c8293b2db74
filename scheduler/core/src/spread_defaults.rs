//! Which pods count as siblings of a pod that has no spread constraints of its own: those its Services select and its owner
//! selects. Owns what is known of Services and owners' selectors, and upstream's default constraints.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::label_selector::{Labels, Selector};
use crate::pod_info::{PodInfo, SpreadConstraint};

/// Selectors of Services by namespace and of owners (ReplicaSet, StatefulSet, ReplicationController) by kind, namespace, name.
#[derive(Debug, Default)]
pub struct OwnerSelectors {
    services: HashMap<String, BTreeMap<String, Labels>>,
    owners: HashMap<(String, String, String), LabelSelector>,
}

impl OwnerSelectors {
    /// Takes over a Service's selector; an empty one selects nothing.
    pub fn set_service(&mut self, namespace: &str, name: &str, selector: Labels) {
        if selector.is_empty() {
            self.remove_service(namespace, name);
        } else {
            self.services.entry(namespace.to_owned()).or_default().insert(name.to_owned(), selector);
        }
    }

    /// Forgets a Service.
    pub fn remove_service(&mut self, namespace: &str, name: &str) {
        if let Some(services) = self.services.get_mut(namespace) {
            services.remove(name);
            if services.is_empty() {
                self.services.remove(namespace);
            }
        }
    }

    /// Takes over an owner's selector.
    pub fn set_owner(&mut self, kind: &str, namespace: &str, name: &str, selector: LabelSelector) {
        self.owners.insert((kind.to_owned(), namespace.to_owned(), name.to_owned()), selector);
    }

    /// Forgets an owner.
    pub fn remove_owner(&mut self, kind: &str, namespace: &str, name: &str) {
        self.owners.remove(&(kind.to_owned(), namespace.to_owned(), name.to_owned()));
    }

    /// The selector of a pod's siblings, `None` if it has none.
    pub fn siblings(&self, pod: &PodInfo) -> Option<Selector> {
        let mut selector = Selector::default();
        let labels = pod.labels();
        for wanted in self.services.get(pod.namespace()).into_iter().flat_map(BTreeMap::values) {
            if wanted.iter().all(|(key, value)| labels.get(key) == Some(value)) {
                for (key, value) in wanted {
                    selector.require(key, value);
                }
            }
        }
        let owners = pod.pod.metadata.owner_references.as_ref();
        let owner = owners.into_iter().flatten().find(|owner| owner.controller == Some(true));
        if let Some(owner) = owner {
            let key = (owner.kind.clone(), pod.namespace().to_owned(), owner.name.clone());
            if let Some(selected) = self.owners.get(&key) {
                selector.add(selected);
            }
        }
        (!selector.is_empty()).then_some(selector)
    }
}

impl SpreadConstraint {
    /// A constraint of a pod that has none itself.
    pub fn by_default(topology_key: &str, max_skew: i64, selector: &Selector) -> Self {
        Self {
            topology_key: topology_key.to_owned(),
            max_skew,
            min_domains: 1,
            selector: selector.clone(),
            honor_affinity: true,
            honor_taints: false,
        }
    }
}

/// Upstream's defaults: spread over hosts and zones if that costs nothing else.
pub fn system_defaults(selector: &Selector) -> Vec<SpreadConstraint> {
    [("kubernetes.io/hostname", 3), ("topology.kubernetes.io/zone", 5)]
        .map(|(topology_key, max_skew)| SpreadConstraint::by_default(topology_key, max_skew, selector))
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod_from;

    #[test]
    fn siblings_come_from_services_and_the_controlling_owner() {
        let mut selectors = OwnerSelectors::default();
        let labels = |list: &[(&str, &str)]| -> Labels {
            list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let pod = PodInfo::new(pod_from(serde_json::json!({
            "metadata": {
                "namespace": "default", "labels": {"app": "web", "hash": "1"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "u", "controller": true}],
            }
        })));
        assert!(selectors.siblings(&pod).is_none());
        selectors.set_service("default", "web", labels(&[("app", "web")]));
        selectors.set_service("default", "db", labels(&[("app", "db")]));
        let selector = selectors.siblings(&pod).expect("the service selects it");
        assert!(selector.matches(&labels(&[("app", "web"), ("hash", "2")])));
        selectors.set_owner(
            "ReplicaSet",
            "default",
            "web-1",
            LabelSelector { match_labels: Some(labels(&[("hash", "1")])), ..Default::default() },
        );
        let selector = selectors.siblings(&pod).expect("both select it");
        assert!(!selector.matches(&labels(&[("app", "web"), ("hash", "2")])));
        assert!(selector.matches(&labels(&[("app", "web"), ("hash", "1")])));
    }
}
