//! Runs the pod garbage collector: a look at our copy every twenty seconds.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use controller_manager_core::action::{NODES, Target};
use controller_manager_core::pod_gc::{missing_nodes, plan};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::context::Context;
use crate::executor::Executor;

const PERIOD: Duration = Duration::from_secs(20);
/// A node must have been missing this long before its pods go: it may only be registering anew.
const QUARANTINE: Duration = Duration::from_secs(40);

/// Runs until shutdown.
pub async fn run(context: Context) {
    let executor = context.executor("pod-garbage-collector-controller");
    let synced = async {
        context.informers.nodes.wait_synced().await;
        context.informers.pods.wait_synced().await;
    };
    tokio::select! {
        () = context.shutdown.cancelled() => return,
        () = synced => {}
    }
    let mut missing: HashMap<String, Instant> = HashMap::new();
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = context.shutdown.cancelled() => return,
            _ = ticks.tick() => look(&context, &executor, &mut missing).await,
        }
    }
}

async fn look(context: &Context, executor: &Executor, missing: &mut HashMap<String, Instant>) {
    let pods = context.informers.pods.store().list();
    let nodes = context.informers.nodes.store();
    let now_missing = missing_nodes(&pods, |node| nodes.get_named("", node).is_some());
    missing.retain(|node, _| now_missing.contains(node));
    for node in now_missing {
        missing.entry(node).or_insert_with(Instant::now);
    }
    let mut gone = HashSet::new();
    for node in missing.iter().filter(|(_, since)| since.elapsed() >= QUARANTINE).map(|(node, _)| node) {
        // Only the server's word counts.
        if matches!(executor.metadata(&Target::new(&NODES, "", node)).await, Ok(None)) {
            gone.insert(node.clone());
        }
    }
    for action in plan(&pods, &gone, context.settings.terminated_pods_max, crate::clock::now()) {
        if let Err(error) = executor.execute(&action).await {
            tracing::debug!(error = %error, "a pod could not be removed, looking again");
        }
    }
}
