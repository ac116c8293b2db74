//! How fast nodes may be emptied, by how much of their zone is broken: evictions slow down when it looks like our fault.

use std::collections::HashMap;
use std::time::Duration;

/// Upstream's rates and thresholds.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// Nodes a second in a healthy zone (`--node-eviction-rate`).
    pub normal: f64,
    /// Nodes a second in a partly broken large zone (`--secondary-node-eviction-rate`).
    pub secondary: f64,
    /// Share of broken nodes from which a zone counts as partly broken (`--unhealthy-zone-threshold`).
    pub unhealthy_share: f64,
    /// Nodes from which a zone is large (`--large-cluster-size-threshold`); partly broken small ones are left alone.
    pub large: usize,
}

/// Nodes of one zone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Ready ones.
    pub ready: usize,
    /// All others.
    pub broken: usize,
}

impl Count {
    fn is_down(self) -> bool {
        self.ready == 0 && self.broken > 0
    }

    fn rate(self, rates: Rates) -> f64 {
        let total = self.ready + self.broken;
        let partly =
            self.ready > 0 && self.broken > 2 && self.broken as f64 / total as f64 >= rates.unhealthy_share;
        match partly {
            true if total > rates.large => rates.secondary,
            true => 0.0,
            // A zone that is down as a whole is emptied at the normal rate: the others can take its pods.
            false => rates.normal,
        }
    }
}

/// Whether every zone is down: then it is more likely that we are cut off.
pub fn all_down(zones: &HashMap<String, Count>) -> bool {
    !zones.is_empty() && zones.values().all(|count| count.is_down())
}

/// One token bucket a zone: the first node at once, the next ones at the zone's rate.
#[derive(Debug, Default)]
pub struct Limiter {
    last: HashMap<String, Duration>,
}

impl Limiter {
    /// Whether one more node of `zone` may be emptied at `now` (time since any fixed point).
    pub fn allow(&mut self, zone: &str, count: Count, rates: Rates, now: Duration) -> bool {
        let rate = count.rate(rates);
        if rate <= 0.0 {
            return false;
        }
        let due = self.last.get(zone).is_none_or(|last| (now - *last).as_secs_f64() >= 1.0 / rate);
        if due {
            self.last.insert(zone.to_owned(), now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: Rates = Rates { normal: 0.1, secondary: 0.01, unhealthy_share: 0.55, large: 50 };

    #[test]
    fn a_zone_empties_one_node_each_ten_seconds_and_a_half_broken_small_one_none() {
        let mut limiter = Limiter::default();
        let one_of_three = Count { ready: 2, broken: 1 };
        let s = Duration::from_secs;
        assert!(limiter.allow("a", one_of_three, RATES, s(0)));
        assert!(!limiter.allow("a", one_of_three, RATES, s(9)));
        assert!(limiter.allow("a", one_of_three, RATES, s(10)));
        assert!(!limiter.allow("b", Count { ready: 2, broken: 3 }, RATES, s(0)));
        assert!(
            limiter.allow("c", Count { ready: 0, broken: 1 }, RATES, s(0)),
            "a zone that is down is emptied"
        );
    }

    #[test]
    fn all_zones_down_means_that_we_are_cut_off() {
        let down = Count { ready: 0, broken: 2 };
        assert!(all_down(&HashMap::from([("a".into(), down)])));
        assert!(!all_down(&HashMap::from([("a".into(), down), ("b".into(), Count { ready: 1, broken: 0 })])));
        assert!(!all_down(&HashMap::new()));
    }
}
