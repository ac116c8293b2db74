//! `--auto-tls` and `--peer-auto-tls`: a certificate that a member makes for itself, kept below the data directory so that it stays the
//! same. Never here: any trust in it.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};

const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The certificate and key in `dir`, made if there are none: for these hosts, good for so many years.
///
/// # Errors
/// The directory is not writable, or a host is no name a certificate can hold.
pub fn ensure(dir: &Path, hosts: &[String], years: u32) -> anyhow::Result<(PathBuf, PathBuf)> {
    let (cert_path, key_path) = (dir.join("cert.pem"), dir.join("key.pem"));
    if cert_path.exists() && key_path.exists() {
        return Ok((cert_path, key_path));
    }
    std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let mut params =
        CertificateParams::new(hosts.to_vec()).context("--auto-tls: hosts of the listen URLs")?;
    params.distinguished_name.push(DnType::OrganizationName, "etcd");
    params.key_usages = vec![KeyUsagePurpose::KeyEncipherment, KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let now = SystemTime::now();
    params.not_before = now.into();
    params.not_after = (now + years * YEAR).into();
    let key = KeyPair::generate().context("cannot make a key")?;
    let cert = params.self_signed(&key).context("cannot make a certificate")?;
    write(&key_path, &key.serialize_pem())?;
    write(&cert_path, &cert.pem())?;
    tracing::warn!(cert = %cert_path.display(), years, "automatically generate certificates");
    Ok((cert_path, key_path))
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let create = || -> std::io::Result<()> {
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    create().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_once_and_for_so_long() {
        let dir = tempfile::tempdir().expect("dir");
        let hosts = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let (cert, key) = ensure(&dir.path().join("fixtures"), &hosts, 3).expect("made");
        let text = std::fs::read(&cert).expect("read");
        let subject = component_base::tls::subject(&component_base::tls::load_certs(&cert).expect("PEM")[0])
            .expect("X.509");
        assert_eq!((subject.dns_names.len(), subject.ip_addresses.len()), (1, 1));
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock").as_secs();
        let years = (subject.not_after.unsigned_abs() - now) as f64 / YEAR.as_secs() as f64;
        assert!((2.9..3.1).contains(&years), "{years}");
        component_base::tls::load_key(&key).expect("a key");
        ensure(&dir.path().join("fixtures"), &hosts, 1).expect("there");
        assert_eq!(std::fs::read(&cert).expect("read"), text);
    }
}
