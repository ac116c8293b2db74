//! The file of `--egress-selector-config-file`: how connections to nodes, etcd and other servers are made. Only directly, so it is read to refuse the rest.

use std::path::Path;

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Configuration {
    api_version: String,
    kind: String,
    #[serde(default)]
    egress_selections: Vec<Selection>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Selection {
    name: String,
    connection: Connection,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Connection {
    proxy_protocol: String,
}

/// Whether the file asks for nothing but direct connections.
///
/// # Errors
/// The file cannot be read, is none of these, or asks for a proxy.
pub(super) fn check(path: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        format!("unable to read egress selector configuration from {:?}: {error}", path.display())
    })?;
    let found: Configuration =
        serde_yaml_ng::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    if found.kind != "EgressSelectorConfiguration" || !found.api_version.starts_with("apiserver.k8s.io/") {
        return Err(format!("{}: no EgressSelectorConfiguration of apiserver.k8s.io", path.display()));
    }
    for (index, Selection { name, connection }) in found.egress_selections.iter().enumerate() {
        if !matches!(name.as_str(), "cluster" | "controlplane" | "etcd") {
            return Err(format!(
                "egressSelections[{index}]: {name:?} is none of cluster, controlplane, etcd"
            ));
        }
        if connection.proxy_protocol != "Direct" {
            return Err(format!(
                "egressSelections[{index}] ({name}): proxyProtocol {:?} is not implemented by Coracle yet",
                connection.proxy_protocol
            ));
        }
    }
    Ok(())
}
