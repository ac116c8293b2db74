//! Accepting connections: so many at a time, each in a task of its own, until the end.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Before the next attempt when accepting failed.
const PAUSE: Duration = Duration::from_millis(100);

/// Gives each connection to `handle` until `stop` fires, which ends those that are open too. Beyond `max` they wait in the listener's backlog.
pub async fn serve<H, F>(listener: TcpListener, max: usize, stop: CancellationToken, handle: H)
where
    H: Fn(TcpStream) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(max));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            // Out of file descriptors or a connection reset while queued: not a reason to stop serving.
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (handled, stop) = (handle(stream), stop.clone());
        tokio::spawn(async move {
            let _place = place;
            tokio::select! {
                () = stop.cancelled() => {}
                () = handled => {}
            }
        });
    }
}
