//! `coracle why pod/NAME`: what each of the scheduler's plugins says of each node for one pod, and the smallest change that would let it
//! in. Reads objects through the API and asks the scheduler's own code with its default profile; changes nothing.

use std::fmt::Debug;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::scheduling::v1alpha1::Workload;
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass};
use kube::api::ListParams;
use kube::{Api, Client, Resource};
use scheduler_core::gangs::Gangs;
use scheduler_core::pod_info::{PodInfo, PodToSchedule};
use scheduler_core::profile::{DEFAULT_SCHEDULER_NAME, Profile};
use scheduler_core::snapshot::Snapshot;
use scheduler_core::why::{Explanation, NodeVerdict, explain};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Output, existing};
use crate::layout::Layout;

#[derive(Args, Debug)]
pub struct Options {
    /// The pod, as pod/NAME.
    pod: String,

    /// The pod's namespace.
    #[arg(short, long, default_value = "default")]
    namespace: String,

    /// Output format.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

pub async fn run(layout: &Layout, options: &Options) -> anyhow::Result<()> {
    existing(layout)?;
    let name = match options.pod.split_once('/') {
        Some(("pod" | "pods" | "po", name)) => name,
        Some((kind, _)) => bail!("{kind:?} is not a pod; say pod/NAME"),
        None => options.pod.as_str(),
    };
    let client = crate::client::connect(layout).await?;
    let pod = Api::<Pod>::namespaced(client.clone(), &options.namespace)
        .get(name)
        .await
        .with_context(|| format!("cannot read pod {}/{name}", options.namespace))?;
    let (snapshot, gangs) = read_cluster(&client, pod.metadata.uid.as_deref()).await?;
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).filter(|node| !node.is_empty());
    let subject = PodToSchedule::new(Arc::new(unplaced(pod)));
    let why = match gangs.blocked(&subject.info).filter(|_| node.is_none()) {
        Some(reason) => Explanation::of_waiting(reason),
        None => explain(&Profile::new(DEFAULT_SCHEDULER_NAME), &subject, &snapshot),
    };
    match options.output {
        Output::Json => {
            println!(
                "{}",
                serde_json::to_string_pretty(&as_json(&options.namespace, name, node.as_deref(), &why))?
            );
        }
        Output::Table => print_table(&options.namespace, name, node.as_deref(), &why),
    }
    Ok(())
}

/// The pod as it was before it had a node.
fn unplaced(mut pod: Pod) -> Pod {
    if let Some(spec) = &mut pod.spec {
        spec.node_name = None;
    }
    pod
}

async fn list<K>(client: &Client) -> anyhow::Result<Vec<Arc<K>>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let list = Api::<K>::all(client.clone()).list(&ListParams::default()).await;
    let list = list.with_context(|| format!("cannot list {}", K::plural(&())))?;
    Ok(list.items.into_iter().map(Arc::new).collect())
}

/// The cluster as the scheduler sees it, without the pod that is asked about.
async fn read_cluster(client: &Client, without: Option<&str>) -> anyhow::Result<(Snapshot, Gangs)> {
    let mut snapshot = Snapshot::default();
    let mut gangs = read_gangs(client).await?;
    for namespace in list::<Namespace>(client).await? {
        let name = namespace.metadata.name.as_deref().unwrap_or_default();
        snapshot.set_namespace(name, namespace.metadata.labels.clone().unwrap_or_default());
    }
    for node in list::<Node>(client).await? {
        snapshot.set_node(node);
    }
    for service in list::<Service>(client).await? {
        let (namespace, name) = key(&service.metadata);
        let selector = service.spec.as_ref().and_then(|spec| spec.selector.clone()).unwrap_or_default();
        snapshot.selectors.set_service(namespace, name, selector);
    }
    for set in list::<ReplicaSet>(client).await? {
        let (namespace, name) = key(&set.metadata);
        if let Some(spec) = &set.spec {
            snapshot.selectors.set_owner("ReplicaSet", namespace, name, spec.selector.clone());
        }
    }
    for budget in list::<PodDisruptionBudget>(client).await? {
        snapshot.budgets.set(&budget);
    }
    for claim in list::<PersistentVolumeClaim>(client).await? {
        snapshot.volumes.set_claim(claim);
    }
    for volume in list::<PersistentVolume>(client).await? {
        snapshot.volumes.set_volume(volume);
    }
    for class in list::<StorageClass>(client).await? {
        snapshot.volumes.set_class(class);
    }
    for drivers in list::<CSINode>(client).await? {
        snapshot.volumes.set_drivers(drivers);
    }
    for driver in list::<CSIDriver>(client).await? {
        snapshot.volumes.set_driver(&driver);
    }
    for capacity in list::<CSIStorageCapacity>(client).await? {
        snapshot.volumes.set_capacity(capacity);
    }
    for pod in list::<Pod>(client).await? {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if matches!(phase, Some("Succeeded" | "Failed")) {
            continue;
        }
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).filter(|node| !node.is_empty());
        let info = Arc::new(PodInfo::new(pod));
        gangs.join(&info, node.is_some());
        if Some(&*info.uid) == without {
            continue;
        }
        match node {
            Some(node) => snapshot.place(info, &node),
            None => snapshot.nominations.refresh(&info, false),
        }
    }
    Ok((snapshot, gangs))
}

/// The groups that are scheduled together; none where Workloads are not served.
async fn read_gangs(client: &Client) -> anyhow::Result<Gangs> {
    let workloads = match Api::<Workload>::all(client.clone()).list(&ListParams::default()).await {
        Ok(workloads) => workloads,
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(Gangs::default()),
        Err(error) => return Err(error).context("cannot list workloads"),
    };
    let mut gangs = Gangs::new([DEFAULT_SCHEDULER_NAME.to_owned()]);
    for workload in &workloads.items {
        gangs.set_workload(workload);
    }
    Ok(gangs)
}

fn key(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> (&str, &str) {
    (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

fn as_json(namespace: &str, name: &str, node: Option<&str>, why: &Explanation) -> Value {
    let verdict = |verdict: &NodeVerdict| {
        let objections = verdict.objections.iter().map(|objection| {
            json!({"plugin": objection.plugin, "reasons": objection.reasons, "preemptionMayHelp": objection.resolvable})
        });
        let scores = verdict
            .scores
            .iter()
            .map(|score| json!({"plugin": score.plugin, "score": score.score, "weight": score.weight}));
        json!({
            "node": verdict.node,
            "fits": verdict.objections.is_empty(),
            "objections": objections.collect::<Vec<_>>(),
            "scores": scores.collect::<Vec<_>>(),
            "total": verdict.total,
        })
    };
    json!({
        "namespace": namespace,
        "pod": name,
        "nodeName": node,
        "wouldChoose": why.outcome.as_ref().ok(),
        "message": why.outcome.as_ref().err(),
        "beforeAnyNode": why.before,
        "nodes": why.nodes.iter().map(verdict).collect::<Vec<_>>(),
        "smallestChange": why.change.as_ref().map(|change| json!({"node": change.node, "steps": change.steps})),
    })
}

fn print_table(namespace: &str, name: &str, node: Option<&str>, why: &Explanation) {
    match node {
        Some(node) => println!("pod {namespace}/{name} is on {node}; without it there:"),
        None => println!("pod {namespace}/{name} has no node:"),
    }
    match &why.outcome {
        Ok(chosen) => println!("  the scheduler would choose {chosen}, or another node that scores as high"),
        Err(message) => println!("  {message}"),
    }
    let width = why.nodes.iter().map(|verdict| verdict.node.len()).max().unwrap_or(0).max(4);
    if !why.nodes.is_empty() {
        println!("\n{:width$}  FITS  SCORE  WHY", "NODE");
    }
    for verdict in &why.nodes {
        let text = if verdict.objections.is_empty() {
            let parts = verdict
                .scores
                .iter()
                .map(|score| format!("{} {}x{}", score.plugin, score.score, score.weight));
            parts.collect::<Vec<_>>().join(", ")
        } else {
            let parts = verdict
                .objections
                .iter()
                .map(|objection| format!("{}: {}", objection.plugin, objection.reasons.join(", ")));
            parts.collect::<Vec<_>>().join("; ")
        };
        let (fits, score) = match verdict.objections.is_empty() {
            true => ("yes", verdict.total.to_string()),
            false => ("no", "-".to_owned()),
        };
        println!("{:width$}  {fits:4}  {score:>5}  {text}", verdict.node);
    }
    if let Some(change) = &why.change {
        println!("\nThe smallest change, on {}:", change.node);
        change.steps.iter().for_each(|step| println!("  - {step}"));
    }
}
