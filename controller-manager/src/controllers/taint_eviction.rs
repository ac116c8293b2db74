//! Runs the taint eviction controller: each pod on a node with `NoExecute` taints is looked at again when its time is up.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use controller_manager_core::pod_state::node_name;
use controller_manager_core::taint_eviction::{cancelled, due, evict};
use coracle_client::ObjectKey;
use coracle_client::controller::Outcome;
use k8s_openapi::api::core::v1::{Node, Taint};
use parking_lot::Mutex;

use crate::context::Context;
use crate::executor::done;

const WORKERS: usize = 8;

fn evicting(node: &Node) -> Vec<&Taint> {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.filter(|taint| taint.effect == "NoExecute").collect()
}

/// Runs until shutdown.
pub async fn run(context: Context) {
    let informers = context.informers.clone();
    let executor = context.executor("taint-eviction-controller");
    let pending: Arc<Mutex<HashSet<ObjectKey>>> = Arc::default();
    let (for_nodes, for_pods, for_gone) = (informers.clone(), informers.clone(), Arc::clone(&pending));
    context
        .controller("taint_eviction_controller", WORKERS)
        .watch(&informers.nodes, move |change| {
            let before = change.old().map(|old| evicting(old)).unwrap_or_default();
            if change.is_deleted() || before == evicting(change.object()) {
                return Vec::new();
            }
            let pods = for_nodes.pods.store().indexed("nodeName", &change.key().name);
            pods.iter().map(|pod| ObjectKey::of(&**pod)).collect()
        })
        .watch(&informers.pods, move |change| {
            if change.is_deleted() {
                for_gone.lock().remove(&change.key());
                return Vec::new();
            }
            let node = for_pods.nodes.store().get_named("", node_name(change.object()));
            node.filter(|node| !evicting(node).is_empty()).map(|_| change.key()).into_iter().collect()
        })
        .run(&context.shutdown, move |key| {
            let (informers, executor, pending) = (informers.clone(), executor.clone(), Arc::clone(&pending));
            async move {
                let Some(pod) = informers.pods.store().get(&key) else { return Ok(Outcome::Done) };
                let Some(node) = informers.nodes.store().get_named("", node_name(&pod)) else {
                    return Ok(Outcome::Done);
                };
                let now = crate::clock::now();
                match due(&pod, &node, now) {
                    None => {
                        if pending.lock().remove(&key) && pod.metadata.deletion_timestamp.is_none() {
                            executor.execute(&cancelled(&pod)).await?;
                        }
                        Ok(Outcome::Done)
                    }
                    Some(at) if at > now => {
                        pending.lock().insert(key);
                        let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default();
                        Ok(Outcome::RequeueAfter(wait))
                    }
                    Some(_) => {
                        let result = executor.execute_all(&evict(&pod, now)).await;
                        pending.lock().remove(&key);
                        done(result)
                    }
                }
            }
        })
        .await;
}
