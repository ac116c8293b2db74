//! What is wrong with pod specs, in pods and in templates.

use std::collections::BTreeSet;

use serde_json::Value;

use super::access::{boolean, integer, items, present, text};
use super::container::{self, Role, Surroundings};
use super::{affinity, operating_system, resources, security_context, volume, workload};
use crate::field::{self, FieldError, FieldPath};
use crate::names;

const RESTART_POLICIES: &[&str] = &["Always", "OnFailure", "Never"];
const DNS_POLICIES: &[&str] = &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
const NAME_SERVERS_MAX: usize = 3;
const SEARCH_PATHS_MAX: usize = 32;

/// Everything wrong with a pod spec.
pub fn validate(spec: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let volumes = items(spec, "volumes");
    volume::validate_list(volumes, &path.child("volumes"), errors);
    let names_of_volumes: Vec<&str> = volumes.iter().map(|volume| text(volume, "name")).collect();
    let surroundings =
        Surroundings { volumes: &names_of_volumes, host_network: boolean(spec, "hostNetwork") };
    let mut taken = Vec::new();
    for (key, role) in
        [("containers", Role::Main), ("initContainers", Role::Init), ("ephemeralContainers", Role::Ephemeral)]
    {
        container::validate_all(items(spec, key), role, &surroundings, &mut taken, &path.child(key), errors);
    }
    match text(spec, "restartPolicy") {
        "" => errors.push(field::required(path.child("restartPolicy"), "")),
        policy if RESTART_POLICIES.contains(&policy) => {}
        policy => {
            errors.push(field::not_supported_in_order(path.child("restartPolicy"), policy, RESTART_POLICIES))
        }
    }
    one_of(spec, "dnsPolicy", DNS_POLICIES, path, errors);
    affinity::validate_node_selector(spec, path, errors);
    security_context::validate_pod(spec, path, errors);
    if let Some(wanted) = present(spec, "affinity") {
        affinity::validate(wanted, &path.child("affinity"), errors);
    }
    dns_config(spec, path, errors);
    for (index, gate) in items(spec, "readinessGates").iter().enumerate() {
        let at = path.child("readinessGates").index(index).child("conditionType");
        name_of(gate, "conditionType", at, names::qualified_name, errors);
    }
    scheduling_gates(spec, path, errors);
    if let Some(group) = present(spec, "workloadRef") {
        workload::reference(group, &path.child("workloadRef"), errors);
    }
    affinity::validate_topology_spread(spec, path, errors);
    for (key, rule) in [
        ("serviceAccountName", names::dns1123_subdomain as fn(&str) -> Vec<String>),
        ("nodeName", names::dns1123_subdomain),
        ("hostname", names::dns1123_label),
        ("subdomain", names::dns1123_label),
        ("priorityClassName", names::dns1123_subdomain),
        ("runtimeClassName", names::dns1123_subdomain),
    ] {
        if !text(spec, key).is_empty() {
            name_of(spec, key, path.child(key), rule, errors);
        }
    }
    if let Some(seconds) = integer(spec, "activeDeadlineSeconds")
        && !(1..=i64::from(i32::MAX)).contains(&seconds)
    {
        errors.push(field::invalid(
            path.child("activeDeadlineSeconds"),
            seconds,
            names::inclusive_range_error(1, i64::from(i32::MAX)),
        ));
    }
    operating_system::validate(spec, path, errors);
    affinity::validate_tolerations(spec, path, errors);
    host_aliases(spec, path, errors);
    resources::validate_list(spec, "overhead", path, errors);
    if let Some(policy) = present(spec, "preemptionPolicy").and_then(Value::as_str)
        && !matches!(policy, "" | "Never" | "PreemptLowerPriority")
    {
        errors.push(field::not_supported(
            path.child("preemptionPolicy"),
            policy,
            &["Never", "PreemptLowerPriority"],
        ));
    }
}

fn name_of(
    object: &Value,
    key: &str,
    path: FieldPath,
    rule: fn(&str) -> Vec<String>,
    errors: &mut Vec<FieldError>,
) {
    let name = text(object, key);
    errors.extend(rule(name).into_iter().map(|problem| field::invalid(&path, name, problem)));
}

fn scheduling_gates(spec: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let mut taken = BTreeSet::new();
    for (index, gate) in items(spec, "schedulingGates").iter().enumerate() {
        let at = path.child("schedulingGates").index(index);
        name_of(gate, "name", at.clone(), names::qualified_name, errors);
        if !taken.insert(text(gate, "name")) {
            errors.push(field::duplicate(at, text(gate, "name")));
        }
    }
    if !taken.is_empty() && !text(spec, "nodeName").is_empty() {
        errors.push(field::forbidden(
            path.child("nodeName"),
            "cannot be set until all schedulingGates have been cleared",
        ));
    }
}

fn dns_config(spec: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let at = path.child("dnsConfig");
    let config = present(spec, "dnsConfig");
    let servers = config.map(|config| items(config, "nameservers")).unwrap_or_default();
    if text(spec, "dnsPolicy") == "None" {
        if config.is_none() {
            errors.push(field::required(at, "must provide `dnsConfig` when `dnsPolicy` is None"));
            return;
        }
        if servers.is_empty() {
            errors.push(field::required(
                at.child("nameservers"),
                "must provide at least one DNS nameserver when `dnsPolicy` is None",
            ));
        }
    }
    let Some(config) = config else { return };
    if servers.len() > NAME_SERVERS_MAX {
        errors.push(field::invalid(
            at.child("nameservers"),
            Value::Array(servers.to_vec()),
            format!("must not have more than {NAME_SERVERS_MAX} nameservers"),
        ));
    }
    for (index, server) in servers.iter().enumerate() {
        let server = server.as_str().unwrap_or_default();
        let problems = names::ip_address(server);
        errors.extend(
            problems
                .into_iter()
                .map(|text| field::invalid(at.child("nameservers").index(index), server, text)),
        );
    }
    let searches = items(config, "searches");
    if searches.len() > SEARCH_PATHS_MAX {
        errors.push(field::invalid(
            at.child("searches"),
            Value::Array(searches.to_vec()),
            format!("must not have more than {SEARCH_PATHS_MAX} search paths"),
        ));
    }
    for (index, option) in items(config, "options").iter().enumerate() {
        if text(option, "name").is_empty() {
            errors.push(field::required(at.child("options").index(index), "must not be empty"));
        }
    }
}

fn host_aliases(spec: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    for (index, alias) in items(spec, "hostAliases").iter().enumerate() {
        let at = path.child("hostAliases").index(index);
        name_of(alias, "ip", at.child("ip"), names::ip_address, errors);
        for (number, name) in items(alias, "hostnames").iter().enumerate() {
            let name = name.as_str().unwrap_or_default();
            let here = at.child("hostnames").index(number);
            let problems = names::dns1123_subdomain(name);
            errors.extend(problems.into_iter().map(|problem| field::invalid(&here, name, problem)));
        }
    }
}

/// A text field that has to be set, to one of some values.
fn one_of(object: &Value, key: &str, allowed: &[&str], path: &FieldPath, errors: &mut Vec<FieldError>) {
    match text(object, key) {
        "" => errors.push(field::required(path.child(key), "")),
        value if !allowed.contains(&value) => {
            errors.push(field::not_supported(path.child(key), value, allowed));
        }
        _ => {}
    }
}
