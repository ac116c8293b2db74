//! VolumeZone: a volume that says by its labels in which zone or region it is keeps pods there.

use std::collections::BTreeSet;

use crate::framework::{Cycle, FilterPlugin, Prepared, Rejection};
use crate::node_info::NodeInfo;
use crate::volumes::volume_of;

/// The plugin's name.
pub const NAME: &str = "VolumeZone";
/// Each label with its former name.
const LABELS: [(&str, &str); 2] = [
    ("topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"),
    ("topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"),
];

/// The plugin.
pub struct VolumeZone;

impl FilterPlugin for VolumeZone {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare<'a>(&self, cycle: Cycle<'a>) -> Prepared<'a> {
        let volumes = &cycle.snapshot.volumes;
        let pod = &cycle.pod.info;
        let mut places: Vec<(&str, &str, BTreeSet<String>)> = Vec::new();
        for used in &pod.claims {
            let claim = volumes.claim(pod.namespace(), &used.name);
            let volume = claim.and_then(|claim| volume_of(claim)).and_then(|name| volumes.volume(name));
            let Some(labels) = volume.and_then(|volume| volume.metadata.labels.as_ref()) else { continue };
            for (label, former) in LABELS {
                for key in [label, former] {
                    if let Some(value) = labels.get(key) {
                        // A volume in several zones names them all.
                        places.push((label, former, value.split("__").map(str::to_owned).collect()));
                    }
                }
            }
        }
        if places.is_empty() {
            return Prepared::Skip;
        }
        Prepared::Check(Box::new(move |node: &NodeInfo| {
            let labels = node.labels();
            let somewhere = LABELS
                .iter()
                .any(|(label, former)| labels.contains_key(*label) || labels.contains_key(*former));
            let reaches = |(label, former, values): &(&str, &str, BTreeSet<String>)| {
                labels.get(*label).or_else(|| labels.get(*former)).is_some_and(|value| values.contains(value))
            };
            // In a cluster without zones the labels of volumes bind nobody.
            if !somewhere || places.iter().all(reaches) {
                Ok(())
            } else {
                Err(Rejection::unresolvable(NAME, "node(s) had no available volume zone"))
            }
        }))
    }
}
