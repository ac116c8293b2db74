//! `make bench-store`: real etcd and etcd-lite in turn on the same disk, fsync on, under the same load.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{bail, ensure};
use clap::{Parser, ValueEnum};
use coracle_bench::load::Timing;
use coracle_bench::processes::find_program;
use coracle_bench::report::{Measured, Report};
use coracle_bench::store::cluster::{Cluster, Program};
use coracle_bench::store::operations;
use coracle_bench::store::workloads::Workload;
use tokio::signal::unix::{SignalKind, signal};

/// Measures etcd and etcd-lite in turn and prints ratios.
#[derive(Parser, Clone, Debug)]
#[command(name = "bench-store", max_term_width = 110)]
struct Options {
    /// The etcd to compare with.
    #[arg(long, default_value = "etcd")]
    peer: PathBuf,
    /// Our program.
    #[arg(long, default_value = "target/release/etcd-lite")]
    ours: PathBuf,
    /// Measure ours alone.
    #[arg(long)]
    ours_only: bool,
    /// Where data goes: a disk, not memory.
    #[arg(long, default_value = "target/bench")]
    dir: PathBuf,
    /// Runs of each, peer and ours in turn.
    #[arg(long, default_value_t = 3)]
    pairs: usize,
    /// Workloads, by name.
    #[arg(long, value_delimiter = ',', value_parser = names())]
    only: Vec<String>,
    /// Sizes of the cluster.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 3])]
    members: Vec<usize>,
    /// Seconds that count in a run.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Numbers of clients that put and get.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 100])]
    clients: Vec<usize>,
    /// Numbers of keys for memory, disk and restart.
    #[arg(long, value_delimiter = ',', default_values_t = [100_000])]
    keys: Vec<u64>,
    /// One pair of one second, and 10,000 keys: to see that it runs.
    #[arg(long)]
    quick: bool,
    /// How to print.
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    Text,
    Json,
}

const OPERATIONS: [&str; 3] = ["start", "data", "failover"];

fn names() -> clap::builder::PossibleValuesParser {
    Workload::NAMES.iter().copied().chain(OPERATIONS).collect::<Vec<_>>().into()
}

/// One thing to measure of one program.
#[derive(Clone, Copy)]
enum Work {
    Workload(Workload),
    Start,
    Data { keys: u64 },
    Failover,
}

fn main() -> ExitCode {
    let options = Options::parse();
    // One thread: the load program shall take no more than one of the cores, and the kernel ends the members with the thread that
    // started them.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("Error: cannot start the async runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate())?;
        tokio::select! {
            result = run(options) => result,
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
            _ = terminated.recv() => bail!("terminated"),
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(mut options: Options) -> anyhow::Result<()> {
    if options.quick {
        (options.pairs, options.seconds, options.keys) = (1, 1.0, vec![10_000]);
    }
    ensure!(options.pairs > 0, "--pairs must be at least 1");
    let peer = Program { name: "peer".into(), path: find_program(&options.peer)? };
    let ours = Program { name: "ours".into(), path: find_program(&options.ours)? };
    let seconds = Duration::try_from_secs_f64(options.seconds)?;
    let timing = Timing { warm_up: seconds / 4, measured: seconds };
    let mut report = Report::new("members");
    for members in &options.members {
        for work in selected(&options, *members) {
            for pair in 0..options.pairs {
                // Taking turns at being first shares out what the machine has besides.
                let mut programs = if pair % 2 == 0 { vec![&peer, &ours] } else { vec![&ours, &peer] };
                programs.retain(|program| !options.ours_only || program.name == "ours");
                for program in programs {
                    measure(work, program, *members, &options, timing, &mut report).await?;
                }
            }
        }
    }
    let peer_name = peer.path.display().to_string();
    match options.output {
        Output::Text => print!("{}", report.text(&peer_name)),
        Output::Json => println!("{:#}", report.json(&peer_name)),
    }
    Ok(())
}

fn selected(options: &Options, members: usize) -> Vec<Work> {
    let wanted = |name: &&str| options.only.is_empty() || options.only.iter().any(|only| only == *name);
    let workloads = Workload::NAMES.iter().copied().filter(wanted);
    let workloads = workloads.flat_map(|name| Workload::named(name, &options.clients)).map(Work::Workload);
    let operations = OPERATIONS.into_iter().filter(wanted).flat_map(|name| match name {
        "start" => vec![Work::Start],
        "data" => options.keys.iter().map(|&keys| Work::Data { keys }).collect(),
        _ if members == 3 => vec![Work::Failover],
        _ => Vec::new(),
    });
    workloads.chain(operations).collect()
}

async fn measure(
    work: Work,
    program: &Program,
    members: usize,
    options: &Options,
    timing: Timing,
    report: &mut Report,
) -> anyhow::Result<()> {
    let ours = program.name == "ours";
    let figures = match work {
        Work::Workload(workload) => {
            let title = workload.title();
            let cluster = Cluster::start(program, members, &options.dir).await?;
            let rate = workload.run(&cluster, timing).await?;
            eprintln!("{title}, {members} members, {}: {:.0} a second", program.name, rate.per_second);
            report.add(&title, members, ours, Measured::Rate(rate));
            return Ok(());
        }
        Work::Start => operations::start(program, members, &options.dir).await?,
        Work::Data { keys } => operations::data(program, members, &options.dir, keys).await?,
        Work::Failover => operations::failover(program, &options.dir).await?,
    };
    for figure in figures {
        eprintln!(
            "{}, {members} members, {}: {:.3} {}",
            figure.what, program.name, figure.amount, figure.unit
        );
        report.add(&figure.what, members, ours, Measured::Amount(figure.amount, figure.unit));
    }
    Ok(())
}
