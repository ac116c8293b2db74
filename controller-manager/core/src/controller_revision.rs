//! The history that DaemonSets and StatefulSets keep of their pod templates: which ControllerRevision has the template of
//! today, what a new one looks like, which old ones are forgotten. Owns upstream's format of the data, by which `kubectl
//! rollout history` and `undo` work.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};

use crate::action::{Action, CONTROLLER_REVISIONS, ResourceId, Target};
use crate::deployment::template::{hash, same_template};
use crate::object_meta::{controller_reference, created, name, namespace};

/// The label of a DaemonSet's or StatefulSet's pods that tells their revision.
pub const POD_REVISION: &str = "controller-revision-hash";
/// The longest start of a revision's name.
const NAME_START_MAX: usize = 223;

/// What keeps a history.
#[derive(Clone, Debug)]
pub struct Parent<'a> {
    /// Its resource.
    pub resource: ResourceId,
    /// Its metadata.
    pub meta: &'a ObjectMeta,
    /// Its template of today.
    pub template: &'a PodTemplateSpec,
    /// How often names have collided.
    pub collisions: Option<i32>,
    /// The label of its revisions that holds the hash.
    pub hash_label: &'static str,
}

/// Which revision has the template of today.
#[derive(Clone, Debug, PartialEq)]
pub enum Current {
    /// This one.
    Is(Arc<ControllerRevision>),
    /// An older one, which becomes the newest by getting this number.
    Becomes(Arc<ControllerRevision>, i64),
    /// None: this one is to be created.
    New(Box<ControllerRevision>),
}

/// The change that makes an object have this template.
fn data(template: &PodTemplateSpec) -> Value {
    let mut template = json!(template);
    template["$patch"] = json!("replace");
    json!({ "spec": { "template": template } })
}

/// The template that a revision keeps; `None` if its data is somebody else's.
pub fn template_of(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let mut template = revision.data.as_ref()?.0.get("spec")?.get("template")?.clone();
    template.as_object_mut()?.remove("$patch");
    serde_json::from_value(template).ok()
}

/// Whether the revision keeps this template.
pub fn keeps(revision: &ControllerRevision, template: &PodTemplateSpec) -> bool {
    template_of(revision).is_some_and(|kept| same_template(&kept, template))
}

/// Oldest first.
pub fn sorted(mut revisions: Vec<Arc<ControllerRevision>>) -> Vec<Arc<ControllerRevision>> {
    revisions.sort_by(|a, b| {
        let order = |revision: &ControllerRevision| (revision.revision, created(&revision.metadata));
        order(a).cmp(&order(b)).then_with(|| name(&a.metadata).cmp(name(&b.metadata)))
    });
    revisions
}

/// Finds the revision of today among `revisions`, oldest first.
pub fn current(parent: &Parent<'_>, revisions: &[Arc<ControllerRevision>]) -> Current {
    let next = revisions.last().map_or(0, |newest| newest.revision) + 1;
    let found = revisions.iter().rposition(|revision| keeps(revision, parent.template));
    match found {
        Some(at) if at + 1 == revisions.len() => Current::Is(Arc::clone(&revisions[at])),
        Some(at) => Current::Becomes(Arc::clone(&revisions[at]), next),
        None => Current::New(Box::new(new_revision(parent, next))),
    }
}

fn new_revision(parent: &Parent<'_>, number: i64) -> ControllerRevision {
    let hash = hash(parent.template, parent.collisions);
    let start = name(parent.meta);
    let start = start.get(..NAME_START_MAX).unwrap_or(start);
    let meta = parent.template.metadata.as_ref();
    let mut labels = meta.and_then(|meta| meta.labels.clone()).unwrap_or_default();
    labels.insert(parent.hash_label.to_owned(), hash.clone());
    ControllerRevision {
        metadata: ObjectMeta {
            name: Some(format!("{start}-{hash}")),
            namespace: parent.meta.namespace.clone(),
            labels: Some(labels),
            annotations: parent.meta.annotations.clone(),
            owner_references: Some(vec![controller_reference(&parent.resource, parent.meta)]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(data(parent.template))),
        revision: number,
    }
}

/// The deletion of one revision.
pub fn delete(revision: &ControllerRevision) -> Action {
    let meta = &revision.metadata;
    Action::Delete {
        target: Target::new(&CONTROLLER_REVISIONS, namespace(meta), name(meta)),
        uid: meta.uid.clone(),
        resource_version: None,
        propagation: None,
        grace_seconds: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::DAEMON_SETS;
    use crate::test_objects::template;

    fn parent<'a>(meta: &'a ObjectMeta, template: &'a PodTemplateSpec) -> Parent<'a> {
        Parent { resource: DAEMON_SETS, meta, template, collisions: None, hash_label: POD_REVISION }
    }

    fn created(current: Current) -> Arc<ControllerRevision> {
        match current {
            Current::New(new) => Arc::new(*new),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_template_is_found_again_and_comes_back_as_the_newest() {
        let meta = ObjectMeta { name: Some("agent".into()), uid: Some("u".into()), ..ObjectMeta::default() };
        let (one, two) = (template("web", "demo:v1"), template("web", "demo:v2"));
        let first = created(current(&parent(&meta, &one), &[]));
        assert_eq!(first.revision, 1);
        let hash = first.metadata.labels.as_ref().map(|labels| labels[POD_REVISION].clone());
        assert_eq!(first.metadata.name, hash.map(|hash| format!("agent-{hash}")));
        assert_eq!(
            first.data.as_ref().map(|data| &data.0["spec"]["template"]["$patch"]),
            Some(&json!("replace"))
        );
        let revisions = [Arc::clone(&first)];
        assert_eq!(current(&parent(&meta, &one), &revisions), Current::Is(Arc::clone(&first)));
        let second = created(current(&parent(&meta, &two), &revisions));
        assert_eq!(second.revision, 2);
        let revisions = sorted(vec![second, Arc::clone(&first)]);
        assert_eq!(current(&parent(&meta, &one), &revisions), Current::Becomes(first, 3));
    }

    #[test]
    fn a_collision_gives_another_name() {
        let (meta, one) = (ObjectMeta::default(), template("web", "demo:v1"));
        let mut parent = parent(&meta, &one);
        let first = created(current(&parent, &[]));
        parent.collisions = Some(1);
        assert_ne!(first.metadata.name, created(current(&parent, &[])).metadata.name);
    }
}
