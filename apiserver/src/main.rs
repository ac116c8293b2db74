//! Parses the flags and runs the server until it is told to stop.

use apiserver::options::{NOT_IMPLEMENTED, Options};

/// A request's objects are hundreds of small allocations of few sizes, on every thread.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    let options: Options = component_base::flags::parse(NOT_IMPLEMENTED);
    component_base::logging::init(&options.log, "apiserver");
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("Error: cannot start the runtime: {error}");
            return std::process::ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        let stop = component_base::shutdown::install();
        apiserver::run::run(options, stop).await
    });
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(errors) => {
            for error in errors {
                eprintln!("Error: {error}");
            }
            std::process::ExitCode::FAILURE
        }
    }
}
