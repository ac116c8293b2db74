//! The hub's route table: each node's pod range goes to the node, the service range to any node, since every node
//! translates Service addresses.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Node;
use kube::runtime::{WatchStreamExt, watcher};

use super::{hub, ip};
use crate::cluster::Cluster;
use crate::topology::Topology;

/// Routes the service range over all nodes.
///
/// # Errors
/// `ip` failed.
pub fn ensure_services(cluster: &Cluster, topology: &Topology) -> anyhow::Result<()> {
    let (hub, range) = (hub(cluster), cluster.service_cidr());
    let hops: Vec<String> = topology
        .hosts
        .iter()
        .filter(|host| host.zone.is_some())
        .map(|host| host.address.to_string())
        .collect();
    let mut args = vec!["-n", hub.as_str(), "route", "replace", range.as_str()];
    for hop in &hops {
        args.extend(["nexthop", "via", hop.as_str()]);
    }
    ip(&args)
}

/// Follows the Node objects and routes each one's pod range to its address, until dropped.
pub async fn follow(cluster: &Cluster, topology: &Topology, client: kube::Client) {
    let hub = hub(cluster);
    let addresses: BTreeMap<&str, Ipv4Addr> = topology
        .hosts
        .iter()
        .filter(|host| host.zone.is_some())
        .map(|host| (host.name.as_str(), host.address))
        .collect();
    let mut routed: BTreeMap<String, String> = BTreeMap::new();
    let nodes = kube::Api::<Node>::all(client);
    let mut changes = watcher(nodes, watcher::Config::default()).default_backoff().applied_objects().boxed();
    loop {
        let node = match changes.try_next().await {
            Ok(Some(node)) => node,
            Ok(None) => return,
            // The watcher backs off and resumes by itself.
            Err(error) => {
                tracing::debug!(%error, "watching nodes for the route table");
                continue;
            }
        };
        let name = node.metadata.name.unwrap_or_default();
        let range = node.spec.and_then(|spec| spec.pod_cidr);
        let (Some(range), Some(address)) = (range, addresses.get(name.as_str())) else { continue };
        if routed.get(&name) == Some(&range) {
            continue;
        }
        match ip(&["-n", &hub, "route", "replace", &range, "via", &address.to_string()]) {
            Ok(()) => {
                tracing::info!(node = name, range, via = %address, "routed the node's pods");
                routed.insert(name, range);
            }
            Err(error) => tracing::warn!(node = name, "{error:#}"),
        }
    }
}
