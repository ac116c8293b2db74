//! What the pods that wait for a volume are told.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::storage::v1::VolumeAttachment;

use super::wanted::{User, Wanted};
use super::{ATTACH_PATIENCE, Memory, Plan, Seen, is_attached, reported};
use crate::action::{Action, PODS};
use crate::object_meta::{namespace, object_reference, uid};

fn tell(plan: &mut Plan, pod: &Pod, warning: bool, message: String) {
    let regarding = Box::new(object_reference(&PODS, &pod.metadata));
    let reason = if warning { "FailedAttachVolume" } else { "SuccessfulAttachVolume" };
    plan.events.push(Action::Event { regarding, warning, reason, message });
}

/// How far attaching is.
pub(super) fn progress(
    seen: &Seen<'_>,
    memory: &mut Memory,
    plan: &mut Plan,
    wanted: &Wanted<'_>,
    attachment: &VolumeAttachment,
) {
    if attachment.metadata.deletion_timestamp.is_some() {
        return;
    }
    let (volume, of) = (&wanted.volume, uid(&attachment.metadata).to_owned());
    if is_attached(attachment) {
        let is_news = !reported(seen.node).contains(&&*volume.on_node());
        if memory.told_success.insert(of) && is_news {
            for pod in &wanted.pods {
                tell(
                    plan,
                    pod,
                    false,
                    format!("AttachVolume.Attach succeeded for volume {:?} ", volume.name),
                );
            }
        }
        return;
    }
    let fails = |plan: &mut Plan, why: &str| {
        for pod in &wanted.pods {
            tell(plan, pod, true, format!("AttachVolume.Attach failed for volume {:?} : {why}", volume.name));
        }
    };
    if let Some(error) = attachment.status.as_ref().and_then(|status| status.attach_error.as_ref()) {
        let message = error.message.clone().unwrap_or_default();
        let at = error.time.as_ref().map(|time| time.0.to_string()).unwrap_or_default();
        if memory.told_failure.insert(of, format!("{at} {message}")) != Some(format!("{at} {message}")) {
            fails(plan, &message);
        }
        return;
    }
    let created = attachment.metadata.creation_timestamp.as_ref().map_or(seen.now, |time| time.0);
    let told = memory.told_silence.get(&of).copied().unwrap_or(created);
    let waited = seen.now.duration_since(told);
    if waited < ATTACH_PATIENCE {
        plan.wake_in(ATTACH_PATIENCE - waited);
        return;
    }
    memory.told_silence.insert(of, seen.now);
    plan.wake_in(ATTACH_PATIENCE);
    let (driver, handle) = (&volume.driver, &volume.handle);
    let why =
        format!("timed out waiting for external-attacher of {driver} CSI driver to attach volume {handle}");
    fails(plan, &why);
}

/// Another node has the volume. Names of pods are for their own namespace alone.
pub(super) fn elsewhere(plan: &mut Plan, wanted: &Wanted<'_>, users: &[User]) {
    for pod in &wanted.pods {
        let own: Vec<&str> = users
            .iter()
            .filter(|user| user.namespace == namespace(&pod.metadata))
            .map(|user| user.name.as_str())
            .collect();
        let others = users.len() - own.len();
        let why = match (&own[..], others) {
            ([], 0) => "Volume is already exclusively attached to one node and can't be attached to another"
                .to_owned(),
            ([], others) => format!("Volume is already used by {others} pod(s) in different namespaces"),
            (own, 0) => format!("Volume is already used by pod(s) {}", own.join(", ")),
            (own, others) => {
                let own = own.join(", ");
                format!("Volume is already used by pod(s) {own} and {others} pod(s) in different namespaces")
            }
        };
        tell(plan, pod, true, format!("Multi-Attach error for volume {:?} {why}", wanted.volume.name));
    }
}
