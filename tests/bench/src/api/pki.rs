//! Certificates of one run: an authority, the server's, an administrator's and components'; kubeconfig files of components.

use std::path::{Path, PathBuf};

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde_json::json;

/// Components that have certificates of their own, with their users.
const COMPONENTS: [(&str, &str); 2] =
    [("scheduler", "system:kube-scheduler"), ("controller-manager", "system:kube-controller-manager")];

/// Writes `ca.crt`, certificates with keys (`server`, `admin`, the components') and `sa.key` into a directory.
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
    for (file, user) in COMPONENTS {
        issue(dir, &ca, file, user, None)?;
    }
    write_file(dir, "sa.key", &KeyPair::generate()?.serialize_pem())
}

/// Writes `NAME.kubeconfig` beside the certificates, for the server on a port of loopback.
///
/// # Errors
/// When it cannot be written.
pub fn write_kubeconfig(dir: &Path, name: &str, port: u16) -> anyhow::Result<PathBuf> {
    let at = |file: &str| dir.join(file).display().to_string();
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "bench", "cluster": {
            "server": format!("https://127.0.0.1:{port}"), "certificate-authority": at("ca.crt") } }],
        "users": [{ "name": name, "user": {
            "client-certificate": at(&format!("{name}.crt")), "client-key": at(&format!("{name}.key")) } }],
        "contexts": [{ "name": "bench", "context": { "cluster": "bench", "user": name } }],
        "current-context": "bench",
    });
    let file = format!("{name}.kubeconfig");
    write_file(dir, &file, &config.to_string())?;
    Ok(dir.join(file))
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
