//! Which volumes of storage drivers are attached to a node, attached to it next, or taken from it. A VolumeAttachment is the wish, which the driver's
//! attacher carries out; `status.volumesAttached` of the node says what its kubelet may mount.

pub mod detach;
mod events;
#[cfg(test)]
mod tests;
pub mod wanted;

use std::collections::HashMap;
use std::fmt::Write;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::VolumeAttachment;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::action::{Action, NODES, Target, VOLUME_ATTACHMENTS};
use crate::object_meta::{name, uid};
use detach::Detachment;
use wanted::{User, Wanted};

/// Kubelets that leave attaching to us say so on their node.
const MANAGED: &str = "volumes.kubernetes.io/controller-managed-attach-detach";
/// What names of drivers' volumes on nodes begin with.
const CSI: &str = "kubernetes.io/csi/";
/// After so long people are told that the driver's attacher does not answer.
const ATTACH_PATIENCE: SignedDuration = SignedDuration::from_mins(2);

/// A volume of a storage driver that has to be attached to a node before it can be mounted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Volume {
    /// Its PersistentVolume.
    pub name: String,
    /// Whose volume it is.
    pub driver: String,
    /// The driver's name of it.
    pub handle: String,
    /// Whether one node at a time may have it.
    pub exclusive: bool,
}

impl Volume {
    /// Its name in a node's status.
    pub fn on_node(&self) -> String {
        format!("{CSI}{}^{}", self.driver, self.handle)
    }

    /// The name of its attachment to a node.
    pub fn attachment(&self, node: &str) -> String {
        attachment_name(&self.handle, &self.driver, node)
    }
}

fn attachment_name(handle: &str, driver: &str, node: &str) -> String {
    let mut text = "csi-".to_owned();
    for byte in Sha256::new().chain_update(handle).chain_update(driver).chain_update(node).finalize() {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Whether the node's kubelet leaves attaching to us. Of a node that is gone whatever is attached is ours to take.
pub fn is_managed(node: Option<&Node>) -> bool {
    node.is_none_or(|node| crate::object_meta::annotation(&node.metadata, MANAGED).is_some())
}

/// What is remembered of a node between two looks.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// Since when nobody on the node wants what this attachment attaches.
    pub unwanted: HashMap<String, Timestamp>,
    /// Uids of attachments whose success was told.
    told_success: std::collections::HashSet<String>,
    /// By uid, the failure that was told.
    told_failure: HashMap<String, String>,
    /// By uid, when it was told that the attacher does not answer.
    told_silence: HashMap<String, Timestamp>,
    /// Names of volumes of which was told that another node has them.
    told_elsewhere: std::collections::HashSet<String>,
}

impl Memory {
    /// Whether there is nothing to remember.
    pub fn is_empty(&self) -> bool {
        self.unwanted.is_empty()
            && self.told_success.is_empty()
            && self.told_failure.is_empty()
            && self.told_silence.is_empty()
            && self.told_elsewhere.is_empty()
    }

    /// Forgets what is no more.
    fn keep(&mut self, attachments: &[&VolumeAttachment], wanted: &[Wanted<'_>]) {
        let has_uid = |wanted: &str| attachments.iter().any(|attachment| uid(&attachment.metadata) == wanted);
        self.told_success.retain(|uid| has_uid(uid));
        self.told_failure.retain(|uid, _| has_uid(uid));
        self.told_silence.retain(|uid, _| has_uid(uid));
        self.unwanted.retain(|of, _| attachments.iter().any(|attachment| name(&attachment.metadata) == of));
        self.told_elsewhere.retain(|volume| wanted.iter().any(|wanted| wanted.volume.name == *volume));
    }
}

/// What is seen of a node.
pub struct Seen<'a> {
    /// Its name.
    pub name: &'a str,
    /// The node, if it is there.
    pub node: Option<&'a Node>,
    /// What its pods want.
    pub wanted: &'a [Wanted<'a>],
    /// The attachments to it.
    pub attachments: &'a [&'a VolumeAttachment],
    /// The volume of an attachment, by its PersistentVolume.
    pub volume_of: &'a dyn Fn(&VolumeAttachment) -> Option<Volume>,
    /// The other nodes that a volume is attached to, is being attached to or taken from, and who uses it there.
    pub elsewhere: &'a dyn Fn(&Volume) -> Option<Vec<User>>,
    /// Whether a volume in use is left for good on a node that does not answer.
    pub never_by_force: bool,
    /// The time.
    pub now: Timestamp,
}

/// What is to be done about a node, in this order.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// What its kubelet may mount, if that is to be written.
    pub report: Option<Action>,
    /// What is taken from it.
    pub detach: Vec<Detachment>,
    /// What is attached to it.
    pub attach: Vec<Value>,
    /// What people are told.
    pub events: Vec<Action>,
    /// When to look again at the latest.
    pub wake: Option<SignedDuration>,
}

impl Plan {
    fn wake_in(&mut self, time: SignedDuration) {
        self.wake = Some(self.wake.map_or(time, |before| before.min(time)));
    }
}

/// The names that the node's status reports as attached.
fn reported(node: Option<&Node>) -> Vec<&str> {
    let status = node.and_then(|node| node.status.as_ref());
    let all = status.and_then(|status| status.volumes_attached.as_deref()).unwrap_or_default();
    all.iter().map(|volume| volume.name.as_str()).collect()
}

/// Whether the node's kubelet says that the volume is mounted, or is about to be.
pub fn is_in_use(node: Option<&Node>, volume: &str) -> bool {
    let status = node.and_then(|node| node.status.as_ref());
    let all = status.and_then(|status| status.volumes_in_use.as_deref()).unwrap_or_default();
    all.iter().any(|used| used == volume)
}

fn is_attached(attachment: &VolumeAttachment) -> bool {
    attachment.status.as_ref().is_some_and(|status| status.attached)
}

/// The name on the node of what an attachment attaches. A volume that is gone is found by what the node reports.
fn name_on_node(seen: &Seen<'_>, attachment: &VolumeAttachment) -> Option<String> {
    let of = name(&attachment.metadata);
    if let Some(volume) = (seen.volume_of)(attachment) {
        // One that somebody else made is not ours to take away.
        return (volume.attachment(seen.name) == of).then(|| volume.on_node());
    }
    let is_it = |reported: &&str| {
        let parts = reported.strip_prefix(CSI).and_then(|rest| rest.split_once('^'));
        parts.is_some_and(|(driver, handle)| attachment_name(handle, driver, seen.name) == of)
    };
    reported(seen.node).into_iter().find(is_it).map(str::to_owned)
}

/// Decides about a node.
pub fn plan(seen: &Seen<'_>, memory: &mut Memory) -> Plan {
    let mut plan = Plan::default();
    memory.keep(seen.attachments, seen.wanted);
    if !is_managed(seen.node) {
        return plan;
    }
    let mut may_mount: Vec<String> = Vec::new();
    for attachment in seen.attachments {
        let Some(volume) = name_on_node(seen, attachment) else { continue };
        let wanted = seen
            .wanted
            .iter()
            .find(|wanted| wanted.volume.attachment(seen.name) == name(&attachment.metadata));
        let mut stays = true;
        if let Some(wanted) = wanted {
            memory.unwanted.remove(name(&attachment.metadata));
            events::progress(seen, memory, &mut plan, wanted, attachment);
        } else if attachment.metadata.deletion_timestamp.is_none() {
            stays = detach::consider(seen, memory, &mut plan, &volume, attachment);
        }
        if stays && is_attached(attachment) && attachment.metadata.deletion_timestamp.is_none() {
            may_mount.push(volume);
        }
    }
    for wanted in seen.wanted {
        let of = wanted.volume.attachment(seen.name);
        if seen.attachments.iter().any(|attachment| name(&attachment.metadata) == of) {
            continue;
        }
        if wanted.volume.exclusive
            && let Some(users) = (seen.elsewhere)(&wanted.volume)
        {
            if memory.told_elsewhere.insert(wanted.volume.name.clone()) {
                events::elsewhere(&mut plan, wanted, &users);
            }
            continue;
        }
        memory.told_elsewhere.remove(&wanted.volume.name);
        plan.attach.push(json!({
            "metadata": {"name": of},
            "spec": {
                "attacher": wanted.volume.driver,
                "nodeName": seen.name,
                "source": {"persistentVolumeName": wanted.volume.name},
            },
        }));
    }
    plan.report = report(seen, may_mount);
    plan
}

/// The write of what may be mounted; what other plugins have reported stays.
fn report(seen: &Seen<'_>, mut may_mount: Vec<String>) -> Option<Action> {
    seen.node?;
    let before = reported(seen.node);
    may_mount.sort();
    let kept =
        before.iter().filter(|name| !name.starts_with(CSI) || may_mount.iter().any(|now| now == *name));
    let mut all: Vec<&str> = kept.copied().collect();
    all.extend(may_mount.iter().map(String::as_str).filter(|name| !before.contains(name)));
    if all == before {
        return None;
    }
    let list: Vec<Value> = all.iter().map(|name| json!({"name": name, "devicePath": ""})).collect();
    let list = if list.is_empty() { Value::Null } else { json!(list) };
    let target = Target::new(&NODES, "", seen.name);
    Some(Action::Patch { target, subresource: "status", patch: json!({"status": {"volumesAttached": list}}) })
}

/// The deletion of an attachment.
fn delete(attachment: &VolumeAttachment) -> Action {
    Action::Delete {
        target: Target::new(&VOLUME_ATTACHMENTS, "", name(&attachment.metadata)),
        uid: attachment.metadata.uid.clone(),
        resource_version: None,
        propagation: None,
        grace_seconds: None,
    }
}
