//! Certificates of one run: an authority, the server's and an administrator's.

use std::path::Path;

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// Writes `ca.crt`, `server.crt`, `server.key`, `admin.crt`, `admin.key` and `sa.key` into a directory.
///
/// # Errors
/// When it cannot be written.
pub fn write(dir: &Path) -> anyhow::Result<()> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params.distinguished_name.push(DnType::CommonName, "kubernetes");
    write_file(dir, "ca.crt", &params.self_signed(&key)?.pem())?;
    let ca = Issuer::new(params, key);
    issue(dir, &ca, "server", "kube-apiserver", None)?;
    issue(dir, &ca, "admin", "kubernetes-admin", Some("system:masters"))?;
    write_file(dir, "sa.key", &KeyPair::generate()?.serialize_pem())
}

fn issue(
    dir: &Path,
    ca: &Issuer<'_, KeyPair>,
    file: &str,
    name: &str,
    group: Option<&str>,
) -> anyhow::Result<()> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, name);
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    write_file(dir, &format!("{file}.crt"), &params.signed_by(&key, ca)?.pem())?;
    write_file(dir, &format!("{file}.key"), &key.serialize_pem())
}

fn write_file(dir: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let path = dir.join(name);
    std::fs::write(&path, text).with_context(|| path.display().to_string())
}
