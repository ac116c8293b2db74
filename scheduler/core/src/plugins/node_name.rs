//! NodeName: `spec.nodeName` of a pod that is not bound yet names the only node that will do.

use crate::framework::{Cycle, FilterPlugin, Prepared, Rejection};
use crate::node_info::NodeInfo;

/// The plugin's name.
pub const NAME: &str = "NodeName";

/// The plugin.
pub struct NodeName;

impl FilterPlugin for NodeName {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare<'a>(&self, cycle: Cycle<'a>) -> Prepared<'a> {
        let Some(wanted) = cycle.pod.spec().node_name.as_deref().filter(|name| !name.is_empty()) else {
            return Prepared::Skip;
        };
        Prepared::Check(Box::new(move |node: &NodeInfo| {
            if &*node.name == wanted {
                Ok(())
            } else {
                Err(Rejection::unresolvable(NAME, "node(s) didn't match the requested node name"))
            }
        }))
    }
}
