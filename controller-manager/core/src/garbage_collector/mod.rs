//! The garbage collector: who owns whom over all kinds ([`graph`]) and what follows for one object ([`decide`]). An owner
//! that the graph has not seen is never taken for absent: [`Decision::CheckOwners`] asks for a look at the server first.

pub mod graph;

use std::collections::HashSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::json;

use crate::action::{Action, Propagation, Target};
use crate::object_meta::list_or_null;
use graph::{Graph, Object};

/// The finalizer of an object whose dependents go first.
pub const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of an object whose dependents stay.
pub const ORPHAN: &str = "orphan";

/// What to do about one object.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Nothing.
    Nothing,
    /// Look at the server whether these owners exist (in the object's namespace), then decide again.
    CheckOwners(Vec<OwnerReference>),
    /// Nobody watches this object's kind yet, or it was only heard of from its dependents: look whether it exists.
    CheckExists,
    /// Carry these out. A precondition that fails means: decide again when the change has been seen.
    Act(Vec<Action>),
    /// These dependents have to be decided about (again) first.
    Dependents(Vec<String>),
}

fn target(object: &Object) -> Target {
    Target::new(&object.resource, &object.namespace, &object.name)
}

fn guard(object: &Object) -> serde_json::Value {
    json!({ "uid": object.uid, "resourceVersion": object.resource_version })
}

fn owners_patch(object: &Object, owners: Vec<OwnerReference>) -> Action {
    let mut patch = json!({ "metadata": guard(object) });
    patch["metadata"]["ownerReferences"] = list_or_null(&owners);
    Action::Patch { target: target(object), subresource: "", patch }
}

fn finalizers_patch(object: &Object, remove: &str) -> Action {
    let kept: Vec<_> = object.finalizers.iter().filter(|finalizer| *finalizer != remove).collect();
    let mut patch = json!({ "metadata": guard(object) });
    patch["metadata"]["finalizers"] = list_or_null(&kept);
    Action::Patch { target: target(object), subresource: "", patch }
}

/// Decides about the object `uid`. `absent` are uids of owners that the server does not have.
pub fn decide(graph: &Graph, uid: &str, absent: &HashSet<String>) -> Decision {
    let Some(object) = graph.get(uid) else { return Decision::Nothing };
    if object.is_virtual {
        return Decision::CheckExists;
    }
    if object.is_deleting_dependents() {
        return decide_foreground(graph, object);
    }
    if object.deleting || object.owners.is_empty() {
        return Decision::Nothing;
    }
    let (mut solid, mut waiting, mut dangling, mut unknown) = (vec![], vec![], vec![], vec![]);
    for owner in &object.owners {
        match graph.get(&owner.uid) {
            _ if absent.contains(&owner.uid) => dangling.push(owner),
            Some(found) if found.is_virtual => unknown.push(owner.clone()),
            Some(found) if !found.may_own(object) => unknown.push(owner.clone()),
            Some(found) if found.is_deleting_dependents() => waiting.push(owner),
            Some(_) => solid.push(owner.clone()),
            None => unknown.push(owner.clone()),
        }
    }
    if !unknown.is_empty() {
        return Decision::CheckOwners(unknown);
    }
    if !solid.is_empty() {
        let changed = !waiting.is_empty() || !dangling.is_empty();
        return if changed { Decision::Act(vec![owners_patch(object, solid)]) } else { Decision::Nothing };
    }
    let delete = |propagation| Action::Delete {
        target: target(object),
        uid: Some(object.uid.clone()),
        resource_version: Some(object.resource_version.clone()).filter(|version| !version.is_empty()),
        propagation: Some(propagation),
        grace_seconds: None,
    };
    let mut dependents = graph.dependents(uid);
    if !waiting.is_empty() && dependents.clone().next().is_some() {
        if dependents.any(Object::is_deleting_dependents) {
            // A circle of owners that wait for each other: let go of ours, or nothing would ever move.
            let mut owners = object.owners.clone();
            owners.iter_mut().for_each(|owner| owner.block_owner_deletion = Some(false));
            return Decision::Act(vec![owners_patch(object, owners)]);
        }
        return Decision::Act(vec![delete(Propagation::Foreground)]);
    }
    let has = |wanted: &str| object.finalizers.iter().any(|finalizer| finalizer == wanted);
    let propagation = if has(ORPHAN) {
        Propagation::Orphan
    } else if has(FOREGROUND) {
        Propagation::Foreground
    } else {
        Propagation::Background
    };
    Decision::Act(vec![delete(propagation)])
}

fn decide_foreground(graph: &Graph, object: &Object) -> Decision {
    let blocks = |dependent: &&Object| {
        dependent
            .owners
            .iter()
            .any(|owner| owner.uid == object.uid && owner.block_owner_deletion == Some(true))
    };
    let mut blocked = false;
    let mut next = Vec::new();
    for dependent in graph.dependents(&object.uid).filter(blocks) {
        blocked = true;
        if !dependent.deleting {
            next.push(dependent.uid.clone());
        }
    }
    if !blocked {
        return Decision::Act(vec![finalizers_patch(object, FOREGROUND)]);
    }
    if next.is_empty() { Decision::Nothing } else { Decision::Dependents(next) }
}

/// The steps that let an object's dependents live on without it; the last one lets the object go.
pub fn orphan(graph: &Graph, uid: &str) -> Vec<Action> {
    let Some(object) = graph.get(uid).filter(|object| object.is_orphaning()) else { return Vec::new() };
    let mut actions: Vec<_> = graph
        .dependents(uid)
        .map(|dependent| {
            let owners = dependent.owners.iter().filter(|owner| owner.uid != uid).cloned().collect();
            owners_patch(dependent, owners)
        })
        .collect();
    actions.push(finalizers_patch(object, ORPHAN));
    actions
}

#[cfg(test)]
mod tests;
