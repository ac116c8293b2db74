//! NodeUnschedulable: cordoned nodes take no pods, except those that tolerate it.

use k8s_openapi::api::core::v1::Taint;

use crate::framework::{Cycle, FilterPlugin, Prepared, Rejection};
use crate::node_info::NodeInfo;
use crate::plugins::taint_toleration::tolerated;

/// The plugin's name.
pub const NAME: &str = "NodeUnschedulable";

/// The plugin.
pub struct NodeUnschedulable;

impl FilterPlugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        NAME
    }

    fn prepare<'a>(&self, cycle: Cycle<'a>) -> Prepared<'a> {
        let taint = Taint {
            key: "node.kubernetes.io/unschedulable".to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Taint::default()
        };
        if tolerated(&taint, cycle.pod.spec().tolerations.as_deref().unwrap_or_default()) {
            return Prepared::Skip;
        }
        Prepared::Check(Box::new(|node: &NodeInfo| {
            if node.is_unschedulable() {
                Err(Rejection::unresolvable(NAME, "node(s) were unschedulable"))
            } else {
                Ok(())
            }
        }))
    }
}
