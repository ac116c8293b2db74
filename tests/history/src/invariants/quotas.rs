//! No pod or other counted object is made where a ResourceQuota without scopes is full. Judged are `pods` and `count/RESOURCE`.

use std::collections::HashMap;
use std::time::Duration;

use coracle_api::kinds::pod_resources::amounts;
use serde_json::Value;

use super::{Invariant, Step};
use crate::STALENESS;
use crate::object::{is_finished, list, uid};

/// By the quota's uid, since when its limits are what they are.
#[derive(Default)]
pub struct Quotas(HashMap<String, Duration>);

fn hard(quota: &Value) -> &Value {
    &quota["spec"]["hard"]
}

impl Invariant for Quotas {
    fn name(&self) -> &'static str {
        "QuotasAreKept"
    }

    fn look(&mut self, step: &Step<'_>) -> Vec<String> {
        if step.is("resourcequotas") {
            if let Some(quota) = step.new
                && step.old.is_none_or(|old| hard(old) != hard(quota))
            {
                self.0.insert(uid(quota).to_owned(), step.change.at);
            }
            return Vec::new();
        }
        if step.created().is_none() {
            return Vec::new();
        }
        let key = &step.change.key;
        let mut found = Vec::new();
        for quota in step.state.list("resourcequotas", &key.namespace) {
            let scoped =
                quota["spec"].get("scopeSelector").is_some() || !list(quota, &["spec", "scopes"]).is_empty();
            // What was there before a limit was may stay, and admission hears of a limit a little later.
            let settled =
                self.0.get(uid(quota)).is_some_and(|since| step.change.at.saturating_sub(*since) > STALENESS);
            if scoped || !settled {
                continue;
            }
            for (name, limit) in amounts(Some(hard(quota))) {
                let all = || step.state.list(&key.resource, &key.namespace);
                let count = match name.strip_prefix("count/") {
                    Some(resource) if resource.split('.').next() == Some(&key.resource) => all().count(),
                    None if name == "pods" && step.is("pods") => {
                        all().filter(|pod| !is_finished(pod)).count()
                    }
                    _ => continue,
                };
                if i64::try_from(count).unwrap_or(i64::MAX) > limit.value() {
                    let quota = crate::object::name(quota);
                    found
                        .push(format!("it is the {count}th, and the quota {quota} allows {limit} of {name}"));
                }
            }
        }
        found
    }
}
