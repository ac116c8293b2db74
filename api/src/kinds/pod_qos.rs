//! A pod's quality-of-service class, from its containers' requests and limits.

use std::collections::BTreeMap;

use serde_json::Value;

use super::access::{items, map, present};
use crate::quantity::{Format, Quantity};

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub fn class(spec: &Value) -> &'static str {
    let mut requests: BTreeMap<&str, Quantity> = BTreeMap::new();
    let mut limits: BTreeMap<&str, Quantity> = BTreeMap::new();
    let mut guaranteed = true;
    for container in items(spec, "containers").iter().chain(items(spec, "initContainers")) {
        let resources = present(container, "resources");
        collect(resources, "requests", &mut requests);
        let found = collect(resources, "limits", &mut limits);
        guaranteed &= found == 2;
    }
    if requests.is_empty() && limits.is_empty() {
        return "BestEffort";
    }
    let equal = requests.iter().all(|(name, request)| limits.get(name) == Some(request));
    if guaranteed && equal && requests.len() == limits.len() { "Guaranteed" } else { "Burstable" }
}

/// Adds up cpu and memory; gives how many of the two the container has.
fn collect<'a>(resources: Option<&'a Value>, key: &str, sums: &mut BTreeMap<&'a str, Quantity>) -> usize {
    let mut found = 0;
    for (name, value) in resources.and_then(|resources| map(resources, key)).into_iter().flatten() {
        if !matches!(name.as_str(), "cpu" | "memory") {
            continue;
        }
        let Some(quantity) = value.as_str().and_then(|text| text.parse::<Quantity>().ok()) else { continue };
        if quantity.is_zero() || quantity.is_negative() {
            continue;
        }
        found += 1;
        let sum = sums.entry(name).or_insert_with(|| Quantity::from_units(0, Format::DecimalSi));
        *sum = sum.saturating_add(quantity);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_class_follows_requests_and_limits() {
        let of = |resources: Value| class(&json!({"containers": [{"resources": resources}]}));
        assert_eq!(of(json!({})), "BestEffort");
        assert_eq!(of(json!({"requests": {"cpu": "1"}})), "Burstable");
        let both = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(of(json!({"requests": both, "limits": both})), "Guaranteed");
        assert_eq!(of(json!({"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": both})), "Burstable");
        assert_eq!(of(json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}})), "Burstable");
    }
}
