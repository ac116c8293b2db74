//! Which volumes the pods of a node want attached.

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::CSIDriver;

use super::Volume;
use crate::ephemeral_volume::{claim_name, is_for_pod};
use crate::object_meta::{annotation, name, uid};
use crate::pod_state::{is_finished, is_terminating};
use crate::volume_binder::{claim_phase, claim_ref};

/// Kubelets that leave volumes of ended pods mounted say so on their node.
const KEEPS: &str = "volumes.kubernetes.io/keep-terminated-pod-volumes";

/// A volume and the pods that want it.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// The volume.
    pub volume: Volume,
    /// The pods.
    pub pods: Vec<&'a Pod>,
}

/// A pod that uses a volume.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct User {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Where claims, volumes and drivers are looked up.
pub trait Lookup {
    /// A claim of a pod's namespace.
    fn claim(&self, namespace: &str, name: &str) -> Option<std::sync::Arc<PersistentVolumeClaim>>;
    /// A volume.
    fn volume(&self, name: &str) -> Option<std::sync::Arc<PersistentVolume>>;
    /// A driver.
    fn driver(&self, name: &str) -> Option<std::sync::Arc<CSIDriver>>;
}

/// The volume that a PersistentVolume is, if it is a driver's that attaches its volumes.
pub fn attachable(volume: &PersistentVolume, lookup: &impl Lookup) -> Option<Volume> {
    let spec = volume.spec.as_ref()?;
    let csi = spec.csi.as_ref()?;
    // A driver that nobody has described attaches.
    let attaches = lookup.driver(&csi.driver).is_none_or(|driver| driver.spec.attach_required != Some(false));
    attaches.then(|| of_driver(volume))?
}

/// The volume that a PersistentVolume is, if it is a driver's.
pub fn of_driver(volume: &PersistentVolume) -> Option<Volume> {
    let spec = volume.spec.as_ref()?;
    let csi = spec.csi.as_ref()?;
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    let shared =
        modes.is_empty() || modes.iter().any(|mode| mode == "ReadWriteMany" || mode == "ReadOnlyMany");
    Some(Volume {
        name: name(&volume.metadata).to_owned(),
        driver: csi.driver.clone(),
        handle: csi.volume_handle.clone(),
        exclusive: !shared,
    })
}

/// Whether a pod on this node still needs its volumes there.
pub fn needs_volumes(pod: &Pod, node: Option<&Node>) -> bool {
    let statuses =
        pod.status.as_ref().and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    let has_ended = |status: &k8s_openapi::api::core::v1::ContainerStatus| {
        status.state.as_ref().is_some_and(|state| state.terminated.is_some())
    };
    let is_over = is_finished(pod) || (is_terminating(pod) && statuses.iter().all(has_ended));
    !is_over || node.is_some_and(|node| annotation(&node.metadata, KEEPS) == Some("true"))
}

/// The volumes of a pod that have to be attached for it.
pub fn of_pod(pod: &Pod, lookup: &impl Lookup) -> Vec<Volume> {
    let namespace = crate::object_meta::namespace(&pod.metadata);
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let found = volumes.filter_map(|volume| {
        let claim = match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(source), _) => lookup.claim(namespace, &source.claim_name)?,
            (None, Some(_)) => {
                lookup.claim(namespace, &claim_name(pod, volume)).filter(|claim| is_for_pod(pod, claim))?
            }
            _ => return None,
        };
        let is_bound = claim_phase(&claim) == "Bound";
        let named = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).filter(|_| is_bound)?;
        let volume = lookup.volume(named)?;
        let is_its = claim_ref(&volume).and_then(|of| of.uid.as_deref()) == Some(uid(&claim.metadata));
        if is_its { attachable(&volume, lookup) } else { None }
    });
    found.collect()
}

/// What the pods of a node want, each volume once.
pub fn on_node<'a>(
    pods: impl Iterator<Item = &'a Pod>,
    node: Option<&Node>,
    lookup: &impl Lookup,
) -> Vec<Wanted<'a>> {
    let mut all: Vec<Wanted<'a>> = Vec::new();
    for pod in pods.filter(|pod| needs_volumes(pod, node)) {
        for volume in of_pod(pod, lookup) {
            match all.iter_mut().find(|wanted| wanted.volume == volume) {
                Some(wanted) => wanted.pods.push(pod),
                None => all.push(Wanted { volume, pods: vec![pod] }),
            }
        }
    }
    all.sort_by(|a, b| a.volume.name.cmp(&b.volume.name));
    all
}
