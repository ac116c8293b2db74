//! `make bench-controllers`: our controller-manager, and a peer's in turn with it, with our API server, store and scheduler.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::ensure;
use clap::Parser;
use coracle_bench::api::system::Pairing;
use coracle_bench::controllers::cluster::Programs;
use coracle_bench::controllers::workloads::Workload;
use coracle_bench::processes::find_program;
use coracle_bench::program::{self, Output, contenders, names, turns, wanted};
use coracle_bench::report::{Measured, Report};
use coracle_bench::store::cluster::Program;

/// Measures controller-managers with kubelets that only write statuses: how long people wait for workloads.
#[derive(Parser, Clone, Debug)]
#[command(name = "bench-controllers", max_term_width = 110)]
struct Options {
    /// A kube-controller-manager to compare with.
    #[arg(long, env = "PEER_CONTROLLER_MANAGER")]
    peer: Option<PathBuf>,
    /// Our program.
    #[arg(long, default_value = "target/release/controller-manager")]
    ours: PathBuf,
    /// The scheduler.
    #[arg(long, default_value = "target/release/scheduler")]
    scheduler: PathBuf,
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
    /// What is measured, by name.
    #[arg(long, value_delimiter = ',', value_parser = names(&[Workload::NAMES]))]
    only: Vec<String>,
    /// Numbers of pods, Jobs or objects of a kind.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000])]
    objects: Vec<usize>,
    /// One run with 50 of each: to see that it works.
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
        (options.pairs, options.objects) = (1, vec![50]);
    }
    ensure!(options.pairs > 0, "--pairs must be at least 1");
    let store = Program { name: "etcd-lite".to_owned(), path: find_program(&options.etcd_lite)? };
    let programs = Programs {
        pairing: Pairing { server: find_program(&options.apiserver)?, store },
        scheduler: find_program(&options.scheduler)?,
    };
    let (managers, peer_name) = contenders(&options.ours, options.peer.as_deref())?;
    let mut report = Report::new("objects");
    for workload in wanted(Workload::NAMES, &options.only).filter_map(Workload::named) {
        for &objects in &options.objects {
            for pair in 0..options.pairs {
                for (ours, manager) in turns(&managers, pair) {
                    for figure in workload.run(&programs, manager, &options.dir, objects).await? {
                        eprintln!(
                            "{}, {objects}, {}: {:.3} {}",
                            figure.what,
                            manager.display(),
                            figure.amount,
                            figure.unit
                        );
                        report.add(
                            &figure.what,
                            objects,
                            *ours,
                            Measured::Amount(figure.amount, figure.unit),
                        );
                    }
                }
            }
        }
    }
    options.output.print(&report, &peer_name);
    Ok(())
}
