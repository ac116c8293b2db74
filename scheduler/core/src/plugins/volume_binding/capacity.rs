//! Where a driver has room for a volume that is to be made: what its CSIStorageCapacity objects say, if it publishes any.

use k8s_openapi::api::storage::v1::{CSIStorageCapacity, StorageClass};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use super::parsed;
use crate::label_selector::{Labels, Selector};
use crate::volumes::Volumes;

/// Where there is room.
pub(super) enum Room {
    /// The driver does not say, so that every node is worth a try.
    Anywhere,
    /// On nodes with these labels.
    On(Vec<Selector>),
}

impl Room {
    /// For a volume of this size in bytes.
    pub(super) fn of(volumes: &Volumes, class: &StorageClass, bytes: i64) -> Self {
        if bytes == 0 || !volumes.publishes_capacity(&class.provisioner) {
            return Self::Anywhere;
        }
        let name = class.metadata.name.as_deref().unwrap_or_default();
        let enough =
            volumes.capacities().filter(|there| there.storage_class_name == name && holds(there, bytes));
        Self::On(
            enough.filter_map(|there| Some(Selector::new(Some(there.node_topology.as_ref()?)))).collect(),
        )
    }

    /// Whether there is room that a node with these labels reaches.
    pub(super) fn is_on(&self, labels: &Labels) -> bool {
        match self {
            Self::Anywhere => true,
            Self::On(selectors) => selectors.iter().any(|selector| selector.matches(labels)),
        }
    }
}

/// Whether one volume of this size can be made there.
fn holds(there: &CSIStorageCapacity, bytes: i64) -> bool {
    let most: Option<&ApiQuantity> = there.maximum_volume_size.as_ref().or(there.capacity.as_ref());
    most.is_some_and(|most| parsed(most) >= bytes)
}
