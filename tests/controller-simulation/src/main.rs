//! `controller-simulation`: runs seeds, replays one, shows that planted faults are found.

#[cfg(feature = "mutants")]
mod mutants;

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use clap::{Args, Parser, Subcommand};
use controller_simulation::Stats;

/// Simulates the controllers and judges the history they make.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    command: What,
}

#[derive(Subcommand)]
enum What {
    /// Runs many seeds; stops at the first that fails.
    Sim(Seeds),
    /// Runs one seed again.
    Replay(Replay),
    /// Runs each planted fault until it is found.
    #[cfg(feature = "mutants")]
    Mutants(mutants::Options),
}

#[derive(Args)]
struct Seeds {
    /// How many.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first one.
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// Threads.
    #[arg(long, default_value_t = 1)]
    jobs: u64,
    /// Go on after failures, and say which seeds fail.
    #[arg(long)]
    keep_going: bool,
}

#[derive(Args)]
struct Replay {
    /// Which seed.
    #[arg(long)]
    seed: u64,
    /// Tell the history.
    #[arg(long)]
    verbose: bool,
    /// Run it up to so many times until it fails: a seed does not decide everything.
    #[arg(long, default_value_t = 20)]
    tries: u32,
    /// With this planted fault.
    #[cfg(feature = "mutants")]
    #[arg(long, value_parser = mutants::named)]
    mutant: Option<controller_manager_core::mutants::Mutant>,
}

fn main() -> ExitCode {
    let is_good = match Options::parse().command {
        What::Sim(seeds) => sim(&seeds),
        What::Replay(options) => replay(&options),
        #[cfg(feature = "mutants")]
        What::Mutants(options) => mutants::run(&options),
    };
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn sim(options: &Seeds) -> bool {
    let (next, failed) = (AtomicU64::new(options.start), AtomicBool::new(false));
    let end = options.start + options.seeds;
    let begun = Instant::now();
    let total = Mutex::new((0_u64, Stats::default()));
    let work = || {
        while options.keep_going || !failed.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return;
            }
            let finished = controller_simulation::run(seed, false);
            if let Some(violation) = finished.violation {
                failed.store(true, Ordering::Relaxed);
                println!("seed {seed}: {violation}");
                println!(
                    "replay it with: cargo run -p controller-simulation -- replay --verbose --seed {seed}"
                );
            }
            let Ok(mut total) = total.lock() else { return };
            total.0 += 1;
            total.1.changes += finished.stats.changes;
            total.1.lives += finished.stats.lives;
            total.1.seconds += finished.stats.seconds;
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(work);
        }
    });
    if let Ok(total) = total.lock() {
        let seconds = begun.elapsed().as_secs_f64();
        let (count, stats) = *total;
        println!("{count} seeds in {seconds:.1} s, {:.1} a second; in all {stats:?}", count as f64 / seconds);
    }
    !failed.load(Ordering::Relaxed)
}

fn replay(options: &Replay) -> bool {
    #[cfg(feature = "mutants")]
    controller_manager_core::mutants::Mutant::plant(options.mutant);
    let mut finished = controller_simulation::run(options.seed, options.verbose);
    for _ in 1..options.tries {
        if finished.violation.is_none() {
            finished = controller_simulation::run(options.seed, options.verbose);
        }
    }
    for line in &finished.told {
        println!("{line}");
    }
    println!("{:?}", finished.stats);
    match finished.violation {
        Some(violation) => {
            println!("{violation}");
            false
        }
        None => true,
    }
}
