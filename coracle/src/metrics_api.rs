//! Registers the metrics server with the API server: its Service, its APIService, and the roles that upstream's manifest gives it. Applied at every
//! `up`, so that a cluster that is resumed gets them too.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use crate::layout::Layout;
use crate::topology::Topology;
use crate::{client, probe};

/// Who the metrics server is to the API server and the kubelets.
pub const USER: &str = "system:metrics-server";
/// Its name in the certificate that it shows to the API server.
pub const HOST_NAME: &str = "metrics-server.kube-system.svc";
const NAME: &str = "metrics-server";
const NAMESPACE: &str = "kube-system";
const MANAGER: &str = "coracle";

/// Between two attempts, and between two looks whether the server serves.
const RETRY: Duration = Duration::from_millis(500);

/// Applies all objects, the APIService when the server serves; tries until it has done so.
pub async fn register(layout: &Layout, topology: &Topology) {
    let mut known = None;
    loop {
        match attempt(layout, topology).await {
            Ok(()) => return,
            // While the API comes up the same is found many times.
            Err(error) => {
                let error = format!("{error:#}");
                if known.as_ref() != Some(&error) {
                    tracing::info!(error, "the metrics server is not registered yet");
                    known = Some(error);
                }
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn attempt(layout: &Layout, topology: &Topology) -> anyhow::Result<()> {
    let Some((address, port)) = topology.metrics_server() else { return Ok(()) };
    let client = client::connect(layout).await?;
    let ca = layout.pki("ca.crt");
    let authority = std::fs::read(&ca).with_context(|| format!("cannot read {}", ca.display()))?;
    for object in roles() {
        apply(&client, object).await?;
    }
    // An API server that asks one that does not serve yet asks again only half a minute later.
    while !probe::https_ready(SocketAddr::from((address, port)), &ca).await {
        tokio::time::sleep(RETRY).await;
    }
    for object in services(address, port, &STANDARD.encode(authority)) {
        apply(&client, object).await?;
    }
    tracing::info!(%address, port, "registered the metrics server");
    Ok(())
}

async fn apply(client: &kube::Client, mut object: Value) -> anyhow::Result<()> {
    object["metadata"]["labels"]["k8s-app"] = NAME.into();
    let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &kind));
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let api: Api<DynamicObject> = match object["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    api.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&object))
        .await
        .with_context(|| format!("cannot apply {kind} {name}"))?;
    Ok(())
}

/// What the server may do, and who may read what it serves.
fn roles() -> Vec<Value> {
    let rbac = "rbac.authorization.k8s.io";
    let rbac_version = format!("{rbac}/v1");
    let user = json!([{"apiGroup": rbac, "kind": "User", "name": USER}]);
    let reads = json!(["get", "list", "watch"]);
    let role = |kind: &str, name: &str| json!({"apiGroup": rbac, "kind": kind, "name": name});
    vec![
        json!({"apiVersion": rbac_version, "kind": "ClusterRole", "metadata": {"name": "system:aggregated-metrics-reader", "labels": {
            "rbac.authorization.k8s.io/aggregate-to-admin": "true",
            "rbac.authorization.k8s.io/aggregate-to-edit": "true",
            "rbac.authorization.k8s.io/aggregate-to-view": "true",
        }}, "rules": [{"apiGroups": ["metrics.k8s.io"], "resources": ["pods", "nodes"], "verbs": reads}]}),
        json!({"apiVersion": rbac_version, "kind": "ClusterRole", "metadata": {"name": USER}, "rules": [
            {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]},
            {"apiGroups": [""], "resources": ["pods", "nodes"], "verbs": reads},
        ]}),
        json!({"apiVersion": rbac_version, "kind": "ClusterRoleBinding", "metadata": {"name": USER},
            "roleRef": role("ClusterRole", USER), "subjects": user}),
        json!({"apiVersion": rbac_version, "kind": "ClusterRoleBinding", "metadata": {"name": "metrics-server:system:auth-delegator"},
            "roleRef": role("ClusterRole", "system:auth-delegator"), "subjects": user}),
        json!({"apiVersion": rbac_version, "kind": "RoleBinding", "metadata": {"name": "metrics-server-auth-reader", "namespace": NAMESPACE},
            "roleRef": role("Role", "extension-apiserver-authentication-reader"), "subjects": user}),
    ]
}

/// The server is a process beside the cluster: a Service of type ExternalName leads to its address, whether or not nodes translate addresses.
fn services(address: Ipv4Addr, port: u16, authority: &str) -> Vec<Value> {
    vec![
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": NAME, "namespace": NAMESPACE},
            "spec": {"type": "ExternalName", "externalName": address.to_string(), "ports": [{"name": "https", "port": port}]}}),
        json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1beta1.metrics.k8s.io"}, "spec": {
            "group": "metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100, "caBundle": authority,
            "service": {"name": NAME, "namespace": NAMESPACE, "port": port}}}),
    ]
}
