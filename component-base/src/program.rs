//! The outermost frame of a program: a runtime, the work, and an exit code that says how it ended.

use std::fmt::Display;
use std::process::ExitCode;
use std::time::Duration;

use tokio::runtime::Builder;

/// How long blocking calls that are still under way when the work has ended are waited for.
const END_MAX: Duration = Duration::from_secs(1);

/// How many threads run the work; blocking calls have their own.
#[derive(Clone, Copy, Debug)]
pub enum Threads {
    /// One for each core.
    EachCore,
    /// So many.
    Only(usize),
}

/// Runs `work` to its end; an error is told on standard error, with its causes.
pub fn run<E: Display>(threads: Threads, work: impl Future<Output = Result<(), E>>) -> ExitCode {
    let mut builder = Builder::new_multi_thread();
    if let Threads::Only(count) = threads {
        builder.worker_threads(count);
    }
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("Error: cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(work);
    runtime.shutdown_timeout(END_MAX);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
