//! What the objects that a quota counts come to, one by one. What was there at one look and is not at the next is free again, however late both
//! looks are: a copy that lags shows the end of an object late, never early.

use std::collections::{BTreeMap, HashMap};

use coracle_api::kinds::pod_resources::{self, Amounts};
use coracle_api::quantity::Quantity;

use super::Counted;

/// The objects of a quota as they were last seen.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// By uid, what each comes to.
    seen: BTreeMap<Counted, HashMap<String, Amounts>>,
    freed: Amounts,
}

impl Tally {
    /// Takes in the objects of a kind by uid; what they come to for `keys`, each of which is there, also with nothing to count.
    pub fn look(&mut self, kind: &Counted, keys: &[String], objects: HashMap<String, Amounts>) -> Amounts {
        let mut sum = Amounts::new();
        for amounts in objects.values() {
            pod_resources::add(&mut sum, amounts);
        }
        for key in keys {
            sum.entry(key.clone()).or_insert(Quantity::ZERO);
        }
        let before = self.seen.insert(kind.clone(), objects).unwrap_or_default();
        let now = self.seen.get(kind);
        for (uid, amounts) in before {
            let left = now.and_then(|now| now.get(&uid));
            for (key, amount) in amounts {
                let left = left.and_then(|left| left.get(&key)).copied().unwrap_or(Quantity::ZERO);
                let less = amount.saturating_sub(left);
                if !less.is_zero() && !less.is_negative() {
                    pod_resources::add(&mut self.freed, &Amounts::from([(key, less)]));
                }
            }
        }
        sum
    }

    /// What has become free and is still in the quota's `used`.
    pub fn freed(&self) -> &Amounts {
        &self.freed
    }

    /// What was free is no longer in `used`, or cannot be told from what is.
    pub fn settle(&mut self) {
        self.freed.clear();
    }
}
