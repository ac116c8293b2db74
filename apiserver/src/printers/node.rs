//! The table of nodes.

use coracle_api::meta;
use serde_json::Value;

use super::Context;
use super::cells::{NONE, UNKNOWN, age, list, name, or_none, text};
use super::columns::{AGE, Column, NAME, text as column};

const ROLE_LABEL: &str = "node-role.kubernetes.io/";
const OLD_ROLE_LABEL: &str = "kubernetes.io/role";

pub(super) const COLUMNS: &[Column] = &[
    NAME,
    column("Status", "Whether the node is ready, and whether it takes new pods"),
    column("Roles", "Roles of the node, from its labels"),
    AGE,
    column("Version", "Version of the kubelet"),
    column("Internal-IP", "Address inside the cluster").wide(),
    column("External-IP", "Address outside of the cluster").wide(),
    column("OS-Image", "Operating system").wide(),
    column("Kernel-Version", "Version of the kernel").wide(),
    column("Container-Runtime", "Runtime and its version").wide(),
];

pub(super) fn cells(node: &Value, context: &Context) -> Vec<Value> {
    let info = |field| match text(node, &["status", "nodeInfo", field]) {
        "" => Value::from(UNKNOWN),
        known => known.into(),
    };
    vec![
        name(node),
        status(node).into(),
        roles(node),
        age(node, context),
        text(node, &["status", "nodeInfo", "kubeletVersion"]).into(),
        address(node, "InternalIP"),
        address(node, "ExternalIP"),
        info("osImage"),
        info("kernelVersion"),
        info("containerRuntimeVersion"),
    ]
}

fn status(node: &Value) -> String {
    let ready = list(node, &["status", "conditions"]).iter().find(|condition| condition["type"] == "Ready");
    let mut status = match ready {
        Some(condition) if condition["status"] == "True" => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if node["spec"]["unschedulable"] == true {
        status.push_str(",SchedulingDisabled");
    }
    status
}

fn roles(node: &Value) -> Value {
    let mut roles: Vec<&str> = meta::labels(node)
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| match key.strip_prefix(ROLE_LABEL) {
            Some(role) => Some(role),
            None if key == OLD_ROLE_LABEL => value.as_str(),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    or_none(&roles.join(","))
}

fn address(node: &Value, wanted: &str) -> Value {
    let found = list(node, &["status", "addresses"]).iter().find(|address| address["type"] == wanted);
    found.map_or(NONE, |address| text(address, &["address"])).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn readiness_cordon_and_roles_show() {
        let node = json!({"metadata": {"name": "n", "labels": {"node-role.kubernetes.io/control-plane": "",
            "kubernetes.io/role": "edge"}}, "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]}});
        assert_eq!(status(&node), "Ready,SchedulingDisabled");
        assert_eq!(roles(&node), "control-plane,edge");
        assert_eq!(
            (address(&node, "InternalIP"), address(&node, "ExternalIP")),
            ("10.0.0.1".into(), NONE.into())
        );
        assert_eq!(status(&json!({})), "Unknown");
    }
}
