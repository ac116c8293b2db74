//! Whom a proxied request is for: from `[scheme:]name[:port]` of a pod, Service or node to an address.

use std::net::IpAddr;
use std::sync::Arc;

use coracle_api::kinds::access::{integer, items, text};
use coracle_api::meta::get;
use coracle_api::status::ApiError;
use serde_json::Value;

use crate::registry::Registry;
use crate::server::request_info::RequestInfo;
use crate::subresource::core;
use crate::subresource::kubelet::{self, Location};

/// Where the request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// To a node's kubelet, as this server speaks to it.
    Kubelet(Location),
    /// To a port.
    Port {
        /// Which one.
        at: Location,
        /// By HTTPS.
        tls: bool,
    },
}

impl Target {
    /// Host and port.
    pub fn location(&self) -> &Location {
        match self {
            Self::Kubelet(at) | Self::Port { at, .. } => at,
        }
    }
}

/// The parts of `[scheme:]name[:port]`.
#[derive(Debug, PartialEq, Eq)]
struct Named<'a> {
    tls: bool,
    name: &'a str,
    port: &'a str,
}

impl<'a> Named<'a> {
    fn parse(id: &'a str) -> Option<Self> {
        let parts: Vec<&str> = id.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme, name, port] => (*scheme, *name, *port),
            _ => return None,
        };
        let known = matches!(scheme, "" | "http" | "https");
        (known && !name.is_empty()).then_some(Self { tls: scheme == "https", name, port })
    }
}

/// Looks up who is meant.
///
/// # Errors
/// 400 for a name that makes no sense, 404, and 503 when nobody is behind a Service's port.
pub async fn locate(registry: &Arc<Registry>, info: &RequestInfo) -> Result<Target, ApiError> {
    let (namespace, id) = (info.namespace(), info.name());
    let what = info.resource.singular;
    let named =
        Named::parse(id).ok_or_else(|| ApiError::bad_request(format!("invalid {what} request {id:?}")))?;
    match info.resource.plural {
        "pods" => {
            let pod = registry.read(info.resource, namespace, named.name).await?;
            of_pod(&pod, &named)
        }
        "services" => {
            let service = registry.read(info.resource, namespace, named.name).await?;
            let port_name = port_name(&service, &named)?;
            let none = || no_endpoints(if named.port.is_empty() { named.name } else { id });
            let endpoints = match registry.read(core("endpoints")?, namespace, named.name).await {
                Ok(endpoints) => endpoints,
                Err(error) if error.code() == 404 => return Err(none()),
                Err(error) => return Err(error),
            };
            let mut random = [0_u8; 8];
            // Without random bytes it is always the same one of several.
            let _ = getrandom::fill(&mut random);
            let mut candidates = addresses(&endpoints, namespace, &port_name);
            let turn = u64::from_le_bytes(random) as usize % candidates.len().max(1);
            candidates.rotate_left(turn);
            for candidate in candidates {
                // Only addresses that pods have: an Endpoints object may name any.
                let pod = registry.known(core("pods")?, namespace, &candidate.pod).await;
                if pod.is_ok_and(|pod| has_address(&pod, &candidate.ip)) {
                    let at = Location { host: candidate.ip, port: candidate.port };
                    return Ok(Target::Port { at, tls: named.tls });
                }
            }
            Err(none())
        }
        _ => {
            let location = kubelet::locate(registry, named.name).await?;
            if named.port.is_empty() || named.port == location.port.to_string() {
                return Ok(Target::Kubelet(location));
            }
            check_address(&location.host)?;
            let at = Location { host: location.host, port: number(named.port)? };
            Ok(Target::Port { at, tls: named.tls })
        }
    }
}

fn number(port: &str) -> Result<u16, ApiError> {
    port.parse().map_err(|_| ApiError::bad_request(format!("invalid port {port:?}")))
}

fn no_endpoints(service: &str) -> ApiError {
    ApiError::service_unavailable(format!("no endpoints available for service {service:?}"))
}

/// The server itself, and what is near to it alone, cannot be reached through it.
fn check_address(host: &str) -> Result<(), ApiError> {
    let near = host.parse::<IpAddr>().is_ok_and(|address| match address {
        IpAddr::V4(v4) => {
            v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_unspecified()
                || v4.is_broadcast()
        }
        IpAddr::V6(v6) => {
            v6.is_loopback() || v6.is_unicast_link_local() || v6.is_multicast() || v6.is_unspecified()
        }
    });
    if near { Err(ApiError::bad_request("address not allowed")) } else { Ok(()) }
}

/// A pod's address with the port asked for, else its first one. Pure.
fn of_pod(pod: &Value, named: &Named<'_>) -> Result<Target, ApiError> {
    let containers = get(pod, &["spec", "containers"]).and_then(Value::as_array);
    let first = || {
        let declared =
            containers.into_iter().flatten().find_map(|container| items(container, "ports").first());
        declared.and_then(|port| u16::try_from(integer(port, "containerPort")?).ok())
    };
    let port = match named.port {
        "" => first().unwrap_or(if named.tls { 443 } else { 80 }),
        port => number(port)?,
    };
    let host = get(pod, &["status", "podIP"]).and_then(Value::as_str).unwrap_or_default();
    if host.parse::<IpAddr>().is_err() {
        return Err(ApiError::bad_request("address not allowed"));
    }
    check_address(host)?;
    Ok(Target::Port { at: Location { host: host.to_owned(), port }, tls: named.tls })
}

/// The name of the Service's port that is asked for by name or number. Pure.
fn port_name(service: &Value, named: &Named<'_>) -> Result<String, ApiError> {
    let Ok(wanted) = named.port.parse::<i64>() else { return Ok(named.port.to_owned()) };
    let found = items(&service["spec"], "ports").iter().find(|port| integer(port, "port") == Some(wanted));
    found.map(|port| text(port, "name").to_owned()).ok_or_else(|| {
        ApiError::service_unavailable(format!("no service port {wanted} found for service {:?}", named.name))
    })
}

#[derive(Debug, PartialEq, Eq)]
struct Candidate {
    pod: String,
    ip: String,
    port: u16,
}

/// The ready addresses with a port of this name. Pure.
fn addresses(endpoints: &Value, namespace: &str, port_name: &str) -> Vec<Candidate> {
    let mut found = Vec::new();
    for subset in items(endpoints, "subsets") {
        let named = items(subset, "ports").iter().find(|port| text(port, "name") == port_name);
        let Some(port) = named.and_then(|port| u16::try_from(integer(port, "port")?).ok()) else { continue };
        for address in items(subset, "addresses") {
            let target = &address["targetRef"];
            if text(target, "kind") == "Pod" && text(target, "namespace") == namespace {
                let (pod, ip) = (text(target, "name").to_owned(), text(address, "ip").to_owned());
                found.push(Candidate { pod, ip, port });
            }
        }
    }
    found
}

fn has_address(pod: &Value, ip: &str) -> bool {
    items(&pod["status"], "podIPs").iter().any(|entry| text(entry, "ip") == ip)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_have_a_scheme_and_a_port_or_none() {
        let named = |tls, name, port| Some(Named { tls, name, port });
        assert_eq!(Named::parse("a"), named(false, "a", ""));
        assert_eq!(Named::parse("a:80"), named(false, "a", "80"));
        assert_eq!(Named::parse("https:a:web"), named(true, "a", "web"));
        assert_eq!(Named::parse("https:a:"), named(true, "a", ""));
        for wrong in ["", ":80", "ftp:a:80", "a:b:c:d"] {
            assert_eq!(Named::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn pods_are_reached_at_their_first_port_unless_another_is_asked_for() {
        let pod = |ip: &str| {
            json!({"spec": {"containers": [{"name": "a"}, {"name": "b", "ports": [{"containerPort": 8080}]}]},
                "status": {"podIP": ip}})
        };
        let of = |ip: &str, id: &str| of_pod(&pod(ip), &Named::parse(id).expect("a name"));
        let port = |port, tls| Ok(Target::Port { at: Location { host: "10.1.0.2".into(), port }, tls });
        let same = |found: Result<Target, ApiError>, expected: Result<Target, ApiError>| {
            assert_eq!(
                found.map_err(|error| error.message().to_owned()),
                expected.map_err(|_| String::new())
            );
        };
        same(of("10.1.0.2", "p"), port(8080, false));
        same(of("10.1.0.2", "https:p:9"), port(9, true));
        for near in ["", "127.0.0.1", "169.254.0.1"] {
            assert_eq!(of(near, "p").expect_err("refused").message(), "address not allowed", "{near}");
        }
        assert_eq!(of("10.1.0.2", "p:web").expect_err("refused").code(), 400);
    }

    #[test]
    fn services_are_reached_at_pods_that_have_the_port() {
        let service = json!({"spec": {"ports": [{"name": "web", "port": 80}]}});
        let port = |id: &str| port_name(&service, &Named::parse(id).expect("a name"));
        assert_eq!(
            (port("s:80").expect("known"), port("s:web").expect("a name")),
            ("web".into(), "web".into())
        );
        assert_eq!(
            port("s:81").expect_err("refused").message(),
            "no service port 81 found for service \"s\""
        );
        let endpoints = json!({"subsets": [
            {"addresses": [{"ip": "10.1.0.2", "targetRef": {"kind": "Pod", "namespace": "n", "name": "a"}},
                {"ip": "10.1.0.3"}], "ports": [{"name": "web", "port": 8080}]},
            {"notReadyAddresses": [{"ip": "10.1.0.4"}], "ports": [{"name": "web", "port": 8080}]}]});
        let found = addresses(&endpoints, "n", "web");
        assert_eq!(found, [Candidate { pod: "a".into(), ip: "10.1.0.2".into(), port: 8080 }]);
        assert!(
            addresses(&endpoints, "n", "other").is_empty() && addresses(&endpoints, "m", "web").is_empty()
        );
    }
}
