//! Pods that are to run on a node as soon as others have left it. Owns who is nominated to which node. A nomination is known here as
//! soon as it is decided, before the API has it.

use std::collections::HashMap;
use std::sync::Arc;

use crate::pod_info::PodInfo;

/// Nominated pods by node.
#[derive(Debug, Default)]
pub struct Nominations {
    by_node: HashMap<Arc<str>, Vec<Arc<PodInfo>>>,
    node_of: HashMap<Arc<str>, Arc<str>>,
}

impl Nominations {
    /// Nominates a pod to a node, in place of any other.
    pub fn set(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.remove(&pod.uid);
        let node: Arc<str> = Arc::from(node);
        self.node_of.insert(Arc::clone(&pod.uid), Arc::clone(&node));
        self.by_node.entry(node).or_default().push(pod);
    }

    /// Takes a nomination back. True if there was one.
    pub fn remove(&mut self, uid: &str) -> bool {
        let Some(node) = self.node_of.remove(uid) else { return false };
        if let Some(pods) = self.by_node.get_mut(&node) {
            pods.retain(|pod| &*pod.uid != uid);
            if pods.is_empty() {
                self.by_node.remove(&node);
            }
        }
        true
    }

    /// Takes over what the API says of a waiting pod. A nomination that the API does not have yet stands; `withdrawn` says that
    /// the API had one and has it no more.
    pub fn refresh(&mut self, pod: &Arc<PodInfo>, withdrawn: bool) {
        let node = match pod.nominated_node() {
            Some(node) => Some(Arc::from(node)),
            None if withdrawn => None,
            None => self.node_of.get(&pod.uid).cloned(),
        };
        match node {
            Some(node) => self.set(Arc::clone(pod), &node),
            None => {
                self.remove(&pod.uid);
            }
        }
    }

    /// The node a pod is nominated to.
    pub fn node_of(&self, uid: &str) -> Option<&Arc<str>> {
        self.node_of.get(uid)
    }

    /// Other pods that have at least this pod's claim to a node.
    pub fn ahead_of<'a>(&'a self, pod: &'a PodInfo, node: &str) -> impl Iterator<Item = &'a Arc<PodInfo>> {
        let there = self.by_node.get(node).into_iter().flatten();
        there.filter(|other| other.priority >= pod.priority && other.uid != pod.uid)
    }

    /// Pods nominated to a node whose priority is below this pod's.
    pub fn behind<'a>(&'a self, pod: &'a PodInfo, node: &str) -> impl Iterator<Item = &'a Arc<PodInfo>> {
        self.by_node.get(node).into_iter().flatten().filter(|other| other.priority < pod.priority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod_from;
    use serde_json::json;

    fn pod(name: &str, priority: i32, nominated: Option<&str>) -> Arc<PodInfo> {
        Arc::new(PodInfo::new(pod_from(json!({
            "metadata": {"name": name}, "spec": {"priority": priority}, "status": {"nominatedNodeName": nominated},
        }))))
    }

    #[test]
    fn a_nomination_stands_until_it_is_withdrawn() {
        let mut nominations = Nominations::default();
        let high = pod("high", 10, None);
        nominations.set(Arc::clone(&high), "a");
        nominations.refresh(&high, false);
        assert_eq!(
            nominations.node_of("uid-high").map(|node| &**node),
            Some("a"),
            "the API does not know yet"
        );
        nominations.refresh(&pod("high", 10, Some("b")), false);
        assert_eq!(nominations.node_of("uid-high").map(|node| &**node), Some("b"));
        let equal = pod("equal", 10, None);
        assert_eq!(nominations.ahead_of(&equal, "b").count(), 1);
        assert_eq!(nominations.ahead_of(&high, "b").count(), 0, "nobody is ahead of himself");
        assert_eq!(nominations.behind(&pod("top", 11, None), "b").count(), 1);
        nominations.refresh(&high, true);
        assert!(nominations.node_of("uid-high").is_none());
        assert!(!nominations.remove("uid-high"));
    }
}
