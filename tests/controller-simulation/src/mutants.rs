//! Runs each planted fault over seeds until a promise is broken. One that survives is a hole in the simulation or in the oracle.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use clap::Args;
use controller_manager_core::mutants::Mutant;

/// What to run.
#[derive(Args)]
pub struct Options {
    /// Seeds to try for each at most.
    #[arg(long, default_value_t = 2_000)]
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
    println!("{:<24} {:<34} {:>6} {:>8}", "planted", "found by", "seed", "seconds");
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(|| {
                while let Some(mutant) = mutants.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let begun = Instant::now();
                    let found = find(*mutant, options);
                    let seconds = begun.elapsed().as_secs_f64();
                    let (invariant, seed) = found
                        .map_or(("NOT FOUND", String::new()), |(invariant, seed)| {
                            (invariant, seed.to_string())
                        });
                    println!("{:<24} {invariant:<34} {seed:>6} {seconds:>8.1}", format!("{mutant:?}"));
                    all_are_found.fetch_and(found.is_some(), Ordering::Relaxed);
                }
            });
        }
    });
    let of_scheduler: &[_] = if options.only.is_empty() { scheduler_core::mutants::Mutant::ALL } else { &[] };
    for mutant in of_scheduler {
        let found = find_in_scheduler(*mutant, options);
        let invariant = if found.is_some() { "PreemptionSparesBudgets" } else { "NOT FOUND" };
        let seed = found.map_or_else(String::new, |seed| seed.to_string());
        println!("{:<24} {invariant:<34} {seed:>6}", format!("{mutant:?}"));
        all_are_found.fetch_and(found.is_some(), Ordering::Relaxed);
    }
    println!(
        "{} planted faults in {:.1} s",
        mutants.len() + of_scheduler.len(),
        begun.elapsed().as_secs_f64()
    );
    all_are_found.into_inner()
}

/// The first promise that is broken, in a run that is clean without the fault.
fn find(mutant: Mutant, options: &Options) -> Option<(&'static str, u64)> {
    (options.start..options.start + options.seeds).find_map(|seed| {
        Mutant::plant(Some(mutant));
        let violation = controller_simulation::run(seed, false).violation;
        Mutant::plant(None);
        let violation = violation.filter(|_| controller_simulation::run(seed, false).violation.is_none())?;
        Some((violation.invariant, seed))
    })
}

/// The same for the faults of the scheduler, which are looked for on clusters of their own.
fn find_in_scheduler(mutant: scheduler_core::mutants::Mutant, options: &Options) -> Option<u64> {
    use scheduler_core::mutants::Mutant;
    let is_wrong = |seed| !matches!(controller_simulation::preemption::run(seed), Ok(None));
    (options.start..options.start + options.seeds).find(|seed| {
        Mutant::plant(Some(mutant));
        let found = is_wrong(*seed);
        Mutant::plant(None);
        found && !is_wrong(*seed)
    })
}
