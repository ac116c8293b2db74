//! `make bench-store`: real etcd and etcd-lite in turn on the same disk, fsync on, under the same load.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::ensure;
use clap::Parser;
use coracle_bench::load::Timing;
use coracle_bench::processes::find_program;
use coracle_bench::program::{self, Output, names, turns, wanted};
use coracle_bench::report::{Measured, Report};
use coracle_bench::store::cluster::{Cluster, Program};
use coracle_bench::store::operations;
use coracle_bench::store::workloads::Workload;

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
    #[arg(long, value_delimiter = ',', value_parser = names(&[Workload::NAMES, &OPERATIONS]))]
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

const OPERATIONS: [&str; 3] = ["start", "data", "failover"];

/// One thing to measure of one program.
#[derive(Clone, Copy)]
enum Work {
    Workload(Workload),
    Start,
    Data { keys: u64 },
    Failover,
}

fn main() -> ExitCode {
    program::run(run(Options::parse()))
}

async fn run(mut options: Options) -> anyhow::Result<()> {
    if options.quick {
        (options.pairs, options.seconds, options.keys) = (1, 1.0, vec![10_000]);
    }
    ensure!(options.pairs > 0, "--pairs must be at least 1");
    let peer = Program { name: "peer".into(), path: find_program(&options.peer)? };
    let peer_name = peer.path.display().to_string();
    let ours = Program { name: "ours".into(), path: find_program(&options.ours)? };
    let programs = if options.ours_only { vec![ours] } else { vec![peer, ours] };
    let seconds = Duration::try_from_secs_f64(options.seconds)?;
    let timing = Timing { warm_up: seconds / 4, measured: seconds };
    let mut report = Report::new("members");
    for members in &options.members {
        for work in selected(&options, *members) {
            for pair in 0..options.pairs {
                for program in turns(&programs, pair) {
                    measure(work, program, *members, &options, timing, &mut report).await?;
                }
            }
        }
    }
    options.output.print(&report, &peer_name);
    Ok(())
}

fn selected(options: &Options, members: usize) -> Vec<Work> {
    let workloads = wanted(Workload::NAMES, &options.only);
    let workloads = workloads.flat_map(|name| Workload::named(name, &options.clients)).map(Work::Workload);
    let operations = wanted(&OPERATIONS, &options.only).flat_map(|name| match name {
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
