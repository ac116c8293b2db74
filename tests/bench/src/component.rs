//! A component beside the API server, started with its kubeconfig and alone, without an election.

use std::path::Path;

use crate::api::system::System;
use crate::processes::Process;

/// Starts `program` as the component of that name; `more` are flags besides those that all have.
///
/// # Errors
/// When it does not start.
pub fn start(system: &System, name: &str, program: &Path, more: &[String]) -> anyhow::Result<Process> {
    let kubeconfig = system.kubeconfig(name)?.display().to_string();
    let mut args = vec![
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        "--leader-elect=false".to_owned(),
        "--secure-port=0".to_owned(),
    ];
    args.extend_from_slice(more);
    Process::start(program, &args, &system.file(&format!("{name}.log")))
}
