//! Finds this cluster's processes in `/proc` by their command lines. There are no pid files to go stale: a process is ours
//! if its arguments are those that the topology gives it.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::topology::Process;

/// A snapshot of all command lines.
pub struct ProcessTable {
    command_lines: HashMap<u32, Vec<String>>,
}

impl ProcessTable {
    /// Reads `/proc` once. Processes that end meanwhile are left out.
    pub fn read() -> Self {
        let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let command_lines = pids
            .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
            .filter_map(|pid| Some((pid, command_line(pid)?)))
            .collect();
        Self { command_lines }
    }

    /// The pid of a process of the topology, if it runs.
    pub fn find(&self, process: &Process) -> Option<u32> {
        self.command_lines.iter().find(|(_, line)| matches(line, process)).map(|(pid, _)| *pid)
    }

    /// All processes one of whose arguments contains `text`, except the calling one.
    pub fn mentioning(&self, text: &str) -> Vec<u32> {
        let own = std::process::id();
        self.command_lines
            .iter()
            .filter(|(pid, line)| **pid != own && line.iter().any(|argument| argument.contains(text)))
            .map(|(pid, _)| *pid)
            .collect()
    }

    /// The supervisor of the cluster in `root`.
    pub fn supervisor(&self, root: &Path) -> Option<u32> {
        let root = root.to_str()?;
        let ours = |line: &Vec<String>| {
            line.first().is_some_and(|program| program.ends_with("coracle"))
                && line.get(1).map(String::as_str) == Some("supervise")
                && line.iter().any(|argument| argument == root)
        };
        self.command_lines.iter().find(|(_, line)| ours(line)).map(|(pid, _)| *pid)
    }
}

fn matches(line: &[String], process: &Process) -> bool {
    let Some((program, args)) = line.split_first() else { return false };
    Path::new(program).file_name().is_some_and(|name| name == process.component.binary())
        && args == process.args
}

fn command_line(pid: u32) -> Option<Vec<String>> {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let text = bytes.strip_suffix(&[0]).unwrap_or(&bytes);
    (!text.is_empty())
        .then(|| text.split(|b| *b == 0).map(|part| String::from_utf8_lossy(part).into_owned()).collect())
}

/// Whether the process still runs; one that ended and waits to be reaped does not.
pub fn is_alive(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z') && !rest.starts_with('X'))
}

/// Sends a signal; a process that is gone already is no error.
pub fn send(pid: u32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid as i32), signal);
}

/// Waits until none of the processes runs; returns those that still do at the deadline.
pub async fn wait_gone(pids: &[u32], deadline: Duration) -> Vec<u32> {
    let end = tokio::time::Instant::now() + deadline;
    loop {
        let alive: Vec<u32> = pids.iter().copied().filter(|pid| is_alive(*pid)).collect();
        if alive.is_empty() || tokio::time::Instant::now() >= end {
            return alive;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Resident and proportional memory of a process in bytes: what it alone has, plus its share of what it shares.
pub fn memory_bytes(pid: u32) -> Option<(u64, u64)> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let field = |name: &str| -> Option<u64> {
        let line = rollup.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
    };
    Some((field("Rss:")?, field("Pss:")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Component;

    fn kubelet(args: &[&str]) -> Process {
        Process {
            name: "kubelet-node-a".into(),
            component: Component::Kubelet,
            host: "node-a".into(),
            namespace: None,
            args: args.iter().map(|a| (*a).to_owned()).collect(),
            probe: None,
        }
    }

    #[test]
    fn a_process_is_known_by_its_whole_command_line() {
        let line = |text: &str| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
        let process = kubelet(&["--root-dir=/data/a", "--v=2"]);
        assert!(matches(&line("/opt/kubelet --root-dir=/data/a --v=2"), &process));
        assert!(!matches(&line("/opt/kubelet --root-dir=/data/b --v=2"), &process));
        assert!(!matches(&line("nsenter --net=x /opt/kubelet --root-dir=/data/a --v=2"), &process));
        assert!(!matches(&line("/opt/apiserver --root-dir=/data/a --v=2"), &process));
    }

    #[test]
    fn own_process_is_alive_and_has_memory() {
        assert!(is_alive(std::process::id()));
        assert!(memory_bytes(std::process::id()).expect("memory").0 > 1 << 20);
    }
}
