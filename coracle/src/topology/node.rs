//! Hosts, command lines and configuration files of nodes: containerd, kubelet, kube-proxy.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Component, Host, Probe, Process, host, process};
use crate::cluster::{Cluster, Runtime};
use crate::image::PAUSE_IMAGE;
use crate::layout::Layout;

const FIRST_OCTET: u8 = 21;
/// Loopback ports of nodes begin above those of the control plane.
const LOOPBACK_OFFSET: u16 = 100;
/// The Debian package `containernetworking-plugins` puts them here.
const CNI_PLUGINS: &str = "/usr/lib/cni";

fn kubelet_ports(cluster: &Cluster, index: usize) -> (u16, u16) {
    if cluster.has_namespaces() {
        return (10250, 10248);
    }
    let base = cluster.base_port + LOOPBACK_OFFSET + 2 * index as u16;
    (base, base + 1)
}

pub(super) fn hosts(cluster: &Cluster) -> Vec<Host> {
    let host = |(i, node): (usize, &crate::cluster::Node)| {
        host(cluster, node.name.clone(), Some(node.zone.clone()), FIRST_OCTET + i as u8)
    };
    cluster.nodes.iter().enumerate().map(host).collect()
}

pub(super) fn processes(cluster: &Cluster, layout: &Layout, hosts: &[Host]) -> Vec<Process> {
    let mut processes = Vec::new();
    for (index, host) in hosts.iter().enumerate() {
        if cluster.runtime == Runtime::Containerd {
            let config = layout.node(&host.name).join("containerd.toml");
            let args = vec!["--config".into(), config.display().to_string()];
            let probe = Some(Probe::Socket(layout.containerd_socket(&host.name)));
            processes.push(process(Component::Containerd, host, args, probe));
            let config = layout.config(&format!("kube-proxy-{}.yaml", host.name));
            let args =
                vec![format!("--config={}", config.display()), format!("--hostname-override={}", host.name)];
            processes.push(process(Component::KubeProxy, host, args, None));
        }
        let (_, healthz) = kubelet_ports(cluster, index);
        // In a namespace the health port is on that namespace's own loopback, out of reach from here.
        let probe = (!cluster.has_namespaces()).then_some(Probe::Http(host.address, healthz));
        processes.push(process(Component::Kubelet, host, kubelet_args(cluster, layout, host), probe));
    }
    processes
}

fn kubelet_args(cluster: &Cluster, layout: &Layout, host: &Host) -> Vec<String> {
    let mut args = vec![
        format!("--kubeconfig={}", layout.kubeconfig(&format!("kubelet-{}", host.name)).display()),
        format!("--config={}", layout.config(&format!("kubelet-{}.yaml", host.name)).display()),
        format!("--hostname-override={}", host.name),
        format!("--node-ip={}", host.address),
        format!("--node-labels=topology.kubernetes.io/zone={}", host.zone.as_deref().unwrap_or_default()),
        format!("--root-dir={}", layout.node(&host.name).join("kubelet").display()),
    ];
    if cluster.runtime == Runtime::Containerd {
        args.push(format!("--cni-conf-dir={}", cni_config_dir(layout, &host.name).display()));
        args.push(format!("--pod-infra-container-image={PAUSE_IMAGE}"));
    }
    args
}

/// Where the kubelet writes a node's network configuration and its containerd reads it.
pub fn cni_config_dir(layout: &Layout, node: &str) -> PathBuf {
    layout.node(node).join("cni/net.d")
}

/// A node's `KubeletConfiguration`, as kubeadm writes it. JSON is YAML.
pub fn kubelet_config(cluster: &Cluster, layout: &Layout, index: usize, host: &Host) -> Value {
    let (port, healthz_port) = kubelet_ports(cluster, index);
    let endpoint = match cluster.runtime {
        Runtime::Containerd => format!("unix://{}", layout.containerd_socket(&host.name).display()),
        Runtime::Hollow => "hollow://".into(),
    };
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": host.address,
        "port": port,
        "healthzBindAddress": "127.0.0.1",
        "healthzPort": healthz_port,
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true, "cacheTTL": "0s"},
            "x509": {"clientCAFile": layout.pki("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("{}/{}", cluster.cgroup_root(), host.name),
        "clusterDNS": [cluster.dns_service_ip()],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": endpoint,
        "staticPodPath": layout.node(&host.name).join("manifests"),
        "podLogsDir": layout.node(&host.name).join("pod-logs"),
        "tlsCertFile": layout.pki(&format!("kubelet-{}.crt", host.name)),
        "tlsPrivateKeyFile": layout.pki(&format!("kubelet-{}.key", host.name)),
    })
}

/// A node's `KubeProxyConfiguration`.
pub fn kube_proxy_config(cluster: &Cluster, layout: &Layout, host: &Host) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "bindAddress": "0.0.0.0",
        "clientConnection": {"kubeconfig": layout.kubeconfig(&format!("kube-proxy-{}", host.name))},
        "clusterCIDR": cluster.pod_cidr(),
        "mode": "nftables",
    })
}

/// A node's containerd configuration: everything below the node's own directory, so that nodes share nothing.
///
/// `restrict_oom_score_adj` lets sandboxes start where negative OOM scores are not allowed, as in most containers and
/// sandboxed machines; with the capability it changes nothing that pods see.
pub fn containerd_config(layout: &Layout, node: &str) -> String {
    let dir = layout.node(node).join("containerd");
    let (dir, socket) = (dir.display(), layout.containerd_socket(node));
    let (socket, cni) = (socket.display(), cni_config_dir(layout, node));
    let cni = cni.display();
    format!(
        r#"version = 2
root = "{dir}/root"
state = "{dir}/state"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]

[grpc]
  address = "{socket}"

[plugins."io.containerd.internal.v1.opt"]
  path = "{dir}/opt"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_PLUGINS}"
    conf_dir = "{cni}"

  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{dir}/certs.d"

  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"

      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        Root = "{dir}/runc"
        SystemdCgroup = false
"#
    )
}
