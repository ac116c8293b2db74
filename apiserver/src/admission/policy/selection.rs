//! Which policies a write comes under, by which bindings, with which parameters. Conditions are not looked at here.

use std::sync::Arc;

use coracle_api::resource::Resource;
use coracle_api::status::ApiError;
use serde_json::Value;

use super::matter::{Binding, Matter};
use super::{GROUP, parameters};
use crate::admission::matching::Attributes;
use crate::cache::derived::{Derived, Made};
use crate::registry::Registry;

/// Reviews are asked while requests are decided upon: policies say nothing about them.
const REVIEWS: [&str; 2] = ["authentication.k8s.io", "authorization.k8s.io"];

/// A policy, read once.
pub(super) trait Policy: Send + Sync {
    /// Of a policy's object.
    fn of(object: &Value) -> Self;

    /// What it has in common with policies of the other kind.
    fn matter(&self) -> &Matter;
}

/// The policies of one kind and their bindings, as the cache has them.
pub(super) struct Policies<P> {
    policies: Derived<[Arc<Made<P>>]>,
    bindings: Derived<[Arc<Made<Binding>>]>,
}

/// A policy that a write comes under.
pub(super) struct Found<P> {
    policy: Arc<Made<P>>,
    pub(super) by: By,
}

/// How a write comes under a policy.
pub(super) enum By {
    /// It does, once: with this binding and these parameters.
    Binding {
        binding: Arc<Made<Binding>>,
        /// Null where there are none.
        params: Arc<Value>,
        /// What the policy sees the write as.
        known_as: &'static Resource,
    },
    /// It would, but the policy, or the binding if there is one, makes no sense here.
    Mistake { binding: Option<Arc<Made<Binding>>>, error: String },
}

impl<P: Policy> Found<P> {
    /// The policy.
    pub(super) fn policy(&self) -> &P {
        &self.policy.of
    }
}

impl<P: Policy> Policies<P> {
    /// Those of these resources.
    pub(super) fn new(version: &str, policies: &str, bindings: &str) -> Self {
        Self {
            policies: Derived::of(GROUP, version, policies),
            bindings: Derived::of(GROUP, version, bindings),
        }
    }

    /// All that the write comes under, in the order of the names of policies and bindings.
    ///
    /// # Errors
    /// The cache is not ready, the namespace is not there, or the store's errors.
    pub(super) async fn selected(
        &self,
        registry: &Registry,
        attributes: &Attributes<'_>,
    ) -> Result<Vec<Found<P>>, ApiError> {
        if attributes.is_exempt() || REVIEWS.contains(&attributes.request.resource.group) {
            return Ok(Vec::new());
        }
        attributes.wait_until_ready(&registry.cache).await?;
        let bindings = self.bindings.each(&registry.cache, Binding::of);
        let mut found = Vec::new();
        if bindings.is_empty() {
            return Ok(found);
        }
        for policy in self.policies.each(&registry.cache, P::of).iter() {
            let bound = |one: &&Arc<Made<Binding>>| one.of.policy == policy.of.matter().name;
            let of_policy: Vec<&Arc<Made<Binding>>> = bindings.iter().filter(bound).collect();
            if !of_policy.is_empty() {
                let all = ways(registry, attributes, policy.of.matter(), &of_policy).await?;
                found.extend(all.into_iter().map(|by| Found { policy: Arc::clone(policy), by }));
            }
        }
        Ok(found)
    }
}

async fn ways(
    registry: &Registry,
    attributes: &Attributes<'_>,
    matter: &Matter,
    bindings: &[&Arc<Made<Binding>>],
) -> Result<Vec<By>, ApiError> {
    let of_policy = |error: &str| Ok(vec![By::Mistake { binding: None, error: error.to_owned() }]);
    let criteria = match &matter.criteria {
        Ok(criteria) => criteria,
        Err(error) => return of_policy(error),
    };
    let Some(known_as) = criteria.matches(registry, attributes).await? else { return Ok(Vec::new()) };
    let param_row = match matter.param_row(&registry.cache.served()) {
        Ok(row) => row,
        Err(error) => return of_policy(&error),
    };
    let mut ways = Vec::new();
    for made in bindings {
        let mistake = |error: String| By::Mistake { binding: Some(Arc::clone(made)), error };
        match &made.of.criteria {
            Some(Ok(criteria)) if !criteria.selects(registry, attributes).await? => continue,
            Some(Err(error)) => {
                ways.push(mistake(error.clone()));
                continue;
            }
            _ => {}
        }
        match parameters::collect(registry, param_row, &made.of.param_ref, attributes.namespace()).await? {
            Ok(all) => ways.extend(all.into_iter().map(|params| By::Binding {
                binding: Arc::clone(made),
                params,
                known_as,
            })),
            Err(error) => ways.push(mistake(error)),
        }
    }
    Ok(ways)
}
