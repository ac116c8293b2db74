//! Many seeds, one run each.

use std::fmt::Debug;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use clap::Args;

/// Progress is told after so many.
const TOLD_EVERY: u64 = 1_000;

/// Which seeds, and how; `COUNT` of them unless told otherwise.
#[derive(Args, Clone, Copy, Debug)]
pub struct Seeds<const COUNT: u64> {
    /// How many.
    #[arg(long, default_value_t = COUNT)]
    pub seeds: u64,
    /// The first one.
    #[arg(long, default_value_t = 0)]
    pub start: u64,
    /// Threads.
    #[arg(long, default_value_t = 1)]
    pub jobs: u64,
}

/// What happened in runs.
pub trait Stats: Copy + Debug + Default + Send {
    /// Adds what happened in another one.
    fn add(&mut self, other: &Self);
}

impl<const COUNT: u64> Seeds<COUNT> {
    /// The seeds in their order.
    pub fn range(&self) -> std::ops::Range<u64> {
        self.start..self.start + self.seeds
    }

    /// Runs `work` on all threads at once.
    pub(crate) fn on_threads(&self, work: impl Fn() + Sync) {
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                scope.spawn(&work);
            }
        });
    }

    /// Runs all of them, or until one fails; whether none failed. `failed` tells of one that does: with `keep_going` of each, otherwise of the first.
    pub fn run<S: Stats, V>(
        &self,
        keep_going: bool,
        run: impl Fn(u64) -> (S, Option<V>) + Sync,
        failed: impl Fn(u64, V) + Sync,
    ) -> bool {
        let (next, any_failed) = (AtomicU64::new(self.start), AtomicBool::new(false));
        let begun = Instant::now();
        let rate = |count: u64| {
            let rate = count as f64 / begun.elapsed().as_secs_f64();
            format!("{rate:.*} a second", usize::from(rate < 10.0))
        };
        let total = Mutex::new((0_u64, S::default()));
        self.on_threads(|| {
            while keep_going || !any_failed.load(Ordering::Relaxed) {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if !self.range().contains(&seed) {
                    return;
                }
                let (stats, violation) = run(seed);
                if let Some(violation) = violation
                    && (!any_failed.swap(true, Ordering::Relaxed) || keep_going)
                {
                    failed(seed, violation);
                }
                let Ok(mut total) = total.lock() else { return };
                total.0 += 1;
                total.1.add(&stats);
                if total.0.is_multiple_of(TOLD_EVERY) {
                    println!("{} seeds, {}", total.0, rate(total.0));
                }
            }
        });
        if let Ok(total) = total.lock() {
            let (count, stats) = *total;
            let seconds = begun.elapsed().as_secs_f64();
            println!("{count} seeds in {seconds:.1} s, {}; in all {stats:?}", rate(count));
        }
        !any_failed.into_inner()
    }
}
