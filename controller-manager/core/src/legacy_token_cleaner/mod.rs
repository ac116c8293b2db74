//! Takes away the Secrets of ServiceAccount tokens that clusters once made for every account and that nobody has used for long: first their token is
//! declared not good, and when nobody minds that for as long again they are deleted.

#[cfg(test)]
mod tests;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, Secret, ServiceAccount};
use serde_json::{Value, json};

use crate::action::{Action, SECRETS, Target};
use crate::object_meta::{annotation, created, name, namespace, preconditions, uid};
use crate::service_account_tokens::SECRET_TYPE;

/// The ConfigMap in `kube-system` in which the API server says since when it notes uses.
pub const TRACKING: &str = "kube-apiserver-legacy-service-account-token-tracking";
/// Its key.
pub const SINCE: &str = "since";
const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
const ACCOUNT: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
const DAY: &str = "%Y-%m-%d";

/// The account that a token's Secret names.
pub fn account_name(secret: &Secret) -> Option<&str> {
    annotation(&secret.metadata, ACCOUNT).filter(|name| !name.is_empty())
}

fn day(text: &str) -> Option<Date> {
    Date::strptime(DAY, text).ok()
}

fn day_of(time: Timestamp) -> Date {
    time.to_zoned(TimeZone::UTC).date()
}

/// Whether uses have been noted for so long that one that is not noted was none. `since` is a day.
///
/// # Errors
/// It is no day.
pub fn is_noted_long_enough(
    since: &str,
    now: Timestamp,
    period: SignedDuration,
) -> Result<bool, jiff::Error> {
    // All of the first day counts as not noted.
    let noted = Date::strptime(DAY, since)?.tomorrow()?.to_zoned(TimeZone::UTC)?.timestamp();
    Ok(now >= noted.saturating_add(period)?)
}

/// Whether the Secret has not been used for long and was made by the cluster, as far as can be told. What pods name is another question.
pub fn is_candidate(
    secret: &Secret,
    account: Option<&ServiceAccount>,
    now: Timestamp,
    period: SignedDuration,
) -> bool {
    let meta = &secret.metadata;
    let Ok(limit) = now.checked_sub(period) else { return false };
    let last_used = meta.labels.as_ref().and_then(|labels| labels.get(LAST_USED));
    let is_unused = last_used.is_none_or(|text| day(text).is_some_and(|day| day < day_of(limit)));
    let account = account.filter(|account| {
        let wanted = annotation(meta, ACCOUNT_UID).unwrap_or_default();
        wanted.is_empty() || wanted == uid(&account.metadata)
    });
    let refers = |account: &ServiceAccount| {
        account.secrets.iter().flatten().any(|reference| reference.name.as_deref() == Some(name(meta)))
    };
    secret.type_.as_deref() == Some(SECRET_TYPE)
        && created(meta) < limit
        && meta.deletion_timestamp.is_none()
        && is_unused
        && account.is_some_and(refers)
}

/// What is done about a candidate that no pod names.
pub fn plan(secret: &Secret, now: Timestamp, period: SignedDuration) -> Option<Action> {
    let meta = &secret.metadata;
    let target = Target::new(&SECRETS, namespace(meta), name(meta));
    let labels = meta.labels.as_ref();
    let Some(since) = labels.and_then(|labels| labels.get(INVALID_SINCE)).and_then(|text| day(text)) else {
        let mut patch = json!({"metadata": preconditions(meta, false)});
        patch["metadata"]["labels"][INVALID_SINCE] = json!(day_of(now).strftime(DAY).to_string());
        return Some(Action::Patch { target, subresource: "", patch });
    };
    let limit = now.checked_sub(period).ok()?;
    (since < day_of(limit)).then(|| Action::Delete {
        target,
        uid: None,
        resource_version: meta.resource_version.clone(),
        propagation: None,
        grace_seconds: None,
    })
}

/// Whether a pod names the Secret: for its images, its containers' environment or its volumes.
pub fn is_named_by(pod: &Pod, secret: &str) -> bool {
    let pulls = pod.spec.iter().flat_map(|spec| spec.image_pull_secrets.iter().flatten());
    pulls.into_iter().any(|pull| pull.name == secret)
        || pod
            .spec
            .as_ref()
            .is_some_and(|spec| serde_json::to_value(spec).is_ok_and(|spec| names(&spec, secret)))
}

/// Every field by which a pod refers to a Secret has one of these names.
fn names(value: &Value, secret: &str) -> bool {
    match value {
        Value::Array(items) => items.iter().any(|item| names(item, secret)),
        Value::Object(fields) => fields.iter().any(|(key, field)| {
            let refers = matches!(
                &**key,
                "secretRef" | "secretKeyRef" | "nodePublishSecretRef" | "secret" | "azureFile"
            );
            (refers && (field["name"] == secret || field["secretName"] == secret)) || names(field, secret)
        }),
        _ => false,
    }
}
