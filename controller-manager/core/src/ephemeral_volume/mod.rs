//! Volumes that live as long as their pod: for each, a claim that the pod owns.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Volume};
use serde_json::json;

use crate::action::{Action, PERSISTENT_VOLUME_CLAIMS, PODS};
use crate::object_meta::{controller_reference, is_controlled_by, name, namespace, uid};
use crate::pod_state::is_terminating;

/// The name of the claim of a pod's ephemeral volume.
pub fn claim_name(pod: &Pod, volume: &Volume) -> String {
    format!("{}-{}", name(&pod.metadata), volume.name)
}

/// Whether the claim was made for this pod, not for an earlier one of the name or by somebody.
pub fn is_for_pod(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    is_controlled_by(&claim.metadata, uid(&pod.metadata))
}

/// The ephemeral volumes of a pod that is to have them.
pub fn volumes(pod: &Pod) -> Vec<&Volume> {
    if is_terminating(pod) {
        return Vec::new();
    }
    let all = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    all.filter(|volume| volume.ephemeral.is_some()).collect()
}

/// What is to be done for one volume, whose claim is `found`.
///
/// # Errors
/// The claim's name is taken, in upstream's words.
pub fn plan(
    pod: &Pod,
    volume: &Volume,
    found: Option<&PersistentVolumeClaim>,
) -> Result<Option<Action>, String> {
    if let Some(claim) = found {
        if is_for_pod(pod, claim) {
            return Ok(None);
        }
        let space = namespace(&pod.metadata);
        return Err(format!(
            "PVC {space}/{} was not created for pod {space}/{} (pod is not owner)",
            name(&claim.metadata),
            name(&pod.metadata)
        ));
    }
    let template = volume.ephemeral.as_ref().and_then(|source| source.volume_claim_template.as_ref());
    let Some(template) = template else { return Ok(None) };
    let given = template.metadata.clone().unwrap_or_default();
    let claim = PersistentVolumeClaim {
        metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
            name: Some(claim_name(pod, volume)),
            labels: given.labels,
            annotations: given.annotations,
            owner_references: Some(vec![controller_reference(&PODS, &pod.metadata)]),
            ..Default::default()
        },
        spec: Some(template.spec.clone()),
        status: None,
    };
    Ok(Some(Action::Create {
        resource: PERSISTENT_VOLUME_CLAIMS,
        namespace: namespace(&pod.metadata).to_owned(),
        object: json!(claim),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_gets_a_claim_of_its_own() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"containers": [], "volumes": [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": {
                "metadata": {"labels": {"a": "b"}}, "spec": {"accessModes": ["ReadWriteOnce"]}}}}, {"name": "x", "emptyDir": {}}]}}))
        .expect("a pod");
        let all = volumes(&pod);
        assert_eq!(all.len(), 1);
        let Ok(Some(Action::Create { object, .. })) = plan(&pod, all[0], None) else { panic!("a claim") };
        assert_eq!(object["metadata"]["name"], "p-scratch");
        assert_eq!(object["metadata"]["labels"]["a"], "b");
        assert_eq!(object["metadata"]["ownerReferences"][0]["uid"], "u");
        assert_eq!(object["spec"]["accessModes"][0], "ReadWriteOnce");
        let mut claim: PersistentVolumeClaim = serde_json::from_value(object).expect("a claim");
        assert_eq!(plan(&pod, all[0], Some(&claim)), Ok(None));
        claim.metadata.owner_references = None;
        claim.metadata.namespace = Some("n".into());
        assert_eq!(
            plan(&pod, all[0], Some(&claim)),
            Err("PVC n/p-scratch was not created for pod n/p (pod is not owner)".to_owned())
        );
    }
}
