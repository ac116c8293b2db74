//! The webhooks of all configurations of one kind, read once a change.

use std::sync::Arc;
use std::time::Duration;

use coracle_api::kinds::access::{integer, items, text};
use coracle_api::meta;
use serde_json::Value;

use crate::admission::matching::Criteria;
use crate::admission::matching::conditions::Conditions;
use crate::cache::Cache;
use crate::cache::derived::Derived;
use crate::extension::Endpoint;
use crate::extension::review::Version;

const TIMEOUT_SECONDS_DEFAULT: i64 = 10;

/// One webhook.
pub(super) struct Webhook {
    /// Its own name.
    pub(super) name: String,
    /// What no other webhook has.
    pub(super) key: String,
    pub(super) criteria: Result<Criteria, String>,
    /// They all have to hold.
    pub(super) conditions: Conditions,
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
            conditions: Conditions::of(webhook, false),
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

/// The configurations of one kind.
pub(super) struct Configurations(Derived<[Webhook]>);

impl Configurations {
    pub(super) fn of(plural: &'static str) -> Self {
        Self(Derived::of("admissionregistration.k8s.io", "v1", plural))
    }

    /// All webhooks as the cache has them now, in the order of their configurations' names.
    pub(super) fn current(&self, cache: &Cache) -> Arc<[Webhook]> {
        self.0.current(cache, |configurations| {
            let of = |configuration| {
                items(configuration, "webhooks").iter().map(move |one| Webhook::of(configuration, one))
            };
            configurations.iter().flat_map(of).collect()
        })
    }
}
