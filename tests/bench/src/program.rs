//! What measuring programs have in common: one thread, an end on signals, which works are wanted, turns, and how they print.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use clap::ValueEnum;
use clap::builder::PossibleValuesParser;
use tokio::signal::unix::{SignalKind, signal};

use crate::processes::find_program;
use crate::report::Report;

/// How a report is printed.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Output {
    /// Tables for people.
    Text,
    /// Everything, for programs.
    Json,
}

impl Output {
    /// Prints it.
    pub fn print(self, report: &Report, peer_name: &str) {
        match self {
            Self::Text => print!("{}", report.text(peer_name)),
            Self::Json => println!("{:#}", report.json(peer_name)),
        }
    }
}

/// Runs it to its end or until a signal comes; what it started ends with it.
pub fn run(work: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    // One thread: the load program shall take no more than one of the cores, and the kernel ends the processes with the thread that
    // started them.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("Error: cannot start the async runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate())?;
        tokio::select! {
            result = work => result,
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
            _ = terminated.recv() => bail!("terminated"),
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What `--only` takes.
pub fn names(groups: &[&[&'static str]]) -> PossibleValuesParser {
    groups.concat().into()
}

/// Those of the names that are wanted: all, if none is named.
pub fn wanted<'a>(names: &'a [&'static str], only: &'a [String]) -> impl Iterator<Item = &'static str> + 'a {
    names.iter().copied().filter(move |name| only.is_empty() || only.iter().any(|only| only == name))
}

/// Ours, and before it the peer's if one is given: whether each is ours, and the program. With them the peer's name.
///
/// # Errors
/// When one of them is not there.
pub fn contenders(ours: &Path, peer: Option<&Path>) -> anyhow::Result<(Vec<(bool, PathBuf)>, String)> {
    let mut contenders = vec![(true, find_program(ours)?)];
    let mut peer_name = "none".to_owned();
    if let Some(peer) = peer {
        let peer = find_program(peer)?;
        peer_name = peer.display().to_string();
        contenders.insert(0, (false, peer));
    }
    Ok((contenders, peer_name))
}

/// The contenders in the order of a pair: taking turns at being first shares out what the machine has besides.
pub fn turns<T>(contenders: &[T], pair: usize) -> Vec<&T> {
    let mut turns: Vec<_> = contenders.iter().collect();
    if pair % 2 == 1 {
        turns.reverse();
    }
    turns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_other_pair_begins_with_the_other() {
        assert_eq!(turns(&["peer", "ours"], 0), [&"peer", &"ours"]);
        assert_eq!(turns(&["peer", "ours"], 1), [&"ours", &"peer"]);
    }

    #[test]
    fn without_names_all_are_wanted() {
        assert_eq!(wanted(&["a", "b"], &[]).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(wanted(&["a", "b"], &["b".to_owned()]).collect::<Vec<_>>(), ["b"]);
    }
}
