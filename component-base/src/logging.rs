//! Tracing set-up common to all binaries: one line an event on stderr, or JSON.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::flags::{LogFlags, LogFormat};

/// Installs the subscriber. `-v` follows Kubernetes' scale: 0-1 warnings and above, 2-3 info, 4-5 debug, 6+ trace; `RUST_LOG`
/// overrides it.
pub fn init(flags: &LogFlags, component: &'static str) {
    let level = match flags.verbosity {
        i32::MIN..=1 => "warn",
        2..=3 => "info",
        4..=5 => "debug",
        _ => "trace",
    };
    // Libraries stay quiet unless asked for by name: their debug output hides the component's own, and a refused connection
    // is reported by whoever made the request.
    let ours = component.replace('-', "_");
    let default = if flags.verbosity >= 8 {
        level.to_owned()
    } else {
        format!(
            "warn,kube_client::client::builder=off,{ours}={level},{ours}_core={level},component_base={level},coracle_client={level}"
        )
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_span_events(FmtSpan::NONE)
        .with_ansi(std::io::stderr().is_terminal());
    // A second call (tests) keeps the first subscriber.
    let _ = match flags.format {
        LogFormat::Json => builder.json().try_init(),
        LogFormat::Text => builder.try_init(),
    };
    tracing::info!(target: "component_base", component, version = env!("CARGO_PKG_VERSION"), "starting");
}
