//! `store-simulation`: runs seeds, replays one, shows that planted faults are found.

#[cfg(feature = "mutants")]
mod mutants;

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use clap::{Args, Parser, Subcommand};
use store_simulation::plan::Plan;
use store_simulation::shrink::{Less, shrink};
use store_simulation::world::Stats;

/// Simulates clusters of etcd-lite and judges what clients see.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    command: What,
}

#[derive(Subcommand)]
enum What {
    /// Runs many seeds; stops at the first that fails and shows the shortest run that does.
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
}

#[derive(Args)]
struct Replay {
    /// Which seed.
    #[arg(long)]
    seed: u64,
    /// Tell everything that happens.
    #[arg(long)]
    verbose: bool,
    /// Leave out these faults of the plan.
    #[arg(long, value_delimiter = ',')]
    without_faults: Vec<usize>,
    /// Fewer clients.
    #[arg(long)]
    clients: Option<u64>,
    /// Fewer watchers.
    #[arg(long)]
    watchers: Option<u64>,
    /// Fewer operations of each client.
    #[arg(long)]
    operations: Option<u64>,
    /// No message is lost, repeated or late.
    #[arg(long)]
    good_network: bool,
    /// With this planted fault.
    #[cfg(feature = "mutants")]
    #[arg(long, value_parser = mutants::named)]
    mutant: Option<etcd_lite_core::mutants::Mutant>,
}

fn main() -> ExitCode {
    // A panic of the store is reported with its seed; the library's own report would come for each try at shrinking.
    if std::env::var_os("RUST_BACKTRACE").is_none() {
        std::panic::set_hook(Box::new(|_| {}));
    }
    let is_good = match Options::parse().command {
        What::Sim(seeds) => sim(&seeds),
        What::Replay(options) => replay(options),
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
        while !failed.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return;
            }
            let finished = store_simulation::run(&Plan::new(seed), false);
            if let Some(violation) = finished.violation {
                if !failed.swap(true, Ordering::Relaxed) {
                    println!("seed {seed} fails\n{violation}\nlooking for a shorter run ...");
                    let (less, violation) = shrink(seed, &violation, 200);
                    println!("the shortest found: {}\n{violation}", describe(&less.plan(seed)));
                    println!(
                        "replay it with: cargo run -p store-simulation -- replay --verbose --seed {seed}{}",
                        less.arguments()
                    );
                }
                return;
            }
            let Ok(mut total) = total.lock() else { return };
            total.0 += 1;
            total.1.add(&finished.stats);
            if total.0.is_multiple_of(1_000) {
                let rate = total.0 as f64 / begun.elapsed().as_secs_f64();
                println!("{} seeds, {rate:.0} a second", total.0);
            }
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
        println!("{count} seeds in {seconds:.1} s, {:.0} a second; in all {stats:?}", count as f64 / seconds);
    }
    !failed.load(Ordering::Relaxed)
}

fn describe(plan: &Plan) -> String {
    let faults: Vec<String> = plan
        .faults
        .iter()
        .map(|f| format!("{:?} of {} at {} ms for {} ms", f.kind, f.member, f.at, f.lasts))
        .collect();
    format!(
        "{} members, {} clients with {} operations each, {} watchers; faults: {}",
        plan.members,
        plan.clients,
        plan.operations,
        plan.watchers,
        if faults.is_empty() { "none".to_owned() } else { faults.join("; ") }
    )
}

fn replay(options: Replay) -> bool {
    #[cfg(feature = "mutants")]
    etcd_lite_core::mutants::Mutant::plant(options.mutant);
    let less = Less {
        faults: options.without_faults,
        clients: options.clients,
        watchers: options.watchers,
        operations: options.operations,
        good_network: options.good_network,
    };
    let plan = less.plan(options.seed);
    println!("{}", describe(&plan));
    let finished = store_simulation::run(&plan, options.verbose);
    println!("trace {:016x}; {:?}", finished.trace, finished.stats);
    match finished.violation {
        Some(violation) => {
            println!("{violation}");
            false
        }
        None => true,
    }
}
