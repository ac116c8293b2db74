//! Reads of the whole store on behalf of a client: checksums. They go step by step, so that nobody waits for the store's lock, on a thread
//! of their own, so that no other request waits for the computing; and only a few at a time.

use std::sync::Arc;

use etcd_lite_core::hash::{HashScope, KvHasher};
use etcd_lite_core::walk::{StateCopy, Walk};
use etcd_lite_core::{Store, StoreError};
use parking_lot::RwLock;
use tokio::sync::Semaphore;
use tonic::Status;

use super::{Context, status};
use crate::member::Member;

/// Whole-store reads of this process that may run at a time: each takes memory in proportion to the number of keys.
static RUNNING: Semaphore = Semaphore::const_new(2);
/// After so many compactions in the middle of a read it holds the lock for the whole of it.
const ATTEMPTS_IN_STEPS: usize = 3;

/// Runs a whole-store read on a thread where it may take its time.
///
/// # Errors
/// As the read; or the process is ending.
pub(crate) async fn run<M: Member, T: Send + 'static>(
    context: Arc<Context<M>>,
    read: impl FnOnce(&Context<M>) -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    let permit = RUNNING.acquire().await.map_err(|_| Status::unavailable("etcdserver: server stopped"))?;
    tokio::task::spawn_blocking(move || {
        let result = read(&context);
        drop(permit);
        result
    })
    .await
    .map_err(|error| Status::internal(format!("etcdserver: reading the store failed: {error}")))?
}

/// etcd's checksum of the key space at a revision (0: the current one), with what it covers.
///
/// # Errors
/// The revision is compacted or in the future.
pub(crate) fn hash_kv(store: &RwLock<Store>, revision: i64) -> Result<(u32, HashScope), Status> {
    for _ in 0..ATTEMPTS_IN_STEPS {
        let scope = store.read().hash_scope(revision).map_err(status::of_store)?;
        let (mut hasher, mut walk) = (KvHasher::new(scope), Walk::Start);
        loop {
            // In a statement of its own: in the head of the `match` the lock would be held for its arms too, and so for the computing.
            let added = hasher.add(&store.read(), &mut walk);
            match added {
                Ok(()) if walk == Walk::Done => return Ok((hasher.finish(), scope)),
                Ok(()) => {}
                Err(StoreError::Compacted) => break,
                Err(error) => return Err(status::of_store(error)),
            }
        }
    }
    let (hasher, scope) = {
        let store = store.read();
        let scope = store.hash_scope(revision).map_err(status::of_store)?;
        let (mut hasher, mut walk) = (KvHasher::new(scope), Walk::Start);
        while walk != Walk::Done {
            hasher.add(&store, &mut walk).map_err(status::of_store)?;
        }
        (hasher, scope)
    };
    Ok((hasher.finish(), scope))
}

/// The whole state at one log index.
pub(crate) fn copy(store: &RwLock<Store>) -> StateCopy {
    for _ in 0..ATTEMPTS_IN_STEPS {
        let mut copy = StateCopy::begin(&store.read());
        let mut walk = Walk::Start;
        while copy.add(&store.read(), &mut walk).is_ok() {
            if walk == Walk::Done {
                return copy;
            }
        }
    }
    let store = store.read();
    let mut copy = StateCopy::begin(&store);
    let mut walk = Walk::Start;
    // Nothing can be compacted while the lock is held.
    while walk != Walk::Done && copy.add(&store, &mut walk).is_ok() {}
    copy
}
