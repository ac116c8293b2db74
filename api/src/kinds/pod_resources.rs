//! What a pod asks for as a whole: its containers together, the init container that needs most, its sidecars, its overhead.

use std::collections::BTreeMap;

use serde_json::Value;

use super::access::{items, map, present};
use super::pod_spec_defaults::is_sidecar;
use crate::quantity::Quantity;

/// Amounts by resource.
pub type Amounts = BTreeMap<String, Quantity>;

/// The quantities of a resource list.
pub fn amounts(list: Option<&Value>) -> Amounts {
    let fields = list.and_then(Value::as_object).into_iter().flatten();
    fields
        .filter_map(|(name, value)| {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            Some((name.clone(), text.parse().ok()?))
        })
        .collect()
}

/// Adds amounts to others.
pub fn add(into: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        into.entry(name.clone()).and_modify(|sum| *sum = sum.saturating_add(*amount)).or_insert(*amount);
    }
}

fn raise(into: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        into.entry(name.clone()).and_modify(|most| *most = (*most).max(*amount)).or_insert(*amount);
    }
}

/// What a pod's `requests` or `limits` (`key`) come to.
pub fn total(spec: &Value, key: &str) -> Amounts {
    let of = |container: &Value| amounts(present(container, "resources").and_then(|r| r.get(key)));
    let mut sum = Amounts::new();
    for container in items(spec, "containers") {
        add(&mut sum, &of(container));
    }
    // Init containers run one after the other, beside the sidecars that have started before them.
    let (mut sidecars, mut most) = (Amounts::new(), Amounts::new());
    for container in items(spec, "initContainers") {
        let mut running = of(container);
        if is_sidecar(container) {
            add(&mut sum, &running);
            add(&mut sidecars, &running);
            running = sidecars.clone();
        } else {
            add(&mut running, &sidecars);
        }
        raise(&mut most, &running);
    }
    raise(&mut sum, &most);
    for (name, amount) in amounts(present(spec, "resources").and_then(|resources| resources.get(key))) {
        sum.insert(name, amount);
    }
    let overhead = amounts(map(spec, "overhead").and(spec.get("overhead")));
    for (name, amount) in overhead {
        // A limit that is not there stays away.
        if key == "requests" || sum.contains_key(&name) {
            add(&mut sum, &Amounts::from([(name, amount)]));
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn init_containers_count_by_the_greatest_and_sidecars_always() {
        let resources = |cpu: &str| json!({"requests": {"cpu": cpu}});
        let spec = json!({
            "containers": [{"resources": resources("1")}, {"resources": resources("500m")}],
            "initContainers": [
                {"resources": resources("3")},
                {"resources": resources("1"), "restartPolicy": "Always"},
                {"resources": resources("2")},
            ],
            "overhead": {"cpu": "250m"},
        });
        assert_eq!(total(&spec, "requests")["cpu"].to_string(), "3250m");
        assert!(total(&spec, "limits").is_empty());
    }
}
