//! Demands that this scheduler does not understand yet. It never ignores a demand: such a pod waits with a message that says why.

use crate::filtering::Filters;
use crate::fit_error::FitError;
use crate::framework::{Cycle, FilterPlugin, PostFilter, PostFilterPlugin, Prepared};

/// DynamicResources: devices asked for by resource claims. There are never any to take back for a pod that found no node.
pub struct DynamicResources;

impl FilterPlugin for DynamicResources {
    fn name(&self) -> &'static str {
        "DynamicResources"
    }

    fn prepare<'a>(&self, cycle: Cycle<'a>) -> Prepared<'a> {
        if cycle.pod.spec().resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()) {
            return Prepared::Reject("resource claims are not implemented by Coracle yet".to_owned());
        }
        Prepared::Skip
    }
}

impl PostFilterPlugin for DynamicResources {
    fn name(&self) -> &'static str {
        "DynamicResources"
    }

    fn post_filter(&self, _: Cycle<'_>, _: &mut Filters<'_>, _: &FitError, _: u64) -> PostFilter {
        PostFilter::Nothing("no new claims to deallocate".to_owned())
    }
}
