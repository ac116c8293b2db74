//! Names of chains and sets: readable, unique by a hash in front, short enough for the kernel. Owns their form.

/// Longest name of a chain or set that every kernel takes.
const LENGTH_MAX: usize = 120;

/// `service-HASH-namespace/name/tcp/port`; `prefix` is `service`, `local` or `external`.
pub fn service_chain(prefix: &str, namespace: &str, name: &str, protocol: &str, port_name: &str) -> String {
    let base = service_base(namespace, name, protocol, port_name);
    shorten(format!("{prefix}-{}-{base}", hash(&base)))
}

/// `endpoint-HASH-namespace/name/tcp/port__address/port`; `prefix` is `endpoint` or `affinity`.
pub fn endpoint_chain(
    prefix: &str,
    (namespace, name, protocol, port_name): (&str, &str, &str, &str),
    address: &str,
    port: u16,
) -> String {
    let base = format!("{}__{address}/{port}", service_base(namespace, name, protocol, port_name));
    shorten(format!("{prefix}-{}-{base}", hash(&base)))
}

fn service_base(namespace: &str, name: &str, protocol: &str, port_name: &str) -> String {
    let protocol = protocol.to_ascii_lowercase();
    if port_name.is_empty() {
        format!("{namespace}/{name}/{protocol}")
    } else {
        format!("{namespace}/{name}/{protocol}/{port_name}")
    }
}

fn shorten(mut name: String) -> String {
    if name.len() > LENGTH_MAX {
        // All parts are DNS names and numbers, so every byte is a character.
        name.truncate(LENGTH_MAX - 3);
        name.push_str("...");
    }
    name
}

/// Eight characters of base 32 over a 64-bit FNV-1a hash.
fn hash(text: &str) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut value = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // The low bits of FNV mix worst; fold the high half in.
    value ^= value >> 32;
    (0..8).map(|at| char::from(ALPHABET[(value >> (at * 5)) as usize & 31])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_readable_unique_and_short() {
        let name = service_chain("service", "default", "web", "TCP", "http");
        assert!(name.starts_with("service-") && name.ends_with("-default/web/tcp/http"), "{name}");
        let id = ("default", "web", "TCP", "http");
        assert_ne!(
            endpoint_chain("endpoint", id, "10.0.0.1", 80),
            endpoint_chain("endpoint", id, "10.0.0.2", 80)
        );
        let long = "x".repeat(63);
        let (a, b) = (
            service_chain("external", &long, &long, "TCP", "a"),
            service_chain("external", &long, &long, "TCP", "b"),
        );
        assert!(a.len() <= LENGTH_MAX && a != b);
    }
}
