//! URLs as etcd's flags take them: `http`, `https`, `unix`, `unixs`; host and port, no path. Never here: name lookups.

use std::fmt;
use std::str::FromStr;

/// A URL of a member, with the spelling it was given, which is what other members and clients are told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EtcdUrl {
    text: String,
    scheme: Scheme,
    /// Without brackets; of a Unix socket, its path.
    host: String,
    port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Scheme {
    Http,
    Https,
    Unix,
    Unixs,
}

/// Why a text is no such URL; the texts are etcd's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Another scheme, or none.
    #[error("URL scheme must be http, https, unix, or unixs: {0}")]
    Scheme(String),
    /// No port.
    #[error("URL address does not have the form \"host:port\": {0}")]
    HostPort(String),
    /// The port is no number below 65536.
    #[error("parse {text:?}: invalid port {port:?} after host")]
    Port {
        /// The URL.
        text: String,
        /// With its colon.
        port: String,
    },
    /// Something behind the port.
    #[error("URL must not contain a path: {0}")]
    Path(String),
}

impl FromStr for EtcdUrl {
    type Err = UrlError;

    fn from_str(given: &str) -> Result<Self, UrlError> {
        let text = given.trim().to_owned();
        let bad_scheme = || UrlError::Scheme(text.clone());
        let (scheme, rest) = text.split_once(':').ok_or_else(bad_scheme)?;
        let scheme = match scheme {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "unix" => Scheme::Unix,
            "unixs" => Scheme::Unixs,
            _ => return Err(bad_scheme()),
        };
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        if matches!(scheme, Scheme::Unix | Scheme::Unixs) {
            let host = rest.to_owned();
            return Ok(Self { text, scheme, host, port: 0 });
        }
        let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        let no_port = || UrlError::HostPort(text.clone());
        let (host, port) = authority.rsplit_once(':').ok_or_else(no_port)?;
        let host = match host.strip_prefix('[') {
            Some(host) => host.strip_suffix(']').ok_or_else(no_port)?,
            None if host.contains(':') => return Err(no_port()),
            None => host,
        };
        let port =
            port.parse().map_err(|_| UrlError::Port { text: text.clone(), port: format!(":{port}") })?;
        if !path.is_empty() {
            return Err(UrlError::Path(text));
        }
        let host = host.to_owned();
        Ok(Self { text, scheme, host, port })
    }
}

impl EtcdUrl {
    /// Whether connections to it are encrypted.
    pub fn is_secure(&self) -> bool {
        matches!(self.scheme, Scheme::Https | Scheme::Unixs)
    }

    /// The path of a Unix socket.
    pub fn unix_path(&self) -> Option<&str> {
        matches!(self.scheme, Scheme::Unix | Scheme::Unixs).then_some(self.host.as_str())
    }

    /// The host, an IPv6 address without brackets; of a Unix socket, its path.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; 0 for a Unix socket.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for EtcdUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The URL as others are told it.
pub fn plain(url: &EtcdUrl) -> String {
    url.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_etcd_takes_is_taken() {
        let error = |text: &str| text.parse::<EtcdUrl>().expect_err(text).to_string();
        assert_eq!(error("foo"), "URL scheme must be http, https, unix, or unixs: foo");
        assert_eq!(error("ftp://a:1"), "URL scheme must be http, https, unix, or unixs: ftp://a:1");
        assert_eq!(error("http://a"), "URL address does not have the form \"host:port\": http://a");
        assert_eq!(error("http://::1"), "URL address does not have the form \"host:port\": http://::1");
        assert_eq!(error("http://a:1/"), "URL must not contain a path: http://a:1/");
        assert_eq!(error("http://a:b"), "parse \"http://a:b\": invalid port \":b\" after host");
    }

    #[test]
    fn host_and_port_are_told_apart() {
        let url: EtcdUrl = "https://[::1]:2379".parse().expect("IPv6");
        assert_eq!((url.host(), url.port(), url.is_secure()), ("::1", 2379, true));
        let url: EtcdUrl = " http://localhost:80".parse().expect("a well-known port stays");
        assert_eq!((url.to_string().as_str(), url.unix_path()), ("http://localhost:80", None));
        for text in ["unix:///tmp/a.sock", "unix:/tmp/a.sock"] {
            let url: EtcdUrl = text.parse().expect("Unix");
            assert_eq!((url.unix_path(), url.is_secure()), (Some("/tmp/a.sock"), false));
        }
        let url: EtcdUrl = "unixs://localhost:m10".parse().expect("a relative path");
        assert_eq!((url.unix_path(), url.is_secure()), (Some("localhost:m10"), true));
    }
}
