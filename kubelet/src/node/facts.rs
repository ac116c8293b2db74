//! What the machine is: addresses, CPUs, memory, disk, kernel, distribution.
//!
//! Never here: the API.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;

/// Bytes of memory: total and available.
pub fn memory() -> (i64, i64) {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()?.parse::<i64>().ok()).unwrap_or(0) * 1024
    };
    (field("MemTotal:"), field("MemAvailable:"))
}

/// CPUs that this process may use.
pub fn cpus() -> i64 {
    std::thread::available_parallelism().map_or(1, |count| i64::try_from(count.get()).unwrap_or(1))
}

/// Bytes of the file system of a directory: total and available.
pub fn disk(directory: &Path) -> (i64, i64) {
    let Ok(stat) = nix::sys::statvfs::statvfs(directory) else { return (0, 0) };
    let bytes = |blocks: u64| i64::try_from(blocks.saturating_mul(stat.fragment_size())).unwrap_or(i64::MAX);
    (bytes(stat.blocks()), bytes(stat.blocks_available()))
}

/// The address that packets to the API server leave from.
pub fn source_address(server: &str) -> Option<IpAddr> {
    let any: SocketAddr = ([0, 0, 0, 0], 0).into();
    let socket = UdpSocket::bind(any).ok()?;
    // No packet is sent: connecting a UDP socket only chooses the route.
    socket.connect(server).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

/// The first line of a file, or nothing.
pub fn first_line(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().lines().next().unwrap_or_default().trim().to_owned()
}

/// The distribution's name for people.
pub fn os_image() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

/// The architecture as Go names it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
