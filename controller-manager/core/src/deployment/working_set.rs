//! Working copies of a Deployment's ReplicaSets: what was read, what it becomes, and the patches that lead there.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::{Value, json};

use super::template::same_template;
use crate::action::{Action, REPLICA_SETS, Target};
use crate::merge_diff::merge_diff_of;
use crate::object_meta::{created, name, namespace, preconditions};

/// One ReplicaSet.
#[derive(Clone, Debug)]
pub struct Working {
    /// As it was read; `None` if it is to be created.
    before: Option<Arc<ReplicaSet>>,
    /// As it shall be.
    pub object: ReplicaSet,
}

impl Working {
    /// One that does not exist yet.
    pub fn created(object: ReplicaSet) -> Self {
        Self { before: None, object }
    }

    /// Pods asked for.
    pub fn replicas(&self) -> i32 {
        self.object.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    }

    /// What it reports.
    pub fn status(&self) -> Option<&ReplicaSetStatus> {
        self.object.status.as_ref()
    }

    /// Pods it reports as available.
    pub fn available(&self) -> i32 {
        if crate::mutant!(AvailableWhenAskedFor) {
            return self.replicas();
        }
        self.status().and_then(|status| status.available_replicas).unwrap_or(0)
    }
}

impl Working {
    /// Pods it reports as available, without those that it is to give up: until it has, it still reports them.
    pub fn lasting(&self) -> i32 {
        self.available().min(self.replicas())
    }
}

/// All ReplicaSets of a Deployment, oldest first; one of them may be the new one.
#[derive(Clone, Debug)]
pub struct Sets {
    all: Vec<Working>,
    new: Option<usize>,
}

impl Sets {
    /// Working copies of `sets`; the new one is the oldest that has the Deployment's template.
    pub fn new(sets: &[Arc<ReplicaSet>], template: &PodTemplateSpec) -> Self {
        let mut all: Vec<_> = sets
            .iter()
            .map(|set| Working { before: Some(Arc::clone(set)), object: ReplicaSet::clone(set) })
            .collect();
        all.sort_by(|a, b| {
            let (a, b) = (&a.object.metadata, &b.object.metadata);
            created(a).cmp(&created(b)).then_with(|| name(a).cmp(name(b)))
        });
        let new = all.iter().position(|set| {
            set.object
                .spec
                .as_ref()
                .and_then(|spec| spec.template.as_ref())
                .is_some_and(|t| same_template(t, template))
        });
        Self { all, new }
    }

    /// All, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Working> {
        self.all.iter()
    }

    /// All with pods asked for.
    pub fn active(&self) -> impl Iterator<Item = &Working> {
        self.all.iter().filter(|set| set.replicas() > 0)
    }

    /// All but the new one.
    pub fn old(&self) -> impl Iterator<Item = &Working> {
        self.all.iter().enumerate().filter(|(index, _)| Some(*index) != self.new).map(|(_, set)| set)
    }

    /// Positions of the old ones with pods asked for, oldest first.
    pub fn old_active_indexes(&self) -> Vec<usize> {
        (0..self.all.len()).filter(|i| Some(*i) != self.new && self.all[*i].replicas() > 0).collect()
    }

    /// Positions of all with pods asked for, oldest first.
    pub fn active_indexes(&self) -> Vec<usize> {
        (0..self.all.len()).filter(|i| self.all[*i].replicas() > 0).collect()
    }

    /// The one with the Deployment's template.
    pub fn new_set(&self) -> Option<&Working> {
        self.new.map(|index| &self.all[index])
    }

    /// The same, to change.
    pub fn new_mut(&mut self) -> Option<&mut Working> {
        self.new.map(|index| &mut self.all[index])
    }

    /// Its position.
    pub fn new_index(&self) -> Option<usize> {
        self.new
    }

    /// Adds the new one.
    pub fn push_new(&mut self, set: Working) {
        self.new = Some(self.all.len());
        self.all.push(set);
    }

    /// One by position.
    pub fn at(&self, index: usize) -> &Working {
        &self.all[index]
    }

    /// One by position, to change.
    pub fn at_mut(&mut self, index: usize) -> &mut Working {
        &mut self.all[index]
    }

    /// Position of the newest.
    pub fn latest_index(&self) -> Option<usize> {
        self.all.len().checked_sub(1)
    }

    /// Pods asked for by all.
    pub fn replicas(&self) -> i32 {
        if crate::mutant!(SurgeFromStatus) {
            return self.all.iter().filter_map(Working::status).map(|status| status.replicas).sum();
        }
        self.all.iter().map(Working::replicas).sum()
    }

    /// Pods that all report as available.
    pub fn available(&self) -> i32 {
        self.all.iter().map(Working::available).sum()
    }

    /// Pods that all report as available and are to keep.
    pub fn lasting(&self) -> i32 {
        self.all.iter().map(Working::lasting).sum()
    }

    /// The actions that make the working copies real: creations, then patches.
    pub fn changes(&self, in_namespace: &str) -> (Vec<Action>, Vec<Action>) {
        let (mut created, mut patched) = (Vec::new(), Vec::new());
        for set in &self.all {
            match &set.before {
                None => created.push(Action::Create {
                    resource: REPLICA_SETS,
                    namespace: in_namespace.to_owned(),
                    object: serde_json::to_value(&set.object).unwrap_or(Value::Null),
                }),
                Some(before) => patched.extend(change(before, &set.object)),
            }
        }
        (created, patched)
    }
}

fn change(before: &ReplicaSet, after: &ReplicaSet) -> Option<Action> {
    let annotations = merge_diff_of(
        &before.metadata.annotations.clone().unwrap_or_default(),
        &after.metadata.annotations.clone().unwrap_or_default(),
    );
    let size = |set: &ReplicaSet| {
        let spec = set.spec.as_ref();
        json!({
            "replicas": spec.and_then(|spec| spec.replicas),
            "minReadySeconds": spec.and_then(|spec| spec.min_ready_seconds),
        })
    };
    let spec = crate::merge_diff::merge_diff(&size(before), &size(after));
    if annotations.is_none() && spec.is_none() {
        return None;
    }
    let mut patch = json!({ "metadata": preconditions(&before.metadata, true) });
    if let Some(annotations) = annotations {
        patch["metadata"]["annotations"] = annotations;
    }
    if let Some(spec) = spec {
        patch["spec"] = spec;
    }
    let target = Target::new(&REPLICA_SETS, namespace(&before.metadata), name(&before.metadata));
    Some(Action::Patch { target, subresource: "", patch })
}
