//! What can be wrong with the flags of ServiceAccount tokens. Pure.

use std::time::Duration;

use component_base::duration::GoDuration;

const LEAST: Duration = Duration::from_secs(60 * 60);
const MOST: Duration = Duration::from_secs(1 << 32);

/// Upstream's words for a longest life that is none.
pub(super) fn max_expiration_problem(longest: GoDuration) -> Option<&'static str> {
    let sensible = longest.get().is_zero() || (LEAST..=MOST).contains(&longest.get());
    (!sensible).then_some("the service-account-max-token-expiration must be between 1 hour and 2^32 seconds")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_may_be_kept_to_an_hour_but_not_to_less() {
        for (seconds, fits) in
            [(0, true), (1, false), (3599, false), (3600, true), (1 << 32, true), ((1 << 32) + 1, false)]
        {
            assert_eq!(max_expiration_problem(GoDuration::from_secs(seconds)).is_none(), fits, "{seconds}");
        }
    }
}
