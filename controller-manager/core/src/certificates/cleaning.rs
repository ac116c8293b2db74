//! Requests that have been there for long enough.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use x509_cert::Certificate;
use x509_cert::der::DecodePem;

use super::is_issued;
use crate::action::{Action, CERTIFICATE_SIGNING_REQUESTS, Target};
use crate::object_meta::name;

const DECIDED: SignedDuration = SignedDuration::from_hours(1);
const PENDING: SignedDuration = SignedDuration::from_hours(24);

/// Whether the request goes: an hour after it was denied, has failed or has been issued, a day after it was made and nobody cared, or when its
/// certificate has expired.
pub fn is_outdated(object: &CertificateSigningRequest, now: Timestamp) -> bool {
    let older = |time: Option<&Time>, than: SignedDuration| {
        time.is_some_and(|time| now.duration_since(time.0) > than)
    };
    let conditions: Vec<_> =
        object.status.iter().flat_map(|status| status.conditions.iter().flatten()).collect();
    if conditions.is_empty() && !is_issued(object) {
        return older(object.metadata.creation_timestamp.as_ref(), PENDING);
    }
    conditions.into_iter().any(|condition| {
        let is_old = older(condition.last_update_time.as_ref(), DECIDED);
        match &*condition.type_ {
            "Denied" | "Failed" => is_old,
            "Approved" => is_issued(object) && (is_old || is_expired(object, now)),
            _ => false,
        }
    })
}

fn is_expired(object: &CertificateSigningRequest, now: Timestamp) -> bool {
    let pem = object.status.as_ref().and_then(|status| status.certificate.as_ref());
    let Some(Ok(certificate)) = pem.map(|pem| Certificate::from_pem(&pem.0)) else { return false };
    let until = certificate.tbs_certificate.validity.not_after.to_unix_duration().as_secs();
    u64::try_from(now.as_second()).is_ok_and(|now| now > until)
}

/// Takes the request away.
pub fn remove(object: &CertificateSigningRequest) -> Action {
    Action::Delete {
        target: Target::new(&CERTIFICATE_SIGNING_REQUESTS, "", name(&object.metadata)),
        uid: object.metadata.uid.clone(),
        resource_version: None,
        propagation: None,
        grace_seconds: None,
    }
}
