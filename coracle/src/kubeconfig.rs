//! Writes kubeconfig files: the administrator's, and one for every component.

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::cluster::{Cluster, write_atomically};
use crate::layout::Layout;
use crate::metrics_api;
use crate::topology::{Component, Probe, Topology};

/// Writes all kubeconfigs of the cluster; they follow from the cluster's shape, so existing ones are replaced.
///
/// # Errors
/// A certificate is missing or a file cannot be written.
pub fn write_all(cluster: &Cluster, layout: &Layout, topology: &Topology) -> anyhow::Result<()> {
    let endpoint = format!("https://127.0.0.1:{}", cluster.endpoint_port);
    let admin = document(layout, &endpoint, "kubernetes-admin", "admin")?;
    write_atomically(&layout.admin_kubeconfig(), serde_yaml_ng::to_string(&admin)?.as_bytes())?;

    for process in &topology.processes {
        // Controllers talk to the API server of their own host, nodes to the load balancer, as in a managed cluster.
        let beside =
            topology.processes.iter().find(|p| p.component == Component::ApiServer && p.host == process.host);
        let server = match beside.and_then(|p| p.probe.as_ref()) {
            Some(Probe::Https(address, port)) => format!("https://{address}:{port}"),
            _ if cluster.has_namespaces() => {
                format!("https://{}:{}", cluster.machine_address(), cluster.endpoint_port)
            }
            _ => endpoint.clone(),
        };
        let (user, certificate) = match process.component {
            Component::ControllerManager => {
                ("system:kube-controller-manager".into(), "controller-manager".into())
            }
            Component::Scheduler => ("system:kube-scheduler".into(), "scheduler".into()),
            Component::Kubelet => {
                (format!("system:node:{}", process.host), format!("kubelet-client-{}", process.host))
            }
            Component::KubeProxy => ("system:kube-proxy".into(), "kube-proxy".into()),
            Component::MetricsServer => (metrics_api::USER.into(), "metrics-server-client".into()),
            Component::EtcdLite | Component::Containerd | Component::ApiServer => continue,
        };
        let config = document(layout, &server, &user, &certificate)?;
        write_atomically(&layout.kubeconfig(&process.name), serde_yaml_ng::to_string(&config)?.as_bytes())?;
    }
    Ok(())
}

/// A kubeconfig with everything inside it, so that it can be copied anywhere.
fn document(layout: &Layout, server: &str, user: &str, certificate: &str) -> anyhow::Result<Value> {
    let data = |file: String| -> anyhow::Result<String> {
        let path = layout.pki(&file);
        std::fs::read(&path)
            .map(|bytes| STANDARD.encode(bytes))
            .with_context(|| format!("cannot read {}", path.display()))
    };
    let context = format!("{user}@coracle");
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "coracle",
            "cluster": {"server": server, "certificate-authority-data": data("ca.crt".into())?},
        }],
        "users": [{
            "name": user,
            "user": {
                "client-certificate-data": data(format!("{certificate}.crt"))?,
                "client-key-data": data(format!("{certificate}.key"))?,
            },
        }],
        "contexts": [{"name": context, "context": {"cluster": "coracle", "user": user}}],
        "current-context": context,
    }))
}
