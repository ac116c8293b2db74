//! The PersistentVolumeClaims of a StatefulSet's pods: their names, and who owns them so that they go when the retention
//! policy says so.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::json;

use super::{in_range, ordinal_of};
use crate::action::{Action, PERSISTENT_VOLUME_CLAIMS, PODS, ResourceId, STATEFUL_SETS, Target};
use crate::object_meta::{
    controller, controller_reference, list_or_null, name, namespace, preconditions, uid,
};

/// The claims of an ordinal, by the names of their templates.
pub fn of(set: &StatefulSet, ordinal: i32) -> impl Iterator<Item = (String, PersistentVolumeClaim)> {
    let spec = set.spec.as_ref();
    let templates = spec.and_then(|spec| spec.volume_claim_templates.as_ref());
    templates.into_iter().flatten().map(move |template| {
        let template_name = name(&template.metadata).to_owned();
        let mut claim = template.clone();
        claim.status = None;
        claim.metadata.name = Some(format!("{template_name}-{}-{ordinal}", name(&set.metadata)));
        claim.metadata.namespace = set.metadata.namespace.clone();
        let selected = spec.and_then(|spec| spec.selector.match_labels.clone()).unwrap_or_default();
        claim.metadata.labels.get_or_insert_default().extend(selected);
        if deletes(set, false) {
            claim.metadata.owner_references = Some(vec![controller_reference(&STATEFUL_SETS, &set.metadata)]);
        }
        (template_name, claim)
    })
}

/// Whether claims go with the set, or (`scaled`) with pods that are scaled away.
fn deletes(set: &StatefulSet, scaled: bool) -> bool {
    let policy = set.spec.as_ref().and_then(|spec| spec.persistent_volume_claim_retention_policy.as_ref());
    let when =
        policy.and_then(|policy| if scaled { &policy.when_scaled } else { &policy.when_deleted }.as_deref());
    when == Some("Delete")
}

fn names_same(owner: &OwnerReference, resource: &ResourceId, meta: &ObjectMeta) -> bool {
    owner.kind == resource.kind && owner.api_version == resource.api_version() && owner.name == name(meta)
}

/// Whether a claim still belongs to an earlier pod of the same name: it is going, and its successor must wait.
pub fn is_stale(set: &StatefulSet, claim: &PersistentVolumeClaim, pod_name: &str) -> bool {
    let meta = ObjectMeta { name: Some(pod_name.to_owned()), ..ObjectMeta::default() };
    let owners = claim.metadata.owner_references.iter().flatten();
    deletes(set, true) && owners.into_iter().any(|owner| names_same(owner, &PODS, &meta))
}

/// The patch that gives a claim of the pod the owners that the retention policy asks for; `None` if it has them, or if
/// they are not ours to change.
pub fn owners_patch(set: &StatefulSet, pod: &Pod, claim: &PersistentVolumeClaim) -> Option<Action> {
    let owners = claim.metadata.owner_references.clone().unwrap_or_default();
    let both = [(STATEFUL_SETS, &set.metadata), (PODS, &pod.metadata)];
    let is_ours = |owner: &OwnerReference| both.iter().any(|(_, meta)| owner.uid == uid(meta));
    let from_before = |owner: &OwnerReference| {
        both.iter().any(|(resource, meta)| names_same(owner, resource, meta) && owner.uid != uid(meta))
    };
    if owners.iter().any(from_before) {
        return None;
    }
    let mut wanted: Vec<_> = owners.iter().filter(|owner| !is_ours(owner)).cloned().collect();
    let foreign = controller(&claim.metadata).is_some_and(|owner| !is_ours(owner));
    if !foreign {
        let scaled_away = !ordinal_of(set, pod).is_some_and(|ordinal| in_range(set, ordinal));
        if scaled_away && deletes(set, true) {
            wanted.push(controller_reference(&PODS, &pod.metadata));
        } else if deletes(set, false) {
            wanted.push(controller_reference(&STATEFUL_SETS, &set.metadata));
        }
    }
    let key = |owner: &OwnerReference| (owner.uid.clone(), owner.controller.unwrap_or(false));
    if wanted.iter().map(key).eq(owners.iter().map(key)) {
        return None;
    }
    let mut patch = json!({ "metadata": preconditions(&claim.metadata, true) });
    patch["metadata"]["ownerReferences"] = list_or_null(&wanted);
    let meta = &claim.metadata;
    let target = Target::new(&PERSISTENT_VOLUME_CLAIMS, namespace(meta), name(meta));
    Some(Action::Patch { target, subresource: "", patch })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_objects::pod;

    fn set(when_deleted: &str, when_scaled: &str) -> StatefulSet {
        serde_json::from_value(json!({
            "metadata": { "name": "web", "namespace": "default", "uid": "uid-set" },
            "spec": { "replicas": 1, "selector": { "matchLabels": { "app": "web" } }, "template": {},
                "persistentVolumeClaimRetentionPolicy": { "whenDeleted": when_deleted, "whenScaled": when_scaled },
                "volumeClaimTemplates": [{ "metadata": { "name": "data" }, "spec": {} }] },
        }))
        .expect("set")
    }

    fn owner_kinds(
        when_deleted: &str,
        when_scaled: &str,
        pod_name: &str,
        before: Vec<OwnerReference>,
    ) -> Option<Vec<String>> {
        let set = set(when_deleted, when_scaled);
        let (_, mut claim) = of(&set, 0).next().expect("a claim");
        claim.metadata.owner_references = Some(before);
        match owners_patch(&set, &pod(pod_name, "Running", true, "n1"), &claim)? {
            Action::Patch { patch, .. } => {
                let owners = patch["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
                Some(
                    owners
                        .iter()
                        .map(|owner| owner["kind"].as_str().unwrap_or_default().to_owned())
                        .collect(),
                )
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn claims_are_owned_as_the_policy_says() {
        for (deleted, scaled, pod, expected) in [
            ("Retain", "Retain", "web-0", None),
            ("Delete", "Retain", "web-0", Some(vec!["StatefulSet"])),
            ("Delete", "Retain", "web-1", Some(vec!["StatefulSet"])),
            ("Retain", "Delete", "web-0", None),
            ("Retain", "Delete", "web-1", Some(vec!["Pod"])),
            ("Delete", "Delete", "web-0", Some(vec!["StatefulSet"])),
            ("Delete", "Delete", "web-1", Some(vec!["Pod"])),
        ] {
            let expected = expected.map(|kinds| kinds.into_iter().map(str::to_owned).collect());
            assert_eq!(owner_kinds(deleted, scaled, pod, vec![]), expected, "{deleted} {scaled} {pod}");
        }
        let ours = controller_reference(&STATEFUL_SETS, &set("Delete", "Retain").metadata);
        assert_eq!(owner_kinds("Delete", "Retain", "web-0", vec![ours.clone()]), None);
        assert_eq!(owner_kinds("Retain", "Retain", "web-0", vec![ours.clone()]), Some(vec![]));
        let stale = OwnerReference { uid: "earlier".into(), ..ours };
        assert_eq!(owner_kinds("Delete", "Retain", "web-0", vec![stale]), None, "an earlier set's");
    }

    #[test]
    fn a_claim_is_named_after_template_set_and_ordinal() {
        let (template, claim) = of(&set("Retain", "Retain"), 3).next().expect("a claim");
        assert_eq!((template.as_str(), claim.metadata.name.as_deref()), ("data", Some("data-web-3")));
        assert_eq!(claim.metadata.labels.map(|labels| labels["app"].clone()), Some("web".into()));
        assert_eq!(claim.metadata.owner_references, None);
    }
}
