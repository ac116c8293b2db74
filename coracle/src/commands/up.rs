//! `coracle up`: decide, prepare, start the supervisor, wait until all nodes are Ready.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::json;
use tokio::time::Instant;

use crate::cluster::{Cluster, Runtime, SLOTS_MAX, write_atomically};
use crate::extra_flags::ExtraFlag;
use crate::layout::Layout;
use crate::processes::ProcessTable;
use crate::progress::Progress;
use crate::supervisor::control;
use crate::topology::{self, Component, Topology};
use crate::{client, image, kubeconfig, network, pki};

/// Ready nodes are waited for this long; the cluster goes on coming up afterwards.
const READY_DEADLINE: Duration = Duration::from_secs(180);
const DEFAULT_PORT: u16 = 6443;
const DEFAULT_ZONES: [&str; 3] = ["a", "b", "c"];
const DEFAULT_NODES: usize = 3;
/// A unix socket's path holds 107 bytes; the longest below the data directory is the runtime's.
const DATA_PATH_BYTES_MAX: usize = 60;
/// Loopback ports of a hollow cluster: three control-plane hosts and up to 200 nodes.
const LOOPBACK_PORTS: u16 = 600;

#[derive(Args, Debug)]
pub struct Options {
    /// How many nodes [default: 3]
    #[arg(long, value_name = "N")]
    nodes: Option<usize>,

    /// Zones that the nodes go round [default: a,b,c]
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    zones: Option<Vec<String>>,

    /// Where containers come from [default: containerd as root and where it is installed, else hollow]
    #[arg(long, value_enum)]
    runtime: Option<Runtime>,

    /// A flag for every process of a component, as scheduler:--v=4; may be given several times
    #[arg(long = "component-flag", value_name = "COMPONENT:FLAG")]
    component_flags: Vec<ExtraFlag>,

    /// Also run the Deployment `web` with three replicas and wait until it is available.
    #[arg(long)]
    demo: bool,
}

pub async fn run(layout: &Layout, options: &Options) -> anyhow::Result<()> {
    let mut progress = Progress::new();
    check_data_dir(layout.root())?;
    let running = control::ask(layout, &control::Request::Status).await.is_ok();
    let cluster = decide(layout, options)?;
    let topology = Topology::of(&cluster, layout)?;
    let fresh = FreshKubelets::now(&topology);
    if !running {
        progress.step("certificates and configuration");
        prepare(&cluster, layout, &topology)?;
        if cluster.has_namespaces() {
            progress.step("network namespaces");
            network::ensure(&cluster, &topology)?;
            progress.step("images");
            image::ensure_built_in(layout)?;
        }
        start_supervisor(layout)?;
    }
    progress.step("stores, API servers, controllers");
    let kube = client::connect(layout).await?;
    let deadline = Instant::now() + READY_DEADLINE;
    wait_for_api(layout, &kube, deadline, &progress).await?;
    progress.step(&format!("{} nodes joining", cluster.nodes.len()));
    wait_for_nodes(&cluster, layout, &kube, &fresh, deadline, &progress).await?;
    if options.demo {
        progress.step("Deployment web");
        run_demo(&kube, deadline).await?;
    }
    let took = progress.finish();
    print_summary(layout, &cluster, took, options.demo);
    Ok(())
}

fn check_data_dir(root: &Path) -> anyhow::Result<()> {
    let text =
        root.to_str().with_context(|| format!("--data {}: the path must be valid UTF-8", root.display()))?;
    if text.len() > DATA_PATH_BYTES_MAX || text.contains([' ', '"', '\'', ',']) {
        bail!(
            "--data {text}: take a path of at most {DATA_PATH_BYTES_MAX} bytes without spaces, quotes or commas (it becomes part of socket names and flags)"
        );
    }
    std::fs::create_dir_all(root)
        .with_context(|| format!("cannot create {text}; choose a writable directory with --data"))
}

/// The cluster of this data directory, or a new one.
fn decide(layout: &Layout, options: &Options) -> anyhow::Result<Cluster> {
    if let Some(cluster) = Cluster::load(layout)? {
        let differs = |what: &str, has: String| -> anyhow::Result<Cluster> {
            bail!(
                "the cluster in {} has {what} {has}; `coracle down --purge` removes it, --data makes another beside it",
                layout.root().display()
            )
        };
        if options.nodes.is_some_and(|nodes| nodes != cluster.nodes.len()) {
            return differs("--nodes", cluster.nodes.len().to_string());
        }
        if options.zones.as_ref().is_some_and(|zones| *zones != cluster.zones) {
            return differs("--zones", cluster.zones.join(","));
        }
        if options.runtime.is_some_and(|runtime| runtime != cluster.runtime) {
            return differs("--runtime", format!("{:?}", cluster.runtime).to_lowercase());
        }
        if !options.component_flags.is_empty() && options.component_flags != cluster.extra_flags {
            let has: Vec<String> = cluster.extra_flags.iter().map(ToString::to_string).collect();
            return differs("--component-flag", if has.is_empty() { "none".into() } else { has.join(" ") });
        }
        if cluster.runtime == Runtime::Containerd
            && let Some(missing) = missing_for_containerd()
        {
            bail!("the nodes of this cluster run real containers: {missing}");
        }
        return Ok(cluster);
    }
    let runtime = match (options.runtime, missing_for_containerd()) {
        (Some(Runtime::Containerd), Some(missing)) => bail!("--runtime containerd: {missing}"),
        (None, Some(missing)) => {
            eprintln!("Nodes are hollow (their containers are simulated): {missing}");
            Runtime::Hollow
        }
        (Some(runtime), _) => runtime,
        (None, None) => Runtime::Containerd,
    };
    let slot = (0..SLOTS_MAX)
        .find(|slot| runtime == Runtime::Hollow || !network::slot_in_use(&format!("coracle{slot}")))
        .context("64 clusters are up already; `coracle down` one")?;
    let zones = options.zones.clone().unwrap_or_else(|| DEFAULT_ZONES.map(str::to_owned).to_vec());
    let nodes = options.nodes.unwrap_or(DEFAULT_NODES);
    let endpoint_port = free_ports(DEFAULT_PORT, 1).context("no free port for the API endpoint")?;
    let base_port = free_ports(21_000, LOOPBACK_PORTS).context("no free block of ports on the loopback")?;
    let mut cluster = Cluster::plan(slot, runtime, &zones, nodes, endpoint_port, base_port)?;
    cluster.extra_flags.clone_from(&options.component_flags);
    Topology::of(&cluster, layout)?;
    cluster.save(layout)?;
    Ok(cluster)
}

/// What keeps this machine from running real containers, with the remedy.
fn missing_for_containerd() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("this needs root; run as root for real containers".into());
    }
    let tools = [
        ("containerd", "containerd"),
        ("ctr", "containerd"),
        ("runc", "runc"),
        ("ip", "iproute2"),
        ("nft", "nftables"),
    ];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<_> = std::env::split_paths(&path).collect();
    let mut packages: BTreeSet<&str> = tools
        .iter()
        .filter(|(tool, _)| !folders.iter().any(|f| f.join(tool).exists()))
        .map(|(_, package)| *package)
        .collect();
    if !Path::new("/usr/lib/cni/bridge").exists() {
        packages.insert("containernetworking-plugins");
    }
    (!packages.is_empty()).then(|| {
        let packages = packages.into_iter().collect::<Vec<_>>().join(" ");
        format!("packages are missing; run `apt-get install {packages}`")
    })
}

/// The first of `count` consecutive free ports at or after `from`.
fn free_ports(from: u16, count: u16) -> Option<u16> {
    let free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    let mut start = from;
    while start < 32_000 - count {
        match (start..start + count).rev().find(|port| !free(*port)) {
            None => return Some(start),
            Some(taken) => start = taken + 1,
        }
    }
    None
}

fn prepare(cluster: &Cluster, layout: &Layout, topology: &Topology) -> anyhow::Result<()> {
    for dir in layout.directories() {
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    pki::ensure(cluster, layout, topology)?;
    kubeconfig::write_all(cluster, layout, topology)?;
    let nodes = topology.hosts.iter().filter(|host| host.zone.is_some());
    for (index, host) in nodes.enumerate() {
        let config = topology::kubelet_config(cluster, layout, index, host);
        write_atomically(
            &layout.config(&format!("kubelet-{}.yaml", host.name)),
            serde_yaml_ng::to_string(&config)?.as_bytes(),
        )?;
        std::fs::create_dir_all(layout.node(&host.name))?;
        if cluster.has_namespaces() {
            let config = topology::kube_proxy_config(cluster, layout, host);
            let path = layout.config(&format!("kube-proxy-{}.yaml", host.name));
            write_atomically(&path, serde_yaml_ng::to_string(&config)?.as_bytes())?;
            std::fs::create_dir_all(topology::cni_config_dir(layout, &host.name))?;
            let config = topology::containerd_config(layout, &host.name);
            write_atomically(&layout.node(&host.name).join("containerd.toml"), config.as_bytes())?;
        }
    }
    Ok(())
}

fn start_supervisor(layout: &Layout) -> anyhow::Result<()> {
    let log = layout.log("supervisor");
    let file = std::fs::File::options()
        .create(true)
        .append(true)
        .open(&log)
        .with_context(|| format!("cannot open {}", log.display()))?;
    let own = std::env::current_exe().context("cannot find the own binary")?;
    Command::new(own)
        .args(["supervise", "--data"])
        .arg(layout.root())
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .context("cannot start the supervisor")?;
    Ok(())
}

async fn wait_for_api(
    layout: &Layout,
    kube: &kube::Client,
    deadline: Instant,
    progress: &Progress,
) -> anyhow::Result<()> {
    const POLL: Duration = Duration::from_millis(25);
    const SUPERVISOR_GRACE: Duration = Duration::from_secs(5);
    let began = Instant::now();
    loop {
        let supervisor = control::ask(layout, &control::Request::Status).await;
        match (&supervisor, kube.apiserver_version().await) {
            (Ok(_), Ok(_)) => return Ok(()),
            (Err(error), _) if began.elapsed() > SUPERVISOR_GRACE => {
                bail!(
                    "the supervisor ended or does not answer ({error:#}); {}",
                    last_lines(&layout.log("supervisor"))
                );
            }
            (_, Err(error)) if Instant::now() >= deadline => {
                bail!(
                    "the API does not answer: {error}; see `coracle status` and `coracle logs apiserver-cp-a`"
                );
            }
            _ => {}
        }
        if let Ok(reply) = supervisor {
            let up = reply.processes.values().filter(|status| status.pid.is_some()).count();
            progress.detail(&format!("{up} of {} processes run", reply.processes.len()));
        }
        tokio::time::sleep(POLL).await;
    }
}

fn last_lines(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(3).collect();
    format!("{} ends with: {}", path.display(), lines.into_iter().rev().collect::<Vec<_>>().join(" | "))
}

async fn wait_for_nodes(
    cluster: &Cluster,
    layout: &Layout,
    kube: &kube::Client,
    fresh: &FreshKubelets,
    deadline: Instant,
    progress: &Progress,
) -> anyhow::Result<()> {
    let mut waiting: BTreeSet<String> = cluster.nodes.iter().map(|node| node.name.clone()).collect();
    let nodes = kube::Api::<Node>::all(kube.clone());
    let mut changes = watcher(nodes, watcher::Config::default()).default_backoff().applied_objects().boxed();
    while !waiting.is_empty() {
        let Ok(change) = tokio::time::timeout_at(deadline, changes.try_next()).await else {
            let names = waiting.into_iter().collect::<Vec<_>>();
            bail!(
                "not Ready after {READY_DEADLINE:?}: {}; see `coracle logs kubelet-{}` and {}",
                names.join(", "),
                names[0],
                layout.log("supervisor").display()
            );
        };
        // The watcher resumes after errors by itself.
        let Ok(Some(node)) = change else { continue };
        if fresh.is_ready(&node) {
            waiting.remove(node.metadata.name.as_deref().unwrap_or_default());
        }
        progress.detail(&format!("waiting for {}", waiting.iter().cloned().collect::<Vec<_>>().join(", ")));
    }
    Ok(())
}

/// Nodes whose kubelet this `up` starts. A resumed store still says that they are Ready, from before; only a heartbeat of the new kubelet counts.
struct FreshKubelets {
    hosts: BTreeSet<String>,
    since: jiff::Timestamp,
}

impl FreshKubelets {
    fn now(topology: &Topology) -> Self {
        let table = ProcessTable::read();
        let kubelets = topology.processes.iter().filter(|process| process.component == Component::Kubelet);
        let hosts = kubelets
            .filter(|process| table.find(process).is_none())
            .map(|process| process.host.clone())
            .collect();
        // Heartbeats carry whole seconds.
        let now = jiff::Timestamp::now().as_second();
        Self { hosts, since: jiff::Timestamp::from_second(now).unwrap_or(jiff::Timestamp::UNIX_EPOCH) }
    }

    fn is_ready(&self, node: &Node) -> bool {
        let is_fresh = self.hosts.contains(node.metadata.name.as_deref().unwrap_or_default());
        let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
        conditions.into_iter().flatten().any(|condition| {
            let beat = condition.last_heartbeat_time.as_ref().is_some_and(|time| time.0 >= self.since);
            condition.type_ == "Ready" && condition.status == "True" && (beat || !is_fresh)
        })
    }
}

async fn run_demo(kube: &kube::Client, deadline: Instant) -> anyhow::Result<()> {
    let deployments = kube::Api::<Deployment>::default_namespaced(kube.clone());
    let labels = json!({"app": "web"});
    let web = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "labels": labels},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "web", "image": image::DEMO_IMAGE, "ports": [{"containerPort": 8080}]}]},
            },
        },
    });
    deployments
        .patch("web", &PatchParams::apply("coracle").force(), &Patch::Apply(&web))
        .await
        .context("cannot create the Deployment web")?;
    let available = |web: Option<&Deployment>| {
        web.and_then(|web| web.status.as_ref()).and_then(|status| status.available_replicas).unwrap_or(0) >= 3
    };
    let wait = kube::runtime::wait::await_condition(deployments, "web", available);
    tokio::time::timeout_at(deadline, wait)
        .await
        .context("the Deployment web is not available yet; `kubectl describe pods` shows why")?
        .context("watching the Deployment web failed")?;
    Ok(())
}

fn print_summary(layout: &Layout, cluster: &Cluster, took: Duration, demo: bool) {
    let kubeconfig = layout.admin_kubeconfig();
    println!(
        "{} nodes are Ready after {:.1} s. Kubeconfig: {}",
        cluster.nodes.len(),
        took.as_secs_f64(),
        kubeconfig.display()
    );
    println!("Try:");
    println!("  export KUBECONFIG={}", kubeconfig.display());
    if demo {
        println!("  kubectl get pods -o wide");
        println!("  kubectl set image deployment/web web={}", image::DEMO_IMAGE_NEXT);
    } else {
        println!("  kubectl get nodes -o wide");
        println!("  kubectl create deployment web --image={} --replicas=3", image::DEMO_IMAGE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_stepped_over() {
        let start = free_ports(28_000, 3).expect("ports");
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, start + 1)).expect("bind");
        assert!(free_ports(start, 3).expect("ports") >= start + 2);
    }

    #[test]
    fn data_directories_that_would_break_sockets_are_refused() {
        assert!(check_data_dir(Path::new("/tmp/with space")).is_err());
        assert!(check_data_dir(Path::new(&format!("/tmp/{}", "x".repeat(80)))).is_err());
    }
}
