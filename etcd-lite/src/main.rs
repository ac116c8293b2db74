//! The store: parses flags, runs a member until it is told to stop.

use std::process::ExitCode;

use etcd_lite::options::{self, Notice, Refusal};
use etcd_lite::zap_log;

/// As Go's flag package ends a program whose flags it cannot read.
const USAGE_ERROR: u8 = 2;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    if let Some(code) = etcd_lite::tools::run_if_named(&arguments) {
        return code;
    }
    let (options, notices) = match options::parse(arguments, std::env::vars_os()) {
        Ok(parsed) => parsed,
        Err(Refusal::Answer(text)) => {
            println!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(refusal @ Refusal::Usage(_)) => {
            eprintln!("{refusal}");
            return ExitCode::from(USAGE_ERROR);
        }
        Err(refusal @ Refusal::Verify(_)) => {
            eprintln!("failed to verify flags: {refusal}");
            return ExitCode::FAILURE;
        }
    };
    if let Err(error) = zap_log::init(&options.logging) {
        eprintln!("failed to set up logging: {error:#}");
        return ExitCode::FAILURE;
    }
    for notice in notices {
        match notice {
            Notice::VariableUsed(name, value) => {
                tracing::info!(
                    variable_name = name,
                    variable_value = value,
                    "recognized and used environment variable"
                );
            }
            Notice::VariableUnknown(variable) => {
                tracing::warn!(environment_variable = variable, "unrecognized environment variable");
            }
            Notice::FileRead(path) => tracing::info!(
                path = %path.display(),
                "loaded server configuration, other configuration command line flags and environment variables will be ignored if provided"
            ),
            Notice::KeyUnknown(key) => tracing::warn!(key, "unrecognized key in the configuration file"),
        }
    }
    if let Err(error) = options.verify() {
        tracing::warn!(error, "failed to verify flags");
        return ExitCode::FAILURE;
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start the async runtime");
            return ExitCode::FAILURE;
        }
    };
    let result =
        runtime.block_on(async { etcd_lite::run::run(options, component_base::shutdown::install()).await });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "failed to start etcd");
            ExitCode::FAILURE
        }
    }
}
