//! Services: defaults, IP families, and what is wrong with them. Which ClusterIP and node ports are free is the allocator's matter.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::access::{
    boolean, default_text, default_to, drop_nulls, each_mut, integer, items, map, present, remove, set,
    struct_mut, text,
};
use super::{object_meta, probe};
use crate::field::{self, FieldError, FieldPath};
use crate::names;

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
/// How long a client stays with an endpoint by default, in seconds: three hours.
const AFFINITY_SECONDS: i64 = 10_800;
const AFFINITY_SECONDS_MAX: i64 = 86_400;

/// Upstream's defaults.
pub fn default(service: &mut Value) {
    if let Some(spec) = struct_mut(service, "spec") {
        default_spec(spec);
    }
    if let Some(status) = struct_mut(service, "status") {
        default_to(status, "loadBalancer", Value::Object(Map::new()));
    }
}

fn default_spec(spec: &mut Value) {
    drop_nulls(spec);
    default_text(spec, "sessionAffinity", "None");
    if text(spec, "sessionAffinity") == "None" {
        remove(spec, "sessionAffinityConfig");
    } else if text(spec, "sessionAffinity") == "ClientIP"
        && let Some(config) = struct_mut(spec, "sessionAffinityConfig")
        && let Some(client) = struct_mut(config, "clientIP")
    {
        default_to(client, "timeoutSeconds", AFFINITY_SECONDS);
    }
    default_text(spec, "type", "ClusterIP");
    each_mut(spec, "ports", |port| {
        default_text(port, "protocol", "TCP");
        let unset = match port.get("targetPort") {
            None | Some(Value::Null) => true,
            Some(target) => target == "" || *target == 0,
        };
        if unset && let Some(number) = port.get("port").cloned() {
            set(port, "targetPort", number);
        }
    });
    let kind = text(spec, "type").to_owned();
    let external = matches!(kind.as_str(), "NodePort" | "LoadBalancer")
        || (kind == "ClusterIP" && !items(spec, "externalIPs").is_empty());
    if external {
        default_text(spec, "externalTrafficPolicy", "Cluster");
    }
    if kind != "ExternalName" {
        default_text(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        default_to(spec, "allocateLoadBalancerNodePorts", true);
    }
}

/// Whether the service has no address of its own.
pub fn is_headless(spec: &Value) -> bool {
    text(spec, "clusterIP") == "None" || items(spec, "clusterIPs").first().is_some_and(|ip| ip == "None")
}

/// Whether the service is to have a ClusterIP.
pub fn needs_cluster_ip(spec: &Value) -> bool {
    text(spec, "type") != "ExternalName" && !is_headless(spec)
}

/// Settles what depends on other fields of a spec that has its defaults: addresses in both forms, IP families; and what the stored spec (`old`)
/// holds that a change leaves out.
pub fn normalize(spec: &mut Value, old: Option<&Value>) {
    mirror_cluster_ips(spec, old);
    if let Some(old) = old {
        drop_fields_of_old_type(spec, old);
        keep_allocated(spec, old);
    }
    default_ip_families(spec);
}

/// Makes `clusterIP` and `clusterIPs` agree: `clusterIP` is the first of `clusterIPs`.
fn mirror_cluster_ips(spec: &mut Value, old: Option<&Value>) {
    let one = text(spec, "clusterIP").to_owned();
    let first = items(spec, "clusterIPs").first().and_then(Value::as_str).unwrap_or_default().to_owned();
    let Some(old) = old else {
        if first.is_empty() && !one.is_empty() {
            set(spec, "clusterIPs", json!([one]));
        } else if one.is_empty() && !first.is_empty() && items(spec, "clusterIPs").len() == 1 {
            set(spec, "clusterIP", first);
        }
        return;
    };
    let old_one = text(old, "clusterIP");
    let lists_alike = items(spec, "clusterIPs") == items(old, "clusterIPs");
    if one != old_one && lists_alike {
        if one.is_empty() {
            remove(spec, "clusterIPs");
        } else {
            set(spec, "clusterIPs", json!([one]));
        }
    } else if one == old_one && !lists_alike && first.is_empty() {
        remove(spec, "clusterIP");
    }
}

/// IP families and their policy, for a cluster that has IPv4 alone. The ones said stay.
fn default_ip_families(spec: &mut Value) {
    if text(spec, "type") == "ExternalName" {
        return;
    }
    let selectorless = map(spec, "selector").is_none_or(Map::is_empty);
    let undecided = items(spec, "ipFamilies").is_empty() && text(spec, "ipFamilyPolicy").is_empty();
    if is_headless(spec) && selectorless && undecided {
        set(spec, "ipFamilyPolicy", "RequireDualStack");
        set(spec, "ipFamilies", json!(["IPv4", "IPv6"]));
        return;
    }
    default_text(spec, "ipFamilyPolicy", "SingleStack");
    if items(spec, "ipFamilies").is_empty() {
        let first = items(spec, "clusterIPs").first().and_then(Value::as_str).unwrap_or_default();
        let family = if first.parse::<std::net::Ipv6Addr>().is_ok() { "IPv6" } else { "IPv4" };
        set(spec, "ipFamilies", json!([family]));
    }
}

/// What an update leaves out and the stored service has stays: addresses and node ports that were given out.
fn keep_allocated(spec: &mut Value, old: &Value) {
    if needs_cluster_ip(spec) && needs_cluster_ip(old) {
        for key in ["clusterIP", "clusterIPs"] {
            let missing =
                if key == "clusterIP" { text(spec, key).is_empty() } else { items(spec, key).is_empty() };
            if missing && let Some(value) = old.get(key).cloned() {
                set(spec, key, value);
            }
        }
    }
    let has_node_ports = |spec: &Value| matches!(text(spec, "type"), "NodePort" | "LoadBalancer");
    if has_node_ports(spec) && has_node_ports(old) {
        let used: BTreeSet<i64> = items(spec, "ports")
            .iter()
            .filter_map(|port| integer(port, "nodePort"))
            .filter(|port| *port != 0)
            .collect();
        each_mut(spec, "ports", |port| {
            if integer(port, "nodePort").unwrap_or(0) != 0 {
                return;
            }
            let before = items(old, "ports").iter().find(|before| {
                text(before, "protocol") == text(port, "protocol")
                    && integer(before, "port") == integer(port, "port")
            });
            if let Some(number) = before.and_then(|before| integer(before, "nodePort"))
                && number != 0
                && !used.contains(&number)
            {
                set(port, "nodePort", number);
            }
        });
    }
    if needs_health_check_port(spec)
        && needs_health_check_port(old)
        && integer(spec, "healthCheckNodePort").unwrap_or(0) == 0
        && let Some(port) = old.get("healthCheckNodePort").cloned()
    {
        set(spec, "healthCheckNodePort", port);
    }
}

/// Whether the service has a node port of its own for health checks.
pub fn needs_health_check_port(spec: &Value) -> bool {
    text(spec, "type") == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local"
}

/// Takes out what an update left over from the type that the service had before.
fn drop_fields_of_old_type(spec: &mut Value, old: &Value) {
    let alike = |spec: &Value, key: &str| super::access::same(spec.get(key), old.get(key));
    if text(spec, "type") == "ExternalName" && text(old, "type") != "ExternalName" {
        for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if alike(spec, key) {
                remove(spec, key);
            }
        }
    }
    let node_ports = |spec: &Value| matches!(text(spec, "type"), "NodePort" | "LoadBalancer");
    if node_ports(old) && !node_ports(spec) {
        let numbers = |spec: &Value| -> Vec<Option<i64>> {
            items(spec, "ports").iter().map(|port| integer(port, "nodePort")).collect()
        };
        if numbers(spec) == numbers(old) {
            each_mut(spec, "ports", |port| {
                remove(port, "nodePort");
            });
        }
        if items(spec, "externalIPs").is_empty() && alike(spec, "externalTrafficPolicy") {
            remove(spec, "externalTrafficPolicy");
        }
    }
    if needs_health_check_port(old) && !needs_health_check_port(spec) && alike(spec, "healthCheckNodePort") {
        remove(spec, "healthCheckNodePort");
    }
    if text(old, "type") == "LoadBalancer" && text(spec, "type") != "LoadBalancer" {
        for key in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if alike(spec, key) {
                remove(spec, key);
            }
        }
    }
}

/// Fills in how the addresses of a load balancer are to be used.
pub fn default_status(service: &mut Value) {
    if service.get("spec").is_none_or(|spec| text(spec, "type") != "LoadBalancer") {
        return;
    }
    let ingress = service.pointer_mut("/status/loadBalancer/ingress").and_then(Value::as_array_mut);
    for address in ingress.into_iter().flatten().filter_map(Value::as_object_mut) {
        if address.get("ip").and_then(Value::as_str).is_some_and(|ip| !ip.is_empty()) {
            address.entry("ipMode").or_insert_with(|| Value::String("VIP".into()));
        }
    }
}

/// Everything wrong with a service's changed status.
pub fn validate_status_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    let none = Value::Null;
    let balancer = new.pointer("/status/loadBalancer").unwrap_or(&none);
    let addresses = items(balancer, "ingress");
    let path = FieldPath::new("status").child("loadBalancer").child("ingress");
    if !addresses.is_empty() && new.get("spec").is_some_and(|spec| text(spec, "type") != "LoadBalancer") {
        errors.push(field::forbidden(&path, "may only be used when `spec.type` is \"LoadBalancer\""));
        return errors;
    }
    for (index, address) in addresses.iter().enumerate() {
        let at = path.index(index);
        let (ip, host, mode) = (text(address, "ip"), text(address, "hostname"), text(address, "ipMode"));
        if !ip.is_empty() {
            super::check::name(ip, names::ip_address, &at.child("ip"), &mut errors);
        }
        match (ip.is_empty(), mode) {
            (_, "VIP" | "Proxy") if !ip.is_empty() => {}
            (true, "") => {}
            (true, _) => {
                errors.push(field::forbidden(at.child("ipMode"), "may not be specified when `ip` is not set"))
            }
            (false, "") => {
                errors.push(field::required(at.child("ipMode"), "must be specified when `ip` is set"))
            }
            (false, other) => errors.push(field::not_supported(at.child("ipMode"), other, &["VIP", "Proxy"])),
        }
        if !host.is_empty() {
            super::check::name(host, names::dns1123_subdomain, &at.child("hostname"), &mut errors);
            if host.parse::<std::net::IpAddr>().is_ok() {
                errors.push(field::invalid(
                    at.child("hostname"),
                    host,
                    "must be a DNS name, not an IP address",
                ));
            }
        }
    }
    errors
}

/// Everything wrong with a new service.
pub fn validate(service: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate(service, true, names::dns1035_label);
    validate_spec(service.get("spec").unwrap_or(&Value::Null), &mut errors);
    errors
}

/// Everything wrong with a changed service.
pub fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = object_meta::validate_update(new, old);
    let none = Value::Null;
    let (spec, before) = (new.get("spec").unwrap_or(&none), old.get("spec").unwrap_or(&none));
    let path = FieldPath::new("spec");
    if text(spec, "type") != "ExternalName" && text(before, "type") != "ExternalName" {
        cluster_ips_kept(spec, before, &path, &mut errors);
    }
    validate_spec(spec, &mut errors);
    errors
}

fn cluster_ips_kept(spec: &Value, before: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let was = text(before, "clusterIP");
    if was.is_empty() {
        return;
    }
    let lists = (items(spec, "clusterIPs"), items(before, "clusterIPs"));
    if lists.0.first() != lists.1.first() {
        errors.push(field::invalid(
            path.child("clusterIPs").index(0),
            Value::Array(lists.0.to_vec()),
            if lists.0.is_empty() { "primary clusterIP can not be unset" } else { "may not change once set" },
        ));
    } else if text(spec, "clusterIP") != was {
        errors.push(object_meta::immutable(path.child("clusterIP"), spec.get("clusterIP")));
    }
}

fn validate_spec(spec: &Value, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("spec");
    let kind = text(spec, "type");
    let ports = items(spec, "ports");
    if ports.is_empty() && !is_headless(spec) && kind != "ExternalName" {
        errors.push(field::required(path.child("ports"), ""));
    }
    if kind == "ExternalName" {
        for key in ["clusterIP", "clusterIPs"] {
            if !super::access::same(spec.get(key), None) {
                errors.push(field::forbidden(path.child(key), "may not be set for ExternalName services"));
            }
        }
        let name = text(spec, "externalName");
        let name = name.strip_suffix('.').unwrap_or(name);
        if name.is_empty() {
            errors.push(field::required(path.child("externalName"), ""));
        } else {
            let problems = names::dns1123_subdomain(name);
            errors.extend(
                problems.into_iter().map(|text| field::invalid(path.child("externalName"), name, text)),
            );
        }
    }
    if kind.is_empty() {
        errors.push(field::required(path.child("type"), ""));
    } else if !TYPES.contains(&kind) {
        errors.push(field::not_supported(path.child("type"), kind, TYPES));
    }
    if kind == "LoadBalancer" && is_headless(spec) {
        errors.push(field::invalid(
            path.child("clusterIPs").index(0),
            "None",
            "may not be set to 'None' for LoadBalancer services",
        ));
    }
    if kind == "NodePort" && is_headless(spec) {
        errors.push(field::invalid(
            path.child("clusterIPs").index(0),
            "None",
            "may not be set to 'None' for NodePort services",
        ));
    }
    validate_ports(spec, &path, errors);
    object_meta::labels(spec, "selector", &path.child("selector"), errors);
    affinity(spec, &path, errors);
    if kind != "ExternalName" {
        cluster_ips(spec, &path, errors);
    }
    for (index, ip) in items(spec, "externalIPs").iter().enumerate() {
        let ip = ip.as_str().unwrap_or_default();
        super::endpoints::validate_ip(ip, &path.child("externalIPs").index(index), errors);
    }
    policies(spec, &path, errors);
}

fn validate_ports(spec: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let ports = items(spec, "ports");
    let (mut taken, mut pairs, mut node_ports) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let has_node_ports = matches!(text(spec, "type"), "NodePort" | "LoadBalancer");
    for (index, port) in ports.iter().enumerate() {
        let at = path.child("ports").index(index);
        let (name, protocol) = (text(port, "name"), text(port, "protocol"));
        if name.is_empty() {
            if ports.len() > 1 {
                errors.push(field::required(at.child("name"), ""));
            }
        } else {
            let problems = names::dns1123_label(name);
            errors
                .extend(problems.into_iter().map(|problem| field::invalid(at.child("name"), name, problem)));
            if !taken.insert(name) {
                errors.push(field::duplicate(at.child("name"), name));
            }
        }
        let number = integer(port, "port").unwrap_or(0);
        let problems = names::port_number(number);
        errors.extend(problems.into_iter().map(|problem| field::invalid(at.child("port"), number, problem)));
        if protocol.is_empty() {
            errors.push(field::required(at.child("protocol"), ""));
        } else if !PROTOCOLS.contains(&protocol) {
            errors.push(field::not_supported(at.child("protocol"), protocol, PROTOCOLS));
        }
        probe::validate_port(port.get("targetPort"), &at.child("targetPort"), errors);
        let node_port = integer(port, "nodePort").unwrap_or(0);
        if node_port != 0 {
            if !has_node_ports {
                errors.push(field::forbidden(
                    at.child("nodePort"),
                    "may not be used when `type` is 'ClusterIP'",
                ));
            } else if !node_ports.insert((protocol, node_port)) {
                errors.push(field::duplicate(at.child("nodePort"), node_port));
            }
        }
        if !pairs.insert((protocol, number)) {
            errors.push(field::duplicate(&at, json!({ "port": number, "protocol": protocol })));
        }
    }
}

fn affinity(spec: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let wanted = text(spec, "sessionAffinity");
    let config = path.child("sessionAffinityConfig");
    match wanted {
        "" => errors.push(field::required(path.child("sessionAffinity"), "")),
        "None" => {
            if present(spec, "sessionAffinityConfig").is_some() {
                errors.push(field::forbidden(config, "must not be set when session affinity is None"));
            }
        }
        "ClientIP" => {
            let seconds = crate::meta::get(spec, &["sessionAffinityConfig", "clientIP", "timeoutSeconds"])
                .and_then(Value::as_i64);
            let at = config.child("clientIP").child("timeoutSeconds");
            match seconds {
                None => errors.push(field::required(at, "when session affinity type is ClientIP")),
                Some(seconds) if !(1..=AFFINITY_SECONDS_MAX).contains(&seconds) => {
                    errors.push(field::invalid(
                        at,
                        seconds,
                        format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}"),
                    ));
                }
                Some(_) => {}
            }
        }
        other => {
            errors.push(field::not_supported(path.child("sessionAffinity"), other, &["ClientIP", "None"]))
        }
    }
}

fn cluster_ips(spec: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let list = items(spec, "clusterIPs");
    let one = text(spec, "clusterIP");
    let first = list.first().and_then(Value::as_str).unwrap_or_default();
    if list.is_empty() && !one.is_empty() {
        errors.push(field::required(path.child("clusterIPs"), ""));
    } else if first != one {
        errors.push(field::invalid(
            path.child("clusterIPs"),
            Value::Array(list.to_vec()),
            "first value must match `clusterIP`",
        ));
    }
    if list.len() > 2 {
        errors.push(field::invalid(
            path.child("clusterIPs"),
            Value::Array(list.to_vec()),
            "may only hold up to 2 values",
        ));
    }
    for (index, ip) in list.iter().enumerate() {
        let ip = ip.as_str().unwrap_or_default();
        let at = path.child("clusterIPs").index(index);
        if ip == "None" && list.len() > 1 {
            errors.push(field::invalid(
                path.child("clusterIPs"),
                Value::Array(list.to_vec()),
                "'None' must be the first and only value",
            ));
        } else if ip != "None" {
            let problems = names::ip_address(ip);
            errors.extend(problems.into_iter().map(|problem| field::invalid(&at, ip, problem)));
        }
    }
    let policies: &[&str] = &["PreferDualStack", "RequireDualStack", "SingleStack"];
    let policy = text(spec, "ipFamilyPolicy");
    if !policy.is_empty() && !policies.contains(&policy) {
        errors.push(field::not_supported(path.child("ipFamilyPolicy"), policy, policies));
    }
    let mut families = BTreeSet::new();
    for (index, family) in items(spec, "ipFamilies").iter().enumerate() {
        let family = family.as_str().unwrap_or_default();
        let at = path.child("ipFamilies").index(index);
        if !matches!(family, "IPv4" | "IPv6") {
            errors.push(field::not_supported(&at, family, &["IPv4", "IPv6"]));
        }
        if !families.insert(family) {
            errors.push(field::duplicate(&at, family));
        }
    }
}

fn policies(spec: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let kind = text(spec, "type");
    let external = text(spec, "externalTrafficPolicy");
    let at = path.child("externalTrafficPolicy");
    let reachable = matches!(kind, "NodePort" | "LoadBalancer")
        || (kind == "ClusterIP" && !items(spec, "externalIPs").is_empty());
    if reachable {
        match external {
            "" => errors.push(field::required(at, "")),
            "Cluster" | "Local" => {}
            other => errors.push(field::not_supported(at, other, &["Cluster", "Local"])),
        }
    } else if !external.is_empty() {
        errors.push(field::invalid(at, external, "may only be set for externally-accessible services"));
    }
    let internal = text(spec, "internalTrafficPolicy");
    let at = path.child("internalTrafficPolicy");
    match internal {
        "Cluster" | "Local" => {}
        "" if kind == "ExternalName" => {}
        "" => errors.push(field::required(at, "")),
        other => errors.push(field::not_supported(at, other, &["Cluster", "Local"])),
    }
    if kind != "LoadBalancer" {
        if present(spec, "loadBalancerClass").is_some() {
            errors.push(field::forbidden(
                path.child("loadBalancerClass"),
                "may only be used when `type` is 'LoadBalancer'",
            ));
        }
        if boolean(spec, "allocateLoadBalancerNodePorts") {
            errors.push(field::forbidden(
                path.child("allocateLoadBalancerNodePorts"),
                "may only be used when `type` is 'LoadBalancer'",
            ));
        }
    }
}
