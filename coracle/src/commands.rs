//! The command line and its subcommands, one file each.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Parser, Subcommand, ValueEnum};

use crate::cluster::Cluster;
use crate::layout::Layout;

mod down;
mod enter;
mod image;
mod kill;
mod logs;
mod status;
mod up;
mod why;

/// A whole Kubernetes control plane in miniature, on this machine.
#[derive(Parser, Debug)]
#[command(name = "coracle", version, max_term_width = 110)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,

    /// Where the cluster's files lie; several clusters live side by side in different directories.
    /// Default: /var/lib/coracle for root, otherwise .local/share/coracle in the home directory.
    #[arg(long, global = true, value_name = "DIR", env = "CORACLE_DATA")]
    data: Option<PathBuf>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Bring a cluster up, or resume the one in the data directory; returns when all nodes are Ready.
    Up(up::Options),
    /// End every process of the cluster and remove what it made in the kernel; the data stays.
    Down(down::Options),
    /// Show every process with its role, leader, revision, restarts and memory.
    Status(status::Options),
    /// Print what a component wrote.
    Logs(logs::Options),
    /// End a process with SIGKILL, as a crash would; the supervisor starts it again.
    Kill(kill::Options),
    /// Say why a pod goes where it goes, or nowhere: every plugin of the scheduler on every node.
    Why(why::Options),
    /// Print the administrator's kubeconfig.
    Kubeconfig,
    /// Put images onto the nodes.
    Image(image::Options),
    /// Run a program on one of the cluster's hosts.
    #[command(hide = true)]
    Enter(enter::Options),
    /// Keep the cluster's processes running. Started by `up`.
    #[command(hide = true)]
    Supervise,
}

/// How a command prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// Runs the subcommand.
///
/// # Errors
/// Whatever went wrong, with the next step.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let layout = Layout::new(data_dir(arguments.data)?);
    match arguments.command {
        Command::Up(options) => up::run(&layout, &options).await,
        Command::Down(options) => down::run(&layout, &options).await,
        Command::Status(options) => status::run(&layout, &options).await,
        Command::Logs(options) => logs::run(&layout, &options).await,
        Command::Kill(options) => kill::run(&layout, &options).await,
        Command::Why(options) => why::run(&layout, &options).await,
        Command::Kubeconfig => print_kubeconfig(&layout),
        Command::Image(options) => image::run(&layout, options).await,
        Command::Enter(options) => enter::run(&options),
        Command::Supervise => {
            component_base::logging::init(&component_base::flags::LogFlags::default(), "coracle");
            crate::supervisor::run(layout).await
        }
    }
}

fn data_dir(given: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let dir = match given {
        Some(dir) => dir,
        None if nix::unistd::geteuid().is_root() => "/var/lib/coracle".into(),
        None => {
            let home = std::env::var_os("HOME").context("HOME is not set; name a directory with --data")?;
            PathBuf::from(home).join(".local/share/coracle")
        }
    };
    std::path::absolute(&dir).with_context(|| format!("--data {}", dir.display()))
}

fn existing(layout: &Layout) -> anyhow::Result<Cluster> {
    Cluster::load(layout)?.with_context(|| {
        format!(
            "there is no cluster in {}; `coracle up` makes one, --data names another directory",
            layout.root().display()
        )
    })
}

fn print_kubeconfig(layout: &Layout) -> anyhow::Result<()> {
    existing(layout)?;
    let path = layout.admin_kubeconfig();
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    print!("{text}");
    Ok(())
}
