//! The cluster's certificate authorities and the certificates and keys signed by them, with kubeadm's file names. Files
//! that exist are kept, so that a resumed cluster keeps its identities.

use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use crate::cluster::Cluster;
use crate::layout::Layout;
use crate::metrics_api;
use crate::topology::{API_SERVERS, Component, Topology};

/// Lifetimes as kubeadm has them: ten years for authorities, one for what they sign.
const AUTHORITY_DAYS: i64 = 3650;
const LEAF_DAYS: i64 = 365;

/// What a signed certificate is for.
#[derive(Clone, Copy)]
enum Usage {
    Client,
    Server,
    Both,
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

/// Makes whatever is missing below `pki/`.
///
/// # Errors
/// A file cannot be written, or an authority that exists cannot be read.
pub fn ensure(cluster: &Cluster, layout: &Layout, topology: &Topology) -> anyhow::Result<()> {
    let pki = |file: &str| layout.pki(file);
    let ca = Authority::ensure(layout, "ca", "kubernetes")?;
    let etcd = Authority::ensure(layout, "etcd/ca", "etcd-ca")?;
    let front_proxy = Authority::ensure(layout, "front-proxy-ca", "front-proxy-ca")?;

    if !pki("sa.key").exists() {
        let key = KeyPair::generate()?;
        write_secret(&pki("sa.pub"), key.public_key_pem().as_bytes(), 0o644)?;
        write_secret(&pki("sa.key"), key.serialize_pem().as_bytes(), 0o600)?;
    }

    etcd.leaf(layout, "apiserver-etcd-client", "kube-apiserver-etcd-client", &[], &[], Usage::Client)?;
    ca.leaf(
        layout,
        "apiserver-kubelet-client",
        "kube-apiserver-kubelet-client",
        &["kubeadm:cluster-admins"],
        &[],
        Usage::Client,
    )?;
    front_proxy.leaf(layout, "front-proxy-client", "front-proxy-client", &[], &[], Usage::Client)?;
    ca.leaf(layout, "admin", "kubernetes-admin", &["system:masters"], &[], Usage::Client)?;

    for (index, host) in topology.hosts.iter().filter(|host| host.zone.is_none()).enumerate() {
        let names = [
            host.name.clone(),
            "localhost".into(),
            host.address.to_string(),
            "127.0.0.1".into(),
            "::1".into(),
        ];
        etcd.leaf(layout, &format!("etcd/{}-server", host.name), &host.name, &[], &names, Usage::Both)?;
        etcd.leaf(layout, &format!("etcd/{}-peer", host.name), &host.name, &[], &names, Usage::Both)?;
        if index < API_SERVERS {
            // The secure ports of the scheduler and the controller-manager of one host share a certificate.
            ca.leaf(layout, &format!("controllers-{}", host.name), &host.name, &[], &names, Usage::Server)?;
            let mut names = names.to_vec();
            names.extend(api_names().map(str::to_owned));
            names.push(cluster.first_service_ip().to_string());
            if cluster.has_namespaces() {
                names.push(cluster.machine_address().to_string());
            }
            ca.leaf(
                layout,
                &format!("apiserver-{}", host.name),
                "kube-apiserver",
                &[],
                &names,
                Usage::Server,
            )?;
            ca.leaf(layout, "controller-manager", "system:kube-controller-manager", &[], &[], Usage::Client)?;
            ca.leaf(layout, "scheduler", "system:kube-scheduler", &[], &[], Usage::Client)?;
        }
    }
    for host in topology.hosts.iter().filter(|host| host.zone.is_some()) {
        let user = format!("system:node:{}", host.name);
        ca.leaf(
            layout,
            &format!("kubelet-client-{}", host.name),
            &user,
            &["system:nodes"],
            &[],
            Usage::Client,
        )?;
        let names = [host.name.clone(), host.address.to_string(), "127.0.0.1".into()];
        ca.leaf(layout, &format!("kubelet-{}", host.name), &user, &["system:nodes"], &names, Usage::Server)?;
    }
    if let Some((address, _)) = topology.metrics_server() {
        let names = [metrics_api::HOST_NAME.to_owned(), address.to_string(), "127.0.0.1".into()];
        ca.leaf(layout, "metrics-server", metrics_api::HOST_NAME, &[], &names, Usage::Server)?;
        ca.leaf(layout, "metrics-server-client", metrics_api::USER, &[], &[], Usage::Client)?;
    }
    if topology.processes.iter().any(|process| process.component == Component::KubeProxy) {
        ca.leaf(layout, "kube-proxy", "system:kube-proxy", &[], &[], Usage::Client)?;
    }
    Ok(())
}

fn api_names() -> impl Iterator<Item = &'static str> {
    ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
        .into_iter()
}

impl Authority {
    fn ensure(layout: &Layout, file: &str, name: &str) -> anyhow::Result<Self> {
        let (cert_path, key_path) = (layout.pki(&format!("{file}.crt")), layout.pki(&format!("{file}.key")));
        if cert_path.exists() && key_path.exists() {
            let read = |path: &Path| {
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
            };
            let key = KeyPair::from_pem(&read(&key_path)?)
                .with_context(|| format!("{} is no key", key_path.display()))?;
            let issuer = Issuer::from_ca_cert_pem(&read(&cert_path)?, key)
                .with_context(|| format!("{} is no certificate authority", cert_path.display()))?;
            return Ok(Self { issuer });
        }
        let key = KeyPair::generate()?;
        let mut params = params(name, &[], AUTHORITY_DAYS);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::KeyEncipherment,
        ];
        let cert = params.self_signed(&key)?;
        write_secret(&cert_path, cert.pem().as_bytes(), 0o644)?;
        write_secret(&key_path, key.serialize_pem().as_bytes(), 0o600)?;
        Ok(Self { issuer: Issuer::new(params, key) })
    }

    fn leaf(
        &self,
        layout: &Layout,
        file: &str,
        name: &str,
        groups: &[&str],
        hosts: &[String],
        usage: Usage,
    ) -> anyhow::Result<()> {
        let (cert_path, key_path) = (layout.pki(&format!("{file}.crt")), layout.pki(&format!("{file}.key")));
        if cert_path.exists() && key_path.exists() {
            return Ok(());
        }
        let key = KeyPair::generate()?;
        let mut params = params(name, groups, LEAF_DAYS);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = match usage {
            Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Usage::Both => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        };
        params.use_authority_key_identifier_extension = true;
        for host in hosts {
            params.subject_alt_names.push(match host.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(host.as_str().try_into()?),
            });
        }
        let cert = params.signed_by(&key, &self.issuer)?;
        write_secret(&cert_path, cert.pem().as_bytes(), 0o644)?;
        write_secret(&key_path, key.serialize_pem().as_bytes(), 0o600)
    }
}

fn params(name: &str, groups: &[&str], days: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    for group in groups {
        params.distinguished_name.push(DnType::OrganizationName, *group);
    }
    let now = std::time::SystemTime::now();
    // Clocks of hosts differ by a little; kubeadm back-dates likewise.
    let past = std::time::Duration::from_secs(300);
    params.not_before = (now - past).into();
    params.not_after = (now + std::time::Duration::from_secs(days as u64 * 86_400)).into();
    params
}

fn write_secret(path: &Path, content: &[u8], mode: u32) -> anyhow::Result<()> {
    use std::io::Write;
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(content))
        .with_context(|| format!("cannot write {}", path.display()))
}
