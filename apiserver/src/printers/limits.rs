//! The tables of quotas and runtime classes.

use coracle_api::meta::get;
use serde_json::Value;

use super::Context;
use super::cells::{age, name, text};
use super::columns::{AGE, Column, NAME, text as column};

pub(super) const RESOURCE_QUOTA: &[Column] = &[
    NAME,
    column("Request", "What is used of what may be requested and made"),
    column("Limit", "What is used of what limits may add up to"),
    AGE,
];

pub(super) fn resource_quota(object: &Value, context: &Context) -> Vec<Value> {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    let amounts = |key| get(object, &["status", key]).and_then(Value::as_object);
    for (resource, hard) in amounts("hard").into_iter().flatten() {
        let used = amounts("used").and_then(|used| used.get(resource)).and_then(Value::as_str).unwrap_or("0");
        let shown = format!("{resource}: {used}/{}", hard.as_str().unwrap_or_default());
        if resource.contains("limits") { limits.push(shown) } else { requests.push(shown) }
    }
    requests.sort_unstable();
    limits.sort_unstable();
    vec![name(object), requests.join(", ").into(), limits.join(", ").into(), age(object, context)]
}

pub(super) const RUNTIME_CLASS: &[Column] =
    &[NAME, column("Handler", "The configuration of the runtime"), AGE];

pub(super) fn runtime_class(object: &Value, context: &Context) -> Vec<Value> {
    vec![name(object), text(object, &["handler"]).into(), age(object, context)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_used_stands_before_what_may_be() {
        let quota = json!({"metadata": {"name": "q", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "status": {"hard": {"pods": "4", "limits.cpu": "2", "cpu": "1"}, "used": {"pods": "1", "limits.cpu": "500m"}}});
        let context = Context { now: "2026-01-01T00:01:00Z".parse().expect("time") };
        assert_eq!(
            Value::from(resource_quota(&quota, &context)),
            json!(["q", "cpu: 0/1, pods: 1/4", "limits.cpu: 500m/2", "60s"])
        );
    }
}
