//! The store: parses flags, runs a member until it is told to stop; or one of the tools, if the first argument names one.

use std::process::ExitCode;

use component_base::flags::{self, LogFlags, LogFormat};
use etcd_lite::options::{LogLevel, NOT_IMPLEMENTED, Options};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    if let Some(code) = etcd_lite::tools::run_if_named(&arguments) {
        return code;
    }
    let options: Options = flags::parse(NOT_IMPLEMENTED);
    let verbosity = match options.logging.log_level {
        LogLevel::Debug => 4,
        LogLevel::Info => 2,
        LogLevel::Warn | LogLevel::Error | LogLevel::Panic | LogLevel::Fatal => 1,
    };
    let format = if options.logging.log_format == "json" { LogFormat::Json } else { LogFormat::Text };
    component_base::logging::init(&LogFlags { verbosity, format }, "etcd-lite");
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("Error: cannot start the async runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result =
        runtime.block_on(async { etcd_lite::run::run(options, component_base::shutdown::install()).await });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
