//! maxSurge and maxUnavailable in numbers, rounded as upstream does: percentages of surge up, of unavailability down.

use k8s_openapi::api::apps::v1::{DeploymentSpec, RollingUpdateDeployment};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Whether old pods go before new ones come.
pub fn is_recreate(spec: &DeploymentSpec) -> bool {
    spec.strategy.as_ref().and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
}

fn replicas(spec: &DeploymentSpec) -> i32 {
    spec.replicas.unwrap_or(1)
}

/// A number or percentage of `total`; an unreadable one, which validation never lets through, is 0.
pub(crate) fn scaled(value: Option<&IntOrString>, total: i32, round_up: bool) -> i32 {
    let percent = |percent: i64| {
        let product = percent * i64::from(total);
        let rounded = if round_up { (product + 99).div_euclid(100) } else { product.div_euclid(100) };
        i32::try_from(rounded.max(0)).unwrap_or(i32::MAX)
    };
    match value {
        None => percent(25),
        Some(IntOrString::Int(number)) => (*number).max(0),
        Some(IntOrString::String(text)) => {
            text.strip_suffix('%').and_then(|digits| digits.parse::<i64>().ok()).map_or(0, percent)
        }
    }
}

/// Both numbers; never both 0, for then nothing could move.
fn fenceposts(spec: &DeploymentSpec) -> (i32, i32) {
    let rolling: Option<&RollingUpdateDeployment> =
        spec.strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
    let total = replicas(spec);
    let surge = scaled(rolling.and_then(|rolling| rolling.max_surge.as_ref()), total, true);
    let unavailable = scaled(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), total, false);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

/// How many pods more than asked for a rollout may run; 0 when recreating.
pub fn max_surge(spec: &DeploymentSpec) -> i32 {
    if is_recreate(spec) { 0 } else { fenceposts(spec).0 }
}

/// How many pods fewer than asked for may be available during a rollout; 0 when recreating.
pub fn max_unavailable(spec: &DeploymentSpec) -> i32 {
    if is_recreate(spec) || replicas(spec) == 0 { 0 } else { fenceposts(spec).1.min(replicas(spec)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::DeploymentStrategy;

    #[test]
    fn percentages_round_surge_up_and_unavailable_down() {
        let text = |text: &str| IntOrString::String(text.to_owned());
        let cases = [
            (10, text("25%"), text("25%"), 3, 2),
            (3, text("25%"), text("25%"), 1, 0),
            (1, text("1%"), text("99%"), 1, 0),
            (4, IntOrString::Int(0), text("10%"), 0, 1),
            (2, IntOrString::Int(0), IntOrString::Int(0), 0, 1),
            (2, IntOrString::Int(1), IntOrString::Int(5), 1, 2),
            (0, text("25%"), text("25%"), 0, 0),
        ];
        for (replicas, surge, unavailable, surge_expected, unavailable_expected) in cases {
            let spec = DeploymentSpec {
                replicas: Some(replicas),
                strategy: Some(DeploymentStrategy {
                    type_: Some("RollingUpdate".into()),
                    rolling_update: Some(RollingUpdateDeployment {
                        max_surge: Some(surge),
                        max_unavailable: Some(unavailable),
                    }),
                }),
                ..Default::default()
            };
            assert_eq!((max_surge(&spec), max_unavailable(&spec)), (surge_expected, unavailable_expected));
        }
    }
}
