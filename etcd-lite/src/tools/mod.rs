//! The subcommands of the binary, which do what etcdutl does: they work on files while no member runs.
//!
//! Flags, output and exit codes are etcdutl's. Never here: talking to a running member, which is etcdctl's work.

mod data_dir;
mod defrag;
mod hashkv;
mod output;
mod snapshot_restore;
mod snapshot_status;
mod verify;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use component_base::flags::{self, FlagError};

use output::OutputFormat;

/// What the first argument has to be for the command line to be a tool's and not the server's.
const NAMES: &[&str] = &["snapshot", "defrag", "hashkv", "verify", "help"];

/// Exit codes of etcd's tools.
const BAD_FEATURE: u8 = 4;
const BAD_ARGUMENTS: u8 = 128;

/// Tools for snapshot files and data directories of etcd-lite and etcd. Without a command, etcd-lite is the server.
#[derive(Parser, Debug)]
#[command(name = "etcd-lite", version = component_base::version::ETCD, max_term_width = 110)]
struct Tools {
    #[command(subcommand)]
    command: Tool,
    /// Set the output format (fields, json, simple, table).
    #[arg(short = 'w', long = "write-out", global = true, default_value = "simple", value_name = "FORMAT")]
    write_out: String,
}

#[derive(Subcommand, Debug)]
enum Tool {
    /// Manages snapshot files.
    #[command(subcommand)]
    Snapshot(Snapshot),
    /// Defragments a data directory: writes its checkpoint anew.
    Defrag {
        /// Required. A data directory not in use by a member.
        #[arg(long)]
        data_dir: Option<PathBuf>,
    },
    /// Prints the hash of the key space in a snapshot file or data directory.
    Hashkv {
        /// A snapshot file.
        #[arg(value_name = "FILENAME")]
        files: Vec<PathBuf>,
        /// A data directory not in use by a member, in place of a file.
        #[arg(long)]
        data_dir: Option<PathBuf>,
        /// Its WAL directory, if it is not inside.
        #[arg(long)]
        wal_dir: Option<PathBuf>,
        /// Maximum revision to hash [default: latest revision]
        #[arg(long, default_value_t = 0, hide_default_value = true, allow_negative_numbers = true)]
        rev: i64,
    },
    /// Checks every record of a data directory's log, checkpoint and snapshots; names the first bad one.
    Verify {
        /// Required. A data directory not in use by a member.
        #[arg(long)]
        data_dir: Option<PathBuf>,
        /// Its WAL directory, if it is not inside.
        #[arg(long)]
        wal_dir: Option<PathBuf>,
    },
}

#[derive(Subcommand, Debug)]
enum Snapshot {
    /// Gets the status of a snapshot file: hash, revision, total keys, total size.
    Status {
        /// The snapshot file.
        #[arg(value_name = "FILENAME")]
        files: Vec<PathBuf>,
    },
    /// Restores a snapshot file to a data directory, of a member of a new cluster.
    Restore(snapshot_restore::RestoreOptions),
    /// Not here: use `etcdctl snapshot save`.
    #[command(hide = true)]
    Save {
        /// Ignored.
        files: Vec<PathBuf>,
    },
}

/// Why a tool did not do its work, with the exit code.
struct Failure {
    code: u8,
    error: anyhow::Error,
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { code: 1, error: error.into() }
    }
}

fn bad_arguments(text: &'static str) -> Failure {
    Failure { code: BAD_ARGUMENTS, error: anyhow::anyhow!(text) }
}

fn required(data_dir: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    data_dir.ok_or_else(|| anyhow::anyhow!("required flag(s) \"data-dir\" not set"))
}

/// Runs a tool if the command line, with the program's name first, names one.
pub fn run_if_named(arguments: &[OsString]) -> Option<ExitCode> {
    let first = arguments.get(1)?.to_str()?;
    if !NAMES.contains(&first) {
        return None;
    }
    let tools: Tools = match flags::try_parse_from(arguments.iter().cloned(), &[]) {
        Ok(tools) => tools,
        Err(FlagError::Usage(error)) if !error.use_stderr() => error.exit(),
        Err(error) => {
            let text = error.to_string();
            eprintln!("Error: {}", text.strip_prefix("error: ").unwrap_or(&text).trim_end());
            return Some(ExitCode::FAILURE);
        }
    };
    Some(match run(tools) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("Error: {:#}", failure.error);
            ExitCode::from(failure.code)
        }
    })
}

fn run(tools: Tools) -> Result<(), Failure> {
    let format = OutputFormat::parse(&tools.write_out)
        .map_err(|error| Failure { code: BAD_FEATURE, error: anyhow::anyhow!(error) });
    match tools.command {
        Tool::Snapshot(Snapshot::Status { files }) => match files.as_slice() {
            [file] => println!("{}", snapshot_status::status(file)?.print(format?)),
            _ => return Err(bad_arguments("snapshot status requires exactly one argument")),
        },
        Tool::Snapshot(Snapshot::Restore(options)) => snapshot_restore::run(options)?,
        Tool::Snapshot(Snapshot::Save { .. }) => {
            return Err(bad_arguments("In order to download snapshot use: `etcdctl snapshot save ...`"));
        }
        Tool::Defrag { data_dir } => defrag::defrag(&required(data_dir)?)?,
        Tool::Hashkv { files, data_dir, wal_dir, rev } => {
            let hash = match (files.as_slice(), data_dir) {
                ([file], None) => hashkv::of_file(file, rev)?,
                ([], Some(data_dir)) => hashkv::of_data_dir(&data_dir, wal_dir.as_deref(), rev)?,
                _ => return Err(bad_arguments("hashkv requires exactly one file, or --data-dir")),
            };
            println!("{}", hash.print(format?));
        }
        Tool::Verify { data_dir, wal_dir } => {
            println!("{}", verify::verify(&required(data_dir)?, wal_dir.as_deref())?);
        }
    }
    Ok(())
}
