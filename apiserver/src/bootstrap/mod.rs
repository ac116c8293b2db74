//! What a cluster has without anybody creating it: system namespaces, the `kubernetes` Service with its endpoints, system priority classes, default
//! roles, what extension servers need to authenticate. Idempotent, also with several API servers starting at once.

pub mod aggregation;
mod endpoints;
pub mod flowcontrol;
pub mod rbac;
mod service_cidr;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use coracle_api::resource::{self, Resource};
use coracle_api::status::ApiError;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::allocator::pool::Pool;
use crate::allocator::repair;
use crate::options::Options;
use crate::registry::{Registry, meta};
use crate::server::request_info::{RequestInfo, Verb};

const RETRY: Duration = Duration::from_millis(200);

/// Makes what is missing, then keeps the `kubernetes` Service's endpoints and the allocation records right until `stop` fires.
///
/// # Errors
/// A flag is unusable; everything else is tried again.
pub fn start(
    registry: Arc<Registry>,
    stop: CancellationToken,
) -> Result<tokio::task::JoinHandle<()>, String> {
    let addresses = Pool::cluster_ips(&registry.options)?;
    let ports = Pool::node_ports(&registry.options)?;
    Ok(tokio::spawn(async move {
        let first = Ipv4Addr::from(addresses.first());
        loop {
            match ensure_all(&registry, addresses.text(), first).await {
                Ok(()) => break,
                Err(error) => tracing::debug!(%error, "making the system objects; trying again"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
        let range = addresses.text().to_owned();
        let ranges = service_cidr::run(Arc::clone(&registry), range, stop.clone());
        let repair = repair::run(Arc::clone(&registry), addresses, ports, stop.clone());
        let repair = async { tokio::join!(ranges, repair) };
        match advertised(&registry.options) {
            Some(address) => {
                let port = registry.options.secure_port;
                tokio::join!(repair, endpoints::run(Arc::clone(&registry), address, port, stop));
            }
            None => {
                tracing::warn!(
                    "no --advertise-address: this server does not appear behind the kubernetes Service"
                );
                repair.await;
            }
        }
    }))
}

fn advertised(options: &Options) -> Option<IpAddr> {
    let bound = options.bind_address;
    options.advertise_address.or_else(|| (!bound.is_unspecified()).then_some(bound))
}

async fn ensure_all(
    registry: &Arc<Registry>,
    service_range: &str,
    first_service_ip: Ipv4Addr,
) -> Result<(), ApiError> {
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        ensure(registry, "", "v1", "namespaces", None, json!({"metadata": {"name": name}})).await?;
    }
    for (name, value, description) in [
        (
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
        (
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
    ] {
        let class = json!({"metadata": {"name": name}, "value": value, "description": description});
        ensure(registry, "scheduling.k8s.io", "v1", "priorityclasses", None, class).await?;
    }
    service_cidr::reconcile(registry, service_range).await?;
    let service = json!({
        "metadata": {"name": "kubernetes", "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": first_service_ip.to_string(),
            "clusterIPs": [first_service_ip.to_string()],
            "ports": [{"name": "https", "protocol": "TCP", "port": 443, "targetPort": registry.options.secure_port}],
            "sessionAffinity": "None",
        },
    });
    ensure(registry, "", "v1", "services", Some("default"), service).await?;
    let data = authentication_data(&registry.options)?;
    let name = "extension-apiserver-authentication";
    let config = json!({"metadata": {"name": name}, "data": data});
    ensure(registry, "", "v1", "configmaps", Some("kube-system"), config).await?;
    // Since when uses of tokens that live in Secrets are noted.
    let since = meta::now().strftime("%Y-%m-%d").to_string();
    let tracking = json!({"metadata": {"name": "kube-apiserver-legacy-service-account-token-tracking"},
        "data": {"since": since}});
    ensure(registry, "", "v1", "configmaps", Some("kube-system"), tracking).await?;
    // One of an earlier start may be there, with other certificates.
    let renew = |current: &Value| {
        let mut renewed = current.clone();
        for (key, value) in data.as_object().into_iter().flatten() {
            renewed["data"][key] = value.clone();
        }
        Ok(renewed)
    };
    let resource = of("", "v1", "configmaps")?;
    registry.guaranteed_update(resource, "kube-system", name, &renew).await.map(|_| ())
}

/// What servers behind the aggregation layer need to tell real front-proxy requests.
fn authentication_data(options: &Options) -> Result<Value, ApiError> {
    let mut data = serde_json::Map::new();
    for (name, file) in [
        ("client-ca-file", &options.client_ca_file),
        ("requestheader-client-ca-file", &options.requestheader_client_ca_file),
    ] {
        if let Some(path) = file {
            let text = std::fs::read_to_string(path)
                .map_err(|error| ApiError::internal(format!("{}: {error}", path.display())))?;
            data.insert(name.into(), text.into());
        }
    }
    let uid_headers = &options.requestheader_uid_headers;
    if !uid_headers.is_empty() {
        let text = serde_json::to_string(uid_headers).map_err(ApiError::internal)?;
        data.insert("requestheader-uid-headers".into(), text.into());
    }
    for (name, list) in [
        ("requestheader-allowed-names", &options.requestheader_allowed_names),
        ("requestheader-extra-headers-prefix", &options.requestheader_extra_headers_prefix),
        ("requestheader-group-headers", &options.requestheader_group_headers),
        ("requestheader-username-headers", &options.requestheader_username_headers),
    ] {
        let text = serde_json::to_string(list).map_err(ApiError::internal)?;
        data.insert(name.into(), text.into());
    }
    Ok(data.into())
}

fn of(group: &str, version: &str, plural: &str) -> Result<&'static Resource, ApiError> {
    resource::lookup(group, version, plural)
        .ok_or_else(|| ApiError::internal(format!("no resource {plural}")))
}

/// Creates the object unless one of its name is there.
async fn ensure(
    registry: &Arc<Registry>,
    group: &str,
    version: &str,
    plural: &str,
    namespace: Option<&str>,
    mut object: Value,
) -> Result<(), ApiError> {
    let resource = of(group, version, plural)?;
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    match registry.read(resource, namespace.unwrap_or_default(), &name).await {
        Ok(_) => return Ok(()),
        Err(error) if error.code() == 404 => {}
        Err(error) => return Err(error),
    }
    object["apiVersion"] = resource.api_version().into();
    object["kind"] = resource.kind.into();
    let request = RequestInfo::internal(Verb::Create, resource, namespace, Some(&name));
    match registry.create(&request, object).await {
        Ok(_) => Ok(()),
        // Another API server was faster.
        Err(error) if error.reason() == "AlreadyExists" => Ok(()),
        Err(error) => Err(error),
    }
}
