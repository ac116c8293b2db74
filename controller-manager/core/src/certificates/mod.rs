//! CertificateSigningRequests: which are approved without asking anybody, which are signed and how, which have been there for long enough.
//! Owns the rules and the certificates' contents; keys and signatures are the caller's.

pub mod approval;
pub mod cleaning;
pub mod issue;
pub mod request;
pub mod rules;
#[cfg(test)]
mod tests;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;

/// Whether a condition of this type is there, and True.
pub fn has_true_condition(request: &CertificateSigningRequest, kind: &str) -> bool {
    let conditions = request.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|one| one.type_ == kind && matches!(&*one.status, "True" | ""))
}

/// Whether there is a certificate.
pub fn is_issued(request: &CertificateSigningRequest) -> bool {
    let certificate = request.status.as_ref().and_then(|status| status.certificate.as_ref());
    certificate.is_some_and(|certificate| !certificate.0.is_empty())
}
