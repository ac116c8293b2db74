//! What one cluster is: its nodes, zones, address ranges and ports. Decided once by `up`, kept in `cluster.json`, read
//! by every other subcommand. Pure but for [`Cluster::load`] and [`Cluster::save`].

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::extra_flags::ExtraFlag;
use crate::layout::Layout;

/// Where containers come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// Real containers: one containerd a node, each node a network namespace. Needs root.
    Containerd,
    /// Simulated containers: the kubelet's in-process runtime, all processes on loopback ports.
    Hollow,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Node name and host name.
    pub name: String,
    /// Value of `topology.kubernetes.io/zone`.
    pub zone: String,
}

/// The decided shape of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Distinguishes clusters that live side by side; picks address ranges and interface names.
    pub slot: u8,
    /// Where containers come from.
    pub runtime: Runtime,
    /// Zones in order; the control plane has one host in each of the first three.
    pub zones: Vec<String>,
    /// All nodes.
    pub nodes: Vec<Node>,
    /// Port of the API endpoint on this machine's loopback.
    pub endpoint_port: u16,
    /// First of the loopback ports of a hollow cluster.
    pub base_port: u16,
    /// What components are told beside what follows from all this.
    #[serde(default)]
    pub extra_flags: Vec<ExtraFlag>,
}

/// How many clusters fit side by side: the address plan gives each a /16 for services and one for pods.
pub const SLOTS_MAX: u8 = 64;
/// Host addresses end at .254 and nodes start at .21.
pub const NODES_MAX: usize = 200;

impl Cluster {
    /// Decides the shape. Nodes go round the zones: `node-a`, `node-b`, `node-c`, `node-a-2`, ...
    ///
    /// # Errors
    /// Names the option that is out of range.
    pub fn plan(
        slot: u8,
        runtime: Runtime,
        zones: &[String],
        nodes: usize,
        endpoint_port: u16,
        base_port: u16,
    ) -> anyhow::Result<Self> {
        if zones.is_empty() {
            bail!("--zones needs at least one zone, for example --zones a,b,c");
        }
        if zones.iter().collect::<BTreeSet<_>>().len() != zones.len() {
            bail!("--zones names a zone twice: {}", zones.join(","));
        }
        if let Some(bad) = zones.iter().find(|z| !is_label(z)) {
            bail!("--zones: {bad:?} is no zone name; use up to 8 lower-case letters, digits and inner '-'");
        }
        if nodes == 0 || nodes > NODES_MAX {
            bail!("--nodes is {nodes}; 1 to {NODES_MAX} fit");
        }
        let nodes = (0..nodes)
            .map(|index| {
                let zone = zones[index % zones.len()].clone();
                let name = match index / zones.len() {
                    0 => format!("node-{zone}"),
                    round => format!("node-{zone}-{}", round + 1),
                };
                Node { name, zone }
            })
            .collect();
        Ok(Self {
            slot,
            runtime,
            zones: zones.to_vec(),
            nodes,
            endpoint_port,
            base_port,
            extra_flags: Vec::new(),
        })
    }

    /// Service addresses: the first cluster has kubeadm's default block.
    pub fn service_cidr(&self) -> String {
        format!("10.{}.0.0/16", 96 + u16::from(self.slot))
    }

    /// The address of the `kubernetes` Service.
    pub fn first_service_ip(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 96 + self.slot, 0, 1)
    }

    /// The address a cluster DNS would have, as kubeadm picks it.
    pub fn dns_service_ip(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 96 + self.slot, 0, 10)
    }

    /// Pod addresses: the first cluster has kubeadm's customary block.
    pub fn pod_cidr(&self) -> String {
        format!("10.{}.0.0/16", 244 - u16::from(self.slot))
    }

    /// Addresses of the hosts and of the bridge between them (namespaces only).
    pub fn host_address(&self, last_octet: u8) -> Ipv4Addr {
        Ipv4Addr::new(172, 30, self.slot, last_octet)
    }

    /// The bridge, every host's gateway.
    pub fn hub_address(&self) -> Ipv4Addr {
        self.host_address(1)
    }

    /// This machine's own end of the cluster's network, where the load balancer listens for the nodes.
    pub fn machine_address(&self) -> Ipv4Addr {
        self.host_address(2)
    }

    /// Whether hosts are network namespaces rather than loopback ports.
    pub fn has_namespaces(&self) -> bool {
        self.runtime == Runtime::Containerd
    }

    /// Prefix of every kernel object (namespace, link, cgroup) of this cluster.
    pub fn prefix(&self) -> String {
        format!("coracle{}", self.slot)
    }

    /// The cgroup, relative to each hierarchy's root, below which all pods live.
    pub fn cgroup_root(&self) -> String {
        format!("/{}", self.prefix())
    }

    /// Reads `cluster.json`; `None` if there is no cluster in this data directory.
    ///
    /// # Errors
    /// Unreadable or corrupt file, with the next step.
    pub fn load(layout: &Layout) -> anyhow::Result<Option<Self>> {
        let path = layout.cluster_file();
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let cluster = serde_json::from_slice(&text).with_context(|| {
            format!(
                "{} is damaged; restore it, or remove the cluster with `coracle down --purge --data {}`",
                path.display(),
                layout.root().display()
            )
        })?;
        Ok(Some(cluster))
    }

    /// Writes `cluster.json` whole or not at all.
    ///
    /// # Errors
    /// The write failed.
    pub fn save(&self, layout: &Layout) -> anyhow::Result<()> {
        write_atomically(&layout.cluster_file(), &serde_json::to_vec_pretty(self)?)
    }
}

fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !text.is_empty()
        && text.len() <= 8
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Replaces a file by rename, so that a reader or a crash sees the old or the new content.
///
/// # Errors
/// The write or the rename failed.
pub fn write_atomically(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    use std::io::Write;
    let temporary = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::File::create(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zones(names: &[&str]) -> Vec<String> {
        names.iter().map(|z| (*z).to_owned()).collect()
    }

    #[test]
    fn nodes_go_round_the_zones() {
        let cluster =
            Cluster::plan(0, Runtime::Hollow, &zones(&["a", "b", "c"]), 5, 6443, 20000).expect("plan");
        let names: Vec<_> = cluster.nodes.iter().map(|n| n.name.as_str()).collect();
        assert_eq!(names, ["node-a", "node-b", "node-c", "node-a-2", "node-b-2"]);
        assert_eq!(cluster.nodes[4].zone, "b");
    }

    #[test]
    fn first_cluster_has_kubeadms_ranges_and_slots_never_overlap() {
        let of = |slot| Cluster::plan(slot, Runtime::Hollow, &zones(&["a"]), 1, 6443, 20000).expect("plan");
        assert_eq!(
            (of(0).service_cidr().as_str(), of(0).pod_cidr().as_str()),
            ("10.96.0.0/16", "10.244.0.0/16")
        );
        let ranges: BTreeSet<String> =
            (0..SLOTS_MAX).flat_map(|slot| [of(slot).service_cidr(), of(slot).pod_cidr()]).collect();
        assert_eq!(ranges.len(), 2 * usize::from(SLOTS_MAX));
    }

    #[test]
    fn bad_options_are_named() {
        let plan = |z: &[&str], n| Cluster::plan(0, Runtime::Hollow, &zones(z), n, 6443, 20000);
        for (zones, nodes, named) in
            [(&["a", "a"][..], 3, "twice"), (&[], 3, "--zones"), (&["A"], 3, "\"A\""), (&["a"], 0, "--nodes")]
        {
            assert!(plan(zones, nodes).expect_err(named).to_string().contains(named));
        }
    }
}
