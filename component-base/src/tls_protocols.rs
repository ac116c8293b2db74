//! `--tls-min-version` and `--tls-cipher-suites`: which protocol versions and cipher suites a server takes, by Go's names for them.
//!
//! Never here: certificates.

use std::sync::Arc;

use clap::Args;
use rustls::crypto::CryptoProvider;
use rustls::{
    ConfigBuilder, ProtocolVersion, ServerConfig, SupportedProtocolVersion, WantsVerifier, version,
};

/// Suites that Go names and that are not taken: without forward secrecy, or with CBC.
const WEAK: &[&str] = &[
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_RC4_128_SHA",
];

static LATEST: &[&SupportedProtocolVersion] = &[&version::TLS13];

/// The flags.
#[derive(Args, Clone, Debug, Default)]
pub struct TlsProtocolFlags {
    /// The least TLS version: VersionTLS12 (which also stands for older ones) or VersionTLS13.
    #[arg(long, default_value = "", hide_default_value = true, help_heading = "TLS")]
    pub tls_min_version: String,
    /// Cipher suites of TLS 1.2 by Go's names, comma-separated; those of TLS 1.3 are all taken, as in Go.
    #[arg(long, value_delimiter = ',', help_heading = "TLS")]
    pub tls_cipher_suites: Vec<String>,
}

impl TlsProtocolFlags {
    /// What they say.
    ///
    /// # Errors
    /// Upstream's texts for a name that is none, and a text where no suite is left.
    pub fn protocols(&self) -> Result<TlsProtocols, String> {
        TlsProtocols::new(&self.tls_min_version, &self.tls_cipher_suites)
    }
}

/// What a server takes.
#[derive(Clone, Debug)]
pub struct TlsProtocols {
    provider: Arc<CryptoProvider>,
    versions: &'static [&'static SupportedProtocolVersion],
}

impl Default for TlsProtocols {
    fn default() -> Self {
        Self {
            provider: Arc::new(rustls::crypto::ring::default_provider()),
            versions: rustls::DEFAULT_VERSIONS,
        }
    }
}

impl TlsProtocols {
    /// Reads Go's names; empty for the defaults.
    ///
    /// # Errors
    /// See [`TlsProtocolFlags::protocols`].
    pub fn new(least: &str, suites: &[String]) -> Result<Self, String> {
        let versions = match least {
            "" | "VersionTLS10" | "VersionTLS11" | "VersionTLS12" => rustls::DEFAULT_VERSIONS,
            "VersionTLS13" => LATEST,
            other => return Err(format!("unknown tls version {other:?}")),
        };
        let mut provider = rustls::crypto::ring::default_provider();
        let wanted: Vec<&str> =
            suites.iter().map(|name| name.trim()).filter(|name| !name.is_empty()).collect();
        if !wanted.is_empty() {
            let known: Vec<String> = provider.cipher_suites.iter().map(go_name).collect();
            let of_go = |name: &str| {
                name.strip_suffix("_POLY1305").map_or(name.to_owned(), |_| format!("{name}_SHA256"))
            };
            let wanted: Vec<String> = wanted.into_iter().map(of_go).collect();
            if let Some(name) =
                wanted.iter().find(|name| !known.contains(name) && !WEAK.contains(&name.as_str()))
            {
                return Err(format!("Cipher suite {name} not supported or doesn't exist"));
            }
            if !wanted.iter().any(|name| known.contains(name)) {
                return Err(format!(
                    "none of the cipher suites {} is implemented by Coracle",
                    wanted.join(", ")
                ));
            }
            provider.cipher_suites.retain(|suite| {
                suite.version().version == ProtocolVersion::TLSv1_3 || wanted.contains(&go_name(suite))
            });
        }
        Ok(Self { provider: Arc::new(provider), versions })
    }

    /// The beginning of a server's configuration.
    ///
    /// # Errors
    /// No suite is left for any version.
    pub fn builder(&self) -> Result<ConfigBuilder<ServerConfig, WantsVerifier>, rustls::Error> {
        ServerConfig::builder_with_provider(Arc::clone(&self.provider)).with_protocol_versions(self.versions)
    }
}

/// `TLS_AES_128_GCM_SHA256` of TLS 1.3 has a name of its own in rustls.
fn go_name(suite: &rustls::SupportedCipherSuite) -> String {
    format!("{:?}", suite.suite()).replace("TLS13_", "TLS_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(least: &str, suites: &str) -> Result<TlsProtocols, String> {
        TlsProtocols::new(least, &suites.split(',').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn suites_and_versions_go_by_gos_names() {
        let all = new("", "").expect("defaults");
        assert_eq!((all.provider.cipher_suites.len(), all.versions.len()), (9, 2));
        let few = new(
            "VersionTLS12",
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_RSA_WITH_AES_128_CBC_SHA,TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
        )
        .expect("known");
        // Two, and the three of TLS 1.3.
        assert_eq!(few.provider.cipher_suites.len(), 5);
        few.builder().expect("usable");
        let latest = new("VersionTLS13", "TLS_AES_128_GCM_SHA256").expect("known");
        assert_eq!(latest.versions.len(), 1);
        latest.builder().expect("usable");
    }

    #[test]
    fn names_that_are_none_are_refused_in_upstreams_words() {
        assert_eq!(new("TLS12", "").expect_err("version"), "unknown tls version \"TLS12\"");
        assert_eq!(new("", "ROT13").expect_err("suite"), "Cipher suite ROT13 not supported or doesn't exist");
        let error = new("", "TLS_RSA_WITH_AES_128_CBC_SHA").expect_err("weak");
        assert!(
            error.contains("TLS_RSA_WITH_AES_128_CBC_SHA is implemented") || error.contains("none of"),
            "{error}"
        );
    }
}
