//! A few hundred runs with every test; many more by hand, see docs/simulation.md.

use std::time::{Duration, Instant};

use seed_runner::seeds::Stats as _;
use store_simulation::plan::Plan;
use store_simulation::run;
use store_simulation::world::Stats;

/// Runs seeds until the time is over; gives how many, and what they went through.
fn runs(first: u64, seeds: u64) -> (u64, Stats) {
    let until = Instant::now() + Duration::from_secs(18);
    let (mut count, mut total) = (0, Stats::default());
    for seed in first..first + seeds {
        let finished = run(&Plan::new(seed), false);
        if let Some(violation) = finished.violation {
            panic!(
                "seed {seed}: {violation}\nreplay it with: cargo run -p store-simulation -- replay --verbose --seed {seed}"
            );
        }
        count += 1;
        total.add(&finished.stats);
        if Instant::now() > until {
            break;
        }
    }
    (count, total)
}

#[test]
fn clients_see_what_etcd_promises_whatever_goes_wrong() {
    let (count, total) = runs(0, 300);
    eprintln!("{count} runs: {total:?}");
    let count = count as usize;
    assert!(total.answered > 100 * count && total.watched > 100 * count, "too little happened: {total:?}");
    assert!(total.crashes > 2 * count && total.terms > 3 * count, "too few faults: {total:?}");
    assert!(total.snapshots_installed > 0, "too little trouble: {total:?}");
}

#[test]
fn two_runs_of_a_seed_are_the_same() {
    for seed in [1, 2, 3, 4, 5, 1_000_000_007] {
        let [a, b] = [(); 2].map(|()| run(&Plan::new(seed), false));
        assert_eq!((a.trace, a.stats), (b.trace, b.stats), "seed {seed}");
        let other = run(&Plan::new(seed + 1), false);
        assert_ne!(a.trace, other.trace);
    }
}
