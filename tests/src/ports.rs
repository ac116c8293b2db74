//! Ports for servers that a test starts, stops and starts again.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below what Linux gives to clients by itself: while a server is down, a client that tries again and again would else be given the very
/// port it calls, and talk to itself.
const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;

/// Ports of this machine that were free a moment ago. Test processes begin at different ones.
pub fn free_ports(count: usize) -> Vec<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = (std::process::id() * 37 % u32::from(COUNT)) as u16;
    let mut found = Vec::new();
    for _ in 0..COUNT {
        if found.len() == count {
            break;
        }
        let offset = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + (u32::from(begin) + u32::from(offset)).rem_euclid(u32::from(COUNT)) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            found.push(port);
        }
    }
    assert_eq!(found.len(), count, "no free ports");
    found
}
