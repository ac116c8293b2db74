//! The Service's hooks: takes its ClusterIP and node ports before it is stored, gives back what it no longer uses.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use coracle_api::field::{self, FieldError};
use coracle_api::meta;
use coracle_api::status::{ApiError, GroupKind};
use serde_json::{Value, json};

use super::pool::{ClaimError, Pool};
use crate::strategy::Dependencies;

const SERVICE: GroupKind<'static> = GroupKind { group: "", kind: "Service" };

/// What a Service holds of the pools.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// ClusterIPs as numbers.
    pub addresses: BTreeSet<u32>,
    /// Node ports, the health check's included.
    pub ports: BTreeSet<u32>,
}

/// Reads what a Service holds.
pub fn holdings(service: &Value) -> Holdings {
    let address = service["spec"]["clusterIP"].as_str().and_then(|text| text.parse::<Ipv4Addr>().ok());
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let ports = ports
        .filter_map(|port| port["nodePort"].as_u64())
        .chain(service["spec"]["healthCheckNodePort"].as_u64());
    Holdings {
        addresses: address.into_iter().map(u32::from).collect(),
        ports: ports.filter_map(|port| u32::try_from(port).ok()).filter(|port| *port > 0).collect(),
    }
}

/// `NAMESPACE/NAME`.
pub fn owner(service: &Value) -> String {
    format!("{}/{}", meta::namespace(service), meta::name(service))
}

fn needs_address(service: &Value) -> bool {
    service["spec"]["type"] != "ExternalName" && service["spec"]["clusterIP"] != "None"
}

fn needs_node_ports(service: &Value) -> bool {
    match service["spec"]["type"].as_str() {
        Some("NodePort") => true,
        Some("LoadBalancer") => service["spec"]["allocateLoadBalancerNodePorts"] != false,
        _ => false,
    }
}

struct Pools {
    addresses: Pool,
    ports: Pool,
}

fn pools(dependencies: &Dependencies) -> Result<Pools, ApiError> {
    Ok(Pools {
        addresses: Pool::cluster_ips(&dependencies.options).map_err(ApiError::internal)?,
        ports: Pool::node_ports(&dependencies.options).map_err(ApiError::internal)?,
    })
}

fn refuse(service: &Value, error: FieldError) -> ApiError {
    ApiError::invalid(SERVICE, meta::name(service), vec![error])
}

/// Takes what the Service needs and does not hold in `old`. On an error nothing stays taken.
///
/// # Errors
/// 422 for values that cannot be had, and the store's errors.
pub async fn take(
    dependencies: &Dependencies,
    service: &mut Value,
    old: Option<&Value>,
) -> Result<(), ApiError> {
    let mut taken = Holdings::default();
    let result = take_all(dependencies, service, old, &mut taken).await;
    if result.is_err() {
        release(dependencies, &taken, &owner(service)).await;
    }
    result
}

async fn take_all(
    dependencies: &Dependencies,
    service: &mut Value,
    old: Option<&Value>,
    taken: &mut Holdings,
) -> Result<(), ApiError> {
    let (pools, held, owner) = (pools(dependencies)?, old.map(holdings).unwrap_or_default(), owner(service));
    let storage = &dependencies.registry.storage;
    if needs_address(service) {
        let text = service["spec"]["clusterIP"].as_str().unwrap_or_default().to_owned();
        let wanted = if text.is_empty() {
            None
        } else {
            let invalid = || {
                let detail = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
                refuse(service, field::invalid("spec.clusterIPs[0]", text.as_str(), detail))
            };
            Some(u32::from(text.parse::<Ipv4Addr>().map_err(|_| invalid())?))
        };
        if wanted.is_none_or(|address| !held.addresses.contains(&address)) {
            let claimed = pools.addresses.claim(storage, wanted, &owner).await;
            let address = claimed.map_err(|error| {
                let detail = match error {
                    ClaimError::Api(error) => return error,
                    ClaimError::Taken => format!("failed to allocate IP {text}: provided IP is already allocated"),
                    ClaimError::OutOfRange => format!(
                        "failed to allocate IP {text}: the provided IP ({text}) is not in the valid range. The range of valid IPs is {}",
                        pools.addresses.text()
                    ),
                    ClaimError::Full => return ApiError::internal("failed to allocate a serviceIP: range is full"),
                };
                refuse(service, field::invalid("spec.clusterIPs", json!([text]), detail))
            })?;
            taken.addresses.insert(address);
            let text = Ipv4Addr::from(address).to_string();
            service["spec"]["clusterIPs"] = json!([text]);
            service["spec"]["clusterIP"] = text.into();
        }
    }
    if needs_node_ports(service) {
        let count = service["spec"]["ports"].as_array().map_or(0, Vec::len);
        for index in 0..count {
            let wanted = service["spec"]["ports"][index]["nodePort"].as_u64().filter(|port| *port > 0);
            let wanted = wanted.and_then(|port| u32::try_from(port).ok());
            // One number may serve several protocols of the same Service.
            if wanted.is_some_and(|port| held.ports.contains(&port) || taken.ports.contains(&port)) {
                continue;
            }
            let claimed = pools.ports.claim(storage, wanted, &owner).await;
            let port = claimed.map_err(|error| {
                let detail = match error {
                    ClaimError::Api(error) => return error,
                    ClaimError::Taken => "provided port is already allocated".to_owned(),
                    ClaimError::OutOfRange => {
                        format!(
                            "provided port is not in the valid range. The range of valid ports is {}",
                            pools.ports.text()
                        )
                    }
                    ClaimError::Full => {
                        return ApiError::internal("failed to allocate a nodePort: range is full");
                    }
                };
                let path = format!("spec.ports[{index}].nodePort");
                refuse(service, field::invalid(path, wanted.unwrap_or(0), detail))
            })?;
            taken.ports.insert(port);
            service["spec"]["ports"][index]["nodePort"] = port.into();
        }
    }
    Ok(())
}

/// Gives back what `from` holds and `to` does not.
pub async fn release_difference(dependencies: &Dependencies, from: &Value, to: Option<&Value>) {
    let (from_holdings, to) = (holdings(from), to.map(holdings).unwrap_or_default());
    let difference = Holdings {
        addresses: from_holdings.addresses.difference(&to.addresses).copied().collect(),
        ports: from_holdings.ports.difference(&to.ports).copied().collect(),
    };
    release(dependencies, &difference, &owner(from)).await;
}

async fn release(dependencies: &Dependencies, holdings: &Holdings, owner: &str) {
    let Ok(pools) = pools(dependencies) else { return };
    let storage = &dependencies.registry.storage;
    for (pool, values) in [(&pools.addresses, &holdings.addresses), (&pools.ports, &holdings.ports)] {
        if values.is_empty() {
            continue;
        }
        let values: Vec<u32> = values.iter().copied().collect();
        if let Err(error) = pool.release(storage, &values, owner).await {
            tracing::warn!(owner, %error, "could not give back a Service's allocations; the repair will");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holdings_are_addresses_and_ports() {
        let service = json!({"spec": {"clusterIP": "10.96.0.1", "healthCheckNodePort": 31000, "ports": [{"nodePort": 30001}, {"port": 1}]}});
        assert_eq!(
            holdings(&service),
            Holdings { addresses: [0x0a60_0001].into(), ports: [30001, 31000].into() }
        );
        assert_eq!(holdings(&json!({"spec": {"clusterIP": "None"}})), Holdings::default());
    }
}
