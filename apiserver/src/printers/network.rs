//! The tables of networking: Ingresses, policies, blocks of cluster IPs.

use serde_json::Value;

use super::Context;
use super::cells::{NONE, age, list, name, or_none, selector, text};
use super::columns::{AGE, Column, NAME, text as column};

/// More hosts than this are only counted.
const HOSTS_MAX: usize = 3;
/// A longer address is cut.
const ADDRESS_MAX: usize = 16;

pub(super) const INGRESS: &[Column] = &[
    NAME,
    column("Class", "The class of controllers that serve it"),
    column("Hosts", "Hosts it answers for"),
    column("Address", "Where it is reached"),
    column("Ports", "Ports it listens on"),
    AGE,
];

pub(super) fn ingress(object: &Value, context: &Context) -> Vec<Value> {
    let has_tls = !list(object, &["spec", "tls"]).is_empty();
    vec![
        name(object),
        or_none(text(object, &["spec", "ingressClassName"])),
        hosts(list(object, &["spec", "rules"])).into(),
        address(list(object, &["status", "loadBalancer", "ingress"])).into(),
        if has_tls { "80, 443" } else { "80" }.into(),
        age(object, context),
    ]
}

fn hosts(rules: &[Value]) -> String {
    let named: Vec<&str> =
        rules.iter().map(|rule| text(rule, &["host"])).filter(|host| !host.is_empty()).collect();
    match named.len() {
        0 => "*".to_owned(),
        _ if rules.len() > HOSTS_MAX && named.len() >= HOSTS_MAX => {
            format!("{} + {} more...", named[..HOSTS_MAX].join(","), rules.len() - HOSTS_MAX)
        }
        _ => named.join(","),
    }
}

fn address(points: &[Value]) -> String {
    let mut all: Vec<&str> = Vec::new();
    for point in points {
        let one = match text(point, &["ip"]) {
            "" => text(point, &["hostname"]),
            ip => ip,
        };
        if !one.is_empty() && !all.contains(&one) {
            all.push(one);
        }
    }
    all.sort_unstable();
    let joined = all.join(",");
    match joined.get(..ADDRESS_MAX - 3) {
        Some(start) if joined.len() > ADDRESS_MAX => format!("{start}..."),
        _ => joined,
    }
}

pub(super) const INGRESS_CLASS: &[Column] = &[
    NAME,
    column("Controller", "The controller that serves the class"),
    column("Parameters", "Where its parameters are"),
    AGE,
];

pub(super) fn ingress_class(object: &Value, context: &Context) -> Vec<Value> {
    let parameters = &object["spec"]["parameters"];
    let shown = match (parameters.is_object(), text(parameters, &["apiGroup"])) {
        (false, _) => NONE.to_owned(),
        (true, "") => format!("{}/{}", text(parameters, &["kind"]), text(parameters, &["name"])),
        (true, group) => format!("{}.{group}/{}", text(parameters, &["kind"]), text(parameters, &["name"])),
    };
    vec![name(object), text(object, &["spec", "controller"]).into(), shown.into(), age(object, context)]
}

pub(super) const NETWORK_POLICY: &[Column] = &[NAME, column("Pod-Selector", "Pods it is about"), AGE];

pub(super) fn network_policy(object: &Value, context: &Context) -> Vec<Value> {
    vec![name(object), selector(object["spec"].get("podSelector")), age(object, context)]
}

pub(super) const IP_ADDRESS: &[Column] = &[NAME, column("ParentRef", "Who has the address"), AGE];

pub(super) fn ip_address(object: &Value, context: &Context) -> Vec<Value> {
    let parent = |key| text(object, &["spec", "parentRef", key]);
    let mut shown = parent("resource").to_owned();
    if !parent("group").is_empty() {
        shown = format!("{shown}.{}", parent("group"));
    }
    for part in [parent("namespace"), parent("name")].into_iter().filter(|part| !part.is_empty()) {
        shown = format!("{shown}/{part}");
    }
    vec![name(object), or_none(&shown), age(object, context)]
}

pub(super) const SERVICE_CIDR: &[Column] = &[NAME, column("CIDRs", "Blocks of addresses"), AGE];

pub(super) fn service_cidr(object: &Value, context: &Context) -> Vec<Value> {
    let blocks: Vec<&str> = list(object, &["spec", "cidrs"]).iter().filter_map(Value::as_str).collect();
    vec![name(object), blocks.join(",").into(), age(object, context)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn hosts_beyond_the_third_are_counted_and_long_addresses_cut() {
        let rules = |count: usize| (0..count).map(|n| json!({"host": format!("h{n}")})).collect::<Vec<_>>();
        assert_eq!(hosts(&[]), "*");
        assert_eq!(hosts(&rules(3)), "h0,h1,h2");
        assert_eq!(hosts(&rules(5)), "h0,h1,h2 + 2 more...");
        assert_eq!(address(&[json!({"ip": "10.0.0.1"})]), "10.0.0.1");
        assert_eq!(address(&[json!({"ip": "10.0.0.2"}), json!({"ip": "10.0.0.1"})]), "10.0.0.1,10.0...");
    }
}
