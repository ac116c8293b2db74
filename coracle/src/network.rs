//! The cluster's network on one machine: a hub namespace with a bridge, one namespace a host, and this machine's own end
//! of it. Like a VPC: hosts know only their gateway, and the hub holds the route table.
//!
//! Everything is made step by step and looked for first, so that a half-made network is completed.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::cluster::Cluster;
use crate::topology::{Host, Topology};

pub mod routes;

/// The bridge inside the hub.
const BRIDGE: &str = "br0";
/// A host's only interface besides loopback.
const HOST_INTERFACE: &str = "eth0";

/// The namespace that stands between the hosts.
pub fn hub(cluster: &Cluster) -> String {
    format!("{}-hub", cluster.prefix())
}

/// The link from this machine into the hub.
pub fn machine_link(cluster: &Cluster) -> String {
    cluster.prefix()
}

/// Where `ip netns` keeps a namespace.
pub fn namespace_path(namespace: &str) -> PathBuf {
    Path::new("/run/netns").join(namespace)
}

/// Makes what is missing of hub, hosts and links.
///
/// # Errors
/// A step failed; the message has the command and what it said.
pub fn ensure(cluster: &Cluster, topology: &Topology) -> anyhow::Result<()> {
    // Built into most kernels; where it is a module and cannot be loaded, only pods of one node miss Services of each other.
    let _ = Command::new("modprobe").args(["-q", "br_netfilter"]).status();
    let hub = hub(cluster);
    ensure_namespace(&hub)?;
    if !has_link(Some(&hub), BRIDGE) {
        ip(&["-n", &hub, "link", "add", BRIDGE, "type", "bridge"])?;
    }
    ip(&["-n", &hub, "address", "replace", &format!("{}/24", cluster.hub_address()), "dev", BRIDGE])?;
    ip(&["-n", &hub, "link", "set", BRIDGE, "up"])?;
    set_sysctls(
        &hub,
        &[
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv4/conf/all/send_redirects", "0"),
            ("net/ipv4/conf/br0/send_redirects", "0"),
            ("net/ipv4/conf/all/rp_filter", "0"),
            ("net/ipv4/conf/br0/rp_filter", "0"),
        ],
    )?;
    connect_machine(cluster, &hub)?;
    for host in &topology.hosts {
        ensure_host(cluster, &hub, host)?;
    }
    routes::ensure_services(cluster, topology)
}

fn connect_machine(cluster: &Cluster, hub: &str) -> anyhow::Result<()> {
    let link = machine_link(cluster);
    if !has_link(None, &link) {
        ip(&["link", "add", &link, "type", "veth", "peer", "name", "uplink", "netns", hub])?;
    }
    ip(&["-n", hub, "link", "set", "uplink", "master", BRIDGE, "up"])?;
    ip(&["address", "replace", &format!("{}/24", cluster.machine_address()), "dev", &link])?;
    ip(&["link", "set", &link, "up"])?;
    let via = cluster.hub_address().to_string();
    for range in [cluster.service_cidr(), cluster.pod_cidr()] {
        ip(&["route", "replace", &range, "via", &via, "dev", &link])?;
    }
    Ok(())
}

fn ensure_host(cluster: &Cluster, hub: &str, host: &Host) -> anyhow::Result<()> {
    let Some(namespace) = &host.namespace else { return Ok(()) };
    ensure_namespace(namespace)?;
    let port = hub_port(host.address);
    if !has_link(Some(namespace), HOST_INTERFACE) {
        ip(&[
            "link",
            "add",
            HOST_INTERFACE,
            "netns",
            namespace,
            "type",
            "veth",
            "peer",
            "name",
            &port,
            "netns",
            hub,
        ])?;
    }
    ip(&["-n", hub, "link", "set", &port, "master", BRIDGE, "up", "alias", &host.name])?;
    ip(&["-n", namespace, "address", "replace", &format!("{}/24", host.address), "dev", HOST_INTERFACE])?;
    ip(&["-n", namespace, "link", "set", HOST_INTERFACE, "up"])?;
    let gateway = cluster.hub_address().to_string();
    ip(&["-n", namespace, "route", "replace", "default", "via", &gateway, "dev", HOST_INTERFACE])?;
    set_sysctls(
        namespace,
        &[
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv4/conf/all/rp_filter", "0"),
            ("net/ipv4/conf/eth0/rp_filter", "0"),
            // Replies between two pods of one bridge must pass conntrack, or a Service's address translation is not undone.
            ("net/bridge/bridge-nf-call-iptables", "1"),
        ],
    )
}

/// The hub's end of a host's cable; `ip -n HUB link set NAME down` cuts the host off.
fn hub_port(address: Ipv4Addr) -> String {
    format!("host{}", address.octets()[3])
}

fn ensure_namespace(namespace: &str) -> anyhow::Result<()> {
    if !is_namespace(&namespace_path(namespace)) {
        // A file without a namespace mounted on it is left by a crash; `ip netns add` refuses to go over it.
        let _ = std::fs::remove_file(namespace_path(namespace));
        ip(&["netns", "add", namespace])?;
    }
    ip(&["-n", namespace, "link", "set", "lo", "up"])
}

fn is_namespace(path: &Path) -> bool {
    nix::sys::statfs::statfs(path).is_ok_and(|fs| fs.filesystem_type() == nix::sys::statfs::NSFS_MAGIC)
}

fn has_link(namespace: Option<&str>, link: &str) -> bool {
    let mut command = Command::new("ip");
    if let Some(namespace) = namespace {
        command.args(["-n", namespace]);
    }
    command.args(["link", "show", "dev", link]).output().is_ok_and(|output| output.status.success())
}

/// Whether a cluster of this slot has left anything in the kernel or is running.
pub fn slot_in_use(prefix: &str) -> bool {
    has_link(None, prefix) || namespace_path(&format!("{prefix}-hub")).exists()
}

/// Removes links and namespaces of this cluster. Goes on after a failure, so that one leftover does not keep others.
pub fn remove(cluster: &Cluster) {
    let prefix = cluster.prefix();
    let _ = ip(&["link", "delete", &machine_link(cluster)]);
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.strip_prefix(&prefix).is_some_and(|rest| rest.starts_with('-'))
            && let Err(error) = ip(&["netns", "delete", &name])
        {
            eprintln!("warning: {error:#}");
        }
    }
}

/// Writes kernel settings as seen from inside a namespace. A setting that this kernel lacks is left alone.
fn set_sysctls(namespace: &str, settings: &[(&str, &str)]) -> anyhow::Result<()> {
    let file = std::fs::File::open(namespace_path(namespace))
        .with_context(|| format!("cannot open namespace {namespace}"))?;
    let settings: Vec<(String, String)> =
        settings.iter().map(|(name, value)| (format!("/proc/sys/{name}"), (*value).to_owned())).collect();
    // A thread of its own: entering a namespace changes the calling thread for good.
    let worker = std::thread::spawn(move || -> anyhow::Result<()> {
        nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET)
            .context("cannot enter the network namespace")?;
        for (path, value) in settings {
            match std::fs::write(&path, &value) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                other => other.with_context(|| format!("cannot set {path} to {value}"))?,
            }
        }
        Ok(())
    });
    worker.join().map_err(|_| anyhow::anyhow!("setting kernel parameters panicked"))?
}

/// Runs one `ip` command.
fn ip(args: &[&str]) -> anyhow::Result<()> {
    let output =
        Command::new("ip").args(args).output().context("cannot run `ip`; install the package iproute2")?;
    if !output.status.success() {
        bail!("`ip {}` failed: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
