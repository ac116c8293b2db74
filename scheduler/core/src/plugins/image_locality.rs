//! ImageLocality: prefers nodes that already have the pod's images, large ones above all; images that few nodes have count less,
//! so that pods do not pile up there.

use crate::framework::{Cycle, MAX_NODE_SCORE, NodeScore, ScorePlugin};
use crate::node_info::NodeInfo;

/// The plugin's name.
pub const NAME: &str = "ImageLocality";
const MEGABYTE: i64 = 1024 * 1024;
/// Images smaller than this together make no difference.
const SMALLEST: i64 = 23 * MEGABYTE;
/// More than this per container makes no further difference.
const LARGEST_PER_CONTAINER: i64 = 1000 * MEGABYTE;

/// The plugin.
pub struct ImageLocality;

struct Score {
    /// Normalized name and the size that counts.
    images: Vec<(String, i64)>,
    largest: i64,
}

impl ScorePlugin for ImageLocality {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare<'a>(&self, cycle: Cycle<'a>, _nodes: &[&'a NodeInfo]) -> Option<Box<dyn NodeScore + 'a>> {
        let spec = cycle.pod.spec();
        let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let total = cycle.snapshot.node_count().max(1) as i64;
        let mut count = 0;
        let mut images = Vec::new();
        for container in containers {
            count += 1;
            let name = normalized(container.image.as_deref().unwrap_or_default());
            if let Some(state) = cycle.snapshot.image(&name) {
                images.push((name, state.size_bytes.saturating_mul(state.nodes as i64) / total));
            }
        }
        let worth = images.iter().map(|(_, size)| size).sum::<i64>() >= SMALLEST;
        worth
            .then(|| Box::new(Score { images, largest: LARGEST_PER_CONTAINER * count }) as Box<dyn NodeScore>)
    }
}

impl NodeScore for Score {
    fn score(&self, node: &NodeInfo) -> i64 {
        let status = node.node.as_ref().and_then(|node| node.status.as_ref());
        let has = |name: &String| {
            let images = status.and_then(|status| status.images.as_ref()).into_iter().flatten();
            images.flat_map(|image| image.names.iter().flatten()).any(|there| there == name)
        };
        let present = self.images.iter().filter(|(name, _)| has(name)).map(|(_, size)| size).sum::<i64>();
        MAX_NODE_SCORE * (present.clamp(SMALLEST, self.largest) - SMALLEST) / (self.largest - SMALLEST)
    }
}

/// An image name as nodes report it: with a tag.
fn normalized(name: &str) -> String {
    let after_slash = name.rsplit('/').next().unwrap_or(name);
    if after_slash.contains(':') || name.contains('@') { name.to_owned() } else { format!("{name}:latest") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_get_the_default_tag() {
        assert_eq!(normalized("localhost:5000/web"), "localhost:5000/web:latest");
        assert_eq!(normalized("web:v1"), "web:v1");
    }
}
