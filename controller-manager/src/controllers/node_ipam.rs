//! Runs node IPAM: gives each node its pod address ranges. One worker, so that no range is given twice.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use controller_manager_core::action::{Action, NODES, Target};
use controller_manager_core::node_ipam::Cidr;
use controller_manager_core::object_meta::{name, object_reference, preconditions};
use coracle_client::controller::Outcome;
use k8s_openapi::api::core::v1::Node;
use parking_lot::Mutex;
use serde_json::json;

use crate::context::Context;
use crate::executor::done;

fn ranges(node: &Node) -> Vec<Cidr> {
    let spec = node.spec.as_ref();
    let all = spec.and_then(|spec| spec.pod_cidrs.clone()).or_else(|| Some(vec![spec?.pod_cidr.clone()?]));
    all.into_iter().flatten().filter_map(|text| text.parse().ok()).collect()
}

/// Runs until shutdown. Does nothing without `--allocate-node-cidrs`.
pub async fn run(context: Context) {
    if context.settings.node_ranges.is_empty() {
        tracing::info!("nodes get no pod address ranges: --allocate-node-cidrs is off");
        return;
    }
    let informers = context.informers.clone();
    let executor = context.executor("cidrAllocator");
    let settings = Arc::clone(&context.settings);
    // Ranges given to nodes whose change our copy has not shown yet.
    let given: Arc<Mutex<HashMap<String, Vec<Cidr>>>> = Arc::default();
    let for_gone = Arc::clone(&given);
    context
        .controller("node_ipam", 1)
        .watch(&informers.nodes, move |change| {
            if change.is_deleted() {
                for_gone.lock().remove(&*change.key().name);
            }
            let needs = !change.is_deleted() && ranges(change.object()).is_empty();
            needs.then(|| change.key()).into_iter().collect()
        })
        .run(&context.shutdown, move |key| {
            let (informers, executor, settings, given) = (informers.clone(), executor.clone(), Arc::clone(&settings), Arc::clone(&given));
            async move {
                let Some(node) = informers.nodes.store().get(&key) else { return Ok(Outcome::Done) };
                if !ranges(&node).is_empty() {
                    return Ok(Outcome::Done);
                }
                let blocks = {
                    let mut given = given.lock();
                    let mut used: HashSet<Cidr> = informers.nodes.store().list().iter().flat_map(|node| ranges(node)).collect();
                    used.extend(given.iter().filter(|(owner, _)| ***owner != *key.name).flat_map(|(_, blocks)| blocks.clone()));
                    used.extend(settings.service_ranges.iter().copied());
                    let blocks: Option<Vec<Cidr>> =
                        settings.node_ranges.iter().map(|(range, prefix)| range.first_free(*prefix, &used)).collect();
                    if let Some(blocks) = &blocks {
                        given.insert(key.name.to_string(), blocks.clone());
                    }
                    blocks
                };
                let Some(blocks) = blocks else {
                    let message = format!("Node {} status is now: CIDRNotAvailable", key.name);
                    let regarding = Box::new(object_reference(&NODES, &node.metadata));
                    executor.execute(&Action::Event { regarding, warning: false, reason: "CIDRNotAvailable", message }).await?;
                    anyhow::bail!("no free pod address range is left in --cluster-cidr; widen it or raise --node-cidr-mask-size");
                };
                let texts: Vec<_> = blocks.iter().map(ToString::to_string).collect();
                let patch = json!({
                    "metadata": preconditions(&node.metadata, false),
                    "spec": { "podCIDR": texts.first(), "podCIDRs": texts },
                });
                let target = Target::new(&NODES, "", name(&node.metadata));
                done(executor.execute(&Action::Patch { target, subresource: "", patch }).await)
            }
        })
        .await;
}
