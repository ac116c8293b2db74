//! The first certificate of a node: asked for with the kubeconfig of `--bootstrap-kubeconfig`, kept below `--cert-dir`, and
//! named by the kubeconfig that is written for `--kubeconfig`.
//!
//! Never here: renewal.

use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use coracle_client::config::{CALL_DEADLINE, ClientConfig, connect, within};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::PostParams;
use kube::config::Kubeconfig;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::{Value, json};

const SIGNER: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// As long as upstream waits for somebody to approve and sign.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
const POLL: Duration = Duration::from_secs(1);

/// Where things are.
pub struct Places<'a> {
    /// Says how to ask.
    pub bootstrap: &'a Path,
    /// What is written.
    pub kubeconfig: &'a Path,
    /// Where the certificate goes.
    pub cert_dir: &'a Path,
    /// Whose it is.
    pub node_name: &'a str,
}

/// Asks for a certificate, waits until it is there, and writes it with a kubeconfig that names it.
///
/// # Errors
/// The bootstrap kubeconfig cannot be used, the request is denied or nobody signs it in time, or a file cannot be written.
pub async fn run(places: &Places<'_>) -> anyhow::Result<()> {
    let shown = places.bootstrap.display();
    let bootstrap = Kubeconfig::read_from(places.bootstrap)
        .with_context(|| format!("--bootstrap-kubeconfig {shown} cannot be read"))?;
    let written = kubeconfig(&bootstrap, &current(places.cert_dir))
        .map_err(|error| anyhow!("--bootstrap-kubeconfig {shown}: {error}"))?;
    tracing::info!(kubeconfig = %places.kubeconfig.display(), "asking for the node's first certificate");
    let client = connect(&ClientConfig::new("kubelet").kubeconfig(places.bootstrap)).await?;
    let key = KeyPair::generate().context("cannot make a key")?;
    let request = request(places.node_name, &key)?;
    let certificate =
        tokio::time::timeout(PATIENCE, issued(&Api::all(client), &request)).await.map_err(|_| {
            anyhow!("no certificate was issued within 15 minutes; approve and sign the request")
        })??;
    std::fs::create_dir_all(places.cert_dir)
        .with_context(|| format!("cannot make --cert-dir {}", places.cert_dir.display()))?;
    let stamp = Timestamp::now().strftime("%Y-%m-%d-%H-%M-%S");
    let file = places.cert_dir.join(format!("kubelet-client-{stamp}.pem"));
    let pem = [certificate.as_slice(), key.serialize_pem().as_bytes()].concat();
    write_private(&file, &pem)?;
    let current = current(places.cert_dir);
    match std::fs::remove_file(&current) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot replace {}", current.display()));
        }
        _ => {}
    }
    symlink(&file, &current).with_context(|| format!("cannot make {}", current.display()))?;
    if let Some(directory) = places.kubeconfig.parent() {
        std::fs::create_dir_all(directory)?;
    }
    write_private(places.kubeconfig, serde_yaml_ng::to_string(&written)?.as_bytes())
}

fn current(cert_dir: &Path) -> PathBuf {
    cert_dir.join("kubelet-client-current.pem")
}

/// The request of a node: as upstream, for the signer that is approved by itself when the asker may.
fn request(node_name: &str, key: &KeyPair) -> anyhow::Result<CertificateSigningRequest> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(DnType::CommonName, format!("system:node:{node_name}"));
    let pem =
        params.serialize_request(key).and_then(|request| request.pem()).context("cannot make a request")?;
    Ok(CertificateSigningRequest {
        metadata: ObjectMeta { generate_name: Some("node-csr-".to_owned()), ..ObjectMeta::default() },
        spec: CertificateSigningRequestSpec {
            request: ByteString(pem.into_bytes()),
            signer_name: SIGNER.to_owned(),
            usages: Some(vec!["digital signature".to_owned(), "client auth".to_owned()]),
            ..CertificateSigningRequestSpec::default()
        },
        status: None,
    })
}

/// Sends the request, again and again if it must, and waits for the certificate.
async fn issued(
    requests: &Api<CertificateSigningRequest>,
    request: &CertificateSigningRequest,
) -> anyhow::Result<Vec<u8>> {
    let mut name: Option<String> = None;
    loop {
        let answer = match &name {
            None => within(CALL_DEADLINE, requests.create(&PostParams::default(), request)).await,
            Some(name) => within(CALL_DEADLINE, requests.get(name)).await,
        };
        match answer {
            Ok(object) => {
                if let Some(certificate) = outcome(&object)? {
                    return Ok(certificate);
                }
                name = object.metadata.name;
            }
            Err(error) => tracing::warn!(%error, "cannot ask for a certificate yet"),
        }
        tokio::time::sleep(POLL).await;
    }
}

/// What became of a request so far.
fn outcome(object: &CertificateSigningRequest) -> anyhow::Result<Option<Vec<u8>>> {
    let Some(status) = &object.status else { return Ok(None) };
    for condition in status.conditions.iter().flatten() {
        if matches!(condition.type_.as_str(), "Denied" | "Failed") {
            let (reason, message) = (&condition.reason, &condition.message);
            bail!(
                "certificate signing request is {}: reason {:?}, message {:?}",
                condition.type_.to_lowercase(),
                reason.as_deref().unwrap_or_default(),
                message.as_deref().unwrap_or_default()
            );
        }
    }
    Ok(status.certificate.as_ref().map(|bytes| bytes.0.clone()).filter(|bytes| !bytes.is_empty()))
}

/// The kubeconfig with the bootstrap's cluster and the certificate's file.
fn kubeconfig(bootstrap: &Kubeconfig, certificate: &Path) -> Result<Value, String> {
    let context = bootstrap.current_context.as_deref().unwrap_or_default();
    let context =
        bootstrap.contexts.iter().find(|one| one.name == context).and_then(|one| one.context.as_ref());
    let context = context.ok_or("it has no current context")?;
    let cluster = bootstrap.clusters.iter().find(|one| one.name == context.cluster);
    let cluster = cluster.and_then(|one| one.cluster.as_ref()).ok_or("its context names no cluster")?;
    let cluster = serde_json::to_value(cluster).map_err(|error| error.to_string())?;
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "default-cluster", "cluster": cluster}],
        "users": [{
            "name": "default-auth",
            "user": {"client-certificate": certificate, "client-key": certificate},
        }],
        "contexts": [{
            "name": "default-context",
            "context": {"cluster": "default-cluster", "namespace": "default", "user": "default-auth"},
        }],
        "current-context": "default-context",
    }))
}

fn write_private(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let write = || {
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(bytes)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubeconfig_has_the_bootstraps_cluster_and_the_certificates_file() {
        let bootstrap: Kubeconfig = serde_json::from_value(json!({
            "current-context": "b",
            "clusters": [
                {"name": "other", "cluster": {"server": "https://other"}},
                {"name": "c", "cluster": {"server": "https://10.0.0.1:6443", "certificate-authority": "/ca.crt"}}],
            "users": [{"name": "u", "user": {"token": "secret"}}],
            "contexts": [{"name": "b", "context": {"cluster": "c", "user": "u"}}]}))
        .unwrap();
        let written = kubeconfig(&bootstrap, Path::new("/pki/current.pem")).unwrap();
        assert_eq!(written["clusters"][0]["cluster"]["server"], "https://10.0.0.1:6443");
        assert_eq!(written["clusters"][0]["cluster"]["certificate-authority"], "/ca.crt");
        assert_eq!(
            written["users"][0]["user"],
            json!({"client-certificate": "/pki/current.pem", "client-key": "/pki/current.pem"})
        );
        let text = serde_yaml_ng::to_string(&written).unwrap();
        assert!(!text.contains("secret"));
        let read: Kubeconfig = serde_yaml_ng::from_str(&text).unwrap();
        assert_eq!(read.current_context.as_deref(), Some("default-context"));
        assert!(kubeconfig(&Kubeconfig::default(), Path::new("/x")).is_err());
    }

    #[test]
    fn requests_name_the_node_and_outcomes_are_read() {
        let key = KeyPair::generate().unwrap();
        let mut request = request("n1", &key).unwrap();
        assert_eq!(request.spec.signer_name, SIGNER);
        assert!(request.spec.request.0.starts_with(b"-----BEGIN CERTIFICATE REQUEST-----"));
        assert!(outcome(&request).unwrap().is_none());
        request.status = serde_json::from_value(json!({"certificate": "Y2VydA=="})).unwrap();
        assert_eq!(outcome(&request).unwrap().unwrap(), b"cert");
        request.status = serde_json::from_value(
            json!({"conditions": [{"type": "Denied", "status": "True", "reason": "No", "message": "never"}]}),
        )
        .unwrap();
        let error = outcome(&request).unwrap_err().to_string();
        assert_eq!(error, "certificate signing request is denied: reason \"No\", message \"never\"");
    }
}
