//! The history of a cluster's store, watched from its first revision on and judged by `history-oracle` while a test runs.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use coracle_proto::etcdserverpb::kv_client::KvClient;
use coracle_proto::etcdserverpb::watch_client::WatchClient;
use coracle_proto::etcdserverpb::watch_request::RequestUnion;
use coracle_proto::etcdserverpb::{RangeRequest, WatchCreateRequest, WatchRequest};
use coracle_proto::mvccpb::event::EventType;
use history_oracle::{Change, Key, Oracle};
use tokio_stream::StreamExt;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

/// How long to wait at the end for what is still on its way.
const END_MAX: Duration = Duration::from_secs(5);
/// Between attempts to reach a store.
const RETRY: Duration = Duration::from_millis(200);
const CALL_MAX: Duration = Duration::from_secs(2);
/// What nothing is judged by, and there is a lot of it.
const IGNORED: [&str; 3] = ["leases", "events", "masterleases"];

struct Seen {
    oracle: Oracle,
    revision: i64,
}

/// A history being watched.
pub struct History {
    stores: Vec<Endpoint>,
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl History {
    /// Watches the stores at these URLs with the certificates of the cluster in `data`.
    ///
    /// # Panics
    /// There are no certificates there.
    pub fn watch(data: &Path, stores: &[String]) -> Self {
        component_base::tls::install_provider();
        let read = |file: &str| std::fs::read_to_string(data.join("pki").join(file)).expect("a certificate");
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read("etcd/ca.crt"))).identity(
            Identity::from_pem(read("apiserver-etcd-client.crt"), read("apiserver-etcd-client.key")),
        );
        let endpoint = |store: &String| {
            let endpoint = Endpoint::from_shared(store.clone()).and_then(|to| to.tls_config(tls.clone()));
            endpoint.expect("a URL").connect_timeout(CALL_MAX)
        };
        let stores: Vec<Endpoint> = stores.iter().map(endpoint).collect();
        let seen = Arc::new(Mutex::new(Seen { oracle: Oracle::default(), revision: 0 }));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (stores, seen, stop) = (stores.clone(), Arc::clone(&seen), Arc::clone(&stop));
            move || runtime().block_on(follow(&stores, &seen, &stop))
        });
        Self { stores, seen, stop, thread: Some(thread) }
    }

    /// Ends the watch when all that the store has was judged: how many changes were.
    ///
    /// # Errors
    /// What is wrong: broken promises, or a history that could not be followed to its end.
    pub fn finish(mut self) -> Result<usize, String> {
        let newest = runtime().block_on(newest(&self.stores)).ok_or("no store tells its revision")?;
        let deadline = Instant::now() + END_MAX;
        while self.seen().revision < newest && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.end();
        let seen = self.seen();
        let (judged, changes) = (seen.revision, seen.oracle.changes());
        if judged < newest || changes == 0 {
            return Err(format!("{changes} changes were judged, up to revision {judged} of {newest}"));
        }
        let violations: Vec<String> = seen.oracle.violations().iter().map(ToString::to_string).collect();
        if violations.is_empty() {
            return Ok(changes);
        }
        Err(format!("{changes} changes break promises:\n{}", violations.join("\n")))
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there was told already.
            let _ = thread.join();
        }
    }
}

impl Drop for History {
    fn drop(&mut self) {
        self.end();
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// The store's revision, if any member tells.
async fn newest(stores: &[Endpoint]) -> Option<i64> {
    for store in stores {
        let asked = async {
            let mut client = KvClient::new(store.connect().await.ok()?);
            let request =
                RangeRequest { key: b"/registry".to_vec().into(), limit: 1, ..RangeRequest::default() };
            Some(client.range(request).await.ok()?.into_inner().header?.revision)
        };
        if let Ok(Some(revision)) = tokio::time::timeout(CALL_MAX, asked).await {
            return Some(revision);
        }
    }
    None
}

/// Watches at one member after the other, going on where the last one ended.
async fn follow(stores: &[Endpoint], seen: &Mutex<Seen>, stop: &AtomicBool) {
    let began = Instant::now();
    for store in stores.iter().cycle() {
        let watching = async {
            if let Ok(Ok(channel)) = tokio::time::timeout(CALL_MAX, store.connect()).await {
                // However it ends, another member goes on.
                let _ = read(channel, seen, began).await;
            }
        };
        let stopped = async {
            while !stop.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            () = watching => {}
            () = stopped => return,
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn read(channel: Channel, seen: &Mutex<Seen>, began: Instant) -> Result<(), tonic::Status> {
    let next = seen.lock().unwrap_or_else(PoisonError::into_inner).revision + 1;
    // All keys, so that there is an event for every revision.
    let everything = WatchCreateRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        start_revision: next,
        ..WatchCreateRequest::default()
    };
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(everything)) };
    let requests = tokio_stream::once(request).chain(tokio_stream::pending());
    let mut client = WatchClient::new(channel).max_decoding_message_size(usize::MAX);
    let mut responses = client.watch(requests).await?.into_inner();
    while let Some(response) = responses.message().await? {
        if response.canceled {
            return Err(tonic::Status::cancelled(response.cancel_reason));
        }
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        for event in &response.events {
            let Some(kv) = &event.kv else { continue };
            seen.revision = kv.mod_revision;
            let key = std::str::from_utf8(&kv.key).ok().and_then(Key::parse);
            let Some(key) = key.filter(|key| !IGNORED.contains(&key.resource.as_str())) else { continue };
            let removed = event.r#type() == EventType::Delete;
            let object = if removed { None } else { serde_json::from_slice(&kv.value).ok() };
            if object.is_some() || removed {
                let revision = u64::try_from(kv.mod_revision).unwrap_or(0);
                seen.oracle.take(&Change { revision, at: began.elapsed(), key, object });
            }
        }
    }
    Ok(())
}
