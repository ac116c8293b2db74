//! Where the pods of a DaemonSet belong: which nodes, by which node affinity, with which tolerations.

use coracle_api::selector::node::NAME_FIELD;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, PodTemplateSpec, Toleration,
};
use serde_json::Value;

use super::{TEMPLATE_GENERATION, generation};
use crate::action::DAEMON_SETS;
use crate::controller_revision::POD_REVISION;
use crate::node_matching::{is_demanded, is_tolerated};
use crate::object_meta::{controller_reference, name};
use crate::pod_state::node_name;
use crate::pod_template::pod_from_template;

/// Whether a pod of the set belongs on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Belongs {
    /// One is made if there is none.
    pub should_run: bool,
    /// One that is there stays.
    pub may_stay: bool,
}

const NOWHERE: Belongs = Belongs { should_run: false, may_stay: false };

/// Adds what every daemon pod tolerates: it runs on nodes that are in trouble.
fn add_tolerations(spec: &mut PodSpec) {
    let host_network = spec.host_network.unwrap_or(false);
    let all = [
        ("not-ready", "NoExecute"),
        ("unreachable", "NoExecute"),
        ("disk-pressure", "NoSchedule"),
        ("memory-pressure", "NoSchedule"),
        ("pid-pressure", "NoSchedule"),
        ("unschedulable", "NoSchedule"),
    ];
    let network = host_network.then_some(("network-unavailable", "NoSchedule"));
    let tolerations = spec.tolerations.get_or_insert_default();
    for (taint, effect) in all.into_iter().chain(network) {
        let wanted = Toleration {
            key: Some(format!("node.kubernetes.io/{taint}")),
            operator: Some("Exists".into()),
            effect: Some(effect.into()),
            ..Toleration::default()
        };
        let same = |given: &Toleration| {
            given.key == wanted.key
                && given.operator == wanted.operator
                && given.effect == wanted.effect
                && given.value.as_deref().unwrap_or_default().is_empty()
        };
        match tolerations.iter_mut().find(|given| same(given)) {
            Some(given) => *given = wanted,
            None => tolerations.push(wanted),
        }
    }
}

/// A DaemonSet's template made ready for asking about many nodes.
pub struct Placement {
    spec: PodSpec,
}

impl Placement {
    /// Of this set.
    pub fn new(set: &DaemonSet) -> Self {
        let mut spec = set.spec.as_ref().and_then(|spec| spec.template.spec.clone()).unwrap_or_default();
        add_tolerations(&mut spec);
        Self { spec }
    }

    /// About one node.
    pub fn on(&self, node: &Node) -> Belongs {
        let fixed = self.spec.node_name.as_deref().unwrap_or_default();
        if !(fixed.is_empty() || fixed == name(&node.metadata)) || !is_demanded(&self.spec, node) {
            return NOWHERE;
        }
        if is_tolerated(&self.spec, node, &["NoSchedule", "NoExecute"]) {
            return Belongs { should_run: true, may_stay: true };
        }
        Belongs { should_run: false, may_stay: is_tolerated(&self.spec, node, &["NoExecute"]) }
    }
}

/// The node a pod is on or is meant for.
pub fn target_node(pod: &Pod) -> Option<&str> {
    let bound = node_name(pod);
    if !bound.is_empty() {
        return Some(bound);
    }
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
    terms.iter().flat_map(|term| term.match_fields.iter().flatten()).find_map(|field| {
        let values = field.values.as_deref().unwrap_or_default();
        (field.key == NAME_FIELD && field.operator == "In" && values.len() == 1).then(|| values[0].as_str())
    })
}

/// The pod for a node. The scheduler binds it: its affinity allows no other node.
pub fn pod_for(set: &DaemonSet, template: &PodTemplateSpec, hash: &str, node: &str) -> Value {
    let mut template = template.clone();
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    if let Some(generation) = generation(set) {
        labels.insert(TEMPLATE_GENERATION.to_owned(), generation.to_owned());
    }
    labels.insert(POD_REVISION.to_owned(), hash.to_owned());
    let spec = template.spec.get_or_insert_default();
    add_tolerations(spec);
    let by_name = NodeSelectorRequirement {
        key: NAME_FIELD.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm { match_fields: Some(vec![by_name]), match_expressions: None };
    let affinity = spec.affinity.get_or_insert_default().node_affinity.get_or_insert_default();
    affinity.required_during_scheduling_ignored_during_execution =
        Some(NodeSelector { node_selector_terms: vec![term] });
    let prefix = format!("{}-", name(&set.metadata));
    pod_from_template(&template, &prefix, &controller_reference(&DAEMON_SETS, &set.metadata))
}
