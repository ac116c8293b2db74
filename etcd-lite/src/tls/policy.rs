//! TLS versions and cipher suites by their names in etcd's flags. Never here: certificates.

use std::sync::Arc;

use anyhow::bail;
use rustls::crypto::{CryptoProvider, ring};
use rustls::{CipherSuite, SupportedProtocolVersion};

type Versions = &'static [&'static SupportedProtocolVersion];

static TLS12: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS12];
static TLS13: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];
static BOTH: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];

/// Versions and cipher suites that are spoken.
#[derive(Clone, Debug)]
pub struct Policy {
    provider: Arc<CryptoProvider>,
    versions: Versions,
}

/// Go's names of the cipher suites of TLS 1.2 that there are here.
const SUITES: [(&str, CipherSuite); 8] = [
    ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384", CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
    ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305", CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
];

/// Those of TLS 1.3, which no flag turns off, as in Go.
const SUITES_TLS13: [&str; 3] =
    ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];

/// Those that Go has and calls weak or insecure; they are not here.
const SUITES_MISSING: [&str; 14] = [
    "TLS_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
];

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Version {
    Tls12,
    Tls13,
}

impl Policy {
    /// From `--cipher-suites`, `--tls-min-version` and `--tls-max-version`.
    ///
    /// # Errors
    /// A name is unknown, or nothing is left that could be spoken.
    pub fn new(cipher_suites: &[String], min: &str, max: &str) -> anyhow::Result<Self> {
        let lowest = version(min)?.unwrap_or(Version::Tls12);
        let highest = version(max)?.unwrap_or(Version::Tls13);
        if lowest > highest {
            bail!("min version ({min}) is greater than max version ({max})");
        }
        if lowest == Version::Tls13 && !cipher_suites.is_empty() {
            bail!("cipher suites cannot be configured when only TLS1.3 is enabled");
        }
        let versions: Versions = match (lowest, highest) {
            (Version::Tls12, Version::Tls12) => &TLS12,
            (Version::Tls13, _) => &TLS13,
            (Version::Tls12, Version::Tls13) => &BOTH,
        };
        let mut provider = ring::default_provider();
        let wanted = suites(cipher_suites)?;
        if !cipher_suites.is_empty() {
            provider.cipher_suites.retain(|suite| suite.tls13().is_some() || wanted.contains(&suite.suite()));
        }
        let is_spoken = |version: &&SupportedProtocolVersion| {
            provider.cipher_suites.iter().any(|suite| suite.version().version == version.version)
        };
        if !versions.iter().any(is_spoken) {
            bail!("none of --cipher-suites={} is implemented; use {}", cipher_suites.join(","), SUITES[0].0);
        }
        Ok(Self { provider: Arc::new(provider), versions })
    }

    pub(super) fn provider(&self) -> Arc<CryptoProvider> {
        Arc::clone(&self.provider)
    }

    pub(super) fn versions(&self) -> Versions {
        self.versions
    }
}

fn version(name: &str) -> anyhow::Result<Option<Version>> {
    Ok(match name {
        "" => None,
        "TLS1.2" => Some(Version::Tls12),
        "TLS1.3" => Some(Version::Tls13),
        other => bail!("unexpected TLS version {other:?} (must be one of: TLS1.2, TLS1.3)"),
    })
}

fn suites(names: &[String]) -> anyhow::Result<Vec<CipherSuite>> {
    let mut wanted = Vec::new();
    for name in names {
        if let Some((_, suite)) = SUITES.iter().find(|(known, _)| known == name) {
            wanted.push(*suite);
        } else if SUITES_MISSING.contains(&name.as_str()) {
            tracing::warn!(suite = name, "this weak cipher suite is not implemented; it will not be spoken");
        } else if !SUITES_TLS13.contains(&name.as_str()) {
            bail!("unexpected TLS cipher suite {name:?}");
        }
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(suites: &[&str], min: &str, max: &str) -> Result<Policy, String> {
        let suites: Vec<String> = suites.iter().map(|suite| (*suite).to_owned()).collect();
        Policy::new(&suites, min, max).map_err(|error| error.to_string())
    }

    #[test]
    fn contradictions_are_named_in_the_words_of_etcd() {
        assert_eq!(policy(&["foo"], "", "").expect_err("unknown"), "unexpected TLS cipher suite \"foo\"");
        assert_eq!(
            policy(&[], "TLS1.1", "").expect_err("unknown"),
            "unexpected TLS version \"TLS1.1\" (must be one of: TLS1.2, TLS1.3)"
        );
        assert_eq!(
            policy(&[], "TLS1.3", "TLS1.2").expect_err("reversed"),
            "min version (TLS1.3) is greater than max version (TLS1.2)"
        );
        assert_eq!(
            policy(&[SUITES[0].0], "TLS1.3", "").expect_err("no suites there"),
            "cipher suites cannot be configured when only TLS1.3 is enabled"
        );
        let error = policy(&[SUITES_MISSING[0]], "", "TLS1.2").expect_err("nothing left");
        assert!(error.contains("is implemented; use"), "{error}");
    }

    #[test]
    fn only_the_suites_and_versions_named_are_spoken() {
        let all = policy(&[], "", "").expect("all");
        assert_eq!((all.provider.cipher_suites.len(), all.versions.len()), (9, 2));
        let few =
            policy(&[SUITES[0].0, SUITES_TLS13[0], SUITES_MISSING[3]], "TLS1.2", "TLS1.3").expect("few");
        assert_eq!((few.provider.cipher_suites.len(), few.versions.len()), (4, 2));
        assert_eq!(policy(&[], "TLS1.3", "").expect("new").versions.len(), 1);
    }
}
