//! VolumeBinding: claims that are bound keep a pod where their volumes can be reached; claims that wait for their first pod get a volume
//! that is there, or one to be made, where the pod goes. Owns that choice; carrying it out is the shell's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use coracle_api::quantity::Quantity;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use self::capacity::Room;
use crate::framework::{Cycle, FilterPlugin, NodeFilter, Prepared, Rejection};
use crate::label_selector::{Labels, Selector};
use crate::node_info::NodeInfo;
use crate::node_selector::{RequiredNodeAffinity, term_of_topology};
use crate::snapshot::Snapshot;
use crate::volumes::{ClaimUse, class_of, is_bound, volume_of};

mod capacity;

/// The plugin's name.
pub const NAME: &str = "VolumeBinding";
/// Says on which node a claim's volume is to be made.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const UNREACHABLE: &str = "node(s) didn't match PersistentVolume's node affinity";
const NOTHING_TO_BIND: &str = "node(s) didn't find available persistent volumes to bind";
const NO_ROOM: &str = "node(s) did not have enough free storage";
const NO_VOLUME: &str = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";

/// The plugin.
pub struct VolumeBinding;

/// What has to be done before a pod can be bound to a node.
#[derive(Clone, Debug)]
pub enum VolumeStep {
    /// The volume goes to the claim.
    Bind(Arc<PersistentVolume>, Arc<PersistentVolumeClaim>),
    /// A volume for the claim has to be made where the node can reach it.
    Provision(Arc<PersistentVolumeClaim>),
}

/// A claim without a volume, with those it could have wherever the pod goes.
struct Waiting<'a> {
    claim: &'a Arc<PersistentVolumeClaim>,
    /// The smallest first.
    candidates: Vec<Candidate<'a>>,
    can_be_provisioned: bool,
    /// Where a volume can be made; anywhere if empty.
    topologies: RequiredNodeAffinity,
    room: Room,
}

struct Candidate<'a> {
    volume: &'a Arc<PersistentVolume>,
    affinity: RequiredNodeAffinity,
}

struct Claims<'a> {
    /// Of the volumes of bound claims; `None` where the volume is missing.
    bound: Vec<Option<RequiredNodeAffinity>>,
    waiting: Vec<Waiting<'a>>,
}

fn affinity_of(volume: &PersistentVolume) -> RequiredNodeAffinity {
    let spec = volume.spec.as_ref();
    let required =
        spec.and_then(|spec| spec.node_affinity.as_ref()).and_then(|affinity| affinity.required.as_ref());
    required.map(|required| RequiredNodeAffinity::of_terms(&required.node_selector_terms)).unwrap_or_default()
}

fn size(list: Option<&BTreeMap<String, ApiQuantity>>) -> i64 {
    list.and_then(|list| list.get("storage")).map_or(0, parsed)
}

fn parsed(quantity: &ApiQuantity) -> i64 {
    quantity.0.parse::<Quantity>().map_or(0, |quantity| quantity.value())
}

/// A claim of the pod that is there and may be used, or why it may not.
fn usable<'a>(
    snapshot: &'a Snapshot,
    cycle: Cycle<'_>,
    used: &ClaimUse,
) -> Result<&'a Arc<PersistentVolumeClaim>, String> {
    let pod = &cycle.pod.info;
    let name = &used.name;
    let Some(claim) = snapshot.volumes.claim(pod.namespace(), name) else {
        return Err(if used.ephemeral {
            format!("waiting for ephemeral volume controller to create the persistentvolumeclaim \"{name}\"")
        } else {
            format!("persistentvolumeclaim \"{name}\" not found")
        });
    };
    if claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Lost") {
        let volume = volume_of(claim).unwrap_or_default();
        return Err(format!(
            "persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \"{volume}\""
        ));
    }
    if claim.metadata.deletion_timestamp.is_some() {
        return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
    }
    let owned = claim
        .metadata
        .owner_references
        .iter()
        .flatten()
        .any(|owner| owner.controller == Some(true) && owner.uid == *pod.uid);
    if used.ephemeral && !owned {
        let (namespace, pod) = (pod.namespace(), pod.name());
        return Err(format!(
            "PVC {namespace}/{name} was not created for pod {namespace}/{pod} (pod is not owner)"
        ));
    }
    Ok(claim)
}

impl<'a> Claims<'a> {
    fn of(cycle: Cycle<'a>) -> Result<Self, String> {
        let snapshot = cycle.snapshot;
        let mut claims = Self { bound: Vec::new(), waiting: Vec::new() };
        let mut immediate = false;
        for used in &cycle.pod.info.claims {
            let claim = usable(snapshot, cycle, used)?;
            let class = snapshot.volumes.class(class_of(claim));
            if is_bound(claim) {
                let volume = volume_of(claim).and_then(|name| snapshot.volumes.volume(name));
                claims.bound.push(volume.map(|volume| affinity_of(volume)));
            } else if volume_of(claim).is_none()
                && class
                    .is_some_and(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"))
            {
                let provisioner = class.map_or("", |class| class.provisioner.as_str());
                let terms = class.and_then(|class| class.allowed_topologies.as_ref());
                let terms: Vec<_> = terms.into_iter().flatten().map(term_of_topology).collect();
                claims.waiting.push(Waiting {
                    claim,
                    candidates: candidates(snapshot, claim),
                    can_be_provisioned: !matches!(provisioner, "" | "kubernetes.io/no-provisioner"),
                    topologies: if terms.is_empty() {
                        RequiredNodeAffinity::default()
                    } else {
                        RequiredNodeAffinity::of_terms(&terms)
                    },
                    room: class.map_or(Room::Anywhere, |class| {
                        Room::of(&snapshot.volumes, class, size(requests(claim)))
                    }),
                });
            } else {
                immediate = true;
            }
        }
        if immediate {
            return Err("pod has unbound immediate PersistentVolumeClaims".to_owned());
        }
        // Those that ask for least choose first, so that they leave the large volumes to others.
        claims.waiting.sort_by_key(|waiting| size(requests(waiting.claim)));
        Ok(claims)
    }

    /// What has to be done for the claims that wait, if the pod goes to this node; or why it cannot.
    fn plan(&self, node: &NodeInfo) -> Result<Vec<VolumeStep>, &'static str> {
        let object = node.node.as_ref().ok_or(NOTHING_TO_BIND)?;
        let none = Labels::new();
        let labels = object.metadata.labels.as_ref().unwrap_or(&none);
        let mut taken = BTreeSet::new();
        let mut steps = Vec::new();
        for waiting in &self.waiting {
            let selected = waiting.claim.metadata.annotations.as_ref().and_then(|all| all.get(SELECTED_NODE));
            if selected.is_some_and(|selected| **selected != *node.name) {
                return Err(NOTHING_TO_BIND);
            }
            let found = waiting.candidates.iter().filter(|_| selected.is_none()).find(|candidate| {
                !taken.contains(&candidate.volume.metadata.name) && candidate.affinity.matches(object)
            });
            match found {
                Some(candidate) => {
                    taken.insert(&candidate.volume.metadata.name);
                    steps.push(VolumeStep::Bind(Arc::clone(candidate.volume), Arc::clone(waiting.claim)));
                }
                None if waiting.can_be_provisioned && waiting.topologies.matches(object) => {
                    if !waiting.room.is_on(labels) {
                        return Err(NO_ROOM);
                    }
                    steps.push(VolumeStep::Provision(Arc::clone(waiting.claim)));
                }
                None => return Err(NOTHING_TO_BIND),
            }
        }
        Ok(steps)
    }
}

fn requests(claim: &PersistentVolumeClaim) -> Option<&BTreeMap<String, ApiQuantity>> {
    claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()
}

/// The volumes a claim could have, the smallest first; one that is meant for it alone if there is one.
fn candidates<'a>(snapshot: &'a Snapshot, claim: &PersistentVolumeClaim) -> Vec<Candidate<'a>> {
    let Some(spec) = &claim.spec else { return Vec::new() };
    let (namespace, name) = (claim.metadata.namespace.as_deref(), claim.metadata.name.as_deref());
    let wanted = size(requests(claim));
    let selector = spec.selector.as_ref().map(|selector| Selector::new(Some(selector)));
    let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "Filesystem".to_owned());
    let mut found: Vec<(bool, i64, Candidate<'a>)> = Vec::new();
    for volume in snapshot.volumes.volumes() {
        let Some(there) = &volume.spec else { continue };
        let volume_name = volume.metadata.name.as_deref().unwrap_or_default();
        let capacity = size(there.capacity.as_ref());
        let meant_for_it = match (&there.claim_ref, snapshot.volumes.promised_to(volume_name)) {
            (Some(reference), _) => {
                let same_name =
                    reference.namespace.as_deref() == namespace && reference.name.as_deref() == name;
                if !same_name
                    || reference.uid.as_ref().is_some_and(|uid| Some(uid) != claim.metadata.uid.as_ref())
                {
                    continue;
                }
                true
            }
            (None, Some((to_namespace, to_name))) => {
                if Some(to_namespace.as_str()) != namespace || Some(to_name.as_str()) != name {
                    continue;
                }
                true
            }
            (None, None) => false,
        };
        let available =
            volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Available");
        let modes = there.access_modes.as_deref().unwrap_or_default();
        let fits = capacity >= wanted
            && volume.metadata.deletion_timestamp.is_none()
            && there.storage_class_name.as_deref().unwrap_or_default() == class_of(claim)
            && mode(&there.volume_mode) == mode(&spec.volume_mode)
            && there.volume_attributes_class_name == spec.volume_attributes_class_name
            && spec.access_modes.iter().flatten().all(|mode| modes.contains(mode));
        let labels = volume.metadata.labels.clone().unwrap_or_default();
        let selected = selector.as_ref().is_none_or(|selector| selector.matches(&labels));
        if fits && (meant_for_it || (available && selected)) {
            found.push((!meant_for_it, capacity, Candidate { volume, affinity: affinity_of(volume) }));
        }
    }
    found.sort_by_key(|(other, capacity, _)| (*other, *capacity));
    found.into_iter().map(|(_, _, candidate)| candidate).collect()
}

impl FilterPlugin for VolumeBinding {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare<'a>(&self, cycle: Cycle<'a>) -> Prepared<'a> {
        if cycle.pod.info.claims.is_empty() {
            return Prepared::Skip;
        }
        match Claims::of(cycle) {
            Ok(claims) => Prepared::Check(Box::new(claims)),
            Err(message) => Prepared::Reject(message),
        }
    }
}

impl NodeFilter for Claims<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let mut reasons = Vec::new();
        let reachable =
            |affinity: &RequiredNodeAffinity| node.node.as_ref().is_some_and(|node| affinity.matches(node));
        if self.bound.iter().any(Option::is_none) {
            reasons.push(NO_VOLUME.into());
        } else if !self.bound.iter().flatten().all(reachable) {
            reasons.push(UNREACHABLE.into());
        }
        if let Err(reason) = self.plan(node) {
            reasons.push(reason.into());
        }
        if reasons.is_empty() { Ok(()) } else { Err(Rejection { plugin: NAME, reasons, resolvable: false }) }
    }
}

/// What has to be done about volumes before the pod of this cycle is bound to a node that will do.
pub fn steps(cycle: Cycle<'_>, node: &str) -> Vec<VolumeStep> {
    if cycle.pod.info.claims.is_empty() {
        return Vec::new();
    }
    let claims = Claims::of(cycle).ok();
    let node = cycle.snapshot.node(node);
    claims.zip(node).and_then(|(claims, node)| claims.plan(node).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
