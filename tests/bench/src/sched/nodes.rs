//! Nodes as kubelets register them: objects that nothing stands behind.

use anyhow::Context;
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use serde_json::{Value, json};

use crate::api::system::System;

const PATH: &str = "/api/v1/nodes";
/// Zones that nodes go round.
const ZONES: usize = 3;
/// Pods that a node has room for.
pub const ROOM: usize = 256;
/// Nodes that are made ready at the same time.
const AT_ONCE: usize = 16;

/// Makes nodes that take pods; `taints` says which taints each has.
///
/// # Errors
/// When one is refused.
pub async fn create(
    system: &System,
    nodes: usize,
    taints: impl Fn(usize) -> Value + Copy,
) -> anyhow::Result<()> {
    system.create(PATH, (0..nodes).map(node)).await.context("create nodes")?;
    let client = system.target.connect().await?;
    // A new node has a taint that goes when its kubelet is ready.
    stream::iter((0..nodes).map(|number| {
        let client = &client;
        async move {
            let path = format!("{PATH}/{}", name(number));
            let change = json!({ "spec": { "taints": taints(number) } });
            let change = Bytes::from(change.to_string());
            client.send("PATCH", &path, "application/merge-patch+json", change).await.map(drop)
        }
    }))
    .buffer_unordered(AT_ONCE)
    .try_collect::<()>()
    .await
    .context("change the taints of nodes")
}

fn name(number: usize) -> String {
    format!("node-{number}")
}

fn node(number: usize) -> Bytes {
    let (name, zone) = (name(number), format!("zone-{}", number % ZONES));
    let room =
        json!({ "cpu": "64", "memory": "256Gi", "ephemeral-storage": "100Gi", "pods": ROOM.to_string() });
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": name, "labels": {
            "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
            "topology.kubernetes.io/zone": zone, "topology.kubernetes.io/region": "region",
        } },
        "spec": { "podCIDR": format!("10.{}.{}.0/24", 64 + number / 256, number % 256) },
        "status": {
            "capacity": room, "allocatable": room,
            "conditions": [{ "type": "Ready", "status": "True", "reason": "KubeletReady" }],
        },
    })
    .to_string()
    .into()
}
