//! CertificateApproval, CertificateSigning, CertificateSubjectRestriction: who may approve and sign for which signer, and that nobody asks for a
//! client certificate of `system:masters`.

use std::sync::Arc;

use base64::Engine;
use coracle_api::kinds::access;
use coracle_api::status::ApiError;
use futures::future::BoxFuture;
use serde_json::Value;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use super::{Plugin, refusal};
use crate::authz::{Attributes, Authorizer, ResourceAttributes};
use crate::registry::Registry;
use crate::server::request_info::RequestInfo;

const GROUP: &str = "certificates.k8s.io";
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";
const ADMINISTRATORS: &str = "system:masters";

/// Who approves must be allowed to approve for the request's signer.
pub(super) struct CertificateApproval(pub(super) Arc<Authorizer>);

/// Who signs must be allowed to sign for the request's signer.
pub(super) struct CertificateSigning(pub(super) Arc<Authorizer>);

/// Nobody asks for a certificate of the administrators' group.
pub(super) struct CertificateSubjectRestriction;

impl Plugin for CertificateApproval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    fn validate<'a>(
        &'a self,
        _registry: &'a Registry,
        request: &'a RequestInfo,
        _object: Option<&'a Value>,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        let asked = old.filter(|_| is_part(request, Some("approval")));
        Box::pin(async move {
            match asked {
                Some(old) => check(&self.0, request, old, "approve").await,
                None => Ok(()),
            }
        })
    }
}

impl Plugin for CertificateSigning {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    fn validate<'a>(
        &'a self,
        _registry: &'a Registry,
        request: &'a RequestInfo,
        object: Option<&'a Value>,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        let both = object.zip(old).filter(|(new, old)| is_part(request, Some("status")) && signs(new, old));
        Box::pin(async move {
            match both {
                Some((_, old)) => check(&self.0, request, old, "sign").await,
                None => Ok(()),
            }
        })
    }
}

impl Plugin for CertificateSubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    fn validate<'a>(
        &'a self,
        _registry: &'a Registry,
        request: &'a RequestInfo,
        object: Option<&'a Value>,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        let new = object.filter(|_| old.is_none() && is_part(request, None));
        let problem = new.and_then(forbidden_subject);
        let decided = problem.map_or(Ok(()), |text| Err(refusal(request, new, &text)));
        Box::pin(std::future::ready(decided))
    }
}

fn is_part(request: &RequestInfo, subresource: Option<&str>) -> bool {
    request.resource.group == GROUP
        && request.resource.plural == "certificatesigningrequests"
        && request.subresource() == subresource
}

fn signer(object: &Value) -> &str {
    object.get("spec").map(|spec| access::text(spec, "signerName")).unwrap_or_default()
}

/// Asks for the signer's name, then for all of its domain.
async fn check(
    authorizer: &Authorizer,
    request: &RequestInfo,
    old: &Value,
    verb: &str,
) -> Result<(), ApiError> {
    let signer = signer(old);
    let domain = format!("{}/*", signer.split('/').next().unwrap_or_default());
    for name in [signer, &domain] {
        let asked =
            ResourceAttributes { verb, group: GROUP, resource: "signers", name, ..Default::default() };
        if authorizer.allows(&request.user, &Attributes::Resource(asked)).await {
            return Ok(());
        }
    }
    let text = format!("user not permitted to {verb} requests with signerName {signer:?}");
    Err(refusal(request, Some(old), &text))
}

/// Whether what signers write differs.
fn signs(new: &Value, old: &Value) -> bool {
    let part =
        |object: &'_ Value, key: &str| object.get("status").and_then(|status| status.get(key)).cloned();
    ["certificate", "conditions"]
        .into_iter()
        .any(|key| !access::same(part(new, key).as_ref(), part(old, key).as_ref()))
}

fn forbidden_subject(object: &Value) -> Option<String> {
    if signer(object) != CLIENT_SIGNER {
        return None;
    }
    let request = object.get("spec").map(|spec| access::text(spec, "request")).unwrap_or_default();
    match organizations(request) {
        Err(error) => Some(format!("failed to parse CSR: {error}")),
        Ok(all) if all.iter().any(|one| one == ADMINISTRATORS) => {
            Some(format!("use of {CLIENT_SIGNER} signer with {ADMINISTRATORS} group is not allowed"))
        }
        Ok(_) => None,
    }
}

/// The organizations in the subject of a request, given as base64 of PEM.
fn organizations(request: &str) -> Result<Vec<String>, String> {
    let pem = base64::engine::general_purpose::STANDARD.decode(request).map_err(|error| error.to_string())?;
    let (_, block) = x509_parser::pem::parse_x509_pem(&pem).map_err(|error| error.to_string())?;
    if block.label != "CERTIFICATE REQUEST" {
        return Err("PEM block type must be CERTIFICATE REQUEST".to_owned());
    }
    let (_, parsed) =
        X509CertificationRequest::from_der(&block.contents).map_err(|error| error.to_string())?;
    let subject = &parsed.certification_request_info.subject;
    // Whatever kind of text it is: what cannot be read is no known group.
    let text = |one: &x509_parser::x509::AttributeTypeAndValue<'_>| {
        String::from_utf8_lossy(one.attr_value().data).into_owned()
    };
    Ok(subject.iter_organization().map(text).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn request(organizations: &str) -> String {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, organizations);
        let key = rcgen::KeyPair::generate().expect("a key");
        let pem = params.serialize_request(&key).expect("a request").pem().expect("PEM");
        base64::engine::general_purpose::STANDARD.encode(pem)
    }

    #[test]
    fn nobody_asks_to_be_an_administrator() {
        let of = |signer: &str, request: &str| {
            forbidden_subject(&json!({"spec": {"signerName": signer, "request": request}}))
        };
        assert_eq!(of(CLIENT_SIGNER, &request("developers")), None);
        assert_eq!(
            of(CLIENT_SIGNER, &request(ADMINISTRATORS)).as_deref(),
            Some(
                "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"
            )
        );
        assert_eq!(of("example.com/other", &request(ADMINISTRATORS)), None);
        assert!(
            of(CLIENT_SIGNER, "bm9uc2Vuc2U=").is_some_and(|text| text.starts_with("failed to parse CSR: "))
        );
    }

    #[test]
    fn only_what_signers_write_asks_for_their_right() {
        let old = json!({"status": {}});
        assert!(!signs(&json!({}), &old));
        assert!(signs(&json!({"status": {"certificate": "eA=="}}), &old));
        assert!(signs(&json!({"status": {"conditions": [{"type": "Failed"}]}}), &old));
    }
}
