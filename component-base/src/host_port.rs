//! Host and port as URLs and error texts have them.

use std::fmt::Display;

/// `host:port`, an IPv6 address in brackets.
pub fn join_host_port(host: &str, port: impl Display) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_with_colons_are_bracketed() {
        assert_eq!(
            [join_host_port("::1", 1), join_host_port("10.0.0.1", 2), join_host_port("a.example", 3)],
            ["[::1]:1", "10.0.0.1:2", "a.example:3"]
        );
    }
}
