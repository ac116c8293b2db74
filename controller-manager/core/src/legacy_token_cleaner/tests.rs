//! Tables of Secrets and days.

use super::*;

const PERIOD: SignedDuration = SignedDuration::from_hours(24 * 365);

fn now() -> Timestamp {
    "2025-06-15T12:00:00Z".parse().expect("a time")
}

fn secret(created: &str, labels: Value) -> Secret {
    serde_json::from_value(json!({
        "metadata": {"name": "t", "namespace": "n", "uid": "u", "resourceVersion": "7", "creationTimestamp": created,
            "labels": labels, "annotations": {ACCOUNT: "a", ACCOUNT_UID: "uid-a"}},
        "type": SECRET_TYPE,
    }))
    .expect("a Secret")
}

fn account(uid: &str, secret: &str) -> ServiceAccount {
    serde_json::from_value(json!({"metadata": {"name": "a", "uid": uid}, "secrets": [{"name": secret}]}))
        .expect("an account")
}

const OLD: &str = "2020-01-01T00:00:00Z";

#[test]
fn what_clusters_made_and_nobody_used_is_a_candidate() {
    let own = account("uid-a", "t");
    let is = |secret: &Secret, account: Option<&ServiceAccount>| is_candidate(secret, account, now(), PERIOD);
    let used = |day: &str| secret(OLD, json!({LAST_USED: day}));
    assert!(is(&secret(OLD, json!({})), Some(&own)));
    assert!(is(&used("2024-06-14"), Some(&own)));
    assert!(!is(&used("2024-06-15"), Some(&own)));
    assert!(!is(&used("sometime"), Some(&own)));
    assert!(!is(&secret("2024-06-15T12:00:00Z", json!({})), Some(&own)));
    assert!(is(&secret("2024-06-15T11:59:59Z", json!({})), Some(&own)));
    assert!(!is(&secret(OLD, json!({})), None));
    assert!(!is(&secret(OLD, json!({})), Some(&account("another", "t"))));
    assert!(!is(&secret(OLD, json!({})), Some(&account("uid-a", "other"))), "made by somebody");
    let mut other = secret(OLD, json!({}));
    other.type_ = Some("Opaque".into());
    assert!(!is(&other, Some(&own)));
}

#[test]
fn a_candidate_is_marked_and_a_period_later_deleted() {
    let planned = |labels: Value| plan(&secret(OLD, labels), now(), PERIOD);
    for labels in [json!({}), json!({INVALID_SINCE: "yesterday"})] {
        let Some(Action::Patch { patch, .. }) = planned(labels) else { panic!("a mark") };
        assert_eq!(patch["metadata"], json!({"uid": "u", "labels": {INVALID_SINCE: "2025-06-15"}}));
    }
    assert_eq!(planned(json!({INVALID_SINCE: "2024-06-15"})), None);
    let Some(Action::Delete { resource_version, .. }) = planned(json!({INVALID_SINCE: "2024-06-14"})) else {
        panic!("an end")
    };
    assert_eq!(resource_version.as_deref(), Some("7"));
}

#[test]
fn nothing_is_judged_before_uses_were_noted_for_a_period() {
    let is = |since: &str| is_noted_long_enough(since, now(), PERIOD);
    assert!(is("2024-06-14").expect("a day"));
    assert!(!is("2024-06-15").expect("a day"));
    is("lately").expect_err("no day");
}

#[test]
fn pods_name_secrets_in_many_places() {
    let container = |field: Value| {
        let mut container = json!({"name": "c"});
        for (key, value) in field.as_object().into_iter().flatten() {
            container[key] = value.clone();
        }
        json!({"containers": [container]})
    };
    let volume = |source: Value| {
        let mut volume = json!({"name": "v"});
        for (key, value) in source.as_object().into_iter().flatten() {
            volume[key] = value.clone();
        }
        json!({"containers": [], "volumes": [volume]})
    };
    let specs = [
        json!({"containers": [], "imagePullSecrets": [{"name": "t"}]}),
        container(json!({"envFrom": [{"secretRef": {"name": "t"}}]})),
        container(json!({"env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": "t", "key": "k"}}}]})),
        volume(json!({"secret": {"secretName": "t"}})),
        volume(json!({"projected": {"sources": [{"secret": {"name": "t"}}]}})),
        volume(json!({"azureFile": {"secretName": "t", "shareName": "s"}})),
        volume(json!({"csi": {"driver": "d", "nodePublishSecretRef": {"name": "t"}}})),
        volume(json!({"rbd": {"image": "i", "monitors": [], "secretRef": {"name": "t"}}})),
    ];
    for spec in specs {
        let pod: Pod = serde_json::from_value(json!({"metadata": {}, "spec": spec})).expect("a pod");
        assert!(is_named_by(&pod, "t"), "{pod:?}");
        assert!(!is_named_by(&pod, "v") && !is_named_by(&pod, "c"), "{pod:?}");
    }
}
