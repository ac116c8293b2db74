//! Hosts and command lines of the control plane: etcd-lite, apiserver, controller-manager, scheduler, metrics-server. The flags
//! are those that kubeadm and metrics-server's own manifest have.

use super::{API_SERVERS, Component, Host, Probe, Process, STORE_MEMBERS, control_plane_name, host, process};
use crate::cluster::Cluster;
use crate::layout::Layout;

const FIRST_OCTET: u8 = 11;

/// Ports of the `index`th control-plane host.
struct Ports {
    client: u16,
    peer: u16,
    store_metrics: u16,
    api: u16,
    scheduler: u16,
    controller_manager: u16,
    metrics: u16,
}

fn ports(cluster: &Cluster, index: usize) -> Ports {
    if cluster.has_namespaces() {
        return Ports {
            client: 2379,
            peer: 2380,
            store_metrics: 2381,
            api: 6443,
            scheduler: 10259,
            controller_manager: 10257,
            metrics: 10250,
        };
    }
    let base = cluster.base_port + 10 * index as u16;
    Ports {
        client: base,
        peer: base + 1,
        store_metrics: base + 2,
        api: base + 3,
        scheduler: base + 4,
        controller_manager: base + 5,
        metrics: base + 6,
    }
}

pub(super) fn hosts(cluster: &Cluster) -> Vec<Host> {
    (0..STORE_MEMBERS).map(|i| host(cluster, control_plane_name(i), None, FIRST_OCTET + i as u8)).collect()
}

pub(super) fn processes(cluster: &Cluster, layout: &Layout, hosts: &[Host]) -> Vec<Process> {
    let mut processes = Vec::new();
    for (index, host) in hosts.iter().enumerate() {
        let ports = ports(cluster, index);
        let probe = Some(Probe::Http(host.address, ports.store_metrics));
        processes.push(process(Component::EtcdLite, host, etcd_args(cluster, layout, hosts, index), probe));
        if index < API_SERVERS {
            let args = apiserver_args(cluster, layout, hosts, index);
            processes.push(process(
                Component::ApiServer,
                host,
                args,
                Some(Probe::Https(host.address, ports.api)),
            ));
            let args = controller_manager_args(cluster, layout, host, ports.controller_manager);
            let probe = Some(Probe::Https(host.address, ports.controller_manager));
            processes.push(process(Component::ControllerManager, host, args, probe));
            let args = scheduler_args(layout, host, ports.scheduler);
            processes.push(process(
                Component::Scheduler,
                host,
                args,
                Some(Probe::Https(host.address, ports.scheduler)),
            ));
        }
    }
    // On the host that has the least to do.
    if let Some((host, index)) = hosts.last().zip(hosts.len().checked_sub(1)) {
        let port = ports(cluster, index).metrics;
        let args = metrics_server_args(layout, host, port);
        processes.push(process(Component::MetricsServer, host, args, Some(Probe::Https(host.address, port))));
    }
    processes
}

fn etcd_args(cluster: &Cluster, layout: &Layout, hosts: &[Host], index: usize) -> Vec<String> {
    let host = &hosts[index];
    let pki = |file: &str| layout.pki(&format!("etcd/{file}")).display().to_string();
    let own = |port: u16| format!("https://{}:{port}", host.address);
    let Ports { client, peer, store_metrics, .. } = ports(cluster, index);
    let members: Vec<String> = hosts
        .iter()
        .enumerate()
        .map(|(i, member)| format!("{}=https://{}:{}", member.name, member.address, ports(cluster, i).peer))
        .collect();
    let mut clients = own(client);
    if cluster.has_namespaces() {
        clients = format!("https://127.0.0.1:{client},{clients}");
    }
    vec![
        format!("--name={}", host.name),
        format!("--data-dir={}", layout.store(&host.name).display()),
        format!("--listen-client-urls={clients}"),
        format!("--advertise-client-urls={}", own(client)),
        format!("--listen-peer-urls={}", own(peer)),
        format!("--initial-advertise-peer-urls={}", own(peer)),
        format!("--initial-cluster={}", members.join(",")),
        "--initial-cluster-state=new".into(),
        format!("--listen-metrics-urls=http://{}:{store_metrics}", host.address),
        format!("--cert-file={}", pki(&format!("{}-server.crt", host.name))),
        format!("--key-file={}", pki(&format!("{}-server.key", host.name))),
        format!("--trusted-ca-file={}", pki("ca.crt")),
        "--client-cert-auth=true".into(),
        format!("--peer-cert-file={}", pki(&format!("{}-peer.crt", host.name))),
        format!("--peer-key-file={}", pki(&format!("{}-peer.key", host.name))),
        format!("--peer-trusted-ca-file={}", pki("ca.crt")),
        "--peer-client-cert-auth=true".into(),
        "--snapshot-count=10000".into(),
    ]
}

fn apiserver_args(cluster: &Cluster, layout: &Layout, hosts: &[Host], index: usize) -> Vec<String> {
    let host = &hosts[index];
    let pki = |file: &str| layout.pki(file).display().to_string();
    // Its own host's member first: the others serve when that one is gone.
    let members: Vec<String> = (0..hosts.len())
        .map(|offset| (index + offset) % hosts.len())
        .map(|i| format!("https://{}:{}", hosts[i].address, ports(cluster, i).client))
        .collect();
    vec![
        format!("--advertise-address={}", host.address),
        "--allow-privileged=true".into(),
        "--authorization-mode=Node,RBAC".into(),
        format!("--client-ca-file={}", pki("ca.crt")),
        "--enable-admission-plugins=NodeRestriction".into(),
        "--enable-bootstrap-token-auth=false".into(),
        format!("--etcd-cafile={}", pki("etcd/ca.crt")),
        format!("--etcd-certfile={}", pki("apiserver-etcd-client.crt")),
        format!("--etcd-keyfile={}", pki("apiserver-etcd-client.key")),
        format!("--etcd-servers={}", members.join(",")),
        format!("--kubelet-client-certificate={}", pki("apiserver-kubelet-client.crt")),
        format!("--kubelet-client-key={}", pki("apiserver-kubelet-client.key")),
        format!("--kubelet-certificate-authority={}", pki("ca.crt")),
        "--kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname".into(),
        format!("--proxy-client-cert-file={}", pki("front-proxy-client.crt")),
        format!("--proxy-client-key-file={}", pki("front-proxy-client.key")),
        "--requestheader-allowed-names=front-proxy-client".into(),
        format!("--requestheader-client-ca-file={}", pki("front-proxy-ca.crt")),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
        "--requestheader-group-headers=X-Remote-Group".into(),
        "--requestheader-username-headers=X-Remote-User".into(),
        format!("--bind-address={}", if cluster.has_namespaces() { "0.0.0.0" } else { "127.0.0.1" }),
        format!("--secure-port={}", ports(cluster, index).api),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
        format!("--service-account-key-file={}", pki("sa.pub")),
        format!("--service-account-signing-key-file={}", pki("sa.key")),
        format!("--service-cluster-ip-range={}", cluster.service_cidr()),
        format!("--tls-cert-file={}", pki(&format!("apiserver-{}.crt", host.name))),
        format!("--tls-private-key-file={}", pki(&format!("apiserver-{}.key", host.name))),
    ]
}

fn controller_manager_args(cluster: &Cluster, layout: &Layout, host: &Host, port: u16) -> Vec<String> {
    let pki = |file: &str| layout.pki(file).display().to_string();
    let kubeconfig = layout.kubeconfig(&format!("controller-manager-{}", host.name)).display().to_string();
    vec![
        "--allocate-node-cidrs=true".into(),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        format!("--bind-address={}", host.address),
        format!("--client-ca-file={}", pki("ca.crt")),
        format!("--cluster-cidr={}", cluster.pod_cidr()),
        "--cluster-name=kubernetes".into(),
        format!("--cluster-signing-cert-file={}", pki("ca.crt")),
        format!("--cluster-signing-key-file={}", pki("ca.key")),
        format!("--kubeconfig={kubeconfig}"),
        "--leader-elect=true".into(),
        format!("--requestheader-client-ca-file={}", pki("front-proxy-ca.crt")),
        format!("--root-ca-file={}", pki("ca.crt")),
        format!("--secure-port={port}"),
        format!("--service-account-private-key-file={}", pki("sa.key")),
        format!("--service-cluster-ip-range={}", cluster.service_cidr()),
        format!("--tls-cert-file={}", pki(&format!("controllers-{}.crt", host.name))),
        format!("--tls-private-key-file={}", pki(&format!("controllers-{}.key", host.name))),
        "--use-service-account-credentials=true".into(),
    ]
}

fn scheduler_args(layout: &Layout, host: &Host, port: u16) -> Vec<String> {
    let kubeconfig = layout.kubeconfig(&format!("scheduler-{}", host.name)).display().to_string();
    vec![
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        format!("--bind-address={}", host.address),
        format!("--kubeconfig={kubeconfig}"),
        "--leader-elect=true".into(),
        format!("--secure-port={port}"),
        format!("--tls-cert-file={}", layout.pki(&format!("controllers-{}.crt", host.name)).display()),
        format!("--tls-private-key-file={}", layout.pki(&format!("controllers-{}.key", host.name)).display()),
    ]
}

fn metrics_server_args(layout: &Layout, host: &Host, port: u16) -> Vec<String> {
    let pki = |file: &str| layout.pki(file).display().to_string();
    vec![
        format!("--bind-address={}", host.address),
        format!("--kubeconfig={}", layout.kubeconfig(&format!("metrics-server-{}", host.name)).display()),
        format!("--kubelet-certificate-authority={}", pki("ca.crt")),
        "--kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname".into(),
        "--kubelet-use-node-status-port=true".into(),
        "--metric-resolution=15s".into(),
        format!("--secure-port={port}"),
        format!("--tls-cert-file={}", pki("metrics-server.crt")),
        format!("--tls-private-key-file={}", pki("metrics-server.key")),
    ]
}
