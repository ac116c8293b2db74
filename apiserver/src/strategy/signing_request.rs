//! CertificateSigningRequests: the server writes down who asked; approval and the certificate come through subresources of their own.

use coracle_api::field::FieldError;
use coracle_api::kinds::{access, certificate_request};
use coracle_api::meta::format_time;
use serde_json::{Value, json};

use super::Strategy;
use super::common::{keep, keep_all_but_status, text_at};
use crate::registry::meta;
use crate::server::request_info::RequestInfo;

/// `certificatesigningrequests.certificates.k8s.io`.
pub struct SigningRequest;

/// Conditions that only approvers write.
const APPROVALS: &[&str] = &["Approved", "Denied"];

fn conditions_of(object: &Value, approvals: bool) -> Vec<Value> {
    let all = object.get("status").map(|status| access::items(status, "conditions")).unwrap_or_default();
    all.iter().filter(|one| APPROVALS.contains(&access::text(one, "type")) == approvals).cloned().collect()
}

impl Strategy for SigningRequest {
    fn default(&self, object: &mut Value) {
        access::struct_mut(object, "status");
    }

    fn prepare_for_create(&self, request: &RequestInfo, object: &mut Value) {
        let user = &request.user;
        certificate_request::set_requester(object, &user.name, &user.uid, &user.groups, json!(user.extra));
        access::set(object, "status", json!({}));
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        certificate_request::validate(object)
    }

    fn prepare_for_update(&self, request: &RequestInfo, new: &mut Value, old: &Value) {
        match request.subresource() {
            Some("approval") => {
                keep(new, old, "spec");
                // An approver writes conditions, nothing else of the status.
                let conditions = new.pointer("/status/conditions").cloned().unwrap_or(Value::Null);
                keep(new, old, "status");
                if let Some(status) = access::struct_mut(new, "status") {
                    access::set(status, "conditions", conditions);
                    access::drop_nulls(status);
                }
            }
            Some("status") => {
                keep_all_but_status(new, old);
                // A signer leaves the approvers' conditions as they are.
                let conditions: Vec<Value> =
                    conditions_of(old, true).into_iter().chain(conditions_of(new, false)).collect();
                if let Some(status) = access::struct_mut(new, "status").filter(|_| !conditions.is_empty()) {
                    access::set(status, "conditions", conditions);
                }
            }
            _ => {
                keep(new, old, "spec");
                keep(new, old, "status");
                return;
            }
        }
        certificate_request::date_conditions(new, &format_time(meta::now()));
    }

    fn validate_update(&self, request: &RequestInfo, new: &Value, old: &Value) -> Vec<FieldError> {
        let subresource = request.subresource();
        let (may_approve, may_issue) = (subresource == Some("approval"), subresource == Some("status"));
        certificate_request::validate_update(new, old, may_approve, may_issue)
    }

    fn selectable_fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![("spec.signerName", text_at(object, &["spec", "signerName"]))]
    }

    fn selectable_field_names(&self) -> &'static [&'static str] {
        &["spec.signerName"]
    }
}
