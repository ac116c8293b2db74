//! The filters of one pod and the questions they are asked: will this node do, also when the pods nominated to it are there? Owns
//! how filters are put together; what each demands is the plugins'.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::framework::{Cycle, NodeFilter, Prepared, Rejection};
use crate::node_info::NodeInfo;
use crate::pod_info::PodInfo;
use crate::profile::Profile;

/// What all plugins together said before any node was looked at.
pub enum Preparation<'a> {
    /// No node will do, say these plugins.
    Rejected {
        /// The plugins.
        plugins: BTreeSet<&'static str>,
        /// Why.
        message: String,
    },
    /// Nodes have to be looked at.
    Ready(Filters<'a>),
}

/// The only nodes worth looking at.
pub struct Only {
    /// Their names.
    pub names: BTreeSet<String>,
    /// The plugins that say so.
    pub plugins: BTreeSet<&'static str>,
}

impl Only {
    fn list(&self) -> String {
        self.plugins.iter().copied().collect::<Vec<_>>().join(" ")
    }

    /// Why the other nodes will not do.
    pub fn reason(&self) -> String {
        format!("node(s) didn't satisfy plugin(s) [{}]", self.list())
    }
}

/// The filters made ready for one pod.
#[derive(Default)]
pub struct Filters<'a> {
    list: Vec<Box<dyn NodeFilter + 'a>>,
    /// The only nodes worth looking at, if plugins know them.
    pub only: Option<Only>,
}

impl<'a> Filters<'a> {
    /// Asks all plugins of the profile.
    pub fn prepare(profile: &Profile, cycle: Cycle<'a>) -> Preparation<'a> {
        let mut filters = Self { list: Vec::with_capacity(profile.filters.len()), only: None };
        for plugin in &profile.filters {
            match plugin.prepare(cycle) {
                Prepared::Skip => {}
                Prepared::Check(filter) => filters.list.push(filter),
                Prepared::Only(names, filter) => {
                    filters.list.push(filter);
                    let only = filters
                        .only
                        .get_or_insert_with(|| Only { names: names.clone(), plugins: BTreeSet::new() });
                    only.names.retain(|name| names.contains(name));
                    only.plugins.insert(plugin.name());
                    if only.names.is_empty() {
                        let message = match only.plugins.len() {
                            1 => format!("node(s) didn't satisfy plugin {}", only.list()),
                            _ => format!("{} simultaneously", only.reason()),
                        };
                        return Preparation::Rejected { plugins: std::mem::take(&mut only.plugins), message };
                    }
                }
                Prepared::Reject(message) => {
                    return Preparation::Rejected { plugins: BTreeSet::from([plugin.name()]), message };
                }
            }
        }
        Preparation::Ready(filters)
    }

    /// Whether a node will do as it is.
    pub fn check(&self, node: &NodeInfo) -> Result<(), Rejection> {
        self.list.iter().try_for_each(|filter| filter.filter(node))
    }

    /// Everything that speaks against a node.
    pub fn objections(&self, node: &NodeInfo) -> Vec<Rejection> {
        self.list.iter().filter_map(|filter| filter.filter(node).err()).collect()
    }

    /// Whether a node will do both as it is and with the pods on it that are nominated to it and have at least the same
    /// priority: they may come, or may not.
    pub fn check_with_nominated(&mut self, cycle: Cycle<'_>, node: &NodeInfo) -> Result<(), Rejection> {
        let ahead: Vec<_> =
            cycle.snapshot.nominations.ahead_of(&cycle.pod.info, &node.name).cloned().collect();
        if !ahead.is_empty() {
            let mut crowded = node.clone();
            for pod in &ahead {
                crowded.add_pod(Arc::clone(pod));
                self.add_pod(pod, node);
            }
            let verdict = self.check(&crowded);
            for pod in &ahead {
                self.remove_pod(pod, node);
            }
            verdict?;
        }
        self.check(node)
    }

    /// Supposes that one more pod were on the node.
    pub fn add_pod(&mut self, pod: &PodInfo, node: &NodeInfo) {
        self.list.iter_mut().for_each(|filter| filter.add_pod(pod, node));
    }

    /// Supposes that a pod were not on the node any more.
    pub fn remove_pod(&mut self, pod: &PodInfo, node: &NodeInfo) {
        self.list.iter_mut().for_each(|filter| filter.remove_pod(pod, node));
    }
}
