//! PersistentVolumeClaims: from a pod's claim to the directory on this node behind the volume it is bound to.
//!
//! Never here: binding, provisioning or attaching; volumes that are not a directory of this node are refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use coracle_api::selector::node as node_selector;
use coracle_client::config::{describe, within};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use kube::{Api, Client};
use kubelet_core::pod_view;

use super::host_path;

const DEADLINE: Duration = Duration::from_secs(10);

/// What is behind a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// The directory or file on this node.
    pub path: PathBuf,
    /// Whether the volume is to get the pod's `fsGroup`.
    pub owned: bool,
}

/// Why a claim has no directory.
#[derive(Debug, PartialEq, Eq)]
pub enum ClaimError {
    /// The claim itself: it is not there, not bound, not this pod's.
    Claim(String),
    /// The volume that it is bound to, by name.
    Volume(String, String),
}

/// The name of a volume's claim, and whether it is made for this pod alone (a generic ephemeral volume). `None` for volumes
/// of other kinds.
pub fn claim_of(pod: &Pod, volume: &Volume) -> Option<(String, bool)> {
    if let Some(source) = &volume.persistent_volume_claim {
        return Some((source.claim_name.clone(), false));
    }
    volume.ephemeral.as_ref().map(|_| (format!("{}-{}", pod_view::name(pod), volume.name), true))
}

/// Finds what is behind a pod's claim.
///
/// # Errors
/// As upstream words it in `FailedMount`.
pub async fn locate(
    client: &Client,
    pod: &Pod,
    claim: &str,
    generated: bool,
    node: (&str, &BTreeMap<String, String>),
) -> Result<Located, ClaimError> {
    let namespace = pod_view::namespace(pod);
    let wrong = |why: String| ClaimError::Claim(format!("error processing PVC {namespace}/{claim}: {why}"));
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let found = within(DEADLINE, claims.get(claim))
        .await
        .map_err(|error| wrong(format!("failed to fetch PVC from API server: {}", describe(&error))))?;
    if generated {
        owned_by(&found, pod).map_err(wrong)?;
    }
    let name = bound_to(&found).map_err(wrong)?;
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let volume = within(DEADLINE, volumes.get(&name))
        .await
        .map_err(|error| wrong(format!("failed to fetch PV {name} from API server: {}", describe(&error))))?;
    belongs(&volume, &name, &found).map_err(wrong)?;
    behind(&volume, node).map_err(|why| ClaimError::Volume(name, why))
}

/// Whether the claim was made for this pod.
fn owned_by(claim: &PersistentVolumeClaim, pod: &Pod) -> Result<(), String> {
    let owners = claim.metadata.owner_references.iter().flatten();
    if owners.into_iter().any(|owner| owner.controller == Some(true) && owner.uid == pod_view::uid(pod)) {
        return Ok(());
    }
    let (namespace, name) = (pod_view::namespace(pod), claim.metadata.name.as_deref().unwrap_or_default());
    Err(format!(
        "PVC {namespace}/{name} was not created for pod {namespace}/{} (pod is not owner)",
        pod_view::name(pod)
    ))
}

/// The volume that the claim is bound to.
fn bound_to(claim: &PersistentVolumeClaim) -> Result<String, String> {
    if claim.metadata.deletion_timestamp.is_some() {
        return Err("PVC is being deleted".to_owned());
    }
    let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
    let name = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone()).filter(|name| !name.is_empty());
    match (phase, name) {
        (Some("Bound"), Some(name)) => Ok(name),
        _ => Err("PVC is not bound".to_owned()),
    }
}

/// Whether the volume agrees that it is bound to this claim.
fn belongs(volume: &PersistentVolume, name: &str, claim: &PersistentVolumeClaim) -> Result<(), String> {
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    if reference.and_then(|reference| reference.uid.as_ref()) == claim.metadata.uid.as_ref() {
        return Ok(());
    }
    let uid = claim.metadata.uid.as_deref().unwrap_or_default();
    Err(format!("PersistentVolume object {name:?} is not bound to claim with UID {uid:?}"))
}

/// The directory behind a volume.
fn behind(volume: &PersistentVolume, node: (&str, &BTreeMap<String, String>)) -> Result<Located, String> {
    let spec = volume.spec.clone().unwrap_or_default();
    if spec.volume_mode.as_deref() == Some("Block") {
        return Err("volumeMode Block is not supported by this kubelet yet".to_owned());
    }
    let required = spec.node_affinity.as_ref().and_then(|affinity| affinity.required.as_ref());
    if required.is_some_and(|selector| !node_selector::matches(selector, node.0, Some(node.1))) {
        return Err("no matching NodeSelectorTerms".to_owned());
    }
    if let Some(source) = &spec.host_path {
        host_path::check(source)?;
        return Ok(Located { path: PathBuf::from(&source.path), owned: false });
    }
    if let Some(source) = &spec.local {
        if !Path::new(&source.path).exists() {
            return Err(format!("path \"{}\" does not exist", source.path));
        }
        if source.fs_type.is_some() && !Path::new(&source.path).is_dir() {
            return Err(format!(
                "{} is not a directory; formatting is not supported by this kubelet yet",
                source.path
            ));
        }
        return Ok(Located { path: PathBuf::from(&source.path), owned: true });
    }
    Err(format!("volume kind {} is not supported by this kubelet yet", kind_of(&spec)))
}

/// The field of a volume's spec that says where it is.
fn kind_of(spec: &k8s_openapi::api::core::v1::PersistentVolumeSpec) -> String {
    const OTHERS: [&str; 9] = [
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeMode",
        "volumeAttributesClassName",
    ];
    let value = serde_json::to_value(spec).unwrap_or_default();
    let mut kinds = value
        .as_object()
        .into_iter()
        .flat_map(|map| map.keys())
        .filter(|key| !OTHERS.contains(&key.as_str()));
    kinds.next().cloned().unwrap_or_else(|| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn claim(phase: &str, more: serde_json::Value) -> PersistentVolumeClaim {
        let mut value = json!({"metadata": {"name": "c", "uid": "c-uid"}, "spec": {"volumeName": "v"}, "status": {"phase": phase}});
        value["metadata"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(value).unwrap()
    }

    fn volume(spec: serde_json::Value) -> PersistentVolume {
        serde_json::from_value(json!({"metadata": {"name": "v"}, "spec": spec})).unwrap()
    }

    #[test]
    fn a_claim_must_be_bound_both_ways() {
        assert_eq!(bound_to(&claim("Bound", json!({}))), Ok("v".to_owned()));
        assert_eq!(bound_to(&claim("Pending", json!({}))), Err("PVC is not bound".to_owned()));
        let deleted = claim("Bound", json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}));
        assert_eq!(bound_to(&deleted), Err("PVC is being deleted".to_owned()));
        let bound = volume(json!({"claimRef": {"uid": "c-uid"}}));
        assert_eq!(belongs(&bound, "v", &claim("Bound", json!({}))), Ok(()));
        assert!(belongs(&volume(json!({})), "v", &claim("Bound", json!({}))).is_err());
    }

    #[test]
    fn a_generated_claim_must_be_the_pods_own() {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "p-uid"}}))
                .unwrap();
        let owner = |uid: &str| json!({"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid, "controller": true}]});
        assert_eq!(owned_by(&claim("Bound", owner("p-uid")), &pod), Ok(()));
        let error = owned_by(&claim("Bound", owner("other")), &pod).unwrap_err();
        assert_eq!(error, "PVC n/c was not created for pod n/p (pod is not owner)");
    }

    #[test]
    fn directories_of_this_node_are_found_and_others_refused() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().to_str().unwrap();
        let labels = BTreeMap::from([("kubernetes.io/hostname".to_owned(), "n".to_owned())]);
        let find = |spec: serde_json::Value| behind(&volume(spec), ("n", &labels));
        assert_eq!(
            find(json!({"hostPath": {"path": path}})).unwrap(),
            Located { path: path.into(), owned: false }
        );
        assert!(find(json!({"local": {"path": path}})).unwrap().owned);
        let missing = find(json!({"local": {"path": format!("{path}/none")}})).unwrap_err();
        assert_eq!(missing, format!("path \"{path}/none\" does not exist"));
        let affinity = |host: &str| {
            json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [
            {"key": "kubernetes.io/hostname", "operator": "In", "values": [host]}]}]}})
        };
        assert!(find(json!({"local": {"path": path}, "nodeAffinity": affinity("n")})).is_ok());
        let elsewhere = find(json!({"local": {"path": path}, "nodeAffinity": affinity("m")})).unwrap_err();
        assert_eq!(elsewhere, "no matching NodeSelectorTerms");
        let nfs =
            find(json!({"nfs": {"server": "s", "path": "/"}, "capacity": {"storage": "1Gi"}})).unwrap_err();
        assert_eq!(nfs, "volume kind nfs is not supported by this kubelet yet");
        assert!(find(json!({"hostPath": {"path": path}, "volumeMode": "Block"})).is_err());
    }
}
