//! How many seats each priority level gets: its share of the server's, less what it lends, more what it borrows, by what was asked of it lately. Pure.

use std::time::Duration;

/// How much of the smoothed demand of a period is left in the next.
const SMOOTHING: f64 = 0.977;

/// What was asked of a level in a period: seats in use and waited for, over time.
#[derive(Clone, Copy, Debug)]
pub struct Demand {
    begun: Duration,
    changed: Duration,
    seats: u32,
    high: u32,
    sum: f64,
    squares: f64,
}

impl Demand {
    /// Nothing so far.
    pub fn new(now: Duration) -> Self {
        Self { begun: now, changed: now, seats: 0, high: 0, sum: 0.0, squares: 0.0 }
    }

    /// The demand is this from now on.
    pub fn note(&mut self, seats: u32, now: Duration) {
        let lasted = now.saturating_sub(self.changed).as_secs_f64();
        let before = f64::from(self.seats);
        self.sum += before * lasted;
        self.squares += before * before * lasted;
        self.changed = self.changed.max(now);
        self.seats = seats;
        self.high = self.high.max(seats);
    }

    /// The beginning of the next period.
    pub fn following(&self, now: Duration) -> Self {
        Self { seats: self.seats, high: self.seats, ..Self::new(now) }
    }

    /// The highest of the period.
    pub fn high(&self) -> u32 {
        self.high
    }

    /// The average and a deviation on top of it, within the period's highest.
    pub fn envelope(&self) -> f64 {
        let whole = self.changed.saturating_sub(self.begun).as_secs_f64();
        if whole <= 0.0 {
            return f64::from(self.seats);
        }
        let average = self.sum / whole;
        let deviation = (self.squares / whole - average * average).max(0.0).sqrt();
        (average + deviation).min(f64::from(self.high))
    }

    /// Smoothed over periods: it rises at once and falls slowly.
    pub fn smoothed(&self, before: f64) -> f64 {
        let envelope = self.envelope();
        envelope.max(SMOOTHING * before + (1.0 - SMOOTHING) * envelope)
    }
}

/// What a level's configuration says of its share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Its part of the sum of all shares.
    pub shares: u32,
    /// Percent of its seats that others may borrow.
    pub lendable_percent: u32,
    /// Percent of its seats that it may borrow; absent: any.
    pub borrowing_percent: Option<u32>,
}

/// Seats of a level: at least, without lending and borrowing, at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// What it keeps.
    pub lower: u32,
    /// Its own.
    pub nominal: u32,
    /// With all it may borrow.
    pub upper: u32,
}

/// The bounds of all levels of a server with so many seats.
pub fn bounds(total: u32, shares: &[Share]) -> Vec<Bounds> {
    let sum: u64 = shares.iter().map(|share| u64::from(share.shares)).sum();
    let part = |seats: u32, percent: u32| {
        ((f64::from(seats) * f64::from(percent) / 100.0).round() as u32).min(total.max(seats))
    };
    shares
        .iter()
        .map(|share| {
            let own = (u64::from(total) * u64::from(share.shares)).div_ceil(sum.max(1));
            let nominal = u32::try_from(own).unwrap_or(total);
            let lower = nominal - part(nominal, share.lendable_percent).min(nominal);
            let upper = match share.borrowing_percent {
                Some(percent) => nominal.saturating_add(part(nominal, percent)),
                None => total,
            };
            Bounds { lower, nominal, upper: upper.max(nominal) }
        })
        .collect()
}

/// What a level may have and what was asked of it.
#[derive(Clone, Copy, Debug)]
pub struct Want {
    /// Its bounds.
    pub bounds: Bounds,
    /// The highest demand of the last period.
    pub high: u32,
    /// The smoothed demand.
    pub smoothed: f64,
}

/// The seats each level gets until the next period: as large a fraction of what it wants as all can have, within its bounds.
pub fn allocate(total: u32, wants: &[Want]) -> Vec<u32> {
    let least = |want: &Want| f64::from(want.bounds.lower.max(want.bounds.nominal.min(want.high)));
    let target = |want: &Want| least(want).max(want.smoothed);
    let most = |want: &Want| f64::from(want.bounds.upper);
    let seats = |want: &Want, fraction: f64| (fraction * target(want)).max(least(want)).min(most(want));
    let sum = |fraction: f64| wants.iter().map(|want| seats(want, fraction)).sum::<f64>();
    // Beyond this everybody has the most.
    let (mut low, mut high) = (0.0, f64::from(total.max(1)) + 1.0);
    if sum(high) > f64::from(total) {
        for _ in 0..60 {
            let middle = f64::midpoint(low, high);
            if sum(middle) > f64::from(total) { high = middle } else { low = middle }
        }
    } else {
        low = high;
    }
    wants.iter().map(|want| seats(want, low).round() as u32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn share(shares: u32, lendable_percent: u32, borrowing_percent: Option<u32>) -> Share {
        Share { shares, lendable_percent, borrowing_percent }
    }

    #[test]
    fn seats_are_shared_as_upstream_shares_them() {
        // The default levels on a server of 600 seats.
        let shares = [
            share(5, 0, None),
            share(30, 33, None),
            share(40, 25, None),
            share(10, 0, None),
            share(40, 50, None),
            share(100, 90, None),
            share(20, 50, None),
        ];
        let nominal: Vec<u32> = bounds(600, &shares).iter().map(|one| one.nominal).collect();
        assert_eq!(nominal, [13, 74, 98, 25, 98, 245, 49]);
        let lower: Vec<u32> = bounds(600, &shares).iter().map(|one| one.lower).collect();
        assert_eq!(lower, [13, 50, 73, 25, 49, 24, 24]);
        assert_eq!(bounds(100, &[share(1, 0, Some(50)), share(1, 0, None)])[0].upper, 75);
    }

    #[test]
    fn who_needs_more_borrows_from_who_needs_nothing() {
        let of = |bounds, high: u32| Want { bounds, high, smoothed: f64::from(high) };
        let bounds = bounds(100, &[share(1, 50, None), share(1, 0, None)]);
        assert_eq!(allocate(100, &[of(bounds[0], 0), of(bounds[1], 200)]), [25, 75]);
        // As soon as the lender needs its own again it has them.
        assert_eq!(allocate(100, &[of(bounds[0], 60), of(bounds[1], 200)]), [50, 50]);
    }

    #[test]
    fn demand_rises_at_once_and_falls_slowly() {
        let at = Duration::from_secs;
        let mut demand = Demand::new(at(0));
        demand.note(10, at(0));
        demand.note(0, at(5));
        demand.note(0, at(10));
        // Half of the time 10, half of the time none: 5 with a deviation of 5.
        assert!((demand.envelope() - 10.0).abs() < 1e-9);
        let idle = demand.following(at(10));
        assert!((idle.smoothed(10.0) - 9.77).abs() < 1e-9);
        assert_eq!((demand.high(), idle.high()), (10, 0));
    }

    proptest! {
        /// No more than there are, but for what rounding and minima add, and each within its bounds.
        #[test]
        fn allocations_keep_to_the_bounds(levels in prop::collection::vec((1_u32..50, 0_u32..=100, prop::option::of(0_u32..200), 0_u32..500), 1..8), total in 10_u32..600) {
            let shares: Vec<Share> = levels.iter().map(|(s, l, b, _)| share(*s, *l, *b)).collect();
            let bounds = bounds(total, &shares);
            let wants: Vec<Want> = bounds.iter().zip(&levels).map(|(bounds, (.., high))| Want { bounds: *bounds, high: *high, smoothed: f64::from(*high) }).collect();
            let given = allocate(total, &wants);
            let slack = 2 * levels.len() as u32;
            prop_assert!(given.iter().sum::<u32>() <= total + slack);
            for (seats, bounds) in given.iter().zip(&bounds) {
                prop_assert!(*seats >= bounds.lower && *seats <= bounds.upper);
            }
        }
    }
}
