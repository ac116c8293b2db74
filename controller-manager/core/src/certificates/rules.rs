//! What each of Kubernetes' own signers signs.

use super::request::Request;

/// Clients of the API server.
pub const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
/// Kubelets as clients of the API server.
pub const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// Kubelets as servers.
pub const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
/// What came before there were signers' names.
pub const LEGACY_UNKNOWN: &str = "kubernetes.io/legacy-unknown";
/// All of them.
pub const SIGNERS: [&str; 4] = [KUBELET_SERVING, KUBELET_CLIENT, CLIENT, LEGACY_UNKNOWN];

const NODES: &str = "system:nodes";
const NODE_PREFIX: &str = "system:node:";

/// Whether a signer signs this.
///
/// # Errors
/// Why not, in upstream's words.
pub fn check(signer: &str, request: &Request, usages: &[String]) -> Result<(), String> {
    match signer {
        KUBELET_SERVING => kubelet_serving(request, usages),
        KUBELET_CLIENT => kubelet_client(request, usages),
        CLIENT => client(usages),
        _ => Ok(()),
    }
}

fn refuse(text: &str) -> Result<(), String> {
    Err(text.to_owned())
}

/// Whether the usages are these, with or without enciphering keys, which only RSA keys can.
fn are(usages: &[String], purpose: &str) -> Result<(), String> {
    let mut given: Vec<&str> = usages.iter().map(String::as_str).collect();
    given.sort_unstable();
    given.dedup();
    let mut all = ["digital signature", "key encipherment", purpose];
    all.sort_unstable();
    let mut without = ["digital signature", purpose];
    without.sort_unstable();
    if given == all || given == without {
        return Ok(());
    }
    Err(format!("usages did not match [{}]", all.join(" ")))
}

fn kubelet_serving(request: &Request, usages: &[String]) -> Result<(), String> {
    if request.organizations != [NODES] {
        return refuse("subject organization is not system:nodes");
    }
    if request.names.dns == 0 && request.names.addresses == 0 {
        return refuse("DNS or IP subjectAltName is required");
    }
    if request.names.mail > 0 {
        return refuse("Email subjectAltNames are not allowed");
    }
    if request.names.uris > 0 {
        return refuse("URI subjectAltNames are not allowed");
    }
    are(usages, "server auth")?;
    if !request.common_name.starts_with(NODE_PREFIX) {
        return refuse("subject common name does not begin with system:node:");
    }
    Ok(())
}

/// Whether this is a kubelet's request for a certificate as a client.
///
/// # Errors
/// Why not, in upstream's words.
pub fn kubelet_client(request: &Request, usages: &[String]) -> Result<(), String> {
    if request.organizations != [NODES] {
        return refuse("subject organization is not system:nodes");
    }
    for (number, text) in [
        (request.names.dns, "DNS subjectAltNames are not allowed"),
        (request.names.mail, "Email subjectAltNames are not allowed"),
        (request.names.addresses, "IP subjectAltNames are not allowed"),
        (request.names.uris, "URI subjectAltNames are not allowed"),
    ] {
        if number > 0 {
            return refuse(text);
        }
    }
    if !request.common_name.starts_with(NODE_PREFIX) {
        return refuse("subject common name does not begin with system:node:");
    }
    are(usages, "client auth")
}

fn client(usages: &[String]) -> Result<(), String> {
    for usage in usages {
        if !matches!(&**usage, "digital signature" | "key encipherment" | "client auth") {
            return Err(format!("invalid usage for client certificate: {usage}"));
        }
    }
    if !usages.iter().any(|usage| usage == "client auth") {
        return refuse("missing required usage for client certificate: client auth");
    }
    Ok(())
}
