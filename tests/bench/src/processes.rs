//! Processes under measurement: started so that they end with this program however it ends, their CPU seconds and memory.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, SysconfVar, sysconf};

/// So much of a log goes into a message.
const LOG_LINES: usize = 5;

/// A running child. Dropping it kills it; the kernel kills it when this program's thread that started it is gone.
pub struct Process {
    program: PathBuf,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program`, with its output going to the end of `log`.
    ///
    /// # Errors
    /// Names the program that does not start, or the log that cannot be written.
    pub fn start(program: &Path, args: &[String], log: &Path) -> anyhow::Result<Self> {
        let output = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("log {}", log.display()))?;
        // util-linux' setpriv becomes the program, so the process id stays.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        Ok(Self { program: program.to_owned(), child, log: log.to_owned() })
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        kill(Pid::from_raw(self.id() as i32), signal)
            .with_context(|| format!("send {signal} to {}", self.id()))
    }

    /// Kills it as `kill -9` does and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// How it ended, when it did: an exit code or a signal, in words.
    pub fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok()??;
        Some(match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, signal) => format!("signal {}", signal.unwrap_or_default()),
        })
    }

    /// What became of it, for messages: how it ended, if it did, and the end of its log.
    pub fn told(&mut self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let how = self.ended().map_or("runs".to_owned(), |end| format!("ended with {end}"));
        let end = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
        format!("{} {how}; its log ends with:\n{end}", self.program.display())
    }

    /// User and system seconds of all its threads so far.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        cpu_seconds(self.id())
    }

    /// Resident bytes now.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn resident_bytes(&self) -> anyhow::Result<u64> {
        self.status_bytes("VmRSS:")
    }

    /// The most resident bytes so far.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn peak_bytes(&self) -> anyhow::Result<u64> {
        self.status_bytes("VmHWM:")
    }

    fn status_bytes(&self, field: &str) -> anyhow::Result<u64> {
        let path = format!("/proc/{}/status", self.id());
        let status = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kib =
            line.and_then(|rest| rest.split_whitespace().next()).and_then(|kib| kib.parse::<u64>().ok());
        Ok(kib.with_context(|| format!("no {field} in {path}"))? * 1024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// User and system seconds of a process so far (`/proc/PID/stat`, fields 14 and 15).
///
/// # Errors
/// When the process is gone.
pub fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    // The name in parentheses may hold anything; fields are counted behind it.
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest).with_context(|| path.clone())?;
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    let ticks_per_second = sysconf(SysconfVar::CLK_TCK)?.context("no clock ticks")?;
    Ok(ticks as f64 / ticks_per_second as f64)
}

/// Bytes on disk of all files below a directory (blocks, so holes and preallocation count as they cost).
pub fn disk_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
            Ok(metadata) => metadata.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

/// The file of a program given as a path or as a name on `PATH`.
///
/// # Errors
/// When there is none.
pub fn find_program(name: &Path) -> anyhow::Result<PathBuf> {
    if name.components().count() > 1 {
        return name.canonicalize().with_context(|| format!("program {}", name.display()));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
        .with_context(|| format!("{} is not on PATH; install it or give its path", name.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_cpu_time_and_memory_and_ends_when_dropped() {
        let dir = tempfile::tempdir().expect("directory");
        let process =
            Process::start(Path::new("sleep"), &["100".into()], &dir.path().join("log")).expect("starts");
        assert!(process.cpu_seconds().expect("runs") < 1.0);
        assert!(process.resident_bytes().expect("runs") > 0);
        let path = format!("/proc/{}", process.id());
        drop(process);
        assert!(!Path::new(&path).exists());
    }
}
