//! The tables of the smaller kinds.

use component_base::host_port::join_host_port;
use coracle_api::meta;
use serde_json::Value;

use super::Context;
use super::cells::{NONE, UNKNOWN, age, labels, list, name, number, or_none, since, size, text, time};
use super::columns::{AGE, Column, NAME, number as count, text as column};

/// More entries than this are only counted.
const SHOWN_MAX: usize = 3;

fn shortened(all: &[String]) -> String {
    match all.len() {
        0 => NONE.to_owned(),
        count if count > SHOWN_MAX => {
            format!("{} + {} more...", all[..SHOWN_MAX].join(","), count - SHOWN_MAX)
        }
        _ => all.join(","),
    }
}

pub(super) const NAMESPACE: &[Column] =
    &[NAME, column("Status", "Whether the namespace is being deleted"), AGE];

pub(super) fn namespace(object: &Value, context: &Context) -> Vec<Value> {
    vec![name(object), text(object, &["status", "phase"]).into(), age(object, context)]
}

pub(super) const CONFIG_MAP: &[Column] = &[NAME, count("Data", "Number of entries"), AGE];

pub(super) fn config_map(object: &Value, context: &Context) -> Vec<Value> {
    let entries = size(object, &["data"]) + size(object, &["binaryData"]);
    vec![name(object), entries.into(), age(object, context)]
}

pub(super) const SECRET: &[Column] =
    &[NAME, column("Type", "What the secret is for"), count("Data", "Number of entries"), AGE];

pub(super) fn secret(object: &Value, context: &Context) -> Vec<Value> {
    vec![name(object), text(object, &["type"]).into(), size(object, &["data"]).into(), age(object, context)]
}

pub(super) const SERVICE_ACCOUNT: &[Column] = &[NAME, count("Secrets", "Number of secrets"), AGE];

pub(super) fn service_account(object: &Value, context: &Context) -> Vec<Value> {
    vec![name(object), (list(object, &["secrets"]).len() as i64).into(), age(object, context)]
}

pub(super) const SERVICE: &[Column] = &[
    NAME,
    column("Type", "How the service is reached"),
    column("Cluster-IP", "Address inside the cluster"),
    column("External-IP", "Addresses outside of the cluster"),
    column("Port(s)", "Ports, with the nodes' ports behind a colon"),
    AGE,
    column("Selector", "Labels of the pods behind the service").wide(),
];

pub(super) fn service(object: &Value, context: &Context) -> Vec<Value> {
    let cluster_ip = match list(object, &["spec", "clusterIPs"]).first().and_then(Value::as_str) {
        Some(first) => first,
        None => text(object, &["spec", "clusterIP"]),
    };
    vec![
        name(object),
        text(object, &["spec", "type"]).into(),
        or_none(cluster_ip),
        external_ips(object).into(),
        service_ports(object),
        age(object, context),
        labels(object["spec"].get("selector")),
    ]
}

fn external_ips(object: &Value) -> String {
    let mut given: Vec<String> =
        list(object, &["spec", "externalIPs"]).iter().filter_map(Value::as_str).map(str::to_owned).collect();
    match text(object, &["spec", "type"]) {
        "ExternalName" => text(object, &["spec", "externalName"]).to_owned(),
        "LoadBalancer" => {
            let mut all: Vec<String> = list(object, &["status", "loadBalancer", "ingress"])
                .iter()
                .map(|ingress| match text(ingress, &["ip"]) {
                    "" => text(ingress, &["hostname"]).to_owned(),
                    ip => ip.to_owned(),
                })
                .collect();
            all.append(&mut given);
            if all.is_empty() { "<pending>".to_owned() } else { all.join(",") }
        }
        _ if given.is_empty() => NONE.to_owned(),
        _ => given.join(","),
    }
}

fn service_ports(object: &Value) -> Value {
    let ports: Vec<String> = list(object, &["spec", "ports"])
        .iter()
        .map(|port| {
            let protocol = match text(port, &["protocol"]) {
                "" => "TCP",
                protocol => protocol,
            };
            match (number(port, &["port"]), number(port, &["nodePort"])) {
                (number, 0) => format!("{number}/{protocol}"),
                (number, node_port) => format!("{number}:{node_port}/{protocol}"),
            }
        })
        .collect();
    or_none(&ports.join(","))
}

pub(super) const ENDPOINTS: &[Column] =
    &[NAME, column("Endpoints", "Addresses and ports behind the service"), AGE];

pub(super) fn endpoints(object: &Value, context: &Context) -> Vec<Value> {
    let mut all = Vec::new();
    for subset in list(object, &["subsets"]) {
        let addresses = list(subset, &["addresses"]);
        let ports = list(subset, &["ports"]);
        if ports.is_empty() {
            all.extend(addresses.iter().map(|address| text(address, &["ip"]).to_owned()));
        }
        for port in ports {
            for address in addresses {
                all.push(join_host_port(text(address, &["ip"]), number(port, &["port"])));
            }
        }
    }
    vec![name(object), shortened(&all).into(), age(object, context)]
}

pub(super) const ENDPOINT_SLICE: &[Column] = &[
    NAME,
    column("AddressType", "Kind of the addresses"),
    column("Ports", "Ports of the endpoints"),
    column("Endpoints", "Addresses of the endpoints"),
    AGE,
];

pub(super) fn endpoint_slice(object: &Value, context: &Context) -> Vec<Value> {
    let ports: Vec<String> = list(object, &["ports"])
        .iter()
        .map(|port| match (number(port, &["port"]), text(port, &["name"])) {
            (0, "") => "*".to_owned(),
            (0, name) => name.to_owned(),
            (number, _) => number.to_string(),
        })
        .collect();
    let ports = if ports.is_empty() { "<unset>".to_owned() } else { shortened(&ports) };
    let addresses: Vec<String> = list(object, &["endpoints"])
        .iter()
        .flat_map(|endpoint| list(endpoint, &["addresses"]))
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    let addresses = if addresses.is_empty() { "<unset>".to_owned() } else { shortened(&addresses) };
    vec![
        name(object),
        text(object, &["addressType"]).into(),
        ports.into(),
        addresses.into(),
        age(object, context),
    ]
}

pub(super) const COMPONENT_STATUS: &[Column] = &[
    NAME,
    column("Status", "Whether the component is well"),
    column("Message", "What it answered"),
    column("Error", "Why it did not answer"),
];

pub(super) fn component_status(object: &Value, _: &Context) -> Vec<Value> {
    let conditions = object.get("conditions").and_then(Value::as_array);
    let health =
        conditions.and_then(|all| all.iter().find(|one| one["type"] == "Healthy")).unwrap_or(&Value::Null);
    let status = match text(health, &["status"]) {
        "True" => "Healthy",
        "False" => "Unhealthy",
        _ => "Unknown",
    };
    vec![name(object), status.into(), text(health, &["message"]).into(), text(health, &["error"]).into()]
}

pub(super) const EVENT: &[Column] = &[
    column("Last Seen", "Time since it happened the last time"),
    column("Type", "Normal or Warning"),
    column("Reason", "What happened, in one word"),
    column("Object", "What it happened to"),
    column("Subobject", "Part of the object").wide(),
    column("Source", "Who saw it").wide(),
    column("Message", "What happened"),
    column("First Seen", "Time since it happened the first time").wide(),
    count("Count", "How often it happened").wide(),
    NAME.wide(),
];

/// Both versions of events: core's names for the fields first, then events.k8s.io's.
pub(super) fn event(object: &Value, context: &Context) -> Vec<Value> {
    let moment = |paths: &[&[&str]]| paths.iter().find_map(|path| time(object, path));
    let event_time = moment(&[&["eventTime"]]);
    let first = moment(&[&["firstTimestamp"], &["deprecatedFirstTimestamp"]]).or(event_time);
    let last = moment(&[&["series", "lastObservedTime"], &["lastTimestamp"], &["deprecatedLastTimestamp"]])
        .or(first);
    let shown = |time| match time {
        Some(time) => since(Some(time), context),
        None => UNKNOWN.to_owned(),
    };
    let count = [
        number(object, &["series", "count"]),
        number(object, &["count"]),
        number(object, &["deprecatedCount"]),
    ]
    .into_iter()
    .find(|count| *count != 0)
    .unwrap_or(1);
    let about =
        if object["regarding"].is_object() { &object["regarding"] } else { &object["involvedObject"] };
    let kind = text(about, &["kind"]).to_lowercase();
    let target = match text(about, &["name"]) {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    let message = match text(object, &["message"]) {
        "" => text(object, &["note"]),
        message => message,
    };
    vec![
        shown(last).into(),
        text(object, &["type"]).into(),
        text(object, &["reason"]).into(),
        target.into(),
        text(about, &["fieldPath"]).into(),
        source(object).into(),
        message.trim().into(),
        shown(first).into(),
        count.into(),
        name(object),
    ]
}

fn source(object: &Value) -> String {
    let pick = |paths: &[&[&str]]| {
        paths.iter().map(|path| text(object, path)).find(|found| !found.is_empty()).unwrap_or_default()
    };
    let component = pick(&[
        &["source", "component"],
        &["deprecatedSource", "component"],
        &["reportingComponent"],
        &["reportingController"],
    ]);
    let host = pick(&[&["source", "host"], &["deprecatedSource", "host"], &["reportingInstance"]]);
    if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") }
}

pub(super) const LEASE: &[Column] = &[NAME, column("Holder", "Who holds the lease"), AGE];

pub(super) fn lease(object: &Value, context: &Context) -> Vec<Value> {
    vec![name(object), text(object, &["spec", "holderIdentity"]).into(), age(object, context)]
}

pub(super) const PRIORITY_CLASS: &[Column] = &[
    NAME,
    count("Value", "Priority of pods of this class"),
    column("Global-Default", "Whether pods without a class get this one"),
    AGE,
    column("PreemptionPolicy", "Whether pods of this class push others out"),
];

pub(super) fn priority_class(object: &Value, context: &Context) -> Vec<Value> {
    let policy = match text(object, &["preemptionPolicy"]) {
        "" => "PreemptLowerPriority",
        policy => policy,
    };
    vec![
        meta::name(object).into(),
        number(object, &["value"]).into(),
        (object["globalDefault"] == true).to_string().into(),
        age(object, context),
        policy.into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn context() -> Context {
        Context { now: "2026-01-01T00:01:00Z".parse().expect("time") }
    }

    #[test]
    fn services_show_addresses_and_ports() {
        let mut object = json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort", "clusterIP": "10.96.0.5",
            "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}],
            "selector": {"app": "web"}}});
        let row = Value::from(service(&object, &context()));
        assert_eq!(
            row,
            json!(["s", "NodePort", "10.96.0.5", "<none>", "80:30080/TCP,53/UDP", "<unknown>", "app=web"])
        );
        object["spec"]["type"] = "LoadBalancer".into();
        assert_eq!(external_ips(&object), "<pending>");
        object["status"]["loadBalancer"]["ingress"] = json!([{"ip": "1.2.3.4"}]);
        assert_eq!(external_ips(&object), "1.2.3.4");
    }

    #[test]
    fn long_lists_are_shortened() {
        let addresses: Vec<Value> = (1..6).map(|n| json!({"ip": format!("10.0.0.{n}")})).collect();
        let object = json!({"subsets": [{"addresses": addresses, "ports": [{"port": 80}]}]});
        assert_eq!(endpoints(&object, &context())[1], "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 2 more...");
        assert_eq!(endpoints(&json!({}), &context())[1], NONE);
        let slice = json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 80}]});
        assert_eq!(
            Value::from(endpoint_slice(&slice, &context())[1..4].to_vec()),
            json!(["IPv4", "80", "10.0.0.1"])
        );
    }

    #[test]
    fn both_versions_of_an_event_look_the_same() {
        let core = json!({"metadata": {"name": "e"}, "lastTimestamp": "2026-01-01T00:00:30Z",
            "firstTimestamp": "2026-01-01T00:00:00Z", "count": 2, "type": "Normal", "reason": "Pulled",
            "involvedObject": {"kind": "Pod", "name": "x", "fieldPath": "spec.containers{a}"},
            "source": {"component": "kubelet", "host": "n"}, "message": "pulled\n"});
        let expected = json!([
            "30s",
            "Normal",
            "Pulled",
            "pod/x",
            "spec.containers{a}",
            "kubelet, n",
            "pulled",
            "60s",
            2,
            "e"
        ]);
        assert_eq!(Value::from(event(&core, &context())), expected);
        let newer = json!({"metadata": {"name": "e"}, "deprecatedLastTimestamp": "2026-01-01T00:00:30Z",
            "deprecatedFirstTimestamp": "2026-01-01T00:00:00Z", "deprecatedCount": 2, "type": "Normal", "reason": "Pulled",
            "regarding": {"kind": "Pod", "name": "x", "fieldPath": "spec.containers{a}"},
            "deprecatedSource": {"component": "kubelet", "host": "n"}, "note": "pulled"});
        assert_eq!(Value::from(event(&newer, &context())), expected);
    }

    #[test]
    fn small_kinds_count_and_name() {
        let row = |cells: Vec<Value>| Value::from(cells);
        let at = context();
        assert_eq!(
            row(config_map(&json!({"metadata": {"name": "c"}, "data": {"a": "b"}}), &at)),
            json!(["c", 1, UNKNOWN])
        );
        assert_eq!(
            row(lease(&json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "h"}}), &at)),
            json!(["l", "h", UNKNOWN])
        );
        let class = json!({"metadata": {"name": "p"}, "value": 7, "globalDefault": true});
        assert_eq!(
            row(priority_class(&class, &at)),
            json!(["p", 7, "true", UNKNOWN, "PreemptLowerPriority"])
        );
    }
}
