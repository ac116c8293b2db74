//! What a ResourceQuota's status says: `hard` as its spec asks, `used` as counted. Admission adds to `used` before an object is stored, and the copies
//! that are counted lag behind. So a count raises `used` at once, but does not lower it: `used` falls by what has been seen to go ([`tally`]), and to
//! the count only with everything on top that was charged so lately that the copies may not have it ([`charges`]).

pub mod charges;
pub mod tally;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use coracle_api::kinds::pod_resources::Amounts;
use coracle_api::kinds::quota_usage;
use coracle_api::quantity::Quantity;
use coracle_api::status::GroupResource;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ResourceQuota, ResourceQuotaStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use serde_json::Value;

use crate::action::{Action, RESOURCE_QUOTAS};
use crate::status_report::report;
use charges::Pending;

const OF_PODS: &[&str] = &[
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "pods",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const OF_CLASSES: &[&str] =
    &[".storageclass.storage.k8s.io/persistentvolumeclaims", ".storageclass.storage.k8s.io/requests.storage"];

/// A resource whose objects a quota counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Counted {
    /// Its group; empty for the core group.
    pub group: String,
    /// Its name in URLs.
    pub plural: String,
}

impl Counted {
    fn core(plural: &str) -> Self {
        Self { group: String::new(), plural: plural.to_owned() }
    }

    fn group_resource(&self) -> GroupResource<'_> {
        GroupResource { group: &self.group, resource: &self.plural }
    }
}

/// What a key of `spec.hard` counts; `None` for what nobody can count.
pub fn counted(key: &str) -> Option<Counted> {
    if let Some(resource) = key.strip_prefix("count/") {
        let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
        return Some(Counted { group: group.to_owned(), plural: plural.to_owned() });
    }
    let is_extended = |name: &str| name.contains('/') && !name.contains("storageclass.storage.k8s.io/");
    let of_pods = OF_PODS.contains(&key)
        || key.starts_with("hugepages-")
        || key
            .strip_prefix("requests.")
            .is_some_and(|name| name.starts_with("hugepages-") || is_extended(name));
    Some(match key {
        _ if of_pods => Counted::core("pods"),
        "services" | "services.loadbalancers" | "services.nodeports" => Counted::core("services"),
        "persistentvolumeclaims" | "requests.storage" => Counted::core("persistentvolumeclaims"),
        _ if OF_CLASSES.iter().any(|of| key.ends_with(of)) => Counted::core("persistentvolumeclaims"),
        "configmaps" | "replicationcontrollers" | "resourcequotas" | "secrets" => Counted::core(key),
        _ => return None,
    })
}

/// The kinds that the quota counts, with the keys by which it does.
pub fn kinds(quota: &ResourceQuota) -> BTreeMap<Counted, Vec<String>> {
    let mut kinds = BTreeMap::<Counted, Vec<String>>::new();
    for key in hard(quota).keys() {
        if let Some(kind) = counted(key) {
            kinds.entry(kind).or_default().push(key.clone());
        }
    }
    kinds
}

fn hard(quota: &ResourceQuota) -> BTreeMap<String, Text> {
    quota.spec.as_ref().and_then(|spec| spec.hard.clone()).unwrap_or_default()
}

/// What an object comes to for the quota's `keys` of its kind.
pub fn usage(quota: &Value, kind: &Counted, keys: &[String], object: &Value, now: Timestamp) -> Amounts {
    if !quota_usage::in_scope(quota, kind.group_resource(), object) {
        return Amounts::new();
    }
    let mut usage = quota_usage::usage_of_stored(kind.group_resource(), object, now);
    usage.retain(|key, _| keys.contains(key));
    usage
}

/// The write of the status, when it has to change: `counted` is what was counted, for keys that could be, and `freed` what is in `used` for objects
/// that have been seen to go.
pub fn plan(quota: &ResourceQuota, counted: &Amounts, freed: &Amounts, pending: &Pending) -> Option<Action> {
    let hard = hard(quota);
    let old = quota.status.clone().unwrap_or_default();
    let charged = |key: &str| old.hard.as_ref().is_some_and(|hard| hard.contains_key(key));
    let mut used = BTreeMap::new();
    for key in hard.keys() {
        let before = old.used.as_ref().and_then(|used| used.get(key));
        let amount = before.and_then(|text| text.0.parse::<Quantity>().ok()).filter(|_| charged(key));
        let after = match (counted.get(key), amount) {
            (None, _) => before.cloned(),
            // Admission has not charged by this key so far: there is nothing under way that counts.
            (Some(counted), None) => Some(Text(counted.to_string())),
            (Some(counted), Some(amount)) if *counted > amount => {
                Some(Text(pending.on_top_of(key, *counted).unwrap_or(*counted).to_string()))
            }
            (Some(counted), Some(amount)) => {
                let without_freed = freed.get(key).map_or(amount, |freed| amount.saturating_sub(*freed));
                let most = pending.on_top_of(key, *counted).unwrap_or(amount);
                let after = most.min(without_freed).max(*counted);
                if after < amount { Some(Text(after.to_string())) } else { before.cloned() }
            }
        };
        if let Some(after) = after {
            used.insert(key.clone(), after);
        }
    }
    let status = ResourceQuotaStatus { hard: Some(hard), used: Some(used) };
    report(&RESOURCE_QUOTAS, &quota.metadata, Some(&old), &status)
}
