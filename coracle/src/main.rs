//! The launcher: brings a cluster up and down, shows what runs, kills components on request. Knows the components only by
//! their command lines and talks to the cluster like any other client.

use std::process::ExitCode;

mod client;
mod cluster;
mod commands;
mod image;
mod kubeconfig;
mod layout;
mod network;
mod pki;
mod probe;
mod processes;
mod progress;
mod supervisor;
mod topology;

fn main() -> ExitCode {
    let arguments: commands::Arguments = component_base::flags::parse(&[]);
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("Error: cannot start the async runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(commands::run(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
