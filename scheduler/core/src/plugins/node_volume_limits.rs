//! NodeVolumeLimits: a node takes as many volumes of a driver as its CSINode says.

use std::collections::{HashMap, HashSet};

use crate::framework::{Cycle, FilterPlugin, Prepared, Rejection};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::snapshot::Snapshot;
use crate::volumes::{class_of, volume_of};

/// The plugin's name.
pub const NAME: &str = "NodeVolumeLimits";

/// The plugin.
pub struct NodeVolumeLimits;

/// The volumes of a pod that drivers attach, each once: driver and a name of the volume that is its own.
fn attached(snapshot: &Snapshot, pod: &PodInfo) -> Vec<(String, String)> {
    let volumes = &snapshot.volumes;
    let of_claim = |name: &str| {
        let claim = volumes.claim(pod.namespace(), name)?;
        match volume_of(claim).and_then(|name| volumes.volume(name)) {
            Some(volume) => {
                let source = volume.spec.as_ref()?.csi.as_ref()?;
                Some((source.driver.clone(), source.volume_handle.clone()))
            }
            None => {
                // To be made by the class's driver; counted under a name of its own until it is.
                let provisioner = &volumes.class(class_of(claim))?.provisioner;
                Some((provisioner.clone(), format!("{}/{name}", pod.namespace())))
            }
        }
    };
    pod.claims.iter().filter_map(|claim| of_claim(&claim.name)).collect()
}

impl FilterPlugin for NodeVolumeLimits {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare<'a>(&self, cycle: Cycle<'a>) -> Prepared<'a> {
        let snapshot = cycle.snapshot;
        let wanted: HashSet<_> = attached(snapshot, &cycle.pod.info).into_iter().collect();
        if wanted.is_empty() {
            return Prepared::Skip;
        }
        Prepared::Check(Box::new(move |node: &NodeInfo| {
            let limited =
                wanted.iter().any(|(driver, _)| snapshot.volumes.limit(&node.name, driver).is_some());
            if !limited {
                return Ok(());
            }
            let there: HashSet<_> = node.pods.iter().flat_map(|pod| attached(snapshot, pod)).collect();
            let mut counts: HashMap<&str, i64> = HashMap::new();
            for (driver, _) in &there {
                *counts.entry(driver).or_insert(0) += 1;
            }
            let mut more: HashMap<&str, i64> = HashMap::new();
            for (driver, _) in wanted.difference(&there) {
                *more.entry(driver).or_insert(0) += 1;
            }
            let exceeds = more.iter().any(|(driver, more)| {
                let there = counts.get(driver).copied().unwrap_or(0);
                snapshot.volumes.limit(&node.name, driver).is_some_and(|limit| there + more > limit)
            });
            if exceeds { Err(Rejection::resolvable(NAME, "node(s) exceed max volume count")) } else { Ok(()) }
        }))
    }
}
