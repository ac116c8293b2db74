//! Taking a volume from a node: when its kubelet has unmounted it, or when nobody can wait for that any more.

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::VolumeAttachment;

use super::{Memory, Plan, Seen, delete, is_in_use};
use crate::action::Action;
use crate::object_meta::name;

/// So long a volume nobody wants waits for the kubelet of a node that is not well.
const FORCE_AFTER: SignedDuration = SignedDuration::from_mins(6);
/// Who sets it says that the node is off and stays so.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// A volume that is taken from a node once the node's status does not offer it any more.
#[derive(Debug, PartialEq)]
pub struct Detachment {
    /// Its name on the node.
    pub volume: String,
    /// Whether the node has to be asked by the server's word first: a kubelet that has just begun to mount it keeps it.
    pub ask: bool,
    /// The end of the attachment.
    pub delete: Action,
}

fn is_healthy(node: Option<&Node>) -> bool {
    let conditions = node.and_then(|node| node.status.as_ref()?.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn is_out_of_service(node: Option<&Node>) -> bool {
    let taints = node.and_then(|node| node.spec.as_ref()?.taints.as_ref());
    taints.into_iter().flatten().any(|taint| taint.key == OUT_OF_SERVICE)
}

/// Decides about an attachment that nobody on the node wants. Whether it stays for now.
pub(super) fn consider(
    seen: &Seen<'_>,
    memory: &mut Memory,
    plan: &mut Plan,
    volume: &str,
    attachment: &VolumeAttachment,
) -> bool {
    let since = *memory.unwanted.entry(name(&attachment.metadata).to_owned()).or_insert(seen.now);
    let waited = seen.now.duration_since(since);
    let expired = waited > FORCE_AFTER && !seen.never_by_force;
    let out_of_service = is_out_of_service(seen.node);
    let forced = out_of_service || (expired && !is_healthy(seen.node));
    if is_in_use(seen.node, volume) && !forced {
        if waited <= FORCE_AFTER && !seen.never_by_force {
            plan.wake_in(FORCE_AFTER - waited + SignedDuration::from_secs(1));
        }
        return true;
    }
    let ask = !(expired || out_of_service);
    plan.detach.push(Detachment { volume: volume.to_owned(), ask, delete: delete(attachment) });
    false
}
