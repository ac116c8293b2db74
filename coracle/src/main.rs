//! The launcher: brings a cluster up and down, shows what runs, kills components on request. Knows the components only by
//! their command lines and talks to the cluster like any other client.

use std::process::ExitCode;

use component_base::program::{self, Threads};

mod client;
mod cluster;
mod commands;
mod extra_flags;
mod image;
mod kubeconfig;
mod layout;
mod metrics_api;
mod network;
mod pki;
mod probe;
mod processes;
mod progress;
mod supervisor;
mod topology;

fn main() -> ExitCode {
    let arguments: commands::Arguments = component_base::flags::parse(&[]);
    program::run(Threads::Only(2), commands::run(arguments))
}
