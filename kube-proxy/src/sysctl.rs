//! Kernel switches without which Services do not work. Owns which; a switch that cannot be set is a warning, since someone else may have
//! set up the node another way.

use std::path::Path;

/// Turns on forwarding, and the filtering of bridged packets, without which answers between two pods of one node bypass the
/// translation.
pub fn prepare() {
    for (path, needed) in [
        ("/proc/sys/net/ipv4/ip_forward", true),
        ("/proc/sys/net/ipv4/conf/all/route_localnet", false),
        ("/proc/sys/net/bridge/bridge-nf-call-iptables", true),
    ] {
        if let Err(error) = set(Path::new(path))
            && needed
        {
            tracing::warn!(path, error = %error, "cannot set this to 1; Services may not be reachable from everywhere");
        }
    }
}

fn set(path: &Path) -> std::io::Result<()> {
    if std::fs::read_to_string(path)?.trim() == "1" {
        return Ok(());
    }
    std::fs::write(path, "1")
}
