//! The registration list: one line a controller, under upstream's name and the older one that some flags still use. Also the few
//! helpers that several controllers share.

mod bootstrap_tokens;
pub mod certificates;
mod cronjob;
mod daemonset;
mod deployment;
mod disruption;
mod endpoints;
mod ephemeral_volume;
mod garbage_collector;
mod horizontal_autoscaler;
mod job;
mod legacy_token_cleaner;
mod namespace;
mod namespace_furniture;
mod node_ipam;
mod node_lifecycle;
mod pod_gc;
mod replicaset;
mod resource_quota;
pub mod service_account_tokens;
mod statefulset;
mod taint_eviction;
mod ttl_after_finished;
mod volume_attachment;
pub mod volume_binder;
mod volume_expander;
mod volume_protection;

use controller_manager_core::action::{ResourceId, Target};
use controller_manager_core::object_meta::{name, namespace as namespace_of};
use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::context::Context;
use crate::executor::Executor;

/// A controller: its names and how it runs.
pub struct Registration {
    /// Upstream's name.
    pub name: &'static str,
    /// Upstream's older name.
    pub alias: &'static str,
    /// The ServiceAccount in `kube-system` whose role is made for it; [`AS_PROCESS`] for those that act as the process itself.
    pub account: &'static str,
    /// Runs until shutdown.
    pub run: fn(Context) -> BoxFuture<'static, ()>,
}

/// The account of controllers that act as the process itself.
pub const AS_PROCESS: &str = "";

macro_rules! controllers {
    ($(($name:literal, $alias:literal, $account:expr, $run:path)),* $(,)?) => {
        /// All controllers.
        pub const ALL: &[Registration] =
            &[$(Registration { name: $name, alias: $alias, account: $account, run: |context| $run(context).boxed() }),*];
    };
}

controllers![
    ("deployment-controller", "deployment", "deployment-controller", deployment::run),
    ("replicaset-controller", "replicaset", "replicaset-controller", replicaset::run),
    (
        "replicationcontroller-controller",
        "replicationcontroller",
        "replication-controller",
        replicaset::run_replication
    ),
    ("statefulset-controller", "statefulset", "statefulset-controller", statefulset::run),
    ("daemonset-controller", "daemonset", "daemon-set-controller", daemonset::run),
    ("cronjob-controller", "cronjob", "cronjob-controller", cronjob::run),
    ("job-controller", "job", "job-controller", job::run),
    (
        "ttl-after-finished-controller",
        "ttl-after-finished",
        "ttl-after-finished-controller",
        ttl_after_finished::run
    ),
    ("endpointslice-controller", "endpointslice", "endpointslice-controller", endpoints::run_slices),
    (
        "endpointslice-mirroring-controller",
        "endpointslicemirroring",
        "endpointslicemirroring-controller",
        endpoints::run_mirroring
    ),
    ("endpoints-controller", "endpoint", "endpoint-controller", endpoints::run_legacy),
    ("namespace-controller", "namespace", "namespace-controller", namespace::run),
    (
        "serviceaccount-controller",
        "serviceaccount",
        "service-account-controller",
        namespace_furniture::run_service_accounts
    ),
    ("serviceaccount-token-controller", "serviceaccount-token", AS_PROCESS, service_account_tokens::run),
    (
        "legacy-serviceaccount-token-cleaner-controller",
        "legacy-service-account-token-cleaner",
        "legacy-service-account-token-cleaner",
        legacy_token_cleaner::run
    ),
    (
        "root-ca-certificate-publisher-controller",
        "root-ca-cert-publisher",
        "root-ca-cert-publisher",
        namespace_furniture::run_root_ca
    ),
    (
        "horizontal-pod-autoscaler-controller",
        "horizontalpodautoscaling",
        "horizontal-pod-autoscaler",
        horizontal_autoscaler::run
    ),
    ("disruption-controller", "disruption", "disruption-controller", disruption::run),
    ("resourcequota-controller", "resourcequota", "resourcequota-controller", resource_quota::run),
    (
        "certificatesigningrequest-approving-controller",
        "csrapproving",
        "certificate-controller",
        certificates::run_approver
    ),
    (
        "certificatesigningrequest-signing-controller",
        "csrsigning",
        "certificate-controller",
        certificates::run_signer
    ),
    (
        "certificatesigningrequest-cleaner-controller",
        "csrcleaner",
        "certificate-controller",
        certificates::run_cleaner
    ),
    (
        "persistentvolume-binder-controller",
        "persistentvolume-binder",
        "persistent-volume-binder",
        volume_binder::run
    ),
    (
        "persistentvolume-attach-detach-controller",
        "attachdetach",
        "attachdetach-controller",
        volume_attachment::run
    ),
    (
        "persistentvolume-expander-controller",
        "persistentvolume-expander",
        "expand-controller",
        volume_expander::run
    ),
    (
        "persistentvolumeclaim-protection-controller",
        "pvc-protection",
        "pvc-protection-controller",
        volume_protection::run_claims
    ),
    (
        "persistentvolume-protection-controller",
        "pv-protection",
        "pv-protection-controller",
        volume_protection::run_volumes
    ),
    ("ephemeral-volume-controller", "ephemeral-volume", "ephemeral-volume-controller", ephemeral_volume::run),
    ("bootstrap-signer-controller", "bootstrapsigner", "bootstrap-signer", bootstrap_tokens::run_signer),
    ("token-cleaner-controller", "tokencleaner", "token-cleaner", bootstrap_tokens::run_cleaner),
    ("garbage-collector-controller", "garbagecollector", "generic-garbage-collector", garbage_collector::run),
    ("node-lifecycle-controller", "nodelifecycle", "node-controller", node_lifecycle::run),
    ("taint-eviction-controller", "taint-eviction", "node-controller", taint_eviction::run),
    ("node-ipam-controller", "nodeipam", "node-controller", node_ipam::run),
    ("pod-garbage-collector-controller", "podgc", "pod-garbage-collector", pod_gc::run),
];

/// Controllers that `*` does not mean: only who says their names gets them.
pub const OFF_BY_DEFAULT: [&str; 2] = ["bootstrap-signer-controller", "token-cleaner-controller"];

/// Whether an object that adopts others is still the one we know and not being deleted, by the server's word.
pub async fn still_there(
    executor: &Executor,
    resource: &ResourceId,
    meta: &ObjectMeta,
) -> Result<bool, kube::Error> {
    if controller_manager_core::mutant!(AdoptsWithoutAsking) {
        return Ok(true);
    }
    let live = executor.metadata(&Target::new(resource, namespace_of(meta), name(meta))).await?;
    Ok(live.is_some_and(|live| live.uid == meta.uid && live.deletion_timestamp.is_none()))
}

/// The server's text of an error, without our own words round it.
pub fn message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}
