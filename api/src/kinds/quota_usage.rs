//! What an object counts for in quotas, and which quotas it counts in. Pure.

use jiff::Timestamp;
use serde_json::Value;

use super::access::{items, map, present, text};
use super::pod_resources::{self, Amounts};
use super::{persistent_volume_claim, pod_qos, resources};
use crate::meta;
use crate::quantity::{Format, Quantity};
use crate::status::GroupResource;

/// What a quota may demand of every container.
const DEMANDED: &[&str] =
    &["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];

fn number(count: i64) -> Quantity {
    Quantity::from_units(count, Format::DecimalSi)
}

/// What an object counts for.
pub fn usage(resource: GroupResource<'_>, object: &Value) -> Amounts {
    let mut used = Amounts::from([(format!("count/{resource}"), number(1))]);
    if !resource.group.is_empty() {
        return used;
    }
    let spec = &object["spec"];
    match resource.resource {
        "pods" => pod(spec, &mut used),
        "services" => service(spec, &mut used),
        "persistentvolumeclaims" => claim(object, &mut used),
        plural @ ("configmaps" | "secrets" | "replicationcontrollers" | "resourcequotas") => {
            used.insert(plural.to_owned(), number(1));
        }
        _ => {}
    }
    used
}

fn pod(spec: &Value, used: &mut Amounts) {
    used.insert("pods".to_owned(), number(1));
    for (name, amount) in pod_resources::total(spec, "requests") {
        let is_plain = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage");
        if is_plain || resources::is_huge_page(&name) {
            used.insert(name.clone(), amount);
        }
        used.insert(format!("requests.{name}"), amount);
    }
    for (name, amount) in pod_resources::total(spec, "limits") {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            used.insert(format!("limits.{name}"), amount);
        }
    }
}

fn service(spec: &Value, used: &mut Amounts) {
    used.insert("services".to_owned(), number(1));
    let ports = items(spec, "ports");
    let (node_ports, balancers) = match text(spec, "type") {
        "NodePort" => (ports.len(), 0),
        "LoadBalancer" => {
            let allocates = spec["allocateLoadBalancerNodePorts"] != false;
            let taken =
                ports.iter().filter(|port| port["nodePort"].as_i64().is_some_and(|port| port > 0)).count();
            (if allocates { ports.len() } else { taken }, 1)
        }
        _ => (0, 0),
    };
    used.insert("services.nodeports".to_owned(), number(node_ports as i64));
    used.insert("services.loadbalancers".to_owned(), number(balancers));
}

fn claim(claim: &Value, used: &mut Amounts) {
    used.insert("persistentvolumeclaims".to_owned(), number(1));
    let spec = &claim["spec"];
    let annotated =
        meta::annotations(claim).and_then(|all| all.get(persistent_volume_claim::CLASS_ANNOTATION)?.as_str());
    let class = annotated.unwrap_or_else(|| text(spec, "storageClassName"));
    let storage = pod_resources::amounts(spec["resources"].get("requests")).remove("storage");
    if !class.is_empty() {
        let of_class = |what: &str| format!("{class}.storageclass.storage.k8s.io/{what}");
        used.insert(of_class("persistentvolumeclaims"), number(1));
        if let Some(storage) = storage {
            used.insert(of_class("requests.storage"), storage);
        }
    }
    if let Some(storage) = storage {
        used.insert("requests.storage".to_owned(), storage);
    }
}

/// The same for an object that has been stored: a pod that has ended, or that should be gone by now, holds nothing but its place.
pub fn usage_of_stored(resource: GroupResource<'_>, object: &Value, now: Timestamp) -> Amounts {
    let mut used = usage(resource, object);
    let is_pod = resource.group.is_empty() && resource.resource == "pods";
    if is_pod && (super::pod::is_finished(object) || is_overdue(object, now)) {
        used.retain(|name, _| name.starts_with("count/"));
    }
    used
}

/// Whether the time a deleted pod was given is over: its node may be lost.
fn is_overdue(pod: &Value, now: Timestamp) -> bool {
    let since = pod["metadata"]["deletionTimestamp"].as_str().and_then(|time| time.parse::<Timestamp>().ok());
    let given = pod["metadata"]["deletionGracePeriodSeconds"].as_i64();
    since.zip(given).is_some_and(|(since, given)| now.as_second() > since.as_second().saturating_add(given))
}

/// What a write adds to what is used; nothing negative.
pub fn difference(resource: GroupResource<'_>, new: &Value, old: Option<&Value>) -> Amounts {
    let mut delta = usage(resource, new);
    if let Some(old) = old {
        for (name, before) in usage(resource, old) {
            if let Some(amount) = delta.get_mut(&name) {
                *amount = amount.saturating_sub(before);
            }
        }
    }
    delta.retain(|_, amount| !amount.is_zero() && !amount.is_negative());
    delta
}

/// Whether an object is one of those that a quota is about.
pub fn in_scope(quota: &Value, resource: GroupResource<'_>, object: &Value) -> bool {
    let spec = &quota["spec"];
    let plain = items(spec, "scopes").iter().filter_map(Value::as_str);
    let mut all = plain.map(|scope| (scope, "Exists", &[][..])).chain(
        spec["scopeSelector"]["matchExpressions"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|term| (text(term, "scopeName"), text(term, "operator"), items(term, "values"))),
    );
    all.all(|(scope, operator, values)| match (resource.group, resource.resource) {
        ("", "pods") => pod_in_scope(&object["spec"], scope, operator, values),
        ("", "persistentvolumeclaims") if scope == "VolumeAttributesClass" => {
            selected(text(&object["spec"], "volumeAttributesClassName"), operator, values)
        }
        _ => false,
    })
}

fn pod_in_scope(spec: &Value, scope: &str, operator: &str, values: &[Value]) -> bool {
    let terminating = present(spec, "activeDeadlineSeconds").is_some();
    match scope {
        "Terminating" => terminating,
        "NotTerminating" => !terminating,
        "BestEffort" => pod_qos::class(spec) == "BestEffort",
        "NotBestEffort" => pod_qos::class(spec) != "BestEffort",
        "PriorityClass" => selected(text(spec, "priorityClassName"), operator, values),
        "CrossNamespacePodAffinity" => crosses_namespaces(spec),
        _ => false,
    }
}

fn selected(value: &str, operator: &str, values: &[Value]) -> bool {
    let named = values.iter().any(|one| one == value);
    match operator {
        "Exists" => !value.is_empty(),
        "DoesNotExist" => value.is_empty(),
        "In" => named,
        "NotIn" => !named,
        _ => false,
    }
}

fn crosses_namespaces(spec: &Value) -> bool {
    let affinity = &spec["affinity"];
    let crosses =
        |term: &Value| !items(term, "namespaces").is_empty() || present(term, "namespaceSelector").is_some();
    ["podAffinity", "podAntiAffinity"].into_iter().any(|kind| {
        let of = &affinity[kind];
        items(of, "requiredDuringSchedulingIgnoredDuringExecution").iter().any(crosses)
            || items(of, "preferredDuringSchedulingIgnoredDuringExecution")
                .iter()
                .any(|term| crosses(&term["podAffinityTerm"]))
    })
}

/// What containers have to say because a quota counts it, with the containers that do not.
pub fn missing(hard: &Amounts, pod: &Value) -> Option<String> {
    let mut texts = Vec::new();
    for name in DEMANDED.iter().filter(|name| hard.contains_key(**name)) {
        let (key, resource) = name.split_once('.').unwrap_or(("requests", name));
        let mut silent: Vec<&str> = ["containers", "initContainers"]
            .into_iter()
            .flat_map(|list| items(&pod["spec"], list))
            .filter(|container| {
                map(&container["resources"], key).is_none_or(|amounts| !amounts.contains_key(resource))
            })
            .map(|container| text(container, "name"))
            .collect();
        silent.sort_unstable();
        if !silent.is_empty() {
            texts.push(format!("{name} for: {}", silent.join(",")));
        }
    }
    (!texts.is_empty()).then(|| format!("must specify {}", texts.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(amounts: &Amounts) -> String {
        amounts.iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(",")
    }

    fn core(resource: &str) -> GroupResource<'_> {
        GroupResource { group: "", resource }
    }

    #[test]
    fn pods_that_have_ended_hold_their_place_only() {
        let mut pod =
            json!({"metadata": {}, "status": {"phase": "Running"}, "spec": {"containers": [{"name": "c"}]}});
        let at = |second| Timestamp::from_second(second).expect("a time");
        assert_eq!(shown(&usage_of_stored(core("pods"), &pod, at(100))), "count/pods=1,pods=1");
        pod["metadata"] = json!({"deletionTimestamp": at(100).to_string(), "deletionGracePeriodSeconds": 30});
        assert_eq!(shown(&usage_of_stored(core("pods"), &pod, at(130))), "count/pods=1,pods=1");
        assert_eq!(shown(&usage_of_stored(core("pods"), &pod, at(131))), "count/pods=1");
        pod["metadata"] = json!({});
        pod["status"]["phase"] = json!("Failed");
        assert_eq!(shown(&usage_of_stored(core("pods"), &pod, at(100))), "count/pods=1");
    }

    #[test]
    fn objects_count_by_kind() {
        let of = |plural: &str, object: Value| shown(&usage(core(plural), &object));
        let pod = json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1", "x.io/y": "2"}, "limits": {"cpu": "2"}}}]}});
        assert_eq!(
            of("pods", pod),
            "count/pods=1,cpu=1,limits.cpu=2,pods=1,requests.cpu=1,requests.x.io/y=2"
        );
        let service = json!({"spec": {"type": "NodePort", "ports": [{"port": 1}, {"port": 2}]}});
        assert_eq!(
            of("services", service),
            "count/services=1,services=1,services.loadbalancers=0,services.nodeports=2"
        );
        let claim =
            json!({"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}}}});
        assert_eq!(
            of("persistentvolumeclaims", claim),
            "count/persistentvolumeclaims=1,fast.storageclass.storage.k8s.io/persistentvolumeclaims=1,fast.storageclass.storage.k8s.io/requests.storage=1Gi,persistentvolumeclaims=1,requests.storage=1Gi"
        );
    }

    #[test]
    fn scopes_narrow_a_quota_down() {
        let pods = core("pods");
        let pod = json!({"spec": {"priorityClassName": "high", "containers": [{"name": "c"}]}});
        let with = |scopes: Value| json!({"spec": {"scopes": scopes}});
        assert!(in_scope(&with(json!(["BestEffort", "NotTerminating"])), pods, &pod));
        assert!(!in_scope(&with(json!(["Terminating"])), pods, &pod));
        let selector = |operator: &str| {
            json!({"spec": {"scopeSelector": {"matchExpressions": [
            {"scopeName": "PriorityClass", "operator": operator, "values": ["high"]}]}}})
        };
        assert!(in_scope(&selector("In"), pods, &pod));
        assert!(!in_scope(&selector("NotIn"), pods, &pod));
        let services = core("services");
        assert!(!in_scope(&with(json!(["BestEffort"])), services, &json!({})));
        assert!(in_scope(&with(json!([])), services, &json!({})));
    }

    #[test]
    fn a_quota_of_compute_makes_containers_speak() {
        let pod = json!({"spec": {"containers": [{"name": "b"}, {"name": "a", "resources": {"requests": {"cpu": "1"}}}]}});
        let hard =
            Amounts::from([("limits.cpu".to_owned(), number(1)), ("requests.cpu".to_owned(), number(1))]);
        assert_eq!(
            missing(&hard, &pod).as_deref(),
            Some("must specify limits.cpu for: a,b; requests.cpu for: b")
        );
        assert_eq!(missing(&Amounts::new(), &pod), None);
    }
}
