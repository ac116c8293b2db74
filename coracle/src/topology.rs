//! Which hosts and processes a cluster consists of, and every process's command line, in upstream's flags. Pure:
//! `Topology::of` is a function of the cluster and its layout.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use crate::cluster::Cluster;
use crate::extra_flags;
use crate::layout::Layout;

mod control_plane;
mod node;

pub use node::{cni_config_dir, containerd_config, kube_proxy_config, kubelet_config};

/// How many of the control-plane hosts run an API server, a scheduler and a controller-manager.
pub const API_SERVERS: usize = 2;
/// How many store members there are.
pub const STORE_MEMBERS: usize = 3;

/// A machine of the cluster: a network namespace, or this machine's loopback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// `cp-a`, `node-a`, ...
    pub name: String,
    /// Zone, if it is a node.
    pub zone: Option<String>,
    /// The address others reach it at.
    pub address: Ipv4Addr,
    /// Network namespace under `/run/netns`; `None` on loopback.
    pub namespace: Option<String>,
}

/// The parts a process can be, in upstream's order of starting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// The store.
    EtcdLite,
    /// A node's container runtime.
    Containerd,
    /// The API.
    ApiServer,
    /// Controllers.
    ControllerManager,
    /// Scheduler.
    Scheduler,
    /// Node agent.
    Kubelet,
    /// Service traffic.
    KubeProxy,
    /// What nodes and containers use.
    MetricsServer,
}

impl Component {
    /// The binary, and the first part of a process's name.
    pub fn binary(self) -> &'static str {
        match self {
            Self::EtcdLite => "etcd-lite",
            Self::Containerd => "containerd",
            Self::ApiServer => "apiserver",
            Self::ControllerManager => "controller-manager",
            Self::Scheduler => "scheduler",
            Self::Kubelet => "kubelet",
            Self::KubeProxy => "kube-proxy",
            Self::MetricsServer => "metrics-server",
        }
    }

    /// Processes of a later stage start when those of the earlier one serve.
    pub fn stage(self) -> u8 {
        match self {
            Self::EtcdLite | Self::Containerd => 0,
            Self::ApiServer => 1,
            Self::ControllerManager
            | Self::Scheduler
            | Self::Kubelet
            | Self::KubeProxy
            | Self::MetricsServer => 2,
        }
    }
}

/// One process to keep running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Unique: component and host, `kubelet-node-a`.
    pub name: String,
    /// What it is.
    pub component: Component,
    /// Host it runs on.
    pub host: String,
    /// The host's namespace.
    pub namespace: Option<String>,
    /// Arguments after the program.
    pub args: Vec<String>,
    /// Plain HTTP `/metrics`, or the address whose accepting connections means "serving".
    pub probe: Option<Probe>,
}

/// How the supervisor finds out that a process serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Plain HTTP on this address: `/metrics` and `/health`.
    Http(Ipv4Addr, u16),
    /// HTTPS `/readyz` with the cluster's CA.
    Https(Ipv4Addr, u16),
    /// A unix socket that accepts.
    Socket(PathBuf),
}

/// Everything there is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Control-plane hosts, then nodes.
    pub hosts: Vec<Host>,
    /// In starting order.
    pub processes: Vec<Process>,
}

impl Topology {
    /// The default topology is that of a managed control plane: three stores, two API servers, each with a scheduler and
    /// a controller-manager that wait for the Lease, and one host a node.
    ///
    /// # Errors
    /// An extra flag that the cluster's shape decides.
    pub fn of(cluster: &Cluster, layout: &Layout) -> anyhow::Result<Self> {
        let control_plane = control_plane::hosts(cluster);
        let nodes = node::hosts(cluster);
        let mut processes = control_plane::processes(cluster, layout, &control_plane);
        processes.extend(node::processes(cluster, layout, &nodes));
        for process in &mut processes {
            extra_flags::add(&cluster.extra_flags, process.component.binary(), &mut process.args)?;
        }
        processes.sort_by_key(|process| process.component);
        Ok(Self { hosts: control_plane.into_iter().chain(nodes).collect(), processes })
    }

    /// Addresses and ports of the API servers, which the load balancer spreads connections over.
    pub fn api_servers(&self) -> Vec<(Ipv4Addr, u16)> {
        self.processes
            .iter()
            .filter(|process| process.component == Component::ApiServer)
            .filter_map(|process| match process.probe {
                Some(Probe::Https(address, port)) => Some((address, port)),
                _ => None,
            })
            .collect()
    }

    /// Address and port of the metrics server.
    pub fn metrics_server(&self) -> Option<(Ipv4Addr, u16)> {
        let server = self.processes.iter().find(|process| process.component == Component::MetricsServer)?;
        match server.probe {
            Some(Probe::Https(address, port)) => Some((address, port)),
            _ => None,
        }
    }
}

/// Letters for the control-plane hosts: `cp-a`, `cp-b`, `cp-c`.
pub fn control_plane_name(index: usize) -> String {
    format!("cp-{}", ["a", "b", "c"][index])
}

fn host(cluster: &Cluster, name: String, zone: Option<String>, last_octet: u8) -> Host {
    let namespace = cluster.has_namespaces().then(|| format!("{}-{name}", cluster.prefix()));
    let address = if namespace.is_some() { cluster.host_address(last_octet) } else { Ipv4Addr::LOCALHOST };
    Host { name, zone, address, namespace }
}

fn process(component: Component, host: &Host, args: Vec<String>, probe: Option<Probe>) -> Process {
    Process {
        name: format!("{}-{}", component.binary(), host.name),
        component,
        host: host.name.clone(),
        namespace: host.namespace.clone(),
        args,
        probe,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::cluster::Runtime;

    fn topology(runtime: Runtime, nodes: usize) -> Topology {
        let zones: Vec<String> = ["a", "b", "c"].map(str::to_owned).into();
        let cluster = Cluster::plan(0, runtime, &zones, nodes, 6443, 21000).expect("plan");
        Topology::of(&cluster, &Layout::new("/data".into())).expect("topology")
    }

    #[test]
    fn default_topology_has_three_stores_two_api_servers_and_a_runtime_per_node() {
        let topology = topology(Runtime::Containerd, 3);
        let count = |c: Component| topology.processes.iter().filter(|p| p.component == c).count();
        assert_eq!(count(Component::EtcdLite), 3);
        assert_eq!(count(Component::ApiServer), 2);
        assert_eq!(count(Component::Containerd), 3);
        assert_eq!(count(Component::KubeProxy), 3);
        assert_eq!(count(Component::MetricsServer), 1);
        let names: BTreeSet<_> = topology.processes.iter().map(|p| &p.name).collect();
        assert_eq!(names.len(), topology.processes.len(), "process names are unique");
        assert!(topology.hosts.iter().all(|h| h.namespace.is_some()));
    }

    #[test]
    fn loopback_ports_never_clash() {
        let topology = topology(Runtime::Hollow, 200);
        let mut ports: Vec<u16> = topology
            .processes
            .iter()
            .filter_map(|p| match p.probe {
                Some(Probe::Http(_, port) | Probe::Https(_, port)) => Some(port),
                _ => None,
            })
            .collect();
        let total = ports.len();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), total);
        assert!(
            topology.processes.iter().all(|p| p.component != Component::Containerd),
            "hollow nodes have no containerd"
        );
    }

    #[test]
    fn host_addresses_are_unique() {
        let topology = topology(Runtime::Containerd, 200);
        let addresses: BTreeSet<_> = topology.hosts.iter().map(|h| h.address).collect();
        assert_eq!(addresses.len(), topology.hosts.len());
    }
}
