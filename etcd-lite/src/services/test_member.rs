//! A member alone in its cluster, with no log: proposals are applied at once. For tests of the services only.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use etcd_lite_core::{Command, Request, Response, Store};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{broadcast, watch};

use crate::lease_keeper::LeaseKeeper;
use crate::member::{Feed, LeaseTimeToLive, Member, MemberInfo, MemberStatus, ProposeError, Proposed};
use crate::tokens::Tokens;
use crate::tokens::options::AuthOptions;

pub(crate) struct TestMember {
    store: RwLock<Store>,
    /// Keeps apply and feed in one order.
    applying: Mutex<u64>,
    feed: broadcast::Sender<Feed>,
    leader: watch::Sender<u64>,
    pub(crate) leases: Arc<LeaseKeeper>,
    next_id: AtomicU64,
    tokens: Tokens,
}

impl TestMember {
    /// `feed_capacity` of 1 makes the feed lag all the time.
    pub(crate) fn new(feed_capacity: usize) -> Arc<Self> {
        let leases = Arc::new(LeaseKeeper::new());
        leases.lead(1, &Store::new(), std::time::Duration::ZERO);
        Arc::new(Self {
            store: RwLock::new(Store::new()),
            applying: Mutex::new(0),
            feed: broadcast::channel(feed_capacity).0,
            leader: watch::channel(1).0,
            leases,
            next_id: AtomicU64::new(1),
            tokens: Tokens::new(&AuthOptions { bcrypt_cost: 4, ..AuthOptions::default() }, true)
                .expect("simple tokens"),
        })
    }

    pub(crate) fn set_leader(&self, id: u64) {
        self.leader.send_replace(id);
    }

    pub(crate) fn apply(&self, request: Request) -> Result<Proposed, ProposeError> {
        let mut index = self.applying.lock();
        *index += 1;
        let applied = self.store.write().apply(*index, 1, &Command { id: *index, request: Some(request) });
        self.leases.applied(&applied.leases);
        self.tokens.applied(applied.index, &applied.auth);
        if !applied.events.is_empty() {
            // Nobody listening is fine.
            let _ = self.feed.send(Feed::Applied { revision: applied.revision, events: applied.events });
        }
        Ok(Proposed { response: applied.response? })
    }

    /// As after a snapshot from the leader: the same state in a new store, and whoever watches is told.
    pub(crate) fn replace_store(&self) {
        let _applying = self.applying.lock();
        let records: Vec<_> = self.store.read().records().map(|r| (r.key(), r.value().into())).collect();
        *self.store.write() = Store::load(records).expect("own records");
        let _ = self.feed.send(Feed::Replaced);
    }
}

impl Member for TestMember {
    async fn propose(&self, request: Request) -> Result<Proposed, ProposeError> {
        self.apply(request)
    }

    async fn change_members(&self, request: Request) -> Result<Vec<MemberInfo>, ProposeError> {
        match self.apply(request)?.response {
            Response::Members(members) => Ok(members.iter().map(MemberInfo::from).collect()),
            other => panic!("not an answer to a change of the members: {other:?}"),
        }
    }

    async fn move_leader(&self, _: u64) -> Result<(), ProposeError> {
        Err(ProposeError::BadLeaderTransferee)
    }

    async fn read_index(&self) -> Result<(), ProposeError> {
        if *self.leader.borrow() == 0 { Err(ProposeError::NoLeader) } else { Ok(()) }
    }

    async fn lease_keep_alive(&self, id: i64) -> Result<Option<i64>, ProposeError> {
        self.leases.keep_alive(id).map(|led| led.says).map_err(|_| ProposeError::NoLeader)
    }

    async fn lease_time_to_live(&self, id: i64) -> Result<Option<LeaseTimeToLive>, ProposeError> {
        self.leases.time_to_live(id).map(|led| led.says).map_err(|_| ProposeError::NoLeader)
    }

    async fn defragment(&self) -> Result<(), ProposeError> {
        Ok(())
    }

    fn store(&self) -> &RwLock<Store> {
        &self.store
    }

    fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    fn status(&self) -> MemberStatus {
        let index = self.store.read().applied_index();
        MemberStatus {
            cluster_id: 77,
            member_id: 1,
            leader: *self.leader.borrow(),
            term: 1,
            raft_index: index,
            applied_index: index,
            ..MemberStatus::default()
        }
    }

    fn members(&self) -> Vec<MemberInfo> {
        vec![MemberInfo { id: 1, name: "only".into(), ..MemberInfo::default() }]
    }

    fn feed(&self) -> broadcast::Receiver<Feed> {
        self.feed.subscribe()
    }

    fn leader(&self) -> watch::Receiver<u64> {
        self.leader.subscribe()
    }

    fn unique_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    fn lease_ttl_seconds_min(&self) -> i64 {
        2
    }
}
