//! What a cluster has without anybody creating it: system namespaces, the `kubernetes` Service with its endpoints, system priority classes, default
//! roles, what extension servers need to authenticate. Idempotent, also with several API servers starting at once.

pub mod aggregation;
mod authentication;
mod endpoints;
pub mod flowcontrol;
pub mod rbac;
mod service_cidr;

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
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
        let trust = authentication::run(Arc::clone(&registry), stop.clone());
        let repair = async { tokio::join!(ranges, repair, trust) };
        let advertised = match registry.options.endpoint_reconciler_type.as_str() {
            "none" => {
                repair.await;
                return;
            }
            _ => advertised(&registry.options),
        };
        match advertised {
            Some(address) => {
                let port = registry.options.secure_port;
                tokio::join!(repair, endpoints::run(Arc::clone(&registry), address, port, stop));
            }
            None => {
                tracing::warn!(
                    "no --advertise-address, and no default route that would tell one: this server does not appear behind the kubernetes Service"
                );
                repair.await;
            }
        }
    }))
}

/// The address given, or the one listened on, or the host's own on the way out.
pub fn advertised(options: &Options) -> Option<IpAddr> {
    let given = [options.advertise_address, Some(options.bind_address)];
    given.into_iter().flatten().find(|address| !address.is_unspecified()).or_else(outward_address)
}

/// Which address the host takes to the default route. Nothing is sent: a datagram socket that connects only looks the route up.
fn outward_address() -> Option<IpAddr> {
    const ELSEWHERE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(ELSEWHERE).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified()).then_some(address)
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
    authentication::publish(registry, &authentication::data(&registry.options)?).await?;
    // Since when uses of tokens that live in Secrets are noted.
    let since = meta::now().strftime("%Y-%m-%d").to_string();
    let tracking = json!({"metadata": {"name": "kube-apiserver-legacy-service-account-token-tracking"},
        "data": {"since": since}});
    ensure(registry, "", "v1", "configmaps", Some("kube-system"), tracking).await
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
