//! What admission has charged to a quota lately. A charge comes before its object: until the request has had time to store it and its watch to
//! tell, the count cannot be trusted to have it. Time is an argument.

use std::collections::VecDeque;
use std::time::Duration;

use coracle_api::kinds::pod_resources::{self, Amounts};
use coracle_api::quantity::Quantity;
use k8s_openapi::api::core::v1::ResourceQuota;

/// How long after a charge its object may still be missing in the count: longer than a request may take, and than a watch may stand still before its
/// connection counts as dead. Only what was charged and never stored waits so long to be freed.
pub const SETTLE: Duration = Duration::from_secs(90);
/// Charges nearer together than this share an entry, which bounds the ledger.
const GRAIN: Duration = Duration::from_secs(1);

/// The charges of one quota that may still be under way.
#[derive(Clone, Debug, Default)]
pub struct Charges {
    /// Since when charges have been followed; before that there may have been any.
    since: Duration,
    recent: VecDeque<(Duration, Amounts)>,
}

/// What may be under way now.
#[derive(Clone, Debug, PartialEq)]
pub enum Pending {
    /// Anything: nobody has looked for long enough.
    Unknown,
    /// At most this.
    AtMost(Amounts),
}

impl Pending {
    /// The most that is used when so much was counted; `None` if there is no telling.
    pub fn on_top_of(&self, key: &str, counted: Quantity) -> Option<Quantity> {
        match self {
            Pending::Unknown => None,
            Pending::AtMost(amounts) => {
                Some(amounts.get(key).map_or(counted, |more| counted.saturating_add(*more)))
            }
        }
    }
}

fn used(quota: &ResourceQuota) -> Amounts {
    let used = quota.status.as_ref().and_then(|status| status.used.as_ref());
    let used = used.and_then(|used| serde_json::to_value(used).ok());
    pod_resources::amounts(used.as_ref())
}

impl Charges {
    /// Follows a quota from `now` on.
    pub fn new(now: Duration) -> Self {
        Self { since: now, recent: VecDeque::new() }
    }

    /// Notes what a new version of the quota uses more than the one before.
    pub fn observe(&mut self, old: &ResourceQuota, new: &ResourceQuota, now: Duration) {
        self.forget(now);
        let before = used(old);
        let mut more = Amounts::new();
        for (key, amount) in used(new) {
            let grown = before.get(&key).map_or(amount, |before| amount.saturating_sub(*before));
            if !grown.is_zero() && !grown.is_negative() {
                more.insert(key, grown);
            }
        }
        if more.is_empty() {
            return;
        }
        match self.recent.back_mut() {
            Some((at, amounts)) if now.saturating_sub(*at) < GRAIN => pod_resources::add(amounts, &more),
            _ => self.recent.push_back((now, more)),
        }
    }

    fn forget(&mut self, now: Duration) {
        // An entry may hold charges that are younger than it.
        while self.recent.front().is_some_and(|(at, _)| now.saturating_sub(*at) >= SETTLE + GRAIN) {
            self.recent.pop_front();
        }
    }

    /// What may be under way, and after what time less is.
    pub fn pending(&mut self, now: Duration) -> (Pending, Option<Duration>) {
        if crate::mutant!(QuotaCountsStale) {
            return (Pending::AtMost(Amounts::new()), None);
        }
        self.forget(now);
        let watched = now.saturating_sub(self.since);
        if watched < SETTLE {
            return (Pending::Unknown, Some(SETTLE - watched));
        }
        let mut sum = Amounts::new();
        for (_, amounts) in &self.recent {
            pod_resources::add(&mut sum, amounts);
        }
        let first = self.recent.front().map(|(at, _)| (*at + SETTLE + GRAIN).saturating_sub(now));
        (Pending::AtMost(sum), first)
    }
}
