//! `controller-simulation`: runs seeds, replays one, shows that planted faults are found.

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
#[cfg(feature = "mutants")]
use controller_manager_core::mutants::Mutant;
#[cfg(feature = "mutants")]
use planted_faults::Fault;
use seed_runner::seeds::Seeds;

/// Simulates the controllers and judges the history they make.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    command: What,
}

#[derive(Subcommand)]
enum What {
    /// Runs many seeds; stops at the first that fails.
    Sim(Sim),
    /// Runs one seed again.
    Replay(Replay),
    /// Runs each planted fault until it is found.
    #[cfg(feature = "mutants")]
    Mutants(seed_runner::faults::Options<Mutant, 2_000>),
}

#[derive(Args)]
struct Sim {
    #[command(flatten)]
    seeds: Seeds<1_000>,
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
    #[arg(long, value_parser = Mutant::named)]
    mutant: Option<Mutant>,
}

fn main() -> ExitCode {
    let is_good = match Options::parse().command {
        What::Sim(options) => sim(&options),
        What::Replay(options) => replay(&options),
        #[cfg(feature = "mutants")]
        What::Mutants(options) => find_mutants(&options),
    };
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn sim(options: &Sim) -> bool {
    let run = |seed| {
        let finished = controller_simulation::run(seed, false);
        (finished.stats, finished.violation)
    };
    options.seeds.run(options.keep_going, run, |seed, violation| {
        println!("seed {seed}: {violation}");
        println!("replay it with: cargo run -p controller-simulation -- replay --verbose --seed {seed}");
    })
}

/// Those of the scheduler are looked for on clusters of their own.
#[cfg(feature = "mutants")]
fn find_mutants(options: &seed_runner::faults::Options<Mutant, 2_000>) -> bool {
    let found = options.run(|seed| {
        controller_simulation::run(seed, false).violation.map(|found| found.invariant.to_owned())
    });
    let found_too = options.run_others::<scheduler_core::mutants::Mutant>(|seed| {
        (!matches!(controller_simulation::preemption::run(seed), Ok(None)))
            .then(|| "PreemptionSparesBudgets".to_owned())
    });
    found && found_too
}

fn replay(options: &Replay) -> bool {
    #[cfg(feature = "mutants")]
    Mutant::plant(options.mutant);
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
