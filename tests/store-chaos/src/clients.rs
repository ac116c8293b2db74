//! A client: one operation after the other, as fast as they are answered, at one member until that fails; each recorded with its times.

use std::sync::Arc;
use std::time::Duration;

use coracle_bench::grpc::Connection;
use coracle_proto::etcdserverpb as pb;
use store_checker::{Operation, Outcome, Request};
use store_clients::random::{Random, Stream};
use store_clients::{Client, Keys};
use tokio::time::timeout;

use crate::calls::{Methods, connect, may_change, outcome_of_error};
use crate::cluster::SIZE;
use crate::shared::Shared;

/// Keys that clients use.
pub const KEYS: Keys = Keys { hot: 10, cold: 3_000 };
/// Before a client that was sent away tries elsewhere.
const BACK_OFF: Duration = Duration::from_millis(20);
/// Milliseconds that a client waits for an answer, from and to.
const PATIENCE_MS: (u64, u64) = (1_500, 4_000);
/// Of so many compactions that come up one is asked for.
const COMPACTION_ONE_IN: u64 = 150;
/// What is added to a value while large writes are wanted: some dozens of them use up the room that a member's log has ahead.
const LARGE_BYTES: usize = 32 << 10;
/// Answers after which a client goes to another member without need, on average.
const ROAMING_ONE_IN: u64 = 300;

/// One client in one epoch.
pub struct Load {
    client: Client,
    number: u64,
    random: Random,
    methods: Arc<Methods>,
    shared: Arc<Shared>,
    member: usize,
    connection: Option<Connection>,
    /// The highest revision seen.
    revision: i64,
    operations: Vec<Operation>,
}

impl Load {
    /// A client; `number` must be another for each of a run.
    pub fn new(seed: u64, number: u64, methods: Arc<Methods>, shared: Arc<Shared>) -> Self {
        let client = Client::new(number, Random::new(seed, Stream::Client, number), KEYS, u64::MAX);
        let member = number as usize % SIZE;
        let random = Random::new(seed, Stream::Schedule, number);
        let revision = shared.start;
        Self {
            client,
            number,
            random,
            methods,
            shared,
            member,
            connection: None,
            revision,
            operations: Vec::new(),
        }
    }

    /// Asks until told to stop; what it asked and got.
    pub async fn run(mut self) -> Vec<Operation> {
        while !self.shared.has_stopped() {
            let request = self.next_request();
            let invoked = self.shared.now();
            let patience = Duration::from_millis(self.random.between(PATIENCE_MS.0, PATIENCE_MS.1));
            let outcome = match self.connected().await {
                false => Outcome::Failed,
                true => {
                    timeout(patience, self.ask(&request)).await.unwrap_or_else(|_| nobody_knows(&request))
                }
            };
            let completed = self.shared.now();
            let is_lost = matches!(outcome, Outcome::Unknown | Outcome::Failed);
            if let Outcome::Answered(response) = &outcome {
                self.revision = self.revision.max(response.revision());
                self.client.answered(response);
            }
            // A read that failed says nothing.
            if outcome != Outcome::Failed || may_change(&request) {
                let (client, member) = (self.number, self.member as u64 + 1);
                self.operations.push(Operation { client, member, invoked, completed, request, outcome });
            }
            if is_lost || self.random.one_in(ROAMING_ONE_IN) {
                self.connection = None;
                self.member = (self.member + 1) % SIZE;
            }
            if is_lost {
                tokio::time::sleep(BACK_OFF).await;
            }
        }
        self.operations
    }

    async fn connected(&mut self) -> bool {
        if self.connection.is_none() {
            self.connection = connect(self.member).await.ok();
        }
        self.connection.is_some()
    }

    async fn ask(&self, request: &Request) -> Outcome {
        let Some(connection) = &self.connection else { return Outcome::Failed };
        match self.methods.send(connection, request).await {
            Ok(response) => Outcome::Answered(response),
            Err(error) => outcome_of_error(request, &error),
        }
    }

    /// The next request, within what this epoch's history can judge: nothing of before it, and no compaction of what is not written down yet.
    fn next_request(&mut self) -> Request {
        loop {
            match self.client.next_request() {
                Request::Compact(compact) => {
                    let last = self.shared.written_down();
                    if last > self.shared.start && self.random.one_in(COMPACTION_ONE_IN) {
                        let revision = self.random.between(self.shared.start as u64 + 1, last as u64) as i64;
                        return Request::Compact(pb::CompactionRequest { revision, ..compact });
                    }
                }
                Request::Range(range) if range.revision != 0 => {
                    let newest = self.revision as u64 + 2;
                    let revision = self.random.between(self.shared.start as u64, newest) as i64;
                    return Request::Range(pb::RangeRequest { revision, ..range });
                }
                Request::Put(put) if self.shared.wants_large_writes() && !put.ignore_value => {
                    let value = [put.value.as_ref(), &[b'x'; LARGE_BYTES]].concat().into();
                    return Request::Put(pb::PutRequest { value, ..put });
                }
                request => return request,
            }
        }
    }
}

/// Of a request that got no answer in time.
pub fn nobody_knows(request: &Request) -> Outcome {
    if may_change(request) { Outcome::Unknown } else { Outcome::Failed }
}
