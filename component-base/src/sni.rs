//! `--tls-sni-cert-key`: several serving certificates on one port, chosen by the name that the client says it wants to reach.
//!
//! Never here: what is read from files, and when; see `tls`.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::tls::{self, FileCertificate, TlsError};

/// A certificate and who is given it: `CERT,KEY` or `CERT,KEY:NAME,*.DOMAIN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedCertificate {
    /// PEM chain, leaf first.
    pub cert: PathBuf,
    /// PEM key.
    pub key: PathBuf,
    /// Names, where a first label may be `*`; none: those that the certificate states.
    pub names: Vec<String>,
}

impl FromStr for NamedCertificate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (files, names) = match text.split_once(':') {
            Some((_, names)) if names.trim().is_empty() => {
                return Err("empty names list is not allowed".to_owned());
            }
            Some((files, names)) => {
                (files, names.split(',').map(|name| name.trim().to_lowercase()).collect())
            }
            None => (text, Vec::new()),
        };
        match files.split(',').map(str::trim).collect::<Vec<_>>().as_slice() {
            [cert, key] if !cert.is_empty() && !key.is_empty() => {
                Ok(Self { cert: cert.into(), key: key.into(), names })
            }
            _ => Err("expected comma separated certificate and key file paths".to_owned()),
        }
    }
}

/// Serves the named certificates to those who ask for them, and the default one to everybody else. All of them follow their files.
///
/// # Errors
/// See [`TlsError`].
pub fn resolver(
    (cert, key): (&Path, &Path),
    named: &[NamedCertificate],
) -> Result<Arc<dyn ResolvesServerCert>, TlsError> {
    let default = FileCertificate::open(cert, key)?;
    if named.is_empty() {
        return Ok(Arc::new(default));
    }
    let (mut explicit, mut stated) = (Vec::new(), Vec::new());
    for one in named {
        let certificate = Arc::new(FileCertificate::open(&one.cert, &one.key)?);
        if one.names.is_empty() {
            stated.push((stated_names(&one.cert)?, certificate));
        } else {
            explicit.push((one.names.clone(), certificate));
        }
    }
    // A name that a flag gives counts more than the same name in a certificate, and an earlier flag more than a later one.
    explicit.append(&mut stated);
    Ok(Arc::new(ByName { named: explicit, default }))
}

fn stated_names(cert: &Path) -> Result<Vec<String>, TlsError> {
    let certs = tls::load_certs(cert)?;
    let Some(leaf) = certs.first() else { return Ok(Vec::new()) };
    let subject = tls::subject(leaf)?;
    let is_host = |name: &String| {
        !name.is_empty()
            && name.parse::<std::net::IpAddr>().is_err()
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "-.*".contains(c))
    };
    let common = Some(subject.common_name).filter(is_host);
    Ok(common.into_iter().chain(subject.dns_names).map(|name| name.to_lowercase()).collect())
}

/// Where a name is looked for: itself, then with ever more of its first labels replaced by `*`.
fn patterns(name: &str) -> impl Iterator<Item = String> {
    let name = name.trim_end_matches('.').to_lowercase();
    let count = name.split('.').count();
    (0..=count).map(move |stars| {
        let labels = name.split('.').enumerate();
        labels.map(|(at, label)| if at < stars { "*" } else { label }).collect::<Vec<_>>().join(".")
    })
}

/// The first of these that goes by the name.
fn choose<'a, T>(named: &'a [(Vec<String>, T)], name: &str) -> Option<&'a T> {
    patterns(name)
        .find_map(|pattern| named.iter().find(|(names, _)| names.contains(&pattern)).map(|(_, found)| found))
}

#[derive(Debug)]
struct ByName {
    named: Vec<(Vec<String>, Arc<FileCertificate>)>,
    default: FileCertificate,
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let found = hello.server_name().and_then(|name| choose(&self.named, name));
        Some(found.map_or(&self.default, Arc::as_ref).current())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_name_files_and_hosts() {
        let parse = |text: &str| text.parse::<NamedCertificate>();
        let plain = parse("a.crt, a.key").expect("two files");
        assert_eq!((plain.cert, plain.key, plain.names), ("a.crt".into(), "a.key".into(), Vec::new()));
        assert_eq!(parse("a.crt,a.key:*.Foo.com, foo.com").expect("names").names, ["*.foo.com", "foo.com"]);
        assert_eq!(parse("a.crt,a.key: ").expect_err("no names"), "empty names list is not allowed");
        for text in ["a.crt", "a.crt,a.key,b", ",a.key", ""] {
            assert_eq!(
                parse(text).expect_err(text),
                "expected comma separated certificate and key file paths"
            );
        }
    }

    #[test]
    fn the_narrowest_name_is_chosen_and_among_equals_the_first() {
        let names = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        let named = [
            (names("*.foo.com"), "wild"),
            (names("api.foo.com"), "exact"),
            (names("api.foo.com"), "late"),
            (names("*.*.bar.com"), "two"),
        ];
        let chosen = |name: &str| choose(&named, name).copied();
        assert_eq!(chosen("api.foo.com"), Some("exact"));
        assert_eq!(chosen("API.foo.com."), Some("exact"));
        assert_eq!(chosen("other.foo.com"), Some("wild"));
        assert_eq!(chosen("a.b.bar.com"), Some("two"));
        assert_eq!(chosen("foo.com"), None);
        assert_eq!(chosen("a.b.foo.com"), None);
    }
}
