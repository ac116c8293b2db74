//! The Node object: created at start, its status kept current.
//!
//! Never here: taints for conditions and eviction; those are the node lifecycle controller's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coracle_client::ObjectKey;
use coracle_client::config::{CALL_DEADLINE, api_code, within};
use coracle_client::event_recorder::EventKind;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec,
    NodeStatus, NodeSystemInfo, ObjectReference, Taint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use kubelet_core::allocatable::{Reserved, threshold};
use kubelet_core::node_events;
use kubelet_core::pod_status::seconds;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::facts;
use crate::context::Context;

const RETRY: Duration = Duration::from_secs(1);
const RETRY_STATUS: Duration = Duration::from_secs(2);
/// While the network is not ready the runtime is asked more often.
const NOT_READY_PERIOD: Duration = Duration::from_millis(500);
const IMAGE_NAMES_MAX: usize = 5;

/// What the Node says that does not come from the machine.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// Labels beside the standard ones.
    pub labels: BTreeMap<String, String>,
    /// Taints to register with.
    pub taints: Vec<Taint>,
    /// The cloud's name.
    pub provider_id: String,
    /// Most pods.
    pub max_pods: i64,
    /// The port of the kubelet's server.
    pub port: u16,
    /// The runtime, e.g. `containerd://1.6.20`.
    pub runtime_version: String,
    /// Thresholds such as `memory.available: 100Mi`.
    pub eviction_hard: BTreeMap<String, String>,
    /// What is kept from pods.
    pub reserved: Reserved,
    /// Images that the status names; `None` for all.
    pub images_max: Option<usize>,
    /// Between reports of a status that is the same.
    pub report_every: SignedDuration,
    /// Between looks at the status.
    pub period: Duration,
    /// Whether to create the Node.
    pub register: bool,
}

/// Registers the node and keeps its status current until shutdown. `on_ready` is called when pods can be run that could
/// not be before.
pub async fn run(
    context: Arc<Context>,
    settings: NodeSettings,
    on_ready: impl Fn() + Send + Sync,
    shutdown: CancellationToken,
) {
    let work = async {
        let nodes: Api<Node> = Api::all(context.client.clone());
        let (mut node, mut told) = register(&context, &settings, &nodes).await;
        let mut unschedulable = false;
        let regarding = ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(context.settings.node_name.clone()),
            uid: Some(context.settings.node_name.clone()),
            ..ObjectReference::default()
        };
        context.events.record(regarding.clone(), EventKind::Normal, "Starting", "", "Starting kubelet.");
        let own_key = ObjectKey::new("", context.settings.node_name.clone());
        let mut ready_before: Option<bool> = None;
        let mut last_report = Timestamp::UNIX_EPOCH;
        loop {
            let health = context.runtime.health().await;
            let verdict = match &health {
                Ok(health) => match (&health.runtime, &health.network) {
                    (Err(error), _) => {
                        Err(format!("container runtime status check may not have completed yet: {error}"))
                    }
                    (_, Err(error)) => Err(network_message(error)),
                    _ => Ok(()),
                },
                Err(error) => Err(format!("container runtime is down: {error}")),
            };
            let network = match &health {
                Ok(health) => health.runtime.clone().and_then(|()| health.network.clone()),
                Err(error) => Err(error.to_string()),
            };
            let became_ready = network.is_ok() && context.network_ready.read().is_err();
            *context.network_ready.write() = network;
            if became_ready {
                on_ready();
            }
            let now = Timestamp::now();
            // Others write it too: resources that the machine does not tell of, for one.
            if let Some(current) = context.nodes.store().get(&own_key) {
                node = Node::clone(&current);
            }
            let status = status(&context, &settings, &node, &verdict, now).await;
            let kept_away = (unschedulable, node_events::is_unschedulable(&node));
            for event in node_events::events(&context.settings.node_name, &told, &status, kept_away) {
                let kind = if event.warning { EventKind::Warning } else { EventKind::Normal };
                context.events.record(regarding.clone(), kind, event.reason, "", event.message);
            }
            told = status.clone();
            unschedulable = kept_away.1;
            let due = now.duration_since(last_report) >= settings.report_every;
            if due || differs(&status, &node.status.clone().unwrap_or_default()) {
                match patch_status(&nodes, &context.settings.node_name, &node, &status).await {
                    Ok(updated) => {
                        node = updated;
                        last_report = now;
                        if ready_before != Some(verdict.is_ok()) {
                            let (reason, text) = match verdict.is_ok() {
                                true => ("NodeReady", "NodeReady"),
                                false => ("NodeNotReady", "NodeNotReady"),
                            };
                            let message =
                                format!("Node {} status is now: {text}", context.settings.node_name);
                            context.events.record(regarding.clone(), EventKind::Normal, reason, "", message);
                            ready_before = Some(verdict.is_ok());
                        }
                    }
                    Err(error) if api_code(&error) == Some(404) => {
                        tracing::warn!("the Node object is gone: registering again");
                        (node, told) = register(&context, &settings, &nodes).await;
                        continue;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot write the node's status yet");
                        tokio::time::sleep(RETRY_STATUS).await;
                    }
                }
            }
            let pause = if verdict.is_ok() { settings.period } else { NOT_READY_PERIOD };
            tokio::time::sleep(pause).await;
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = work => {}
    }
}

/// Upstream's wording: `container runtime network not ready: NetworkReady=false reason:... message:...`.
fn network_message(error: &str) -> String {
    format!("container runtime network not ready: {error}")
}

/// Says that attaching volumes to the node is the controller-manager's work.
const ATTACHED_BY_CONTROLLER: &str = "volumes.kubernetes.io/controller-managed-attach-detach";

/// Creates the Node, or brings the labels of an existing one up to date. Tries until it works. Returns the status that it
/// had before, too.
async fn register(context: &Context, settings: &NodeSettings, nodes: &Api<Node>) -> (Node, NodeStatus) {
    let name = &context.settings.node_name;
    let mut labels = settings.labels.clone();
    for (key, value) in [
        ("kubernetes.io/hostname", name.as_str()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", facts::architecture()),
        ("beta.kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/arch", facts::architecture()),
    ] {
        labels.insert(key.to_owned(), value.to_owned());
    }
    let wanted = Node {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            labels: Some(labels.clone()),
            annotations: Some([(ATTACHED_BY_CONTROLLER.to_owned(), "true".to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            taints: (!settings.taints.is_empty()).then(|| settings.taints.clone()),
            provider_id: Some(settings.provider_id.clone()).filter(|id| !id.is_empty()),
            ..NodeSpec::default()
        }),
        status: None,
    };
    loop {
        let result = async {
            if let Some(existing) = within(CALL_DEADLINE, nodes.get_opt(name)).await? {
                let current = existing.metadata.labels.clone().unwrap_or_default();
                let before = existing.status.clone().unwrap_or_default();
                let annotations = existing.metadata.annotations.clone().unwrap_or_default();
                let is_marked = annotations.get(ATTACHED_BY_CONTROLLER).is_some_and(|value| value == "true");
                if is_marked && labels.iter().all(|(key, value)| current.get(key) == Some(value)) {
                    return Ok(Some((existing, before)));
                }
                let mut patch = json!({"metadata": {"labels": labels}});
                patch["metadata"]["annotations"][ATTACHED_BY_CONTROLLER] = json!("true");
                let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
                let patched = within(CALL_DEADLINE, nodes.patch(name, &params, &patch)).await?;
                return Ok(Some((patched, before)));
            }
            if !settings.register {
                return Ok(None);
            }
            let mut node = wanted.clone();
            let verdict = Err("container runtime status check may not have completed yet".to_owned());
            node.status = Some(status(context, settings, &node, &verdict, Timestamp::now()).await);
            let created = within(CALL_DEADLINE, nodes.create(&PostParams::default(), &node)).await?;
            tracing::info!(name, "node registered");
            Ok::<_, kube::Error>(Some((created, NodeStatus::default())))
        }
        .await;
        match result {
            Ok(Some(found)) => return found,
            Ok(None) => tracing::warn!(name, "the Node object does not exist and --register-node=false"),
            Err(error) => tracing::warn!(name, %error, "cannot register the node yet"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn status(
    context: &Context,
    settings: &NodeSettings,
    node: &Node,
    ready: &Result<(), String>,
    now: Timestamp,
) -> NodeStatus {
    let (memory_total, memory_available) = facts::memory();
    let (disk_total, disk_available) = facts::disk(&context.settings.root_dir);
    let kibibytes = |bytes: i64| Quantity(format!("{}Ki", bytes / 1024));
    let milli_cpu = facts::cpus() * 1000;
    let resources = |milli_cpu: i64, memory: i64, disk: i64| {
        let cpu =
            if milli_cpu % 1000 == 0 { (milli_cpu / 1000).to_string() } else { format!("{milli_cpu}m") };
        BTreeMap::from([
            ("cpu".to_owned(), Quantity(cpu)),
            ("memory".to_owned(), kibibytes(memory)),
            ("ephemeral-storage".to_owned(), kibibytes(disk)),
            ("pods".to_owned(), Quantity(settings.max_pods.to_string())),
            ("hugepages-1Gi".to_owned(), Quantity("0".to_owned())),
            ("hugepages-2Mi".to_owned(), Quantity("0".to_owned())),
        ])
    };
    let memory_floor = threshold(&settings.eviction_hard, "memory.available", memory_total);
    let disk_floor = threshold(&settings.eviction_hard, "nodefs.available", disk_total);
    let old = node.status.clone().unwrap_or_default();
    let condition = |kind: &str, holds: bool, reason: &str, message: String| {
        let value = if holds { "True" } else { "False" };
        let before = old.conditions.iter().flatten().find(|condition| condition.type_ == kind);
        let since = before
            .filter(|before| before.status == value)
            .and_then(|before| before.last_transition_time.clone());
        NodeCondition {
            type_: kind.to_owned(),
            status: value.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_heartbeat_time: Some(seconds(now)),
            last_transition_time: Some(since.unwrap_or_else(|| seconds(now))),
        }
    };
    let pressure = |kind: &str, short: bool, bad: (&str, &str), good: (&str, &str)| {
        let (reason, message) = if short { bad } else { good };
        condition(kind, short, reason, message.to_owned())
    };
    let conditions = vec![
        pressure(
            "MemoryPressure",
            memory_available < memory_floor,
            ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
            ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ),
        pressure(
            "DiskPressure",
            disk_available < disk_floor,
            ("KubeletHasDiskPressure", "kubelet has disk pressure"),
            ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ),
        pressure(
            "PIDPressure",
            false,
            ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
            ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ),
        match ready {
            Ok(()) => condition("Ready", true, "KubeletReady", "kubelet is posting ready status".to_owned()),
            Err(why) => condition("Ready", false, "KubeletNotReady", why.clone()),
        },
    ];
    let mut addresses: Vec<NodeAddress> = context
        .node_ips
        .iter()
        .map(|ip| NodeAddress { type_: "InternalIP".to_owned(), address: ip.clone() })
        .collect();
    addresses.push(NodeAddress { type_: "Hostname".to_owned(), address: context.settings.node_name.clone() });
    let total = with_foreign(resources(milli_cpu, memory_total, disk_total), old.capacity.as_ref());
    let left = resources(
        settings.reserved.milli_cpu_left(milli_cpu),
        settings.reserved.bytes_left("memory", memory_total, memory_floor),
        settings.reserved.bytes_left("ephemeral-storage", disk_total, disk_floor),
    );
    NodeStatus {
        addresses: Some(addresses),
        allocatable: Some(with_foreign(left, Some(&total))),
        capacity: Some(total),
        conditions: Some(conditions),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(settings.port) }),
        }),
        images: Some(images(context, settings.images_max).await),
        node_info: Some(NodeSystemInfo {
            architecture: facts::architecture().to_owned(),
            boot_id: facts::first_line("/proc/sys/kernel/random/boot_id"),
            container_runtime_version: settings.runtime_version.clone(),
            kernel_version: facts::first_line("/proc/sys/kernel/osrelease"),
            kube_proxy_version: String::new(),
            kubelet_version: component_base::version::KUBERNETES.to_owned(),
            machine_id: facts::first_line("/etc/machine-id"),
            operating_system: "linux".to_owned(),
            os_image: facts::os_image(),
            system_uuid: facts::first_line("/sys/class/dmi/id/product_uuid"),
            ..NodeSystemInfo::default()
        }),
        ..NodeStatus::default()
    }
}

/// The machine's resources, and those of `all` that somebody else gave the node, whole.
fn with_foreign(
    mut own: BTreeMap<String, Quantity>,
    all: Option<&BTreeMap<String, Quantity>>,
) -> BTreeMap<String, Quantity> {
    for (name, quantity) in all.into_iter().flatten() {
        own.entry(name.clone()).or_insert_with(|| quantity.clone());
    }
    own
}

async fn images(context: &Context, most: Option<usize>) -> Vec<ContainerImage> {
    let mut list = context.runtime.list_images().await.unwrap_or_default();
    list.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    list.into_iter()
        .map(|image| {
            let mut names: Vec<String> = image.repo_digests.into_iter().chain(image.repo_tags).collect();
            names.truncate(IMAGE_NAMES_MAX);
            ContainerImage { names: Some(names), size_bytes: i64::try_from(image.size).ok() }
        })
        .filter(|image| image.names.as_ref().is_some_and(|names| !names.is_empty()))
        .take(most.unwrap_or(usize::MAX))
        .collect()
}

/// Whether a status must be written now; times of heartbeats do not count.
fn differs(new: &NodeStatus, old: &NodeStatus) -> bool {
    let plain = |status: &NodeStatus| {
        let mut plain = status.clone();
        let own = ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"];
        plain
            .conditions
            .iter_mut()
            .for_each(|list| list.retain(|condition| own.contains(&condition.type_.as_str())));
        for condition in plain.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
        }
        plain.conditions.iter_mut().for_each(|list| list.sort_by(|a, b| a.type_.cmp(&b.type_)));
        plain.images = plain.images.filter(|images| !images.is_empty());
        // Kept by others.
        plain.volumes_attached = None;
        plain.volumes_in_use = None;
        plain.config = None;
        plain.features = None;
        plain.runtime_handlers = None;
        plain.phase = None;
        plain.declared_features = None;
        plain
    };
    plain(new) != plain(old)
}

async fn patch_status(
    nodes: &Api<Node>,
    name: &str,
    node: &Node,
    status: &NodeStatus,
) -> Result<Node, kube::Error> {
    let mut value = serde_json::to_value(status).map_err(kube::Error::SerdeError)?;
    // Addresses are merged by type; an address that is gone must go there too.
    if node.status.as_ref().is_some_and(|old| old.addresses != status.addresses)
        && let Some(list) = value.get_mut("addresses").and_then(|list| list.as_array_mut())
    {
        list.insert(0, json!({"$patch": "replace"}));
    }
    // What is left out of a patch stays: resources that are gone are named.
    let resources = |status: &NodeStatus| [status.capacity.clone(), status.allocatable.clone()];
    let before = node.status.as_ref().map(resources).unwrap_or_default();
    for ((field, before), after) in ["capacity", "allocatable"].into_iter().zip(before).zip(resources(status))
    {
        let after = after.unwrap_or_default();
        for name in before.unwrap_or_default().into_keys().filter(|name| !after.contains_key(name)) {
            value[field][name] = serde_json::Value::Null;
        }
    }
    let patch = json!({"status": value});
    within(CALL_DEADLINE, nodes.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch))).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_of_others_are_kept_and_can_be_used() {
        let quantities = |list: &[(&str, &str)]| {
            list.iter().map(|(name, value)| ((*name).to_owned(), Quantity((*value).to_owned()))).collect()
        };
        let known: BTreeMap<_, _> = quantities(&[("cpu", "4"), ("example.com/foo", "3")]);
        let total = with_foreign(quantities(&[("cpu", "8")]), Some(&known));
        assert_eq!(total, quantities(&[("cpu", "8"), ("example.com/foo", "3")]));
        let free = with_foreign(quantities(&[("cpu", "7")]), Some(&total));
        assert_eq!(free, quantities(&[("cpu", "7"), ("example.com/foo", "3")]));
    }

    #[test]
    fn heartbeats_alone_are_no_difference() {
        let condition = |time: i64| NodeCondition {
            type_: "Ready".to_owned(),
            last_heartbeat_time: Some(seconds(Timestamp::from_second(time).unwrap())),
            ..NodeCondition::default()
        };
        let a = NodeStatus { conditions: Some(vec![condition(1)]), ..NodeStatus::default() };
        let mut b = NodeStatus { conditions: Some(vec![condition(2)]), ..NodeStatus::default() };
        assert!(!differs(&a, &b));
        b.conditions.as_mut().unwrap()[0].status = "True".to_owned();
        assert!(differs(&a, &b));
    }
}
