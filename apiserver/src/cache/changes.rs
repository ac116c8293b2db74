//! The rhythm of what keeps something in step with the cache: look at everything, then wait for a change. What is looked at, and what follows, belongs
//! to the callers.

use std::time::Duration;

use futures::future::select_all;
use tokio_util::sync::CancellationToken;

use super::resource::Subscription;

/// Waits for a change that one of `changes` hears of, for `at_most` if that is given, and then lets `pause` pass, so that changes that come together are
/// looked at together. Whether to go on: false when `stop` has fired.
pub async fn next(
    changes: &[&Subscription],
    at_most: Option<Duration>,
    pause: Duration,
    stop: &CancellationToken,
) -> bool {
    let patience = async {
        match at_most {
            Some(time) => tokio::time::sleep(time).await,
            None => std::future::pending().await,
        }
    };
    let waited = async {
        tokio::select! {
            _ = select_all(changes.iter().map(|change| Box::pin(change.woken()))) => {}
            () = patience => {}
        }
        tokio::time::sleep(pause).await;
    };
    tokio::select! {
        () = stop.cancelled() => false,
        () = waited => true,
    }
}
