//! `make bench-api`: the API server on Debian's etcd and on etcd-lite in turn, or a peer's on etcd and ours on etcd-lite.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::ensure;
use clap::Parser;
use coracle_bench::api::operations;
use coracle_bench::api::system::{Pairing, System};
use coracle_bench::api::workloads::Workload;
use coracle_bench::load::Timing;
use coracle_bench::processes::find_program;
use coracle_bench::program::{self, Output, names, turns, wanted};
use coracle_bench::report::{Measured, Report};
use coracle_bench::store::cluster::Program;

/// Measures the API server on etcd and on etcd-lite in turn, or a peer beside it, and prints ratios.
#[derive(Parser, Clone, Debug)]
#[command(name = "bench-api", max_term_width = 110)]
struct Options {
    /// A kube-apiserver to compare with, on etcd; without it, ours on etcd is compared with ours on etcd-lite.
    #[arg(long, env = "PEER_APISERVER")]
    peer: Option<PathBuf>,
    /// Our program.
    #[arg(long, default_value = "target/release/apiserver")]
    ours: PathBuf,
    /// The store of the peer.
    #[arg(long, default_value = "etcd")]
    etcd: PathBuf,
    /// The store of ours.
    #[arg(long, default_value = "target/release/etcd-lite")]
    etcd_lite: PathBuf,
    /// Measure ours on etcd-lite alone.
    #[arg(long)]
    ours_only: bool,
    /// Where data goes: a disk, not memory.
    #[arg(long, default_value = "target/bench")]
    dir: PathBuf,
    /// Runs of each, in turn.
    #[arg(long, default_value_t = 2)]
    pairs: usize,
    /// Workloads, by name.
    #[arg(long, value_delimiter = ',', value_parser = names(&[Workload::NAMES, &OPERATIONS]))]
    only: Vec<String>,
    /// Seconds that count in a run.
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Numbers of pods to list, and to hold in memory.
    #[arg(long, value_delimiter = ',', default_values_t = [5_000])]
    pods: Vec<usize>,
    /// Numbers of watchers.
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1_000])]
    watchers: Vec<usize>,
    /// Lists at the same time, for the peak of memory.
    #[arg(long, default_value_t = 8)]
    readers: usize,
    /// One run of one second with 500 pods and 10 watchers: to see that it works.
    #[arg(long)]
    quick: bool,
    /// How to print.
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
}

const OPERATIONS: [&str; 2] = ["start", "memory"];

/// One thing to measure.
#[derive(Clone, Copy)]
enum Work {
    Workload(Workload),
    Start,
    Memory { pods: usize },
}

fn main() -> ExitCode {
    program::run(run(Options::parse()))
}

async fn run(mut options: Options) -> anyhow::Result<()> {
    if options.quick {
        (options.pairs, options.seconds) = (1, 1.0);
        (options.pods, options.watchers) = (vec![500], vec![10]);
    }
    ensure!(options.pairs > 0, "--pairs must be at least 1");
    let store =
        |name: &str, path: &PathBuf| anyhow::Ok(Program { name: name.to_owned(), path: find_program(path)? });
    let own = find_program(&options.ours)?;
    let ours = Pairing { server: own.clone(), store: store("etcd-lite", &options.etcd_lite)? };
    let mut pairings = vec![(true, ours)];
    let mut peer_name = "none".to_owned();
    if !options.ours_only {
        let server = options.peer.as_deref().map_or(Ok(own), find_program)?;
        peer_name = format!("{} on {}", server.display(), options.etcd.display());
        pairings.insert(0, (false, Pairing { server, store: store("etcd", &options.etcd)? }));
    }
    let seconds = Duration::try_from_secs_f64(options.seconds)?;
    let timing = Timing { warm_up: seconds / 4, measured: seconds };
    let mut report = Report::new("size");
    for work in selected(&options) {
        for pair in 0..options.pairs {
            for (ours, pairing) in turns(&pairings, pair) {
                measure(work, pairing, *ours, &options, timing, &mut report).await?;
            }
        }
    }
    options.output.print(&report, &peer_name);
    Ok(())
}

fn selected(options: &Options) -> Vec<Work> {
    let workloads = wanted(Workload::NAMES, &options.only);
    let workloads = workloads.flat_map(|name| Workload::named(name, &options.pods, &options.watchers));
    let operations = wanted(&OPERATIONS, &options.only).flat_map(|name| match name {
        "start" => vec![Work::Start],
        _ => options.pods.iter().map(|&pods| Work::Memory { pods }).collect(),
    });
    workloads.map(Work::Workload).chain(operations).collect()
}

async fn measure(
    work: Work,
    pairing: &Pairing,
    ours: bool,
    options: &Options,
    timing: Timing,
    report: &mut Report,
) -> anyhow::Result<()> {
    let who = format!("{} on {}", pairing.server.display(), pairing.store.name);
    let (size, figures) = match work {
        Work::Workload(workload) => {
            let (system, _) = System::start(pairing, &options.dir).await?;
            system.fill(workload.pods()).await?;
            let rate = workload.run(&system, timing).await?;
            eprintln!("{}, {}, {who}: {:.0} a second", workload.title(), workload.size(), rate.per_second);
            report.add(workload.title(), workload.size(), ours, Measured::Rate(rate));
            return Ok(());
        }
        Work::Start => (0, operations::start(pairing, &options.dir).await?),
        Work::Memory { pods } => {
            (pods, operations::memory(pairing, &options.dir, pods, options.readers).await?)
        }
    };
    for figure in figures {
        eprintln!("{}, {who}: {:.3} {}", figure.what, figure.amount, figure.unit);
        report.add(&figure.what, size, ours, Measured::Amount(figure.amount, figure.unit));
    }
    Ok(())
}
