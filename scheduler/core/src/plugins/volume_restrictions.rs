//! VolumeRestrictions: a claim of access mode ReadWriteOncePod has one pod at a time, and some disks can be on a node once.

use k8s_openapi::api::core::v1::Volume;

use crate::framework::{Cycle, FilterPlugin, NodeFilter, Prepared, Rejection};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;

/// The plugin's name.
pub const NAME: &str = "VolumeRestrictions";
const DISK_TAKEN: &str = "node(s) had no available disk";
const CLAIM_TAKEN: &str =
    "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";

/// The plugin.
pub struct VolumeRestrictions;

struct Filter<'a> {
    pod: &'a PodInfo,
    /// The pod's claims that one pod at a time may use.
    exclusive: Vec<&'a str>,
    /// Other pods that use one of them.
    users: i64,
    disks: Vec<&'a Volume>,
}

impl Filter<'_> {
    fn suppose(&mut self, pod: &PodInfo, change: i64) {
        if pod.namespace() == self.pod.namespace() {
            let shared = pod.claims.iter().filter(|claim| self.exclusive.contains(&claim.name.as_str()));
            self.users += change * shared.count() as i64;
        }
    }
}

fn volumes(pod: &PodInfo) -> impl Iterator<Item = &Volume> {
    pod.pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten())
}

fn is_disk(volume: &Volume) -> bool {
    volume.gce_persistent_disk.is_some()
        || volume.aws_elastic_block_store.is_some()
        || volume.iscsi.is_some()
        || volume.rbd.is_some()
}

/// Whether two volumes are the same disk, and one of them at least wants to write where that matters.
fn conflict(one: &Volume, other: &Volume) -> bool {
    if let (Some(one), Some(other)) = (&one.gce_persistent_disk, &other.gce_persistent_disk) {
        return one.pd_name == other.pd_name
            && !(one.read_only == Some(true) && other.read_only == Some(true));
    }
    if let (Some(one), Some(other)) = (&one.aws_elastic_block_store, &other.aws_elastic_block_store) {
        return one.volume_id == other.volume_id;
    }
    if let (Some(one), Some(other)) = (&one.iscsi, &other.iscsi) {
        return one.iqn == other.iqn && !(one.read_only == Some(true) && other.read_only == Some(true));
    }
    if let (Some(one), Some(other)) = (&one.rbd, &other.rbd) {
        return one.monitors.iter().any(|monitor| other.monitors.contains(monitor))
            && one.pool.as_deref().unwrap_or("rbd") == other.pool.as_deref().unwrap_or("rbd")
            && one.image == other.image
            && !(one.read_only == Some(true) && other.read_only == Some(true));
    }
    false
}

impl FilterPlugin for VolumeRestrictions {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare<'a>(&self, cycle: Cycle<'a>) -> Prepared<'a> {
        let pod: &'a PodInfo = &cycle.pod.info;
        let known = &cycle.snapshot.volumes;
        let exclusive: Vec<&'a str> = pod
            .claims
            .iter()
            .map(|claim| claim.name.as_str())
            .filter(|name| {
                let spec = known.claim(pod.namespace(), name).and_then(|claim| claim.spec.as_ref());
                let modes = spec.and_then(|spec| spec.access_modes.as_ref());
                modes.is_some_and(|modes| modes.iter().any(|mode| mode == "ReadWriteOncePod"))
            })
            .collect();
        let disks: Vec<_> = volumes(pod).filter(|volume| is_disk(volume)).collect();
        if exclusive.is_empty() && disks.is_empty() {
            return Prepared::Skip;
        }
        let users = exclusive.iter().map(|name| known.users(pod.namespace(), name)).sum();
        Prepared::Check(Box::new(Filter { pod, exclusive, users, disks }))
    }
}

impl NodeFilter for Filter<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let there = || node.pods.iter().flat_map(|pod| volumes(pod));
        if self.disks.iter().any(|disk| there().any(|other| conflict(disk, other))) {
            return Err(Rejection::resolvable(NAME, DISK_TAKEN));
        }
        if self.users > 0 {
            return Err(Rejection::resolvable(NAME, CLAIM_TAKEN));
        }
        Ok(())
    }

    fn add_pod(&mut self, pod: &PodInfo, _node: &NodeInfo) {
        self.suppose(pod, 1);
    }

    fn remove_pod(&mut self, pod: &PodInfo, _node: &NodeInfo) {
        self.suppose(pod, -1);
    }
}
