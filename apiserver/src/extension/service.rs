//! From a Service and a port of it to an address that can be dialled: its ClusterIP, or with --enable-aggregator-routing one of its endpoints.

use std::sync::Arc;

use coracle_api::kinds::access::{integer, items, text};
use coracle_api::meta;
use coracle_api::resource::{Resource, lookup};
use coracle_api::status::ApiError;
use serde_json::Value;

use crate::registry::Registry;

const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// Host and port.
pub type Address = (String, u16);

fn row(group: &str, plural: &str) -> Result<&'static Resource, String> {
    lookup(group, "v1", plural).ok_or_else(|| format!("{plural} are not served"))
}

/// Looks the Service up as the cache has it.
///
/// # Errors
/// Upstream's text for why there is no address.
pub async fn resolve(
    registry: &Registry,
    namespace: &str,
    name: &str,
    port: u16,
    random: u64,
) -> Result<Address, String> {
    let service = registry
        .known(row("", "services")?, namespace, name)
        .await
        .map_err(|error| not_found(&error, name))?;
    if !registry.options.enable_aggregator_routing {
        return cluster_address(&service, port);
    }
    let slices = registry
        .all_known(row("discovery.k8s.io", "endpointslices")?, namespace)
        .await
        .map_err(|error| error.to_string())?;
    endpoint_address(&service, &slices, port, random)
}

fn not_found(error: &ApiError, name: &str) -> String {
    if error.code() == 404 { format!("service {name:?} not found") } else { error.to_string() }
}

fn service_port(service: &Value, port: u16) -> Result<&Value, String> {
    let ports = items(&service["spec"], "ports");
    ports
        .iter()
        .find(|one| integer(one, "port") == Some(i64::from(port)))
        .ok_or_else(|| format!("no service port {port} found for service {:?}", meta::name(service)))
}

/// The Service's own address. Pure.
fn cluster_address(service: &Value, port: u16) -> Result<Address, String> {
    let (kind, cluster_ip) = (text(&service["spec"], "type"), text(&service["spec"], "clusterIP"));
    match kind {
        "ClusterIP" if cluster_ip == "None" => Err("cannot route to service with ClusterIP \"None\"".into()),
        "ClusterIP" | "LoadBalancer" | "NodePort" => {
            service_port(service, port)?;
            Ok((cluster_ip.to_owned(), port))
        }
        "ExternalName" => Ok((text(&service["spec"], "externalName").to_owned(), port)),
        other => Err(format!("unsupported service type {other:?}")),
    }
}

/// One of the Service's ready endpoints, by `random`. Pure.
fn endpoint_address(
    service: &Value,
    slices: &[Arc<Value>],
    port: u16,
    random: u64,
) -> Result<Address, String> {
    let kind = text(&service["spec"], "type");
    if !matches!(kind, "ClusterIP" | "LoadBalancer" | "NodePort") {
        return Err(format!("unsupported service type {kind:?}"));
    }
    let port_name = text(service_port(service, port)?, "name");
    let name = meta::name(service);
    let mut addresses: Vec<Address> = Vec::new();
    let mine = |slice: &&Arc<Value>| {
        let label = meta::labels(slice).and_then(|labels| labels.get(SERVICE_NAME_LABEL));
        label.and_then(Value::as_str) == Some(name) && text(slice, "addressType") != "FQDN"
    };
    for slice in slices.iter().filter(mine) {
        let named = items(slice, "ports").iter().find(|one| text(one, "name") == port_name);
        let Some(number) =
            named.and_then(|one| integer(one, "port")).and_then(|number| u16::try_from(number).ok())
        else {
            continue;
        };
        let ready = |endpoint: &&Value| endpoint.pointer("/conditions/ready") != Some(&Value::Bool(false));
        for endpoint in items(slice, "endpoints").iter().filter(ready) {
            if let Some(address) = items(endpoint, "addresses").first().and_then(Value::as_str) {
                addresses.push((address.to_owned(), number));
            }
        }
    }
    let count = addresses.len() as u64;
    if count == 0 {
        return Err(format!("no endpoints available for service {name:?}"));
    }
    Ok(addresses.swap_remove((random % count) as usize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(kind: &str, ip: &str) -> Value {
        json!({"metadata": {"name": "s"}, "spec": {"type": kind, "clusterIP": ip, "externalName": "e",
            "ports": [{"name": "https", "port": 443}]}})
    }

    #[test]
    fn a_service_is_reached_at_its_own_address() {
        assert_eq!(cluster_address(&service("ClusterIP", "10.0.0.1"), 443), Ok(("10.0.0.1".into(), 443)));
        assert_eq!(cluster_address(&service("ExternalName", ""), 9), Ok(("e".into(), 9)));
        for (kind, ip, port, text) in [
            ("ClusterIP", "None", 443, "cannot route to service with ClusterIP \"None\""),
            ("NodePort", "10.0.0.1", 80, "no service port 80 found for service \"s\""),
            ("", "", 443, "unsupported service type \"\""),
        ] {
            assert_eq!(cluster_address(&service(kind, ip), port), Err(text.to_owned()));
        }
    }

    #[test]
    fn or_at_one_of_its_ready_endpoints() {
        let slice = |service: &str, ready: bool, address: &str| {
            Arc::new(json!({"metadata": {"labels": {SERVICE_NAME_LABEL: service}}, "addressType": "IPv4",
                "ports": [{"name": "metrics", "port": 1}, {"name": "https", "port": 8443}],
                "endpoints": [{"addresses": [address], "conditions": {"ready": ready}}]}))
        };
        let slices =
            [slice("other", true, "a"), slice("s", false, "b"), slice("s", true, "c"), slice("s", true, "d")];
        let service = service("ClusterIP", "None");
        assert_eq!(endpoint_address(&service, &slices, 443, 0), Ok(("c".into(), 8443)));
        assert_eq!(endpoint_address(&service, &slices, 443, 3), Ok(("d".into(), 8443)));
        assert_eq!(
            endpoint_address(&service, &slices[..2], 443, 0),
            Err("no endpoints available for service \"s\"".to_owned())
        );
    }
}
