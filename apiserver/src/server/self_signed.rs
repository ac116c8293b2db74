//! The serving certificate of a server that is given none: `apiserver.crt` and `apiserver.key` in `--cert-dir`, made at the first start and kept.

use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::allocator::pool::Pool;
use crate::bootstrap;
use crate::options::Options;

/// The file names, without their ends.
const PAIR: &str = "apiserver";
/// Names of the API within the cluster.
const SERVICE_NAMES: [&str; 3] = ["kubernetes.default.svc", "kubernetes.default", "kubernetes"];
const CERT_MODE: u32 = 0o644;
const KEY_MODE: u32 = 0o600;

/// Certificate and key, made if they are not there.
///
/// # Errors
/// Only one of them is there, or they cannot be written; names the flag.
pub fn pair(options: &Options) -> Result<(PathBuf, PathBuf), String> {
    let dir = &options.cert_dir;
    if dir.as_os_str().is_empty() {
        return Err("--cert-dir: it has to name a directory where --tls-cert-file is not given".to_owned());
    }
    let (cert, key) = (dir.join(format!("{PAIR}.crt")), dir.join(format!("{PAIR}.key")));
    let is_there = |path: &Path| fs::File::open(path).is_ok();
    match (is_there(&cert), is_there(&key)) {
        (true, true) => return Ok((cert, key)),
        (false, false) => {}
        (has_cert, _) => {
            let missing = if has_cert { &key } else { &cert };
            return Err(format!(
                "--cert-dir: error reading {}, certificate and key must be supplied as a pair",
                missing.display()
            ));
        }
    }
    let made = make(options).map_err(|error| format!("unable to generate self signed cert: {error}"))?;
    let written = fs::create_dir_all(dir)
        .and_then(|()| write(&cert, &made.0, CERT_MODE))
        .and_then(|()| write(&key, &made.1, KEY_MODE));
    written.map_err(|error| format!("--cert-dir: {}: {error}", dir.display()))?;
    tracing::info!(cert = %cert.display(), key = %key.display(), "made a self-signed serving certificate");
    Ok((cert, key))
}

/// Written beside and moved into place, so that nobody reads half of it.
fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let new = path.with_extension("new");
    // One that an earlier start left behind may have another mode.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)
}

/// The names and addresses the server is reached at.
fn hosts(options: &Options) -> Vec<String> {
    let mut hosts: Vec<String> =
        bootstrap::advertised(options).map(|ip| ip.to_string()).into_iter().collect();
    hosts.extend(SERVICE_NAMES.map(str::to_owned));
    // A range that makes no sense is refused elsewhere.
    hosts.extend(
        Pool::cluster_ips(options).ok().map(|pool| IpAddr::from(Ipv4Addr::from(pool.first())).to_string()),
    );
    hosts.push(match options.bind_address {
        any if any.is_unspecified() => "localhost".to_owned(),
        address => address.to_string(),
    });
    let mut known = std::collections::HashSet::new();
    hosts.retain(|host| known.insert(host.clone()));
    hosts
}

/// A certificate with that of the authority it is signed by, which is forgotten, and its key.
fn make(options: &Options) -> Result<(String, String), rcgen::Error> {
    let hosts = hosts(options);
    let now = Timestamp::now();
    let named = |role: &str| format!("{}{role}@{}", hosts[0], now.as_second());
    let today = now.to_zoned(TimeZone::UTC).date();
    // Clocks differ, and a year is what upstream gives.
    let (from, until) = (today.saturating_sub(1.day()), today.saturating_add(1.year()));
    let date = |date: jiff::civil::Date| {
        rcgen::date_time_ymd(date.year().into(), date.month() as u8, date.day() as u8)
    };
    let dated = |mut params: CertificateParams, name: String| {
        (params.not_before, params.not_after) = (date(from), date(until));
        params.distinguished_name.push(DnType::CommonName, name);
        params
    };

    let mut authority = dated(CertificateParams::default(), named("-ca"));
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::KeyCertSign,
    ];
    let authority_key = KeyPair::generate()?;
    let authority_cert = authority.self_signed(&authority_key)?;
    let mut params = dated(CertificateParams::new(hosts.clone())?, named(""));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let cert = params.signed_by(&key, &Issuer::new(authority, authority_key))?;
    Ok((cert.pem() + &authority_cert.pem(), key.serialize_pem()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::NOT_IMPLEMENTED;
    use std::os::unix::fs::PermissionsExt;

    fn options(dir: &Path) -> Options {
        let args = [
            "kube-apiserver".to_owned(),
            "--etcd-servers=http://127.0.0.1:2379".to_owned(),
            "--advertise-address=192.0.2.7".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            format!("--cert-dir={}", dir.display()),
        ];
        component_base::flags::try_parse_from(args.map(Into::into), NOT_IMPLEMENTED).expect("parses")
    }

    #[test]
    fn a_pair_is_made_once() {
        let dir = tempfile::tempdir().expect("a folder");
        let options = options(&dir.path().join("run/kubernetes"));
        assert_eq!(
            hosts(&options),
            [
                "192.0.2.7",
                "kubernetes.default.svc",
                "kubernetes.default",
                "kubernetes",
                "10.96.0.1",
                "localhost"
            ]
        );
        let (cert, key) = pair(&options).expect("is made");
        let text = fs::read_to_string(&cert).expect("readable");
        assert_eq!(text.matches("BEGIN CERTIFICATE").count(), 2);
        assert_eq!(fs::metadata(&key).expect("is there").permissions().mode() & 0o777, KEY_MODE);
        assert_eq!(pair(&options), Ok((cert.clone(), key.clone())));
        assert_eq!(fs::read_to_string(&cert).expect("readable"), text, "it is kept");
        fs::remove_file(&key).expect("removed");
        let error = pair(&options).expect_err("half a pair");
        assert!(error.ends_with("apiserver.key, certificate and key must be supplied as a pair"), "{error}");
    }
}
