//! What the node has given to which pod: admits new pods and resizes one at a time, against all others.
//!
//! Never here: what a container has really got; that is its worker's.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kubelet_core::admission::{Allocatable, admit};
use kubelet_core::pod_status::Waiting;
use kubelet_core::pod_view;
use kubelet_core::resize::{self, Pending};
use parking_lot::Mutex;
use tokio::sync::watch;

/// The pods that have a part of the node, with the resources they were given.
pub struct Allocated {
    pods: Mutex<HashMap<String, Arc<Pod>>>,
    released: watch::Sender<()>,
}

impl Default for Allocated {
    fn default() -> Self {
        Self { pods: Mutex::default(), released: watch::Sender::new(()) }
    }
}

impl Allocated {
    /// Takes a new pod if it fits.
    ///
    /// # Errors
    /// Reason and message of the pod's failure.
    pub fn admit(
        &self,
        pod: &Arc<Pod>,
        allocatable: Allocatable,
        node_labels: &BTreeMap<String, String>,
        node_name: &str,
    ) -> Result<(), Waiting> {
        let mut pods = self.pods.lock();
        let uid = pod_view::uid(pod);
        let others: Vec<&Pod> =
            pods.iter().filter(|(other, _)| *other != uid).map(|(_, pod)| pod.as_ref()).collect();
        admit(pod, &others, allocatable, node_labels, node_name)?;
        pods.insert(uid.to_owned(), Arc::clone(pod));
        Ok(())
    }

    /// A pod that is here already has this much.
    pub fn keep(&self, pod: Pod) {
        self.pods.lock().insert(pod_view::uid(&pod).to_owned(), Arc::new(pod));
    }

    /// Gives a pod what it asks for now, if it fits.
    ///
    /// # Errors
    /// Why the resize has to wait.
    pub fn resize(&self, pod: &Arc<Pod>, allocatable: Allocatable) -> Result<(), Pending> {
        let mut pods = self.pods.lock();
        let uid = pod_view::uid(pod);
        let others: Vec<&Pod> =
            pods.iter().filter(|(other, _)| *other != uid).map(|(_, pod)| pod.as_ref()).collect();
        resize::judge(pod, &others, allocatable)?;
        pods.insert(uid.to_owned(), Arc::clone(pod));
        drop(pods);
        self.released.send_replace(());
        Ok(())
    }

    /// The pod has ended: its part is free.
    pub fn release(&self, pod_uid: &str) {
        if self.pods.lock().remove(pod_uid).is_some() {
            self.released.send_replace(());
        }
    }

    /// Told when something may have become free.
    pub fn released(&self) -> watch::Receiver<()> {
        self.released.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(uid: &str, cpu: &str) -> Arc<Pod> {
        let spec = json!({"containers": [{"name": "a", "resources": {"requests": {"cpu": cpu}}}]});
        Arc::new(serde_json::from_value(json!({"metadata": {"uid": uid}, "spec": spec})).unwrap())
    }

    #[test]
    fn a_resize_waits_until_another_pod_has_gone() {
        let node = Allocatable { milli_cpu: 1000, memory: 1 << 30, pods: 10 };
        let (allocated, labels) = (Allocated::default(), BTreeMap::new());
        allocated.admit(&pod("x", "400m"), node, &labels, "n").unwrap();
        allocated.admit(&pod("y", "400m"), node, &labels, "n").unwrap();
        assert_eq!(allocated.admit(&pod("z", "400m"), node, &labels, "n").unwrap_err().reason, "OutOfcpu");
        let released = allocated.released();
        assert_eq!(allocated.resize(&pod("x", "800m"), node).unwrap_err().reason, "Deferred");
        assert!(!released.has_changed().unwrap());
        allocated.release("y");
        assert!(released.has_changed().unwrap());
        allocated.resize(&pod("x", "800m"), node).unwrap();
        assert_eq!(allocated.admit(&pod("z", "400m"), node, &labels, "n").unwrap_err().reason, "OutOfcpu");
    }
}
