//! PodDisruptionBudgets as preemption sees them. Owns which pods a further disruption would be one too many for.

use std::collections::{BTreeSet, HashMap};

use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::label_selector::Selector;
use crate::pod_info::PodInfo;

#[derive(Debug)]
struct Budget {
    selector: Selector,
    allowed: i32,
    /// Pods whose disruption the budget has counted already.
    disrupted: BTreeSet<String>,
}

/// All budgets, by namespace and name.
#[derive(Debug, Default)]
pub struct DisruptionBudgets {
    namespaces: HashMap<String, HashMap<String, Budget>>,
}

impl DisruptionBudgets {
    /// Takes over a budget.
    pub fn set(&mut self, budget: &PodDisruptionBudget) {
        let status = budget.status.as_ref();
        let entry = Budget {
            selector: Selector::new(budget.spec.as_ref().and_then(|spec| spec.selector.as_ref())),
            allowed: status.map_or(0, |status| status.disruptions_allowed),
            disrupted: status
                .and_then(|status| status.disrupted_pods.as_ref())
                .map(|pods| pods.keys().cloned().collect())
                .unwrap_or_default(),
        };
        let (namespace, name) = key(budget);
        self.namespaces.entry(namespace.to_owned()).or_default().insert(name.to_owned(), entry);
    }

    /// Forgets a budget.
    pub fn remove(&mut self, budget: &PodDisruptionBudget) {
        let (namespace, name) = key(budget);
        if let Some(budgets) = self.namespaces.get_mut(namespace) {
            budgets.remove(name);
            if budgets.is_empty() {
                self.namespaces.remove(namespace);
            }
        }
    }

    /// For each pod, taken in this order, whether deleting it and those before it would be more than a budget allows. An
    /// empty selector selects nothing here, as upstream.
    pub fn violated<'p>(&self, pods: impl Iterator<Item = &'p PodInfo>) -> Vec<bool> {
        let mut spent: HashMap<(&str, &str), i32> = HashMap::new();
        pods.map(|pod| {
            if crate::mutant!(PreemptionIgnoresBudgets) {
                return false;
            }
            let mut violated = false;
            let budgets = self.namespaces.get_key_value(pod.namespace()).filter(|_| !pod.labels().is_empty());
            for (namespace, (name, budget)) in budgets
                .into_iter()
                .flat_map(|(namespace, budgets)| budgets.iter().map(move |entry| (namespace, entry)))
            {
                let selects = !budget.selector.is_empty() && budget.selector.matches(pod.labels());
                if !selects || budget.disrupted.contains(pod.name()) {
                    continue;
                }
                let spent = spent.entry((namespace, name)).or_insert(0);
                *spent += 1;
                violated |= *spent > budget.allowed;
            }
            violated
        })
        .collect()
    }
}

fn key(budget: &PodDisruptionBudget) -> (&str, &str) {
    let meta = &budget.metadata;
    (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod_from;
    use serde_json::{Value, json};

    fn violated(selector: Value, status: Value) -> Vec<bool> {
        let budget = json!({
            "metadata": {"namespace": "default", "name": "b"}, "spec": {"selector": selector}, "status": status,
        });
        let mut budgets = DisruptionBudgets::default();
        budgets.set(&serde_json::from_value(budget).expect("budget"));
        let pods: Vec<_> = ["one", "two", "three"]
            .iter()
            .map(|name| PodInfo::new(pod_from(json!({"metadata": {"name": name, "labels": {"app": "web"}}}))))
            .collect();
        budgets.violated(pods.iter())
    }

    #[test]
    fn the_allowed_disruptions_go_to_the_first_pods() {
        let web = json!({"matchLabels": {"app": "web"}});
        let status = |allowed: i32, disrupted: Value| json!({"disruptionsAllowed": allowed, "disruptedPods": disrupted, "currentHealthy": 3, "desiredHealthy": 2, "expectedPods": 3});
        assert_eq!(violated(web.clone(), status(1, json!({}))), [false, true, true]);
        assert_eq!(violated(web, status(1, json!({"one": "2026-01-01T00:00:00Z"}))), [false, false, true]);
        assert_eq!(violated(json!({"matchLabels": {"app": "db"}}), status(0, json!({}))), [false; 3]);
        assert_eq!(violated(json!({}), status(0, json!({}))), [false; 3]);
    }
}
