//! Each planted fault over seeds until something is wrong. One that survives is a hole in the simulation or in what judges it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use clap::Args;
use planted_faults::Fault;

use crate::seeds::Seeds;

/// What to run; `SEEDS` are tried for each fault at most unless told otherwise.
#[derive(Args)]
pub struct Options<F: Fault, const SEEDS: u64> {
    #[command(flatten)]
    seeds: Seeds<SEEDS>,
    /// Only these.
    #[arg(long, value_parser = F::named, value_delimiter = ',')]
    only: Vec<F>,
}

impl<F: Fault, const SEEDS: u64> Options<F, SEEDS> {
    /// Runs the faults that are asked for; whether each was found. `run` says what is wrong with a seed's run.
    pub fn run(&self, run: impl Fn(u64) -> Option<String> + Sync) -> bool {
        let faults = if self.only.is_empty() { F::ALL } else { &self.only };
        find_all(faults, &self.seeds, run)
    }

    /// Runs all faults of another crate, unless only some are asked for.
    pub fn run_others<O: Fault>(&self, run: impl Fn(u64) -> Option<String> + Sync) -> bool {
        !self.only.is_empty() || find_all(O::ALL, &self.seeds, run)
    }
}

fn find_all<F: Fault, const SEEDS: u64>(
    faults: &[F],
    seeds: &Seeds<SEEDS>,
    run: impl Fn(u64) -> Option<String> + Sync,
) -> bool {
    let (next, all_are_found) = (AtomicUsize::new(0), AtomicBool::new(true));
    let begun = Instant::now();
    println!("{:<28} {:<34} {:>6} {:>8}", "planted", "found by", "seed", "seconds");
    seeds.on_threads(|| {
        while let Some(fault) = faults.get(next.fetch_add(1, Ordering::Relaxed)) {
            let begun = Instant::now();
            let found = find(*fault, seeds, &run);
            let seconds = begun.elapsed().as_secs_f64();
            let (by, seed) = found
                .as_ref()
                .map_or(("NOT FOUND", String::new()), |(by, seed)| (by.as_str(), seed.to_string()));
            println!("{:<28} {by:<34} {seed:>6} {seconds:>8.1}", format!("{fault:?}"));
            all_are_found.fetch_and(found.is_some(), Ordering::Relaxed);
        }
    });
    println!("{} planted faults in {:.1} s", faults.len(), begun.elapsed().as_secs_f64());
    all_are_found.into_inner()
}

/// What the fault makes wrong, in the first run that shows it and that is clean without it.
fn find<F: Fault, const SEEDS: u64>(
    fault: F,
    seeds: &Seeds<SEEDS>,
    run: impl Fn(u64) -> Option<String>,
) -> Option<(String, u64)> {
    let planted = |fault, seed| {
        F::plant(fault);
        run(seed)
    };
    seeds.range().find_map(|seed| {
        let wrong = planted(Some(fault), seed)?;
        planted(None, seed).is_none().then_some((wrong, seed))
    })
}
