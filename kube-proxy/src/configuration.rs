//! What kube-proxy runs with: flags, or a KubeProxyConfiguration file. Every field of the file that says something is honoured or refused by
//! name; fields that kubeadm writes empty are taken as such. Owns the file's form.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use component_base::duration::GoDuration;
use component_base::feature_gates::{FeatureGates, Program};
use coracle_client::config::host_name;
use kube_proxy_core::base::ProxyConfig;
use serde_json::Value;

use crate::node_addresses::NodePortAddresses;
use crate::options::Options;

const HEALTHZ_PORT: u16 = 10256;
const METRICS_PORT: u16 = 10249;

/// What kube-proxy runs with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Empty for in-cluster.
    pub kubeconfig: PathBuf,
    /// In place of the kubeconfig's address.
    pub master: Option<String>,
    /// What the table depends on.
    pub proxy: ProxyConfig,
    /// Where health is served.
    pub healthz_address: Option<SocketAddr>,
    /// Where metrics are served.
    pub metrics_address: Option<SocketAddr>,
    /// Which of the node's addresses take NodePort traffic.
    pub node_port_addresses: NodePortAddresses,
    /// Shortest time between two transactions.
    pub min_sync_period: Duration,
    /// How soon the kernel ends this process when memory runs out; `None` leaves it.
    pub oom_score: Option<i32>,
    /// The feature gates.
    pub gates: FeatureGates,
}

impl Settings {
    /// Reads the file if there is one and merges the flags.
    pub fn load(options: &Options) -> anyhow::Result<Self> {
        let file = match &options.config {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read --config {}", path.display()))?;
                Some(File::parse(&text).with_context(|| format!("--config {}", path.display()))?)
            }
            None => None,
        };
        let mut values = file.unwrap_or_else(|| File::from_flags(options));
        if let Some(name) = &options.hostname_override {
            values.hostname_override.clone_from(name);
        }
        if let Some(path) = &options.kubeconfig {
            values.kubeconfig.clone_from(path);
        }
        // Flags are the lesser: a file that names gates is all that counts, as upstream.
        let mut settings = values.settings(options.master.clone())?;
        if options.config.is_none() {
            let gates = options.feature_gates.join(",");
            settings.gates = FeatureGates::parse(Program::KubeProxy, &gates).map_err(anyhow::Error::msg)?;
        }
        Ok(settings)
    }
}

/// The fields that mean something to us.
#[derive(Debug, Default)]
struct File {
    kubeconfig: PathBuf,
    hostname_override: String,
    cluster_cidr: String,
    detect_local_mode: String,
    mode: String,
    bind_address: Option<IpAddr>,
    healthz_bind_address: String,
    metrics_bind_address: String,
    node_port_addresses: Vec<String>,
    masquerade_all: bool,
    masquerade_bit: Option<u32>,
    min_sync_period: Option<Duration>,
    oom_score: Option<i32>,
    gates: BTreeMap<String, bool>,
}

impl File {
    fn from_flags(options: &Options) -> Self {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        Self {
            kubeconfig: options.kubeconfig.clone().unwrap_or_default(),
            hostname_override: text(&options.hostname_override),
            cluster_cidr: text(&options.cluster_cidr),
            detect_local_mode: text(&options.detect_local_mode),
            mode: text(&options.proxy_mode),
            bind_address: options.bind_address,
            healthz_bind_address: text(&options.healthz_bind_address),
            metrics_bind_address: text(&options.metrics_bind_address),
            node_port_addresses: options.nodeport_addresses.clone(),
            masquerade_all: options.masquerade_all,
            masquerade_bit: Some(options.nftables_masquerade_bit),
            min_sync_period: Some(options.nftables_min_sync_period.get()),
            oom_score: options.oom_score_adj,
            gates: BTreeMap::new(),
        }
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let mut value: Value = serde_yaml_ng::from_str(text).context("not YAML or JSON")?;
        let (version, kind) = (take_text(&mut value, "/apiVersion")?, take_text(&mut value, "/kind")?);
        if version != "kubeproxy.config.k8s.io/v1alpha1" || kind != "KubeProxyConfiguration" {
            bail!(
                "is {version:?} {kind:?}; expected kubeproxy.config.k8s.io/v1alpha1 KubeProxyConfiguration"
            );
        }
        let bind_address = take_text(&mut value, "/bindAddress")?;
        let minimum = take_text(&mut value, "/nftables/minSyncPeriod")?;
        let mut file = Self {
            kubeconfig: take_text(&mut value, "/clientConnection/kubeconfig")?.into(),
            hostname_override: take_text(&mut value, "/hostnameOverride")?,
            cluster_cidr: take_text(&mut value, "/clusterCIDR")?,
            detect_local_mode: take_text(&mut value, "/detectLocalMode")?,
            mode: take_text(&mut value, "/mode")?,
            bind_address: match bind_address.as_str() {
                "" => None,
                text => Some(text.parse().context("bindAddress: not an IP address")?),
            },
            healthz_bind_address: take_text(&mut value, "/healthzBindAddress")?,
            metrics_bind_address: take_text(&mut value, "/metricsBindAddress")?,
            ..Self::default()
        };
        if let Some(list) = take(&mut value, "/nodePortAddresses") {
            file.node_port_addresses = serde_json::from_value::<Option<Vec<String>>>(list)
                .context("nodePortAddresses")?
                .unwrap_or_default();
        }
        if let Some(flag) = take(&mut value, "/nftables/masqueradeAll") {
            file.masquerade_all = serde_json::from_value(flag).context("nftables.masqueradeAll")?;
        }
        if let Some(bit) = take(&mut value, "/nftables/masqueradeBit") {
            file.masquerade_bit = serde_json::from_value(bit).context("nftables.masqueradeBit")?;
        }
        if let Some(score) = take(&mut value, "/oomScoreAdj") {
            file.oom_score = serde_json::from_value(score).context("oomScoreAdj")?;
        }
        if let Some(gates) = take(&mut value, "/featureGates") {
            let gates: Option<BTreeMap<String, bool>> =
                serde_json::from_value(gates).context("featureGates")?;
            file.gates = gates.unwrap_or_default();
        }
        if !minimum.is_empty() {
            let period: GoDuration = minimum.parse().context("nftables.minSyncPeriod")?;
            file.min_sync_period = Some(period.get()).filter(|period| !period.is_zero());
        }
        // Settings of modes that are not in use have no effect upstream either.
        for other_mode in ["/iptables", "/ipvs", "/winkernel"] {
            take(&mut value, other_mode);
        }
        match said(&value, String::new()) {
            Some(field) => bail!("field {field} is not implemented by Coracle yet; remove it"),
            None => Ok(file),
        }
    }

    fn settings(self, master: Option<String>) -> anyhow::Result<Settings> {
        match self.mode.as_str() {
            "" | "nftables" => {}
            other => bail!(
                "proxy mode {other:?} is not implemented by Coracle; use \"nftables\" or leave it empty"
            ),
        }
        if !matches!(self.detect_local_mode.as_str(), "" | "ClusterCIDR") {
            bail!(
                "detectLocalMode {:?} is not implemented by Coracle yet; use ClusterCIDR",
                self.detect_local_mode
            );
        }
        let cluster_cidr = self.cluster_cidr.split(',').map(str::trim).find(|cidr| {
            cidr.split_once('/').is_some_and(|(address, length)| {
                address.parse::<Ipv4Addr>().is_ok() && length.parse::<u8>().is_ok_and(|length| length <= 32)
            })
        });
        if cluster_cidr.is_none() && !self.cluster_cidr.is_empty() {
            bail!("clusterCIDR {:?} has no IPv4 CIDR such as 10.244.0.0/16", self.cluster_cidr);
        }
        let node_name = if self.hostname_override.is_empty() { host_name() } else { self.hostname_override };
        let mut proxy = ProxyConfig::new(&node_name.to_lowercase(), cluster_cidr);
        proxy.masquerade_all = self.masquerade_all;
        proxy.masquerade_bit = self.masquerade_bit.unwrap_or(14);
        if proxy.masquerade_bit > 31 {
            bail!("the masquerade bit must be between 0 and 31");
        }
        let any = self.bind_address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Ok(Settings {
            kubeconfig: self.kubeconfig,
            master,
            proxy,
            healthz_address: address(&self.healthz_bind_address, any, HEALTHZ_PORT)
                .context("healthz bind address")?,
            metrics_address: address(&self.metrics_bind_address, local, METRICS_PORT)
                .context("metrics bind address")?,
            node_port_addresses: NodePortAddresses::parse(&self.node_port_addresses)?,
            min_sync_period: self.min_sync_period.unwrap_or(Duration::from_secs(1)),
            oom_score: self.oom_score,
            gates: FeatureGates::from_map(Program::KubeProxy, self.gates).map_err(anyhow::Error::msg)?,
        })
    }
}

/// `IP:port`, `IP`, or empty for the defaults; port 0 switches it off.
fn address(text: &str, default_ip: IpAddr, default_port: u16) -> anyhow::Result<Option<SocketAddr>> {
    let address = if text.is_empty() {
        SocketAddr::new(default_ip, default_port)
    } else if let Ok(ip) = text.parse::<IpAddr>() {
        SocketAddr::new(ip, default_port)
    } else {
        text.parse().with_context(|| format!("{text:?} is not IP:port"))?
    };
    Ok((address.port() != 0).then_some(address))
}

/// Takes the value at a JSON pointer out of the document.
fn take(value: &mut Value, pointer: &str) -> Option<Value> {
    let (parent, name) = pointer.rsplit_once('/')?;
    value.pointer_mut(parent)?.as_object_mut()?.remove(name)
}

fn take_text(value: &mut Value, pointer: &str) -> anyhow::Result<String> {
    match take(value, pointer) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(text)) => Ok(text),
        Some(_) => bail!("{} must be a string", pointer.trim_start_matches('/').replace('/', ".")),
    }
}

/// The path of the first field that says something: neither null, zero, false, nor empty.
fn said(value: &Value, path: String) -> Option<String> {
    let empty = match value {
        Value::Object(fields) => {
            return fields.iter().find_map(|(name, value)| {
                said(value, if path.is_empty() { name.clone() } else { format!("{path}.{name}") })
            });
        }
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => matches!(text.as_str(), "" | "0" | "0s"),
        Value::Array(items) => items.is_empty(),
    };
    (!empty).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KUBEADM: &str = "
apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: \"\"
  burst: 0
  contentType: \"\"
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  qps: 0
clusterCIDR: 10.244.0.0/16
configSyncPeriod: 0s
conntrack: {maxPerCore: null, min: null, tcpBeLiberal: false, tcpCloseWaitTimeout: null, udpTimeout: 0s}
detectLocal: {bridgeInterface: \"\", interfaceNamePrefix: \"\"}
detectLocalMode: \"\"
enableProfiling: false
healthzBindAddress: \"\"
hostnameOverride: \"\"
iptables: {localhostNodePorts: null, masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 0s}
ipvs: {excludeCIDRs: null, scheduler: \"\"}
kind: KubeProxyConfiguration
logging: {flushFrequency: 0, options: {json: {infoBufferSize: \"0\"}, text: {infoBufferSize: \"0\"}}, verbosity: 0}
metricsBindAddress: \"\"
mode: \"\"
nftables: {masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 0s}
nodePortAddresses: null
oomScoreAdj: null
portRange: \"\"
showHiddenMetricsForVersion: \"\"
winkernel: {enableDSR: false, forwardHealthCheckVip: false}
";

    fn load(text: &str) -> anyhow::Result<Settings> {
        File::parse(text)?.settings(None)
    }

    #[test]
    fn kubeadms_file_is_taken() {
        let settings = load(KUBEADM).expect("loads");
        assert_eq!(settings.kubeconfig, PathBuf::from("/var/lib/kube-proxy/kubeconfig.conf"));
        assert_eq!(settings.proxy.cluster_cidr.as_deref(), Some("10.244.0.0/16"));
        assert_eq!(settings.healthz_address, Some(([0, 0, 0, 0], HEALTHZ_PORT).into()));
        assert_eq!(settings.metrics_address, Some(([127, 0, 0, 1], METRICS_PORT).into()));
        assert_eq!(settings.min_sync_period, Duration::from_secs(1));
    }

    #[test]
    fn what_a_development_cluster_and_kind_say_is_taken() {
        let said = "featureGates: {AllAlpha: false, NFTablesProxyMode: true}\nconntrack: {maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}\noomScoreAdj: -998\n";
        let head =
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: nftables\n";
        assert_eq!(load(&format!("{head}{said}")).expect("loads").oom_score, Some(-998));
    }

    #[test]
    fn what_is_not_there_is_refused_by_name() {
        for (from, to, named) in [
            ("mode: \"\"", "mode: ipvs", "ipvs"),
            ("mode: \"\"", "mode: iptables", "iptables"),
            ("detectLocalMode: \"\"", "detectLocalMode: NodeCIDR", "NodeCIDR"),
            ("tcpBeLiberal: false", "tcpBeLiberal: true", "conntrack.tcpBeLiberal"),
            ("portRange: \"\"", "portRange: 1-2", "portRange"),
            ("portRange: \"\"", "featureGates: {Bogus: true}", "unrecognized feature gate: Bogus"),
            ("portRange: \"\"", "bogus: 1", "bogus"),
            ("kind: KubeProxyConfiguration", "kind: Other", "Other"),
            ("clusterCIDR: 10.244.0.0/16", "clusterCIDR: nonsense", "clusterCIDR"),
        ] {
            let error = format!("{:#}", load(&KUBEADM.replace(from, to)).expect_err(named));
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn addresses_have_defaults_and_can_be_switched_off() {
        let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        assert_eq!(address("", any, 1).expect("ok"), Some(([0, 0, 0, 0], 1).into()));
        assert_eq!(address("10.0.0.1", any, 1).expect("ok"), Some(([10, 0, 0, 1], 1).into()));
        assert_eq!(address("10.0.0.1:5", any, 1).expect("ok"), Some(([10, 0, 0, 1], 5).into()));
        assert_eq!(address("10.0.0.1:0", any, 1).expect("ok"), None);
        assert!(address("x:y", any, 1).is_err());
    }
}
