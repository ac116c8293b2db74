//! Requests that are approved when whoever asks may have them: kubelets' certificates as clients.

use jiff::Timestamp;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestSpec,
};
use serde_json::{Value, json};

use super::request::Request;
use super::rules::{KUBELET_CLIENT, kubelet_client};
use super::{has_true_condition, is_issued};
use crate::action::{Action, CERTIFICATE_SIGNING_REQUESTS, Target};
use crate::object_meta::{name, preconditions, seconds};

/// A way to be approved: may the requester create this subresource of requests?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The subresource that stands for it.
    pub subresource: &'static str,
    /// What the approval says.
    pub message: &'static str,
}

const SELF: Way = Way {
    subresource: "selfnodeclient",
    message: "Auto approving self kubelet client certificate after SubjectAccessReview.",
};
const NEW: Way = Way {
    subresource: "nodeclient",
    message: "Auto approving kubelet client certificate after SubjectAccessReview.",
};

/// The ways in which a request may be approved, to be tried in order; none for what others decide.
///
/// # Errors
/// The request cannot be read.
pub fn ways(object: &CertificateSigningRequest) -> Result<Vec<Way>, String> {
    let spec = &object.spec;
    let is_decided = has_true_condition(object, "Approved") || has_true_condition(object, "Denied");
    if is_issued(object) || is_decided || spec.signer_name != KUBELET_CLIENT {
        return Ok(Vec::new());
    }
    let request = Request::parse(&spec.request.0)
        .map_err(|error| format!("unable to parse csr {:?}: {error}", name(&object.metadata)))?;
    let usages = spec.usages.clone().unwrap_or_default();
    if kubelet_client(&request, &usages).is_err() {
        return Ok(Vec::new());
    }
    let is_own = spec.username.as_deref() == Some(&*request.common_name);
    Ok(if is_own { vec![SELF, NEW] } else { vec![NEW] })
}

/// The question whether the requester may.
pub fn review(spec: &CertificateSigningRequestSpec, way: Way) -> Value {
    json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": spec.username,
            "uid": spec.uid,
            "groups": spec.groups,
            "extra": spec.extra,
            "resourceAttributes": {
                "group": "certificates.k8s.io",
                "resource": "certificatesigningrequests",
                "verb": "create",
                "subresource": way.subresource,
                "version": "*",
            },
        },
    })
}

/// The approval.
pub fn approve(object: &CertificateSigningRequest, way: Way, now: Timestamp) -> Action {
    let status = object.status.as_ref();
    let mut conditions = status.and_then(|status| status.conditions.clone()).unwrap_or_default();
    conditions.push(CertificateSigningRequestCondition {
        type_: "Approved".to_owned(),
        status: "True".to_owned(),
        reason: Some("AutoApproved".to_owned()),
        message: Some(way.message.to_owned()),
        last_transition_time: None,
        last_update_time: Some(seconds(now)),
    });
    Action::Patch {
        target: Target::new(&CERTIFICATE_SIGNING_REQUESTS, "", name(&object.metadata)),
        subresource: "approval",
        patch: json!({
            "metadata": preconditions(&object.metadata, true),
            "status": { "conditions": conditions },
        }),
    }
}
