//! The kubelet: runs the pods that are bound to its node, through a CRI runtime or simulated.
//!
//! This file only puts the parts together. What is decided lives in `kubelet-core`.

mod cgroups;
mod config;
mod context;
mod node;
mod objects;
mod pods;
mod runtime;
mod server;
mod volumes;

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use component_base::program::{self, Threads};
use component_base::{flags, logging, shutdown, tls};
use coracle_client::config::{ClientConfig, connect};
use coracle_client::event_recorder::{EventRecorder, EventStyle};
use coracle_client::informer::Informer;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret, Service};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::Api;
use kubelet_core::admission::Allocatable;
use kubelet_core::{allocatable, dns};
use parking_lot::RwLock;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Flags};
use crate::context::{Context, Settings};
use crate::node::{bootstrap, cni, facts, lease, registration};
use crate::objects::ObjectCache;
use crate::pods::allocated::Allocated;
use crate::pods::manager::Manager;
use crate::pods::static_pods::StaticPods;
use crate::pods::status_manager::StatusManager;
use crate::runtime::Runtime;
use crate::runtime::cri::CriRuntime;
use crate::runtime::hollow::HollowRuntime;
use crate::volumes::Volumes;
use crate::volumes::token::Tokens;

const SANDBOXES_AT_ONCE_MAX: usize = 8;
const RUNTIME_PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let flags: Flags = flags::parse(config::NOT_IMPLEMENTED);
    tls::install_provider();
    let latency = flags.hollow_start_latency.get();
    let config = match config::load(flags) {
        Ok((config, warnings)) => {
            logging::init(&config.log, "kubelet");
            warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
            config
        }
        Err(error) => {
            eprintln!("Error: {error}");
            return ExitCode::FAILURE;
        }
    };
    program::run(Threads::Only(2), run(config, latency))
}

async fn run(config: Config, hollow_latency: Duration) -> anyhow::Result<()> {
    let stop = shutdown::install();
    for directory in [&config.root_dir, &config.pod_logs_dir] {
        std::fs::create_dir_all(directory).with_context(|| {
            format!("cannot make {}; run as root or choose another directory", directory.display())
        })?;
    }
    // Before anything else: a port in use must be said at once.
    let listener = server::bind(&config).await?;
    let hollow =
        config.endpoint.starts_with("hollow://").then(|| Arc::new(HollowRuntime::new(hollow_latency)));
    let runtime: Arc<dyn Runtime> = match &hollow {
        Some(hollow) => Arc::clone(hollow) as Arc<dyn Runtime>,
        None => Arc::new(CriRuntime::new(&config.endpoint).map_err(|error| anyhow!(error))?),
    };
    let version = wait_for_runtime(runtime.as_ref(), &config.endpoint, &stop).await?;
    check_cgroup_driver(runtime.as_ref(), &config.cgroup_driver).await?;
    if let Some(score) = config.oom_score
        && let Err(error) = std::fs::write("/proc/self/oom_score_adj", score.to_string())
    {
        // As upstream: it goes on, and is only sooner ended when memory runs out.
        tracing::warn!(score, %error, "cannot set --oom-score-adj");
    }
    if let Some(bootstrap) = &config.bootstrap {
        let places = bootstrap::Places {
            bootstrap,
            kubeconfig: &config.kubeconfig,
            cert_dir: &config.cert_dir,
            node_name: &config.node_name,
        };
        tokio::select! {
            done = bootstrap::run(&places) => done?,
            () = stop.cancelled() => return Ok(()),
        }
    }
    let (rate, burst) = config.api_rate;
    let client =
        connect(&ClientConfig::new("kubelet").kubeconfig(&config.kubeconfig).rate_limit(rate, burst)).await?;
    let node_ips = node_ips(&config)?;
    let name = config.node_name.clone();
    let events = EventRecorder::start_on_host(client.clone(), "kubelet", &name, EventStyle::Core, &stop);
    let services: Informer<Service> = Informer::builder(Api::all(client.clone())).start(&stop);
    let runtime_classes: Informer<RuntimeClass> = Informer::builder(Api::all(client.clone())).start(&stop);
    let pods: Informer<Pod> =
        Informer::builder(Api::all(client.clone())).fields(&format!("spec.nodeName={name}")).start(&stop);
    let nodes: Informer<Node> =
        Informer::builder(Api::all(client.clone())).fields(&format!("metadata.name={name}")).start(&stop);
    let manager: Arc<OnceLock<Arc<Manager>>> = Arc::default();
    let waker = Arc::clone(&manager);
    let wake: Arc<dyn Fn(&str) + Send + Sync> = Arc::new(move |uid| {
        if let Some(manager) = waker.get() {
            manager.content_changed(uid);
        }
    });
    let volumes = Volumes::new(
        config.root_dir.clone(),
        Arc::new(ObjectCache::<ConfigMap>::new(client.clone(), stop.clone(), Arc::clone(&wake))),
        Arc::new(ObjectCache::<Secret>::new(client.clone(), stop.clone(), wake)),
        Arc::new(Tokens::new(client.clone())),
        client.clone(),
    );
    let cgroups = match &hollow {
        Some(_) => None,
        None => Some(
            cgroups::Cgroups::detect(&config.cgroup_root).context("cannot find the cgroup file system")?,
        ),
    };
    let (memory_bytes, _) = facts::memory();
    let context = Arc::new(Context {
        settings: Settings {
            node_name: name.clone(),
            root_dir: config.root_dir.clone(),
            pod_logs_dir: config.pod_logs_dir.clone(),
            cluster_dns: config.cluster_dns.clone(),
            cluster_domain: config.cluster_domain.clone(),
            host_dns: dns::parse_resolv_conf(
                &std::fs::read_to_string(&config.resolv_conf).unwrap_or_default(),
            ),
            memory_bytes,
            allocatable: Allocatable {
                milli_cpu: config.reserved.milli_cpu_left(facts::cpus() * 1000),
                memory: config.reserved.bytes_left(
                    "memory",
                    memory_bytes,
                    allocatable::threshold(&config.eviction_hard, "memory.available", memory_bytes),
                ),
                pods: config.max_pods,
            },
            pod_pids_limit: config.pod_pids_limit,
            log_rotation: config.log_rotation,
            cpu_cfs_quota: config.cpu_cfs_quota,
            restart_backoff_max: signed(config.restart_backoff_max),
            allowed_unsafe_sysctls: config.allowed_unsafe_sysctls.clone(),
            seccomp_default: config.seccomp_default,
        },
        node_ips,
        runtime: Arc::clone(&runtime),
        runtime_name: version.0.clone(),
        events,
        services,
        nodes: nodes.clone(),
        runtime_classes,
        allocated: Allocated::default(),
        static_pods: StaticPods::new(config.static_pods.clone(), name.clone()),
        volumes,
        cgroups,
        statuses: StatusManager::start(client.clone(), stop.clone()),
        network_ready: RwLock::new(Err("the runtime has not been asked yet".to_owned())),
        starts: Semaphore::new(SANDBOXES_AT_ONCE_MAX),
        pulls: Semaphore::new(config.pulls_at_once.unwrap_or(Semaphore::MAX_PERMITS)),
        client: client.clone(),
    });
    watch_node(&config, &nodes, hollow);
    let all = Manager::new(Arc::clone(&context), pods);
    let _ = manager.set(Arc::clone(&all));
    let settings = registration::NodeSettings {
        labels: config.node_labels.clone(),
        taints: config.taints.clone(),
        provider_id: config.provider_id.clone(),
        max_pods: config.max_pods,
        port: listener.port(),
        runtime_version: format!("{}://{}", version.0, version.1),
        eviction_hard: config.eviction_hard.clone(),
        reserved: config.reserved.clone(),
        images_max: config.images_max,
        report_every: signed(config.report_every),
        period: Duration::from_secs(config.status_seconds),
        register: config.register_node,
    };
    let waking = Arc::clone(&all);
    let tasks = [
        tokio::spawn(registration::run(
            Arc::clone(&context),
            settings,
            move || waking.network_ready(),
            stop.clone(),
        )),
        tokio::spawn(lease::run(client, name, config.lease_seconds, stop.clone())),
        tokio::spawn({
            let (all, stop) = (Arc::clone(&all), stop.clone());
            async move { all.run(stop).await }
        }),
    ];
    let served = server::serve(listener, &config, Arc::clone(&context), all, stop.clone()).await;
    stop.cancel();
    for task in tasks {
        let _ = task.await;
    }
    served
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

/// Pods get cgroups by path. What the runtime says of itself counts; where it says nothing, the configuration does.
async fn check_cgroup_driver(runtime: &dyn Runtime, configured: &str) -> anyhow::Result<()> {
    let said = match runtime.cgroup_driver().await {
        Ok(said) => said,
        Err(error) => {
            tracing::debug!(%error, "the runtime does not say how it names cgroups");
            None
        }
    };
    match (said, configured) {
        (Some("cgroupfs"), "systemd") => {
            tracing::info!(
                "the runtime uses the cgroup driver cgroupfs; cgroupDriver: systemd has no effect"
            );
            Ok(())
        }
        (Some("systemd"), _) => Err(anyhow!(
            "the runtime uses the cgroup driver systemd, which is not implemented by Coracle yet; set SystemdCgroup = false in the runtime"
        )),
        (None, "systemd") => Err(anyhow!(
            "cgroup driver \"systemd\" is not implemented by Coracle yet; set cgroupDriver: cgroupfs here and SystemdCgroup = false in the runtime"
        )),
        _ => Ok(()),
    }
}

/// Name and version of the runtime, once it answers.
async fn wait_for_runtime(
    runtime: &dyn Runtime,
    endpoint: &str,
    stop: &CancellationToken,
) -> anyhow::Result<(String, String)> {
    let ask = async {
        let mut said = false;
        loop {
            match runtime.version().await {
                Ok(version) => return (version.name, version.version.trim_start_matches('v').to_owned()),
                Err(error) if !said => {
                    tracing::warn!(endpoint, %error, "waiting for the container runtime");
                    said = true;
                }
                Err(_) => {}
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::select! {
        answered = tokio::time::timeout(RUNTIME_PATIENCE, ask) => answered.map_err(|_| anyhow!(
            "no container runtime answers on {endpoint}; start containerd, or set --container-runtime-endpoint (hollow:// simulates containers)"
        )),
        () = stop.cancelled() => Err(anyhow!("stopped while waiting for the container runtime")),
    }
}

fn node_ips(config: &Config) -> anyhow::Result<Vec<String>> {
    if !config.node_ips.is_empty() {
        return Ok(config.node_ips.clone());
    }
    let kubeconfig = kube::config::Kubeconfig::read_from(&config.kubeconfig)?;
    let server = kubeconfig.clusters.first().and_then(|named| named.cluster.as_ref()?.server.clone());
    let url = server.and_then(|server| url::Url::parse(&server).ok());
    let target =
        url.as_ref().and_then(|url| Some(format!("{}:{}", url.host_str()?, url.port_or_known_default()?)));
    let address = target.and_then(|target| facts::source_address(&target));
    address
        .map(|address| vec![address.to_string()])
        .ok_or_else(|| anyhow!("cannot find this node's address; give --node-ip"))
}

/// Follows the node's podCIDR: into the CNI configuration, or into the simulated network.
fn watch_node(config: &Config, nodes: &Informer<Node>, hollow: Option<Arc<HollowRuntime>>) {
    let directory = config.cni_conf_dir.clone();
    let data = config.root_dir.join("cni-networks");
    nodes.on_change(move |change| {
        let Some(spec) = change.object().spec.as_ref() else { return };
        let cidrs = spec.pod_cidrs.clone().filter(|list| !list.is_empty()).or_else(|| Some(vec![spec.pod_cidr.clone()?]));
        let Some(cidrs) = cidrs else { return };
        if let (Some(hollow), Some(first)) = (&hollow, cidrs.first()) {
            hollow.set_pod_cidr(first);
        }
        if let Some(directory) = &directory {
            match cni::write(directory, &cidrs, &data) {
                Ok(true) => tracing::info!(?cidrs, directory = %directory.display(), "CNI configuration written"),
                Ok(false) => {}
                Err(error) => tracing::error!(%error, directory = %directory.display(), "cannot write the CNI configuration"),
            }
        }
    });
}
