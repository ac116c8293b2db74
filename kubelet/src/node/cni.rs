//! The node's pod network as CNI configuration: a bridge, addresses from the node's podCIDR, host ports.
//!
//! Never here: running plugins; the runtime does.

use std::io;
use std::path::Path;

use serde_json::json;

const FILE: &str = "10-coracle.conflist";

/// Writes the configuration for a podCIDR. True if it was not there yet or was another one.
///
/// # Errors
/// The file system's.
pub fn write(directory: &Path, pod_cidrs: &[String], data_directory: &Path) -> io::Result<bool> {
    let ranges: Vec<_> = pod_cidrs.iter().map(|cidr| json!([{"subnet": cidr}])).collect();
    let routes: Vec<_> = pod_cidrs
        .iter()
        .map(|cidr| json!({"dst": if cidr.contains(':') { "::/0" } else { "0.0.0.0/0" }}))
        .collect();
    let config = json!({
        "cniVersion": "0.4.0",
        "name": "coracle",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "ipMasq": false,
                "hairpinMode": true,
                "ipam": {"type": "host-local", "dataDir": data_directory, "ranges": ranges, "routes": routes},
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    });
    let text = format!("{config:#}\n");
    let path = directory.join(FILE);
    if std::fs::read_to_string(&path).is_ok_and(|old| old == text) {
        return Ok(false);
    }
    std::fs::create_dir_all(directory)?;
    let temporary = directory.join(format!(".{FILE}.tmp"));
    std::fs::write(&temporary, text)?;
    std::fs::rename(temporary, path)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_follows_the_node() {
        let root = tempfile::tempdir().unwrap();
        let cidr = ["10.244.1.0/24".to_owned()];
        assert!(write(root.path(), &cidr, Path::new("/data")).unwrap());
        assert!(!write(root.path(), &cidr, Path::new("/data")).unwrap());
        let text = std::fs::read_to_string(root.path().join(FILE)).unwrap();
        assert!(text.contains("\"subnet\": \"10.244.1.0/24\"") && text.contains("portmap"), "{text}");
    }
}
