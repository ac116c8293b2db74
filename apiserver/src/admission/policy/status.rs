//! The status of policies: what their expressions would stumble over in objects of the kinds they are about.

use std::sync::Arc;
use std::time::Duration;

use coracle_api::kinds::admission_policy_types::{self, Checked};
use coracle_api::resource::Served;
use coracle_api::status::ApiError;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::cache::changes;
use crate::cache::resource::WakeKey;
use crate::registry::Registry;
use crate::registry::meta;

/// How soon what failed is tried again.
const AGAIN: Duration = Duration::from_millis(500);

/// Runs until `stop` fires.
pub async fn run(registry: Arc<Registry>, stop: CancellationToken) {
    let Some(row) = super::row(super::POLICIES) else { return };
    let Some(cache) = registry.cache.of(row) else { return };
    let changed = cache.subscribe(WakeKey::All);
    loop {
        let mut finished = registry.cache.wait_for(0).await.is_ok();
        for policy in registry.cache.values(row) {
            let served = registry.cache.served();
            let Some(checked) = check(&policy, &served) else { continue };
            let change = |current: &Value| Ok(checked_status(current, &checked));
            match registry.guaranteed_update(row, "", meta::text(&policy, "name"), &change).await {
                Ok(_) => {}
                Err(error) if error.code() == 404 => {}
                Err(error) => {
                    finished = false;
                    report(&error);
                }
            }
        }
        if !changes::next(&[&changed], (!finished).then_some(AGAIN), Duration::ZERO, &stop).await {
            return;
        }
    }
}

fn report(error: &ApiError) {
    tracing::warn!(%error, "the status of an admission policy could not be written; trying again");
}

/// What there is to say of a policy; `None` when it has been said.
fn check(policy: &Value, served: &Served) -> Option<Checked> {
    let find = |group: &str, version: &str, plural: &str| served.lookup(group, version, plural);
    admission_policy_types::check(policy, &find)
}

/// The policy with what was found, unless it has changed since.
fn checked_status(policy: &Value, checked: &Checked) -> Value {
    let mut changed = policy.clone();
    if admission_policy_types::generation(policy) == checked.generation {
        changed["status"]["observedGeneration"] = checked.generation.into();
        changed["status"]["typeChecking"] = checked.type_checking.clone();
    }
    changed
}
