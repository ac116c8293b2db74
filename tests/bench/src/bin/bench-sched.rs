//! `make bench-sched`: our scheduler, and a peer's in turn with it, on our API server and store.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::ensure;
use clap::Parser;
use coracle_bench::api::system::Pairing;
use coracle_bench::processes::find_program;
use coracle_bench::program::{self, Output, contenders, names, turns, wanted};
use coracle_bench::report::{Measured, Report};
use coracle_bench::sched::objects::Kind;
use coracle_bench::sched::workloads::{self, Size};
use coracle_bench::store::cluster::Program;

/// Measures schedulers with nodes that are objects only: pods bound a second when many wait, latency at a pace of 100 a second.
#[derive(Parser, Clone, Debug)]
#[command(name = "bench-sched", max_term_width = 110)]
struct Options {
    /// A kube-scheduler to compare with.
    #[arg(long, env = "PEER_SCHEDULER")]
    peer: Option<PathBuf>,
    /// Our program.
    #[arg(long, default_value = "target/release/scheduler")]
    ours: PathBuf,
    /// The API server.
    #[arg(long, default_value = "target/release/apiserver")]
    apiserver: PathBuf,
    /// Its store.
    #[arg(long, default_value = "target/release/etcd-lite")]
    etcd_lite: PathBuf,
    /// Where data goes: a disk, not memory.
    #[arg(long, default_value = "target/bench")]
    dir: PathBuf,
    /// Runs of each, in turn.
    #[arg(long, default_value_t = 1)]
    pairs: usize,
    /// Kinds of pods, by name.
    #[arg(long, value_delimiter = ',', value_parser = names(&[Kind::NAMES]))]
    only: Vec<String>,
    /// Numbers of nodes.
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1_000, 5_000])]
    nodes: Vec<usize>,
    /// Pods that wait when the scheduler starts.
    #[arg(long, default_value_t = 10_000)]
    pods: usize,
    /// One run with 10 nodes and 500 pods of each kind: to see that it works.
    #[arg(long)]
    quick: bool,
    /// How to print.
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
}

fn main() -> ExitCode {
    program::run(run(Options::parse()))
}

async fn run(mut options: Options) -> anyhow::Result<()> {
    if options.quick {
        (options.pairs, options.nodes, options.pods) = (1, vec![10], 500);
    }
    ensure!(options.pairs > 0, "--pairs must be at least 1");
    let store = Program { name: "etcd-lite".to_owned(), path: find_program(&options.etcd_lite)? };
    let pairing = Pairing { server: find_program(&options.apiserver)?, store };
    let (schedulers, peer_name) = contenders(&options.ours, options.peer.as_deref())?;
    let mut report = Report::new("nodes");
    for kind in wanted(Kind::NAMES, &options.only).filter_map(Kind::named) {
        let title = kind.title();
        for &nodes in &options.nodes {
            let size = Size { nodes, pods: options.pods };
            for pair in 0..options.pairs {
                for (ours, scheduler) in turns(&schedulers, pair) {
                    let rate = workloads::run(scheduler, &pairing, &options.dir, kind, size).await?;
                    eprintln!(
                        "{title}, {nodes} nodes, {}: {:.0} a second",
                        scheduler.display(),
                        rate.per_second
                    );
                    report.add(title, nodes, *ours, Measured::Rate(rate));
                }
            }
        }
    }
    options.output.print(&report, &peer_name);
    Ok(())
}
