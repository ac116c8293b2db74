//! A component beside the API server, started with its kubeconfig and alone, without an election.

use std::path::{Path, PathBuf};

use crate::api::system::System;
use crate::processes::Process;

/// A running component.
pub struct Component {
    /// For its processor time and memory.
    pub process: Process,
    log: PathBuf,
}

impl Component {
    /// Starts `program` as the component of that name; `more` are flags besides those that all have.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(system: &System, name: &str, program: &Path, more: &[String]) -> anyhow::Result<Self> {
        let kubeconfig = system.kubeconfig(name)?.display().to_string();
        let mut args = vec![
            format!("--kubeconfig={kubeconfig}"),
            format!("--authentication-kubeconfig={kubeconfig}"),
            format!("--authorization-kubeconfig={kubeconfig}"),
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
        ];
        args.extend_from_slice(more);
        let log = system.file(&format!("{name}.log"));
        Ok(Self { process: Process::start(program, &args, &log)?, log })
    }

    /// What became of it: how it ended, if it did, and the end of its log.
    pub fn told(&mut self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let ended = self.process.ended().map_or(String::new(), |end| format!("it ended with {end}; "));
        format!("{ended}its log ends with:\n{}", lines[lines.len().saturating_sub(5)..].join("\n"))
    }
}
