//! What the flags mean together: checked once at the start, with errors that say what to change.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use controller_manager_core::certificates::rules;
use controller_manager_core::horizontal_autoscaler::Tuning;
use controller_manager_core::node_ipam::Cidr;
use controller_manager_core::node_lifecycle::Patience;
use controller_manager_core::node_lifecycle::zones::Rates;
use coracle_client::leader_election::LeaderElectionConfig;

use crate::controllers::certificates::CaFiles;
use crate::controllers::service_account_tokens::Signer;
use crate::controllers::{ALL, OFF_BY_DEFAULT};
use crate::options::Options;

/// Upstream's name of the Lease.
const LEASE_NAME: &str = "kube-controller-manager";

/// Checked settings.
#[derive(Debug)]
pub struct Settings {
    /// Names of the controllers to run.
    pub enabled: HashSet<&'static str>,
    /// The election; `None` without.
    pub leader_election: Option<LeaderElectionConfig>,
    /// Signs ServiceAccount tokens.
    pub token_signer: Option<Arc<Signer>>,
    /// Text of `--root-ca-file`.
    pub root_ca: Option<String>,
    /// Ranges to cut node ranges from, with their prefix lengths; empty without `--allocate-node-cidrs`.
    pub node_ranges: Vec<(Cidr, u32)>,
    /// Ranges of Services.
    pub service_ranges: Vec<Cidr>,
    /// Whether each controller acts as its own ServiceAccount.
    pub own_identities: bool,
    /// How often nodes are looked at.
    pub node_monitor_period: Duration,
    /// How patiently.
    pub patience: Patience,
    /// How fast they are emptied.
    pub eviction_rates: Rates,
    /// The CAs that sign, by signer.
    pub signing_cas: HashMap<&'static str, CaFiles>,
    /// The longest that a signed certificate lasts.
    pub signing_duration: Duration,
    /// Addresses of one subset of Endpoints that are mirrored at most.
    pub mirrored_endpoints_max: usize,
    /// How patiently autoscaling goes on.
    pub autoscaling: Tuning,
    /// How often a claim that waits for a volume is looked at again.
    pub claim_sync_period: Duration,
    /// Whether a volume in use stays attached to a node that is not well for good.
    pub never_detach_by_force: bool,
    /// How long a token that lives in a Secret may go unused, and how long it may be invalid.
    pub unused_token_period: Duration,
    /// How often quotas are counted anew.
    pub quota_resync: Duration,
    /// Ended pods that may stay.
    pub terminated_pods_max: usize,
}

impl Settings {
    /// Checks the flags and reads the files they name.
    pub fn load(options: &Options) -> anyhow::Result<Self> {
        let root_ca =
            match &options.root_ca_file {
                Some(path) => Some(std::fs::read_to_string(path).with_context(|| {
                    format!("cannot read --root-ca-file {}; check the path", path.display())
                })?),
                None => None,
            };
        let election = &options.leader_election;
        let leader_election = if election.leader_elect {
            Some(election.config(LEASE_NAME).map_err(anyhow::Error::msg)?)
        } else {
            None
        };
        let seconds = |duration: Duration| jiff::SignedDuration::try_from(duration);
        ensure!(
            !options.node_monitor_period.get().is_zero(),
            "--node-monitor-period must be greater than zero"
        );
        ensure!(
            !options.legacy_service_account_token_clean_up_period.get().is_zero(),
            "--legacy-service-account-token-clean-up-period must be greater than zero"
        );
        ensure!(
            !options.pvclaimbinder_sync_period.get().is_zero(),
            "--pvclaimbinder-sync-period must be greater than zero"
        );
        Ok(Self {
            enabled: enabled(&options.controllers)?,
            own_identities: options.use_service_account_credentials,
            leader_election,
            token_signer: token_signer(options)?,
            root_ca,
            node_ranges: node_ranges(options)?,
            service_ranges: ranges("service-cluster-ip-range", &options.service_cluster_ip_range)?,
            node_monitor_period: options.node_monitor_period.get(),
            patience: Patience {
                grace: seconds(options.node_monitor_grace_period.get())?,
                startup_grace: seconds(options.node_startup_grace_period.get())?,
            },
            eviction_rates: Rates {
                normal: options.node_eviction_rate,
                secondary: options.secondary_node_eviction_rate,
                unhealthy_share: options.unhealthy_zone_threshold,
                large: options.large_cluster_size_threshold,
            },
            signing_cas: signing_cas(options)?,
            signing_duration: options.cluster_signing_duration.get(),
            mirrored_endpoints_max: usize::from(options.mirroring_max_endpoints_per_subset),
            autoscaling: autoscaling(options)?,
            claim_sync_period: options.pvclaimbinder_sync_period.get(),
            never_detach_by_force: options.disable_force_detach_on_timeout,
            unused_token_period: options.legacy_service_account_token_clean_up_period.get(),
            quota_resync: options.resource_quota_sync_period.get(),
            terminated_pods_max: options.terminated_pod_gc_threshold,
        })
    }
}

fn token_signer(options: &Options) -> anyhow::Result<Option<Arc<Signer>>> {
    let Some(path) = &options.service_account_private_key_file else { return Ok(None) };
    let signer = Signer::load(path).context("--service-account-private-key-file")?;
    Ok(Some(Arc::new(signer)))
}

fn autoscaling(options: &Options) -> anyhow::Result<Tuning> {
    let period = options.horizontal_pod_autoscaler_sync_period.get();
    ensure!(!period.is_zero(), "--horizontal-pod-autoscaler-sync-period must be greater than zero");
    let tolerance = options.horizontal_pod_autoscaler_tolerance;
    ensure!(
        (0.0..=1.0).contains(&tolerance),
        "--horizontal-pod-autoscaler-tolerance must be between 0 and 1, such as 0.1"
    );
    Ok(Tuning {
        period,
        tolerance,
        downscale_window: options.horizontal_pod_autoscaler_downscale_stabilization.get().try_into()?,
        cpu_initialization: options.horizontal_pod_autoscaler_cpu_initialization_period.get().try_into()?,
        initial_readiness_delay: options
            .horizontal_pod_autoscaler_initial_readiness_delay
            .get()
            .try_into()?,
    })
}

/// The CA of each signer: one for all, or one each.
fn signing_cas(options: &Options) -> anyhow::Result<HashMap<&'static str, CaFiles>> {
    let all = (&options.cluster_signing_cert_file, &options.cluster_signing_key_file);
    let each = [
        (
            rules::CLIENT,
            "kube-apiserver-client",
            (
                &options.cluster_signing_kube_apiserver_client_cert_file,
                &options.cluster_signing_kube_apiserver_client_key_file,
            ),
        ),
        (
            rules::KUBELET_CLIENT,
            "kubelet-client",
            (
                &options.cluster_signing_kubelet_client_cert_file,
                &options.cluster_signing_kubelet_client_key_file,
            ),
        ),
        (
            rules::KUBELET_SERVING,
            "kubelet-serving",
            (
                &options.cluster_signing_kubelet_serving_cert_file,
                &options.cluster_signing_kubelet_serving_key_file,
            ),
        ),
        (
            rules::LEGACY_UNKNOWN,
            "legacy-unknown",
            (
                &options.cluster_signing_legacy_unknown_cert_file,
                &options.cluster_signing_legacy_unknown_key_file,
            ),
        ),
    ];
    let given = |files: (&Option<PathBuf>, &Option<PathBuf>)| files.0.is_some() || files.1.is_some();
    ensure!(
        !given(all) || !each.iter().any(|(_, _, files)| given(*files)),
        "cannot specify default and per controller certs at the same time: give --cluster-signing-cert-file and --cluster-signing-key-file, or those of the single signers"
    );
    let mut cas = HashMap::new();
    for (signer, flag, own) in each {
        let flag = if given(all) { String::new() } else { format!("{flag}-") };
        match if given(all) { all } else { own } {
            (Some(certificate), Some(key)) => {
                cas.insert(signer, CaFiles { certificate: certificate.clone(), key: key.clone() });
            }
            (None, None) => {}
            _ => bail!(
                "--cluster-signing-{flag}cert-file and --cluster-signing-{flag}key-file go together: give both"
            ),
        }
    }
    Ok(cas)
}

fn ranges(flag: &str, texts: &[String]) -> anyhow::Result<Vec<Cidr>> {
    let given = texts.iter().filter(|text| !text.is_empty());
    given.map(|text| text.parse().with_context(|| format!("--{flag}"))).collect()
}

fn node_ranges(options: &Options) -> anyhow::Result<Vec<(Cidr, u32)>> {
    let all = ranges("cluster-cidr", &options.cluster_cidr)?;
    if !options.allocate_node_cidrs {
        return Ok(Vec::new());
    }
    ensure!(
        !all.is_empty(),
        "--allocate-node-cidrs needs --cluster-cidr, such as --cluster-cidr=10.244.0.0/16"
    );
    let dual = all.len() > 1;
    ensure!(
        !dual || (all.len() == 2 && all[0].is_ipv6() != all[1].is_ipv6()),
        "--cluster-cidr takes one range, or one of each address family"
    );
    let with_prefix = all.into_iter().map(|range| {
        let (specific, default, flag) = if range.is_ipv6() {
            (options.node_cidr_mask_size_ipv6, 64, "--node-cidr-mask-size-ipv6")
        } else {
            (options.node_cidr_mask_size_ipv4, 24, "--node-cidr-mask-size-ipv4")
        };
        let prefix = specific.or(options.node_cidr_mask_size.filter(|_| !dual)).unwrap_or(default);
        if range.first_free(prefix, &HashSet::new()).is_none() {
            bail!("a node range of /{prefix} does not fit into --cluster-cidr {range}; set {flag}");
        }
        Ok((range, prefix))
    });
    with_prefix.collect()
}

/// The controllers that `--controllers` asks for. An explicit name wins over `*`.
fn enabled(wanted: &[String]) -> anyhow::Result<HashSet<&'static str>> {
    let mut all = false;
    let mut named: Vec<(&'static str, bool)> = Vec::new();
    for text in wanted.iter().map(|text| text.trim()).filter(|text| !text.is_empty()) {
        if text == "*" {
            all = true;
            continue;
        }
        let (wanted_name, on) = text.strip_prefix('-').map_or((text, true), |rest| (rest, false));
        if let Some(found) = ALL.iter().find(|c| c.name == wanted_name || c.alias == wanted_name) {
            named.push((found.name, on));
        } else {
            let known: Vec<_> = ALL.iter().map(|controller| controller.name).collect();
            bail!("--controllers: {wanted_name:?} does not exist; there are {}", known.join(", "));
        }
    }
    let by_default = |name: &str| all && !OFF_BY_DEFAULT.contains(&name);
    let asked = |name: &str| {
        named.iter().rev().find(|(named, _)| *named == name).map_or_else(|| by_default(name), |(_, on)| *on)
    };
    Ok(ALL.iter().map(|controller| controller.name).filter(|name| asked(name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> anyhow::Result<HashSet<&'static str>> {
        enabled(&list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn controllers_are_chosen_as_upstream_does() {
        assert_eq!(names(&["*", "bootstrapsigner", "tokencleaner"]).expect("kubeadm's").len(), ALL.len());
        let without = names(&["*", "-podgc"]).expect("valid");
        assert!(!without.contains("pod-garbage-collector-controller") && without.len() == ALL.len() - 3);
        assert!(!without.contains("token-cleaner-controller"));
        assert_eq!(names(&["deployment"]).expect("valid"), HashSet::from(["deployment-controller"]));
        let error = names(&["*", "nonsense-controller"]).expect_err("refused").to_string();
        assert!(error.contains("\"nonsense-controller\" does not exist"), "{error}");
    }
}
