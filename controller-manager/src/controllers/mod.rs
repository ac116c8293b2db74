//! The registration list: one line a controller, under upstream's name and the older one that some flags still use. Also the few
//! helpers that several controllers share.

mod daemonset;
mod deployment;
mod disruption;
mod endpoints;
mod garbage_collector;
mod job;
mod namespace;
mod namespace_furniture;
mod node_ipam;
mod node_lifecycle;
mod pod_gc;
mod replicaset;
mod resource_quota;
mod taint_eviction;
mod ttl_after_finished;

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
    /// The ServiceAccount in `kube-system` whose role is made for it.
    pub account: &'static str,
    /// Runs until shutdown.
    pub run: fn(Context) -> BoxFuture<'static, ()>,
}

macro_rules! controllers {
    ($(($name:literal, $alias:literal, $account:literal, $run:path)),* $(,)?) => {
        /// All controllers.
        pub const ALL: &[Registration] =
            &[$(Registration { name: $name, alias: $alias, account: $account, run: |context| $run(context).boxed() }),*];
    };
}

controllers![
    ("deployment-controller", "deployment", "deployment-controller", deployment::run),
    ("replicaset-controller", "replicaset", "replicaset-controller", replicaset::run),
    ("daemonset-controller", "daemonset", "daemon-set-controller", daemonset::run),
    ("job-controller", "job", "job-controller", job::run),
    (
        "ttl-after-finished-controller",
        "ttl-after-finished",
        "ttl-after-finished-controller",
        ttl_after_finished::run
    ),
    ("endpointslice-controller", "endpointslice", "endpointslice-controller", endpoints::run_slices),
    ("endpoints-controller", "endpoint", "endpoint-controller", endpoints::run_legacy),
    ("namespace-controller", "namespace", "namespace-controller", namespace::run),
    (
        "serviceaccount-controller",
        "serviceaccount",
        "service-account-controller",
        namespace_furniture::run_service_accounts
    ),
    (
        "root-ca-certificate-publisher-controller",
        "root-ca-cert-publisher",
        "root-ca-cert-publisher",
        namespace_furniture::run_root_ca
    ),
    ("disruption-controller", "disruption", "disruption-controller", disruption::run),
    ("resourcequota-controller", "resourcequota", "resourcequota-controller", resource_quota::run),
    ("garbage-collector-controller", "garbagecollector", "generic-garbage-collector", garbage_collector::run),
    ("node-lifecycle-controller", "nodelifecycle", "node-controller", node_lifecycle::run),
    ("taint-eviction-controller", "taint-eviction", "node-controller", taint_eviction::run),
    ("node-ipam-controller", "nodeipam", "node-controller", node_ipam::run),
    ("pod-garbage-collector-controller", "podgc", "pod-garbage-collector", pod_gc::run),
];

/// Names that kubeadm always writes and that do nothing here yet.
pub const ACCEPTED_BUT_ABSENT: [(&str, &str); 2] =
    [("bootstrap-signer-controller", "bootstrapsigner"), ("token-cleaner-controller", "tokencleaner")];

/// Whether an object that adopts others is still the one we know and not being deleted, by the server's word.
pub async fn still_there(
    executor: &Executor,
    resource: &ResourceId,
    meta: &ObjectMeta,
) -> Result<bool, kube::Error> {
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
