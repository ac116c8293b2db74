//! Runs the node lifecycle controller: a look at all signs of life each monitor period, taints as soon as a node changes.

use std::collections::HashMap;
use std::sync::Arc;

use controller_manager_core::action::{Action, NODES};
use controller_manager_core::node_lifecycle::taints::{self, Evicting};
use controller_manager_core::node_lifecycle::zones::{Count, Limiter, all_down};
use controller_manager_core::node_lifecycle::{
    Readiness, SignOfLife, mark_pod_not_ready, mark_silent, observe, readiness,
};
use controller_manager_core::object_meta::{name, object_reference};
use coracle_client::ObjectKey;
use coracle_client::controller::Outcome;
use coracle_client::informer::Change;
use k8s_openapi::api::core::v1::Node;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::context::Context;
use crate::executor::Executor;

const WORKERS: usize = 4;
const NODE_LEASES: &str = "kube-node-lease";
const ZONE: &str = "topology.kubernetes.io/zone";
const REGION: &str = "topology.kubernetes.io/region";

fn zone(node: &Node) -> String {
    let label = |key: &str| {
        node.metadata.labels.as_ref().and_then(|labels| labels.get(key)).map_or("", String::as_str)
    };
    format!("{}:{}", label(REGION), label(ZONE))
}

/// Runs until shutdown.
pub async fn run(context: Context) {
    let changes = run_changes(context.clone());
    let monitor = run_monitor(context);
    tokio::join!(changes, monitor);
}

/// Taints and pods of a node follow its conditions at once; only evicting taints wait for the monitor's permission.
async fn run_changes(context: Context) {
    let executor = context.executor("node-controller");
    let informers = context.informers.clone();
    let relevant = |change: &Change<Node>| {
        let Change::Applied { old, new } = change else { return false };
        old.as_ref().is_none_or(|old| {
            let conditions = |node: &Node| -> Vec<(String, String)> {
                let all = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
                all.map(|condition| (condition.type_.clone(), condition.status.clone())).collect()
            };
            old.spec != new.spec || conditions(old) != conditions(new)
        })
    };
    context
        .controller("node_lifecycle_controller", WORKERS)
        .watch(&informers.nodes, move |change| relevant(change).then(|| change.key()).into_iter().collect())
        .wait_for(&informers.pods)
        .run(&context.shutdown, move |key| {
            let (informers, executor) = (informers.clone(), executor.clone());
            async move {
                let Some(node) = informers.nodes.store().get(&key) else { return Ok(Outcome::Done) };
                let now = crate::clock::now();
                if let Some(action) = taints::plan(&node, Evicting::Keep, now) {
                    executor.execute(&action).await?;
                }
                if readiness(&node) != Readiness::Ready {
                    for pod in informers.pods.store().indexed("nodeName", &key.name) {
                        let actions = mark_pod_not_ready(&pod, now).into_iter().flatten().collect::<Vec<_>>();
                        executor.execute_all(&actions).await?;
                    }
                }
                Ok(Outcome::Done)
            }
        })
        .await;
}

async fn run_monitor(context: Context) {
    let executor = context.executor("node-controller");
    let settings = Arc::clone(&context.settings);
    let synced = async {
        context.informers.nodes.wait_synced().await;
        context.informers.leases.wait_synced().await;
    };
    tokio::select! {
        () = context.shutdown.cancelled() => return,
        () = synced => {}
    }
    let mut monitor = Monitor {
        signs: HashMap::new(),
        known: HashMap::new(),
        limiter: Limiter::default(),
        started: Instant::now(),
    };
    let mut ticks = interval(settings.node_monitor_period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = context.shutdown.cancelled() => return,
            _ = ticks.tick() => monitor.look(&context, &executor).await,
        }
    }
}

/// What is remembered between two looks.
struct Monitor {
    signs: HashMap<String, SignOfLife>,
    known: HashMap<String, (Option<String>, Readiness)>,
    limiter: Limiter,
    started: Instant,
}

impl Monitor {
    async fn look(&mut self, context: &Context, executor: &Executor) {
        let now = crate::clock::now();
        let nodes = context.informers.nodes.store().list();
        self.signs.retain(|known, _| nodes.iter().any(|node| name(&node.metadata) == known));
        self.tell_changes(executor, &nodes);
        let mut zones: HashMap<String, Count> = HashMap::new();
        for node in &nodes {
            let node_name = name(&node.metadata);
            let lease = context.informers.leases.store().get(&ObjectKey::new(NODE_LEASES, node_name));
            let sign = observe(self.signs.get(node_name), node, lease.as_deref(), now);
            if let Some(action) = mark_silent(node, &sign, context.settings.patience, now) {
                tracing::warn!(node = node_name, "kubelet has been silent for too long");
                self.carry_out(executor, &action).await;
            }
            self.signs.insert(node_name.to_owned(), sign);
            let count = zones.entry(zone(node)).or_default();
            if readiness(node) == Readiness::Ready { count.ready += 1 } else { count.broken += 1 }
        }
        let cut_off = all_down(&zones);
        for node in &nodes {
            let zone = zone(node);
            let evicting = if cut_off {
                Evicting::Remove
            } else if taints::lacks_evicting(node) {
                let count = zones.get(&zone).copied().unwrap_or_default();
                let allowed =
                    self.limiter.allow(&zone, count, context.settings.eviction_rates, self.started.elapsed());
                if allowed { Evicting::Add } else { Evicting::Keep }
            } else {
                Evicting::Keep
            };
            if let Some(action) = taints::plan(node, evicting, now) {
                self.carry_out(executor, &action).await;
            }
        }
    }

    /// A failure is not retried here: the next look decides anew.
    async fn carry_out(&self, executor: &Executor, action: &Action) {
        if let Err(error) = executor.execute(action).await {
            tracing::debug!(error = %error, "a node could not be changed, looking again");
        }
    }

    fn tell_changes(&mut self, executor: &Executor, nodes: &[Arc<Node>]) {
        let mut known = HashMap::with_capacity(nodes.len());
        for node in nodes {
            let node_name = name(&node.metadata).to_owned();
            let state = readiness(node);
            let say = |reason, message: String| {
                let regarding = Box::new(object_reference(&NODES, &node.metadata));
                let kind = coracle_client::event_recorder::EventKind::Normal;
                executor.events().record(*regarding, kind, reason, reason, message);
            };
            match self.known.get(&node_name) {
                None => say(
                    "RegisteredNode",
                    format!("Node {node_name} event: Registered Node {node_name} in Controller"),
                ),
                Some((_, Readiness::Ready)) if state != Readiness::Ready => {
                    say("NodeNotReady", format!("Node {node_name} status is now: NodeNotReady"));
                }
                Some(_) => {}
            }
            known.insert(node_name, (node.metadata.uid.clone(), state));
        }
        for (gone, (uid, _)) in self.known.iter().filter(|(known_name, _)| !known.contains_key(*known_name)) {
            let regarding = k8s_openapi::api::core::v1::ObjectReference {
                kind: Some("Node".into()),
                api_version: Some("v1".into()),
                name: Some(gone.clone()),
                uid: uid.clone(),
                ..Default::default()
            };
            let message = format!("Node {gone} event: Removing Node {gone} from Controller");
            let kind = coracle_client::event_recorder::EventKind::Normal;
            executor.events().record(regarding, kind, "RemovingNode", "RemovingNode", message);
        }
        self.known = known;
    }
}
