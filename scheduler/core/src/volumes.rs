//! Claims, volumes, storage classes and the drivers of nodes, as far as they decide where a pod can run. Owns what is known of them and
//! which volumes are promised to claims before the API has it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass};

use crate::pod_info::PodInfo;

/// Namespace and name of a claim.
pub type ClaimKey = (String, String);

/// Everything about volumes.
#[derive(Debug, Default)]
pub struct Volumes {
    claims: HashMap<ClaimKey, Arc<PersistentVolumeClaim>>,
    volumes: BTreeMap<String, Arc<PersistentVolume>>,
    classes: HashMap<String, Arc<StorageClass>>,
    drivers: HashMap<String, Arc<CSINode>>,
    /// Drivers that say where they have room.
    publishing: BTreeSet<String>,
    capacities: BTreeMap<ClaimKey, Arc<CSIStorageCapacity>>,
    /// Volumes that are on their way to a claim.
    promised: HashMap<String, ClaimKey>,
    /// How many pods on nodes use a claim.
    users: HashMap<ClaimKey, i64>,
}

/// The name and namespace of an object.
fn name_of(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> ClaimKey {
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

impl Volumes {
    /// Takes over a claim.
    pub fn set_claim(&mut self, claim: Arc<PersistentVolumeClaim>) {
        self.claims.insert(name_of(&claim.metadata), claim);
    }

    /// Forgets a claim.
    pub fn remove_claim(&mut self, claim: &PersistentVolumeClaim) {
        self.claims.remove(&name_of(&claim.metadata));
    }

    /// A claim.
    pub fn claim(&self, namespace: &str, name: &str) -> Option<&Arc<PersistentVolumeClaim>> {
        self.claims.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// Takes over a volume.
    pub fn set_volume(&mut self, volume: Arc<PersistentVolume>) {
        self.volumes.insert(name_of(&volume.metadata).1, volume);
    }

    /// Forgets a volume.
    pub fn remove_volume(&mut self, volume: &PersistentVolume) {
        let (_, name) = name_of(&volume.metadata);
        self.volumes.remove(&name);
        self.promised.remove(&name);
    }

    /// A volume.
    pub fn volume(&self, name: &str) -> Option<&Arc<PersistentVolume>> {
        self.volumes.get(name)
    }

    /// All volumes, by name.
    pub fn volumes(&self) -> impl Iterator<Item = &Arc<PersistentVolume>> {
        self.volumes.values()
    }

    /// Takes over a storage class.
    pub fn set_class(&mut self, class: Arc<StorageClass>) {
        self.classes.insert(name_of(&class.metadata).1, class);
    }

    /// Forgets a storage class.
    pub fn remove_class(&mut self, class: &StorageClass) {
        self.classes.remove(&name_of(&class.metadata).1);
    }

    /// A storage class.
    pub fn class(&self, name: &str) -> Option<&Arc<StorageClass>> {
        self.classes.get(name)
    }

    /// Takes over which drivers a node has.
    pub fn set_drivers(&mut self, node: Arc<CSINode>) {
        self.drivers.insert(name_of(&node.metadata).1, node);
    }

    /// Forgets the drivers of a node.
    pub fn remove_drivers(&mut self, node: &CSINode) {
        self.drivers.remove(&name_of(&node.metadata).1);
    }

    /// Takes over a driver.
    pub fn set_driver(&mut self, driver: &CSIDriver) {
        let (_, name) = name_of(&driver.metadata);
        match driver.spec.storage_capacity {
            Some(true) => self.publishing.insert(name),
            _ => self.publishing.remove(&name),
        };
    }

    /// Forgets a driver.
    pub fn remove_driver(&mut self, driver: &CSIDriver) {
        self.publishing.remove(&name_of(&driver.metadata).1);
    }

    /// Whether a driver says where it has room.
    pub fn publishes_capacity(&self, driver: &str) -> bool {
        self.publishing.contains(driver)
    }

    /// Takes over how much room there is somewhere.
    pub fn set_capacity(&mut self, capacity: Arc<CSIStorageCapacity>) {
        self.capacities.insert(name_of(&capacity.metadata), capacity);
    }

    /// Forgets it.
    pub fn remove_capacity(&mut self, capacity: &CSIStorageCapacity) {
        self.capacities.remove(&name_of(&capacity.metadata));
    }

    /// How much room there is, wherever it is known.
    pub fn capacities(&self) -> impl Iterator<Item = &Arc<CSIStorageCapacity>> {
        self.capacities.values()
    }

    /// How many volumes of a driver a node takes, if it says so.
    pub fn limit(&self, node: &str, driver: &str) -> Option<i64> {
        let drivers = &self.drivers.get(node)?.spec.drivers;
        let found = drivers.iter().find(|there| there.name == driver)?;
        found.allocatable.as_ref()?.count.map(i64::from)
    }

    /// Promises a volume to a claim.
    pub fn promise(&mut self, volume: &str, claim: ClaimKey) {
        self.promised.insert(volume.to_owned(), claim);
    }

    /// Takes a promise back: the API has it, or it came to nothing.
    pub fn release(&mut self, volume: &str) {
        self.promised.remove(volume);
    }

    /// The claim a volume is promised to.
    pub fn promised_to(&self, volume: &str) -> Option<&ClaimKey> {
        self.promised.get(volume)
    }

    /// Counts a pod on a node as a user of its claims.
    pub(crate) fn add_user(&mut self, pod: &PodInfo) {
        for key in claim_keys(pod) {
            *self.users.entry(key).or_insert(0) += 1;
        }
    }

    /// Counts it out.
    pub(crate) fn remove_user(&mut self, pod: &PodInfo) {
        for key in claim_keys(pod) {
            if let Some(users) = self.users.get_mut(&key) {
                *users -= 1;
                if *users == 0 {
                    self.users.remove(&key);
                }
            }
        }
    }

    /// How many pods on nodes use a claim.
    pub fn users(&self, namespace: &str, name: &str) -> i64 {
        self.users.get(&(namespace.to_owned(), name.to_owned())).copied().unwrap_or(0)
    }
}

fn claim_keys(pod: &PodInfo) -> impl Iterator<Item = ClaimKey> + '_ {
    pod.claims.iter().map(|claim| (pod.namespace().to_owned(), claim.name.clone()))
}

/// A claim that a pod uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimUse {
    /// The claim's name.
    pub name: String,
    /// Whether the pod makes the claim itself.
    pub ephemeral: bool,
}

/// The class a claim asks for; empty for none.
pub fn class_of(claim: &PersistentVolumeClaim) -> &str {
    let annotated = claim
        .metadata
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get("volume.beta.kubernetes.io/storage-class"));
    let spec = claim.spec.as_ref();
    annotated.map(String::as_str).or_else(|| spec?.storage_class_name.as_deref()).unwrap_or_default()
}

/// The volume a claim names.
pub fn volume_of(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.spec.as_ref()?.volume_name.as_deref().filter(|name| !name.is_empty())
}

/// Whether the claim has its volume for good.
pub fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    let completed = claim
        .metadata
        .annotations
        .as_ref()
        .is_some_and(|annotations| annotations.contains_key("pv.kubernetes.io/bind-completed"));
    volume_of(claim).is_some() && completed
}
