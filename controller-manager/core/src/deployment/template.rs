//! From a Deployment's pod template to its ReplicaSet: equality, the hash in name and label, annotations. The hash need only
//! be stable and differ between templates; a collision is resolved by counting it in `status.collisionCount`.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use super::{DESIRED_REPLICAS, MAX_REPLICAS, REVISION, REVISION_HISTORY, TEMPLATE_HASH, numbers};
use crate::action::DEPLOYMENTS;
use crate::object_meta::{annotation, controller_reference, name};

/// Letters and digits that make no words, as upstream's names use them.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
/// Upstream's limit for the revision history annotation, in bytes.
const HISTORY_LENGTH_MAX: usize = 2000;
/// Annotations of the Deployment that its ReplicaSets do not inherit.
const NOT_INHERITED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
    "deprecated.deployment.rollback.to",
];

/// Structs that mean the same empty as absent. Others do not: an empty `namespaceSelector` selects all namespaces.
const EMPTY_MEANS_ABSENT: [&str; 8] = [
    "annotations",
    "labels",
    "limits",
    "metadata",
    "nodeSelector",
    "requests",
    "resources",
    "securityContext",
];

/// The template as JSON without the hash label and without what a client may add or leave out with no meaning: nulls,
/// empty lists, some empty structs. Keys are in order.
fn canonical(template: &PodTemplateSpec) -> Value {
    let mut plain = template.clone();
    if let Some(labels) = plain.metadata.as_mut().and_then(|meta| meta.labels.as_mut()) {
        labels.remove(TEMPLATE_HASH);
    }
    pruned(serde_json::to_value(&plain).unwrap_or_default())
}

fn pruned(value: Value) -> Value {
    let meaningful = |key: &str, value: &Value| match value {
        Value::Null => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty() || !EMPTY_MEANS_ABSENT.contains(&key),
        _ => true,
    };
    match value {
        Value::Object(fields) => {
            let mut kept: Vec<_> = fields.into_iter().map(|(key, value)| (key, pruned(value))).collect();
            kept.retain(|(key, value)| meaningful(key, value));
            kept.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(kept.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(pruned).collect()),
        other => other,
    }
}

/// Whether two templates are equal but for the hash label and for what has no meaning.
pub fn same_template(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    canonical(a) == canonical(b)
}

/// The hash of a template: FNV-1a over its JSON and the collision count, spelled in upstream's alphabet.
pub fn hash(template: &PodTemplateSpec, collision_count: Option<i32>) -> String {
    let mut bytes = canonical(template).to_string().into_bytes();
    bytes.extend(collision_count.into_iter().flat_map(i32::to_le_bytes));
    let fnv =
        bytes.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    fnv.to_string().bytes().map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()])).collect()
}

/// The ReplicaSet for the Deployment's template, without size and annotations.
pub fn new_replica_set(deployment: &Deployment, spec: &DeploymentSpec) -> ReplicaSet {
    let collisions = deployment.status.as_ref().and_then(|status| status.collision_count);
    let hash = hash(&spec.template, collisions);
    let mut template = spec.template.clone();
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(TEMPLATE_HASH.to_owned(), hash.clone());
    let labels = labels.clone();
    let mut selector = spec.selector.clone();
    selector.match_labels.get_or_insert_default().insert(TEMPLATE_HASH.to_owned(), hash.clone());
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some(format!("{}-{hash}", name(&deployment.metadata))),
            namespace: deployment.metadata.namespace.clone(),
            labels: Some(labels),
            owner_references: Some(vec![controller_reference(&DEPLOYMENTS, &deployment.metadata)]),
            ..Default::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(0),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    }
}

/// Notes on a ReplicaSet for which size of the Deployment it was scaled.
pub fn annotate_size(meta: &mut ObjectMeta, desired: i32, max: i32) {
    let annotations = meta.annotations.get_or_insert_default();
    annotations.insert(DESIRED_REPLICAS.to_owned(), desired.to_string());
    annotations.insert(MAX_REPLICAS.to_owned(), max.to_string());
}

/// Brings the new ReplicaSet's annotations up to date: those of the Deployment, and its revision (a higher number than all
/// old ones; the number it had goes to its history).
pub fn annotate_new(
    deployment: &Deployment,
    spec: &DeploymentSpec,
    set: &mut ReplicaSet,
    revision: i64,
    exists: bool,
) {
    let inherited: BTreeMap<_, _> = deployment
        .metadata
        .annotations
        .iter()
        .flatten()
        .filter(|(key, _)| !NOT_INHERITED.contains(&key.as_str()))
        .collect();
    let before = annotation(&set.metadata, REVISION).map(str::to_owned);
    let annotations = set.metadata.annotations.get_or_insert_default();
    for (key, value) in inherited {
        annotations.insert(key.clone(), value.clone());
    }
    let old_revision = before.as_deref().and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
    if old_revision < revision {
        annotations.insert(REVISION.to_owned(), revision.to_string());
        if let Some(before) = before {
            let history = annotations.get(REVISION_HISTORY).map(String::as_str).unwrap_or_default();
            annotations.insert(REVISION_HISTORY.to_owned(), extended_history(history, &before));
        }
    }
    if !exists {
        let desired = spec.replicas.unwrap_or(1);
        annotate_size(&mut set.metadata, desired, desired.saturating_add(numbers::max_surge(spec)));
    }
}

/// `history` with one entry more; the oldest go when it becomes too long.
fn extended_history(history: &str, revision: &str) -> String {
    let mut entries: Vec<&str> = history.split(',').filter(|entry| !entry.is_empty()).collect();
    entries.push(revision);
    let length = |entries: &[&str]| entries.iter().map(|entry| entry.len() + 1).sum::<usize>();
    while entries.len() > 1 && length(&entries) > HISTORY_LENGTH_MAX {
        entries.remove(0);
    }
    entries.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_objects::{deployment, template};

    #[test]
    fn the_hash_is_stable_ignores_its_own_label_and_moves_with_collisions() {
        let plain = template("web", "demo:v1");
        let first = hash(&plain, None);
        assert_eq!(first, hash(&plain.clone(), None));
        assert_ne!(first, hash(&template("web", "demo:v2"), None));
        assert_ne!(first, hash(&plain, Some(1)));
        let mut labelled = plain.clone();
        labelled
            .metadata
            .get_or_insert_default()
            .labels
            .get_or_insert_default()
            .insert(TEMPLATE_HASH.into(), "x".into());
        assert_eq!(first, hash(&labelled, None));
        assert!(same_template(&plain, &labelled));
        assert!(first.bytes().all(|byte| ALPHABET.contains(&byte)));
    }

    #[test]
    fn a_template_that_went_through_a_client_is_still_the_same() {
        let plain = template("web", "demo:v1");
        let mut travelled = plain.clone();
        let spec = travelled.spec.as_mut().expect("spec");
        spec.containers[0].resources = Some(Default::default());
        spec.containers[0].env = Some(Vec::new());
        spec.security_context = Some(Default::default());
        assert!(same_template(&plain, &travelled));
        assert_eq!(hash(&plain, None), hash(&travelled, None));
        let term = |selector| {
            let json = serde_json::json!({ "spec": { "containers": [], "affinity": { "podAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [{ "topologyKey": "zone", "namespaceSelector": selector }]
            } } } });
            serde_json::from_value::<PodTemplateSpec>(json).expect("template")
        };
        assert!(
            !same_template(&term(serde_json::json!({})), &term(Value::Null)),
            "all namespaces are not none"
        );
    }

    #[test]
    fn the_new_set_carries_the_hash_in_name_label_and_selector() {
        let deployment = deployment("web", 3, "demo:v1");
        let set = new_replica_set(&deployment, deployment.spec.as_ref().expect("spec"));
        let hash = set.metadata.labels.as_ref().expect("labels")[TEMPLATE_HASH].clone();
        assert_eq!(set.metadata.name, Some(format!("web-{hash}")));
        let spec = set.spec.expect("spec");
        assert_eq!(spec.selector.match_labels.expect("labels")[TEMPLATE_HASH], hash);
    }

    #[test]
    fn the_history_forgets_its_oldest_entries() {
        assert_eq!(extended_history("", "1"), "1");
        assert_eq!(extended_history("1,3", "5"), "1,3,5");
        let long = (0..1000).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
        let cut = extended_history(&long, "1000");
        assert!(cut.len() < HISTORY_LENGTH_MAX && cut.ends_with(",1000"));
    }
}
