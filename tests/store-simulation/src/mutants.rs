//! Runs each planted fault over seeds until a rule is broken. One that survives is a hole in the simulation or in the rules.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use clap::Args;
use etcd_lite_core::mutants::Mutant;
use store_checker::Rule;
use store_simulation::plan::Plan;

/// What to run.
#[derive(Args)]
pub struct Options {
    /// Seeds to try for each at most.
    #[arg(long, default_value_t = 4_000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// Threads.
    #[arg(long, default_value_t = 1)]
    jobs: u64,
    /// Only these.
    #[arg(long, value_parser = named, value_delimiter = ',')]
    only: Vec<Mutant>,
}

/// The fault of this name.
///
/// # Errors
/// There is none.
pub fn named(name: &str) -> Result<Mutant, String> {
    Mutant::named(name).ok_or_else(|| format!("there is no such planted fault; there are {:?}", Mutant::ALL))
}

/// Runs them; whether each was found.
pub fn run(options: &Options) -> bool {
    let mutants = if options.only.is_empty() { Mutant::ALL } else { &options.only };
    let (next, all_are_found) = (AtomicUsize::new(0), AtomicBool::new(true));
    let begun = Instant::now();
    println!("{:<28} {:<18} {:>6} {:>8}", "planted", "found by", "seed", "seconds");
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                while let Some(mutant) = mutants.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let begun = Instant::now();
                    let found = find(*mutant, options);
                    let seconds = begun.elapsed().as_secs_f64();
                    let (rule, seed) = found.map_or_else(
                        || ("NOT FOUND".to_owned(), String::new()),
                        |(rule, seed)| (format!("{rule:?}"), seed.to_string()),
                    );
                    println!("{:<28} {rule:<18} {seed:>6} {seconds:>8.1}", format!("{mutant:?}"));
                    all_are_found.fetch_and(found.is_some(), Ordering::Relaxed);
                }
            });
        }
    });
    println!("{} planted faults in {:.1} s", mutants.len(), begun.elapsed().as_secs_f64());
    all_are_found.into_inner()
}

/// The rule that a fault breaks, in the first run that shows it and that is clean without it.
fn find(mutant: Mutant, options: &Options) -> Option<(Rule, u64)> {
    let broken = |planted, seed| {
        Mutant::plant(planted);
        store_simulation::run(&Plan::new(seed), false).violation
    };
    (options.start..options.start + options.seeds).find_map(|seed| {
        let violation = broken(Some(mutant), seed)?;
        broken(None, seed).is_none().then_some((violation.rule, seed))
    })
}
