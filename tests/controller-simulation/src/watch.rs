//! One watch: the history of a resource as a stream of lines, late, with standstills, with events that come twice, until it breaks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::faults::Faults;
use crate::random::Random;
use crate::server::Server;

/// How long a watch goes on when nothing happens to it.
const LASTS: Duration = Duration::from_secs(60);
/// What is sent when the past that was asked for is gone: the client has to list.
const GONE: &[u8] = b"{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{},\"status\":\"Failure\",\"message\":\"too old resource version\",\"reason\":\"Expired\",\"code\":410}}\n";

/// A watch in progress.
pub struct Watch {
    /// What is watched.
    pub resource: String,
    /// Up to which revision the client knows.
    pub revision: u64,
    /// The server.
    pub server: Server,
    /// What goes wrong.
    pub faults: Arc<Faults>,
    /// Whether the client's process lives.
    pub alive: Arc<AtomicBool>,
    /// What decides.
    pub random: Random,
    news: watch::Receiver<u64>,
    stands_still_until: Instant,
    ends: Instant,
    ready: VecDeque<Bytes>,
    is_over: bool,
}

impl Watch {
    /// Begins after a revision.
    pub fn new(
        resource: String,
        revision: u64,
        server: Server,
        faults: Arc<Faults>,
        alive: Arc<AtomicBool>,
        random: Random,
    ) -> Self {
        let (news, now) = (server.news(), Instant::now());
        Self {
            resource,
            revision,
            server,
            faults,
            alive,
            random,
            news,
            stands_still_until: now,
            ends: now + LASTS,
            ready: VecDeque::new(),
            is_over: false,
        }
    }

    /// The lines.
    pub fn lines(self) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send {
        futures::stream::unfold(self, |mut watch| async move {
            let line = watch.next().await?;
            Some((Ok(line), watch))
        })
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(line);
            }
            if self.is_over {
                return None;
            }
            self.news.borrow_and_update();
            let Some(logged) = self.server.after(&self.resource, self.revision) else {
                // An error would mean that the server is gone.
                let changed = tokio::time::timeout_at(self.ends, self.news.changed()).await;
                self.is_over = !matches!(changed, Ok(Ok(())));
                continue;
            };
            let troubled = self.server.is_troubled();
            let lag = if troubled { self.faults.lag } else { Duration::from_millis(5) };
            let lag = self.random.millis(0..u64::try_from(lag.as_millis()).unwrap_or(0) + 1);
            let held = if troubled { self.stands_still_until } else { logged.at };
            tokio::time::sleep_until((logged.at + lag).max(held)).await;
            if !self.alive.load(Ordering::Relaxed) {
                return futures::future::pending().await;
            }
            self.revision = logged.revision;
            self.ready.push_back(logged.line.clone());
            if self.server.is_troubled() {
                self.trouble(&logged.line);
            }
        }
    }

    fn trouble(&mut self, line: &Bytes) {
        let aftermath = self.faults.after_event(&mut self.random);
        if aftermath.repeats {
            self.ready.push_back(line.clone());
        }
        if let Some(time) = aftermath.stands_still {
            self.stands_still_until = Instant::now() + time;
        }
        if aftermath.breaks {
            // Before or after the event has arrived.
            if self.random.percent(50) {
                self.ready.clear();
            }
            if self.random.percent(30) {
                self.ready.push_back(Bytes::from_static(GONE));
            }
            self.is_over = true;
        }
    }
}
