//! The resource metrics server: reads what containers and nodes use from the kubelets, and serves it as `metrics.k8s.io/v1beta1` behind the API
//! server. Owns the wiring only.

mod access;
mod answers;
mod documents;
mod exposition;
mod kubelet;
mod options;
mod scraping;
mod serving;
mod usage;

use std::process::ExitCode;
use std::sync::Arc;

use component_base::health::Health;
use component_base::program::{self, Threads};
use coracle_client::config::{ClientConfig, connect};
use coracle_client::informer::Informer;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::PartialObjectMeta;
use parking_lot::RwLock;

use crate::access::Access;
use crate::answers::Answers;
use crate::kubelet::Kubelets;
use crate::options::Options;
use crate::scraping::Scraping;
use crate::usage::Usages;

const PROGRAM: &str = "metrics-server";

fn main() -> ExitCode {
    let options: Options = component_base::flags::parse(options::NOT_IMPLEMENTED);
    component_base::logging::init(&options.log, PROGRAM);
    component_base::tls::install_provider();
    // One thread keeps up with hundreds of nodes, and others would each cost memory.
    program::run(Threads::Only(1), run(options))
}

async fn run(options: Options) -> anyhow::Result<()> {
    let shutdown = component_base::shutdown::install();
    options.check()?;
    let settings = ClientConfig::new(PROGRAM).kubeconfig(options.kubeconfig.clone().unwrap_or_default());
    let client = connect(&settings).await?;
    let kubelets = Kubelets::new(&options, &settings).await?;

    let mut nodes = Informer::<Node>::builder(Api::all(client.clone())).trim(trim_node);
    if !options.node_selector.is_empty() {
        nodes = nodes.labels(&options.node_selector);
    }
    let nodes = nodes.start(&shutdown);
    let pods = Informer::<PartialObjectMeta<Pod>>::builder(Api::all(client.clone())).trim(trim_pod);
    let pods = pods.start(&shutdown);

    let registry = component_base::metrics::registry();
    let usages = Arc::new(RwLock::new(Usages::default()));
    let resolution = options.metric_resolution.get();
    let scraping = Scraping::new(kubelets, nodes.clone(), Arc::clone(&usages), resolution, &registry);

    let health = Health::new();
    let (seen_nodes, seen_pods, rounds) = (nodes.clone(), pods.clone(), scraping.rounds());
    health.add_ready("informer-sync", move || match (seen_nodes.is_synced(), seen_pods.is_synced()) {
        (true, true) => Ok(()),
        (false, _) => Err("nodes not synced".to_owned()),
        (_, false) => Err("pods not synced".to_owned()),
    });
    health.add_ready("metric-storage-ready", move || match rounds() {
        0 => Err("no kubelet has been asked yet".to_owned()),
        _ => Ok(()),
    });

    let reviewer = match &options.authentication_kubeconfig {
        Some(path) => connect(&settings.clone().kubeconfig(path)).await?,
        None => client.clone(),
    };
    let judge = match &options.authorization_kubeconfig {
        Some(path) => connect(&settings.clone().kubeconfig(path)).await?,
        None => client,
    };
    let access = Access::start(reviewer, judge, &shutdown).await;
    let answers = Answers { nodes, pods, usages };
    let serving = serving::bind(&options, access, answers, health, registry).await?;
    tokio::spawn(scraping.run(shutdown.clone()));
    serving.run(shutdown).await;
    Ok(())
}

/// What is not needed of a node is most of it: the names of its images.
fn trim_node(node: &mut Node) {
    node.spec = None;
    node.metadata.annotations = None;
    if let Some(status) = &mut node.status {
        let (addresses, endpoints) = (status.addresses.take(), status.daemon_endpoints.take());
        *status = k8s_openapi::api::core::v1::NodeStatus {
            addresses,
            daemon_endpoints: endpoints,
            ..Default::default()
        };
    }
}

fn trim_pod(pod: &mut PartialObjectMeta<Pod>) {
    pod.metadata.annotations = None;
    pod.metadata.owner_references = None;
    pod.metadata.finalizers = None;
}
