//! What of a node is left for pods: all that it has, less what is kept for the kubelet and for other programs, less what
//! must stay free so that nothing has to be evicted.
//!
//! Never here: what pods already use.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::resources;

/// What is kept from pods, by resource.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reserved {
    /// For the kubelet and its like.
    pub kube: BTreeMap<String, Quantity>,
    /// For other programs.
    pub system: BTreeMap<String, Quantity>,
}

impl Reserved {
    fn sum(&self, resource: &str, read: impl Fn(&Quantity) -> Option<i64>) -> i64 {
        let parts = [&self.kube, &self.system].into_iter().filter_map(|set| read(set.get(resource)?));
        parts.fold(0, i64::saturating_add)
    }

    /// Thousandths of a CPU that are left of a node's.
    pub fn milli_cpu_left(&self, of: i64) -> i64 {
        of.saturating_sub(self.sum("cpu", resources::milli_value)).max(0)
    }

    /// Bytes that are left of a node's `memory` or `ephemeral-storage`, when `floor` must stay free besides.
    pub fn bytes_left(&self, resource: &str, of: i64, floor: i64) -> i64 {
        of.saturating_sub(self.sum(resource, resources::value)).saturating_sub(floor).max(0)
    }
}

/// A threshold in bytes: a quantity, or a share of the total. 0 if there is none.
pub fn threshold(set: &BTreeMap<String, String>, signal: &str, total: i64) -> i64 {
    let Some(text) = set.get(signal) else { return 0 };
    match text.strip_suffix('%').and_then(|share| share.parse::<f64>().ok()) {
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
        Some(share) => (total as f64 * share / 100.0) as i64,
        None => resources::value(&Quantity(text.clone())).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_quantities_or_shares() {
        let set = BTreeMap::from([
            ("memory.available".to_owned(), "1Gi".to_owned()),
            ("nodefs.available".to_owned(), "10%".to_owned()),
        ]);
        assert_eq!(threshold(&set, "memory.available", 0), 1 << 30);
        assert_eq!(threshold(&set, "nodefs.available", 1000), 100);
        assert_eq!(threshold(&set, "imagefs.available", 1000), 0);
    }

    #[test]
    fn what_is_kept_adds_up() {
        let set = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, text)| ((*name).to_owned(), Quantity((*text).to_owned()))).collect()
        };
        let reserved = Reserved {
            kube: set(&[("cpu", "200m"), ("memory", "1Gi")]),
            system: set(&[("cpu", "1"), ("memory", "1Ki")]),
        };
        assert_eq!(reserved.milli_cpu_left(2000), 800);
        assert_eq!(reserved.milli_cpu_left(1000), 0);
        assert_eq!(reserved.bytes_left("memory", 3 << 30, 1 << 29), (3 << 29) - 1024);
        assert_eq!(reserved.bytes_left("ephemeral-storage", 7, 2), 5);
    }
}
