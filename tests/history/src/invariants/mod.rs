//! The promises, one a file.

mod bindings;
mod budgets;
mod capacity;
mod daemon_sets;
mod deployments;
mod jobs;
mod owners;
mod quotas;
mod replica_sets;
mod sizes;
mod stateful_sets;

use serde_json::Value;

use crate::Allowances;
use crate::change::Change;
use crate::state::State;

/// One change with what is round it.
pub struct Step<'a> {
    /// The change.
    pub change: &'a Change,
    /// The object before it.
    pub old: Option<&'a Value>,
    /// The object after it.
    pub new: Option<&'a Value>,
    /// Everything after it.
    pub state: &'a State,
}

impl<'a> Step<'a> {
    /// The object after the change if it was made by it.
    pub fn created(&self) -> Option<&'a Value> {
        self.new.filter(|_| self.old.is_none())
    }

    /// Whether the change is one of this resource.
    pub fn is(&self, resource: &str) -> bool {
        self.change.key.resource == resource
    }
}

/// A promise.
pub trait Invariant: Send {
    /// Its name.
    fn name(&self) -> &'static str;

    /// Looks at one change; what is wrong about it.
    fn look(&mut self, step: &Step<'_>) -> Vec<String>;
}

/// All promises.
pub fn all(allowances: &Allowances) -> Vec<Box<dyn Invariant>> {
    vec![
        Box::new(replica_sets::ReplicaSets::default()),
        Box::new(daemon_sets::DaemonSets),
        Box::new(deployments::Deployments::default()),
        Box::new(stateful_sets::StatefulSets::default()),
        Box::new(jobs::Jobs::default()),
        Box::new(budgets::Budgets::default()),
        Box::new(quotas::Quotas::default()),
        Box::new(owners::Owners { adoption_max: allowances.adoption }),
        Box::new(bindings::Bindings),
        Box::new(capacity::Capacity),
    ]
}
