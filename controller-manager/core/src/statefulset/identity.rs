//! The identity of a StatefulSet's pods: ordinal, name, labels, host name, and the claims that belong to it.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume};
use serde_json::{Value, json};

use super::claims;
use crate::action::STATEFUL_SETS;
use crate::controller_revision::POD_REVISION;
use crate::object_meta::{controller_reference, name};
use crate::pod_template::pod_from_template;

/// The label with the pod's own name.
pub const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
/// The label with the pod's ordinal.
pub const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The ordinal in the name of a pod of this set; `None` for other names.
pub fn ordinal_in(set_name: &str, pod_name: &str) -> Option<i32> {
    let digits = pod_name.strip_prefix(set_name)?.strip_prefix('-')?;
    (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok())?
}

/// The ordinal of a pod.
pub fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    ordinal_in(name(&set.metadata), name(&pod.metadata))
}

/// The name of the pod with this ordinal.
pub fn pod_name(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", name(&set.metadata))
}

/// The labels that make the pod findable by its identity.
pub fn labels(set: &StatefulSet, ordinal: i32) -> [(&'static str, String); 2] {
    [(POD_NAME, pod_name(set, ordinal)), (POD_INDEX, ordinal.to_string())]
}

/// The pod of an ordinal, made from a revision's template.
pub fn new_pod(set: &StatefulSet, template: &PodTemplateSpec, revision: &str, ordinal: i32) -> Value {
    let set_name = name(&set.metadata);
    let mut template = template.clone();
    let spec = template.spec.get_or_insert_default();
    let claimed: Vec<Volume> = claims::of(set, ordinal)
        .map(|(template_name, claim)| Volume {
            name: template_name,
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: name(&claim.metadata).to_owned(),
                ..PersistentVolumeClaimVolumeSource::default()
            }),
            ..Volume::default()
        })
        .collect();
    if !claimed.is_empty() {
        let volumes = spec.volumes.get_or_insert_default();
        volumes.retain(|volume| claimed.iter().all(|claimed| claimed.name != volume.name));
        volumes.splice(0..0, claimed);
    }
    spec.hostname = Some(pod_name(set, ordinal));
    spec.subdomain = set.spec.as_ref().and_then(|spec| spec.service_name.clone());
    let owner = controller_reference(&STATEFUL_SETS, &set.metadata);
    let mut pod = pod_from_template(&template, &format!("{set_name}-"), &owner);
    pod["metadata"]["name"] = json!(pod_name(set, ordinal));
    for (label, value) in labels(set, ordinal) {
        pod["metadata"]["labels"][label] = json!(value);
    }
    pod["metadata"]["labels"][POD_REVISION] = json!(revision);
    pod
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_with_an_ordinal_are_members() {
        for (pod, ordinal) in [
            ("web-0", Some(0)),
            ("web-12", Some(12)),
            ("web", None),
            ("web-x", None),
            ("web-1-2", None),
            ("web-", None),
        ] {
            assert_eq!(ordinal_in("web", pod), ordinal, "{pod}");
        }
    }
}
