//! NodePorts: a port on the node can be taken once.

use crate::framework::{Cycle, FilterPlugin, Prepared, Rejection};
use crate::node_info::NodeInfo;

/// The plugin's name.
pub const NAME: &str = "NodePorts";

/// The plugin.
pub struct NodePorts;

impl FilterPlugin for NodePorts {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare<'a>(&self, cycle: Cycle<'a>) -> Prepared<'a> {
        let wanted = &cycle.pod.info.host_ports;
        if wanted.is_empty() {
            return Prepared::Skip;
        }
        Prepared::Check(Box::new(move |node: &NodeInfo| {
            if wanted.iter().any(|port| node.used_ports.iter().any(|used| used.conflicts_with(port))) {
                Err(Rejection::resolvable(NAME, "node(s) didn't have free ports for the requested pod ports"))
            } else {
                Ok(())
            }
        }))
    }
}
