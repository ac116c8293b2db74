//! `store-chaos`: three real processes of etcd-lite under full load, and everything that goes wrong with processes, networks, disks and members; what
//! clients saw is judged by `store-checker`. See docs/chaos.md.

mod calls;
mod clients;
mod cluster;
mod disk;
mod epoch;
mod faults;
mod member;
mod network;
mod plan;
mod plant;
mod report;
mod shared;
mod watchers;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use clap::{Parser, ValueEnum};
use coracle_bench::processes::find_program;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use store_checker::History;
use tokio::signal::unix::{SignalKind, signal};

use cluster::Cluster;
use epoch::Run;
use faults::Done;
use plan::Plan;
use plant::Plant;
use report::{Totals, save_failure};

/// Bytes that members' logs may take.
const LOGS_BYTES: u64 = 1 << 30;

/// Strikes a cluster of real processes under load and judges what clients saw. Needs root.
#[derive(Parser)]
#[command(name = "store-chaos", max_term_width = 110)]
struct Options {
    /// How long; the last epoch is brought to its end.
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// How long, in place of minutes.
    #[arg(long)]
    seconds: Option<u64>,
    /// Decides what goes wrong when and what clients ask.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Clients that read and write.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..500))]
    clients: u64,
    /// The program.
    #[arg(long, default_value = "target/release/etcd-lite")]
    etcd_lite: PathBuf,
    /// Where a failure's records go, and where memory disks are mounted, seen by this program alone.
    #[arg(long, default_value = "target/chaos")]
    dir: PathBuf,
    /// A fault that must be found, in place of the first epoch's.
    #[arg(long, value_enum)]
    plant: Option<Plant>,
    /// Tell each fault and each step.
    #[arg(long, short)]
    verbose: bool,
    /// How to print the summary.
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

fn main() -> ExitCode {
    let options = Options::parse();
    // One thread: the load shall leave a core to the members, and the kernel ends the members with the thread that started them.
    let run = || -> anyhow::Result<bool> {
        isolate()?;
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run(&options))
    };
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("store-chaos: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Goes into namespaces of its own for mounts and network, which end with it.
fn isolate() -> anyhow::Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "network namespaces, packet filters and mounts need root");
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).context("namespaces of its own")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).context("make mounts private")?;
    network::lay_out_hub()
}

/// Whether all was well.
async fn run(options: &Options) -> anyhow::Result<bool> {
    let duration = Duration::from_secs(options.seconds.unwrap_or(options.minutes * 60));
    let program = find_program(&options.etcd_lite)?;
    let mounts = options.dir.join("members");
    std::fs::create_dir_all(&mounts).with_context(|| format!("directory {}", mounts.display()))?;
    disk::mount_tmpfs(&mounts, LOGS_BYTES)?;
    eprintln!("seed {}, {duration:?}, {} clients, {}", options.seed, options.clients, program.display());

    let (mut cluster, mut history) = (Cluster::start(&program, &mounts)?, History::default());
    let mut totals = Totals::default();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let ended = tokio::select! {
        ended = epochs(options, duration, &mut cluster, &mut history, &mut totals) => ended,
        _ = interrupt.recv() => Err(anyhow!("interrupted")),
        _ = terminate.recv() => Err(anyhow!("terminated")),
    };
    let failure = match ended {
        Ok(()) => totals.too_little(),
        Err(error) => {
            let path = save_failure(&options.dir, options.seed, &history, &cluster)?;
            Some(format!("{error:#}\nwhat was recorded: {}", path.display()))
        }
    };
    match options.output {
        Output::Text => println!("{}", totals.line()),
        Output::Json => println!("{}", totals.json(options.seed, failure.as_deref())),
    }
    if let Some(failure) = &failure {
        eprintln!("FAILED: {failure}\nthe same plan again: {}", again(options));
    }
    Ok(failure.is_none())
}

async fn epochs(
    options: &Options,
    duration: Duration,
    cluster: &mut Cluster,
    history: &mut History,
    totals: &mut Totals,
) -> anyhow::Result<()> {
    let (mut plan, mut run) =
        (Plan::new(options.seed), Run::new(options.seed, options.clients, options.verbose)?);
    let mut plant = options.plant;
    cluster.serving().await?;
    let begun = Instant::now();
    while begun.elapsed() < duration {
        let mut done = Done::default();
        let faults = plan.next_epoch(cluster::SIZE);
        let seen = run.epoch(cluster, &faults, plant.take(), &mut done, history).await?;
        eprintln!("{}", totals.add(&seen, &done));
    }
    Ok(())
}

fn again(options: &Options) -> String {
    let length = match options.seconds {
        Some(seconds) => format!("--seconds {seconds}"),
        None => format!("--minutes {}", options.minutes),
    };
    format!(
        "store-chaos {length} --seed {} --clients {} --etcd-lite {}",
        options.seed,
        options.clients,
        options.etcd_lite.display()
    )
}
