//! One token that every task of a process watches.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Returns a token that is cancelled on SIGTERM or SIGINT; a second signal ends the process at once with status 1.
///
/// # Panics
/// If called outside a tokio runtime, or when the process may not install signal handlers.
pub fn install() -> CancellationToken {
    let token = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).expect("install the SIGTERM handler");
    let mut interrupt = signal(SignalKind::interrupt()).expect("install the SIGINT handler");
    let fired = token.clone();
    tokio::spawn(async move {
        for first in [true, false] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if first {
                tracing::info!("shutting down; a second signal ends the process at once");
                fired.cancel();
            } else {
                std::process::exit(1);
            }
        }
    });
    token
}
