//! The webhooks of all configurations of one kind, read once a change.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use coracle_api::kinds::access::{integer, items, text};
use coracle_api::meta;
use coracle_api::resource;
use parking_lot::Mutex;
use serde_json::Value;

use super::review::Version;
use crate::admission::matching::Criteria;
use crate::cache::Cache;
use crate::extension::Endpoint;

const TIMEOUT_SECONDS_DEFAULT: i64 = 10;

/// One webhook.
pub(super) struct Webhook {
    /// Its own name.
    pub(super) name: String,
    /// What no other webhook has.
    pub(super) key: String,
    pub(super) criteria: Result<Criteria, String>,
    pub(super) endpoint: Result<Endpoint, String>,
    /// The first form of reviews it takes that we know.
    pub(super) review_version: Option<Version>,
    pub(super) timeout: Duration,
    /// The request goes on when it does not answer.
    pub(super) may_fail: bool,
    /// It may be asked about what is not stored in the end.
    pub(super) dry_run: bool,
    /// It wants to be asked again when others change the object after it.
    pub(super) again: bool,
}

impl Webhook {
    fn of(configuration: &Value, webhook: &Value) -> Self {
        let name = text(webhook, "name").to_owned();
        let seconds = integer(webhook, "timeoutSeconds").unwrap_or(TIMEOUT_SECONDS_DEFAULT);
        let versions = items(webhook, "admissionReviewVersions");
        Self {
            key: format!("{}/{}/{name}", meta::name(configuration), meta::uid(configuration)),
            criteria: Criteria::of(webhook, "rules", ""),
            endpoint: Endpoint::of_client_config(webhook.get("clientConfig").unwrap_or(&Value::Null)),
            review_version: versions.iter().filter_map(Value::as_str).find_map(Version::of),
            timeout: Duration::from_secs(u64::try_from(seconds).unwrap_or(1)),
            may_fail: text(webhook, "failurePolicy") == "Ignore",
            dry_run: matches!(text(webhook, "sideEffects"), "None" | "NoneOnDryRun"),
            again: text(webhook, "reinvocationPolicy") == "IfNeeded",
            name,
        }
    }
}

/// The names and revisions of what was read.
type Seen = Vec<(Box<str>, i64)>;

/// The configurations of one kind.
pub(super) struct Configurations {
    plural: &'static str,
    read: Mutex<(Seen, Arc<[Webhook]>)>,
}

impl Configurations {
    pub(super) fn of(plural: &'static str) -> Self {
        Self { plural, read: Mutex::new((Vec::new(), Arc::from([]))) }
    }

    /// All webhooks as the cache has them now, in the order of their configurations' names.
    pub(super) fn current(&self, cache: &Cache) -> Arc<[Webhook]> {
        let row = resource::lookup("admissionregistration.k8s.io", "v1", self.plural);
        let Some(cache) = row.and_then(|row| cache.of(row)) else { return Arc::from([]) };
        if cache.is_empty() {
            return Arc::from([]);
        }
        let objects = cache.list("", Bound::Unbounded).objects;
        let seen: Seen = objects.iter().map(|object| (object.suffix.clone(), object.revision)).collect();
        let mut read = self.read.lock();
        if read.0 != seen {
            let configurations: Vec<Value> =
                objects.iter().filter_map(|object| object.value().ok()).collect();
            let webhooks = configurations.iter().flat_map(|configuration| {
                items(configuration, "webhooks").iter().map(|one| Webhook::of(configuration, one))
            });
            *read = (seen, webhooks.collect());
        }
        Arc::clone(&read.1)
    }
}
