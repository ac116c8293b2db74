//! `store-simulation`: runs seeds, replays one, shows that planted faults are found.

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
#[cfg(feature = "mutants")]
use etcd_lite_core::mutants::Mutant;
#[cfg(feature = "mutants")]
use planted_faults::Fault;
use seed_runner::seeds::Seeds;
use store_simulation::plan::Plan;
use store_simulation::shrink::{Less, shrink};

/// Simulates clusters of etcd-lite and judges what clients see.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    command: What,
}

#[derive(Subcommand)]
enum What {
    /// Runs many seeds; stops at the first that fails and shows the shortest run that does.
    Sim(Seeds<1_000>),
    /// Runs one seed again.
    Replay(Replay),
    /// Runs each planted fault until it is found.
    #[cfg(feature = "mutants")]
    Mutants(seed_runner::faults::Options<Mutant, 4_000>),
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
    #[arg(long, value_parser = Mutant::named)]
    mutant: Option<Mutant>,
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
        What::Mutants(options) => options.run(|seed| {
            store_simulation::run(&Plan::new(seed), false).violation.map(|found| format!("{:?}", found.rule))
        }),
    };
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn sim(options: &Seeds<1_000>) -> bool {
    let run = |seed| {
        let finished = store_simulation::run(&Plan::new(seed), false);
        (finished.stats, finished.violation)
    };
    options.run(false, run, |seed, violation| {
        println!("seed {seed} fails\n{violation}\nlooking for a shorter run ...");
        let (less, violation) = shrink(seed, &violation, 200);
        println!("the shortest found: {}\n{violation}", describe(&less.plan(seed)));
        println!(
            "replay it with: cargo run -p store-simulation -- replay --verbose --seed {seed}{}",
            less.arguments()
        );
    })
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
    Mutant::plant(options.mutant);
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
