//! One member: its process, its host, its disk, and the trouble it is in.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use coracle_bench::processes::Process;
use nix::sys::signal::Signal;

use crate::calls::{CLIENT_PORT, PEER_PORT};
use crate::disk::{Ballast, mount_tmpfs};
use crate::network::{Cut, Host, address};

/// Bytes of a member's disk.
const DISK_BYTES: u64 = 384 << 20;

/// How much longer a disk is full while its member has not noticed.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// What is wrong with a member, beside its process being down.
enum Trouble {
    Paused,
    Cut,
    DiskFull(Ballast),
}

/// A member of the cluster.
pub struct Member {
    number: usize,
    program: PathBuf,
    disk: PathBuf,
    log: PathBuf,
    host: Host,
    process: Option<Process>,
    /// What to start it with: `--initial-cluster-state`.
    is_new: bool,
    trouble: Option<Trouble>,
    /// When the trouble ends.
    until: Option<Instant>,
}

/// Name of a member, counted from 0.
pub fn name(member: usize) -> String {
    format!("m{}", member + 1)
}

/// Peer URL of a member.
pub fn peer_url(member: usize) -> String {
    format!("http://{}:{PEER_PORT}", address(member))
}

impl Member {
    /// Makes host and disk; the process does not run yet.
    ///
    /// # Errors
    /// The system's.
    pub fn new(number: usize, program: &Path, dir: &Path) -> anyhow::Result<Self> {
        let disk = dir.join(name(number));
        mount_tmpfs(&disk, DISK_BYTES)?;
        let log = dir.join(format!("{}.log", name(number)));
        let host = Host::new(number, &log)?;
        Ok(Self {
            number,
            program: program.to_owned(),
            disk,
            log,
            host,
            process: None,
            is_new: true,
            trouble: None,
            until: None,
        })
    }

    /// Starts the process unless it runs.
    ///
    /// # Errors
    /// The system's.
    pub fn start(&mut self, members: usize) -> anyhow::Result<()> {
        if self.process.is_some() {
            return Ok(());
        }
        let cluster: Vec<String> = (0..members).map(|m| format!("{}={}", name(m), peer_url(m))).collect();
        let (client, peer) =
            (format!("http://{}:{CLIENT_PORT}", address(self.number)), peer_url(self.number));
        let [program, arguments @ ..] = self.host.enter();
        let mut arguments = arguments.to_vec();
        arguments.extend([
            self.program.display().to_string(),
            format!("--name={}", name(self.number)),
            format!("--data-dir={}", self.data().display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster={}", cluster.join(",")),
            format!("--initial-cluster-state={}", if self.is_new { "new" } else { "existing" }),
        ]);
        self.process = Some(Process::start(Path::new(&program), &arguments, &self.log)?);
        Ok(())
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.disk.join("data")
    }

    /// Ends the process as `kill -9` does.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// As after a total loss: no data, and one that joins an existing cluster when it starts.
    ///
    /// # Errors
    /// The data cannot be removed.
    pub fn wipe(&mut self) -> anyhow::Result<()> {
        self.kill();
        std::fs::remove_dir_all(self.data()).with_context(|| format!("wipe {}", name(self.number)))?;
        self.is_new = false;
        Ok(())
    }

    /// How the process ended, if it did by itself since the last look.
    pub fn ended(&mut self) -> Option<String> {
        let how = self.process.as_mut()?.ended()?;
        self.process = None;
        Some(how)
    }

    /// Whether it runs and nothing is wrong with it.
    pub fn is_well(&self) -> bool {
        self.process.is_some() && self.trouble.is_none() && self.until.is_none()
    }

    /// Whether its disk is full now.
    pub fn is_disk_full(&self) -> bool {
        matches!(self.trouble, Some(Trouble::DiskFull(_)))
    }

    /// Kills it until a time.
    pub fn go_down(&mut self, until: Instant) {
        self.kill();
        self.until = Some(until);
    }

    /// Stops it until a time.
    ///
    /// # Errors
    /// The system's.
    pub fn pause(&mut self, until: Instant) -> anyhow::Result<()> {
        self.signal(Signal::SIGSTOP)?;
        (self.trouble, self.until) = (Some(Trouble::Paused), Some(until));
        Ok(())
    }

    /// Cuts it off until a time.
    ///
    /// # Errors
    /// nft's words.
    pub fn cut(&mut self, cut: Cut, members: usize, until: Instant) -> anyhow::Result<()> {
        self.host.cut(cut, members)?;
        (self.trouble, self.until) = (Some(Trouble::Cut), Some(until));
        Ok(())
    }

    /// Fills its disk until a time.
    ///
    /// # Errors
    /// Any but that the disk is full.
    pub fn fill_disk(&mut self, until: Instant) -> anyhow::Result<()> {
        let ballast = Ballast::new(&self.disk)?;
        (self.trouble, self.until) = (Some(Trouble::DiskFull(ballast)), Some(until));
        Ok(())
    }

    /// Keeps the disk full, if it is to be.
    ///
    /// # Errors
    /// Any but that the disk is full.
    pub fn keep_full(&mut self) -> anyhow::Result<()> {
        match &mut self.trouble {
            Some(Trouble::DiskFull(ballast)) => ballast.fill(),
            _ => Ok(()),
        }
    }

    /// Whether its trouble has lasted as long as it shall. A full disk lasts on until something is written, which it may not be at once: there
    /// may be no majority, and the log has some room ahead.
    pub fn is_due(&self, now: Instant) -> bool {
        let more = if self.ignores_full_disk() { WRITE_DEADLINE } else { Duration::ZERO };
        self.until.is_some_and(|until| until + more <= now)
    }

    /// Whether it runs although its disk is full.
    pub fn ignores_full_disk(&self) -> bool {
        self.is_disk_full() && self.process.is_some()
    }

    /// Ends its trouble and starts it if it is down.
    ///
    /// # Errors
    /// The system's.
    pub fn heal(&mut self, members: usize) -> anyhow::Result<()> {
        self.until = None;
        match self.trouble.take() {
            Some(Trouble::Paused) => self.signal(Signal::SIGCONT)?,
            Some(Trouble::Cut) => self.host.heal()?,
            // The room is given back.
            Some(Trouble::DiskFull(ballast)) => drop(ballast),
            None => {}
        }
        self.start(members)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        self.process.as_ref().map_or(Ok(()), |process| process.signal(signal))
    }

    /// The end of what it has said.
    pub fn last_words(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&log[log.len().saturating_sub(4_000)..]);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }

    /// The file with all it has said.
    pub fn log(&self) -> &Path {
        &self.log
    }
}
