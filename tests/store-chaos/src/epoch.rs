//! One epoch: load and faults, then rest; what was recorded is judged, the members are compared.
//!
//! Epochs keep memory bounded. Each begins with what the store held when the one before it ended, and with the operations that may still happen.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use coracle_proto::etcdserverpb as pb;
use store_checker::{
    History, Operation, Outcome, Request, Response, Rule, Start, Summary, Time, Violation, check_part,
};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::calls::{Methods, call, connect, outcome_of_error};
use crate::clients::{Load, nobody_knows};
use crate::cluster::{Cluster, until_works};
use crate::faults::Done;
use crate::plan::Fault;
use crate::plant::Plant;
use crate::shared::Shared;
use crate::watchers::{Looker, scribe};

/// Clients that watch.
const WATCHERS: u64 = 6;
/// Numbers of clients of an epoch begin at a multiple of this.
const NUMBERS: u64 = 1_000;
/// Differences between the times of the harness and of members, in milliseconds: reading the clock, rounding.
const TOLERANCE_MS: Time = 10;
/// How long the harness' own client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Without that many acknowledged writes an epoch shows nothing.
const WRITES_MIN: usize = 250;

/// What goes on from epoch to epoch.
pub struct Run {
    seed: u64,
    clients: u64,
    is_verbose: bool,
    origin: Instant,
    methods: Arc<Methods>,
    epoch: u64,
    start: Start,
    /// Operations of the epoch before that may still happen, and what was asked between the epochs.
    carried: Vec<Operation>,
}

/// What an epoch showed.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// What was judged.
    pub summary: Summary,
    /// Operations whose outcome nobody knows, without those of the epoch before.
    pub unknown: usize,
    /// Operations that were answered a second, while there were faults.
    pub rate: f64,
    /// The longest time without an acknowledged write, in milliseconds, while there were faults.
    pub longest_gap_ms: Time,
    /// The revision at the end.
    pub revision: i64,
    /// The hash of all members there.
    pub hash: u32,
    /// Seconds that judging took.
    pub check_seconds: f64,
}

impl Run {
    /// Begins with a cluster that has just started.
    ///
    /// # Errors
    /// Never in practice.
    pub fn new(seed: u64, clients: u64, is_verbose: bool) -> anyhow::Result<Self> {
        let methods = Arc::new(Methods::new()?);
        let (start, carried) = (Start::default(), Vec::new());
        Ok(Self { seed, clients, is_verbose, origin: Instant::now(), methods, epoch: 0, start, carried })
    }

    /// Runs an epoch. What was recorded is in `history`, also when a rule was broken.
    ///
    /// # Errors
    /// A [`Violation`], or what the system said.
    pub async fn epoch(
        &mut self,
        cluster: &mut Cluster,
        faults: &[Fault],
        plant: Option<Plant>,
        done: &mut Done,
        history: &mut History,
    ) -> anyhow::Result<Seen> {
        *history = History {
            start: std::mem::take(&mut self.start),
            operations: std::mem::take(&mut self.carried),
            lease_tolerance_ms: TOLERANCE_MS,
            ..History::default()
        };
        let carried = history.operations.len();
        let shared = Arc::new(Shared::new(self.origin, history.start.revision));
        let begun = shared.now();

        let (mut clients, mut watchers) = (JoinSet::new(), JoinSet::new());
        let first = self.epoch * NUMBERS + 1;
        for number in first..first + self.clients {
            let client = Load::new(self.seed, number, Arc::clone(&self.methods), Arc::clone(&shared));
            clients.spawn(client.run());
        }
        for number in first + self.clients..first + self.clients + WATCHERS {
            let watcher = Looker::new(self.seed, number, Arc::clone(&self.methods), Arc::clone(&shared));
            watchers.spawn(watcher.run());
        }
        let scribe = tokio::spawn(scribe(Arc::clone(&self.methods), Arc::clone(&shared)));
        self.epoch += 1;

        let went = match plant {
            None => crate::faults::run(cluster, faults, done, &shared, self.is_verbose).await,
            Some(plant) => plant.run(cluster).await,
        };
        let ended = shared.now();
        shared.stop();
        let healed = cluster.heal();
        while let Some(operations) = clients.join_next().await {
            history.operations.extend(operations.context("a client")?);
        }
        went?;
        healed?;
        self.tell("clients have stopped");
        cluster.serving().await?;

        let mut keeper = Keeper { methods: &self.methods, shared: &shared, operations: Vec::new() };
        let last_watched = keeper.end_leases_and_write(self.epoch).await?;
        self.tell("leases have ended");
        shared.end_watching_at(last_watched);
        while let Some(watches) = watchers.join_next().await {
            history.watches.extend(watches.context("a watcher")??);
        }
        self.tell("watchers have all");
        let end = keeper.everything().await?;
        history.operations.append(&mut keeper.operations);
        shared.end_writing_down_at(end.revision);
        history.events = scribe.await.context("the scribe")??;
        history.events.retain(|event| event.kv.mod_revision <= end.revision);
        keeper.compact(end.revision).await?;
        self.carried = keeper.operations;

        self.tell("the scribe has all");
        let agreed = cluster.agree(end.revision).await?;
        cluster.members_as_expected().await?;
        cluster.check_running()?;

        self.tell("the members have the same");
        let judging = Instant::now();
        let (summary, pending) = check_part(history)?;
        let check_seconds = judging.elapsed().as_secs_f64();
        // Those of the epoch before have had time enough: all members were up and had nothing waiting.
        let own = pending.iter().filter(|number| **number >= carried);
        self.carried.extend(own.map(|number| history.operations[*number].clone()));

        let of_epoch = &history.operations[carried..];
        let writes = acknowledged_writes(of_epoch, begun, ended);
        if writes.len() < WRITES_MIN {
            let what =
                format!("no more than {} writes were acknowledged in {} ms", writes.len(), ended - begun);
            bail!(Violation::new(Rule::Recovers, what));
        }
        let is_open = |operation: &&Operation| operation.outcome == Outcome::Unknown;
        let answered =
            of_epoch.iter().filter(|op| matches!(op.outcome, Outcome::Answered(_)) && op.completed <= ended);
        let seen = Seen {
            summary,
            unknown: of_epoch.iter().filter(is_open).count(),
            rate: answered.count() as f64 * 1_000.0 / (ended - begun).max(1) as f64,
            longest_gap_ms: longest_gap(&writes, begun, ended),
            revision: end.revision,
            hash: agreed.hash,
            check_seconds,
        };
        self.start = end;
        Ok(seen)
    }

    fn tell(&self, what: &str) {
        if self.is_verbose {
            eprintln!("{:>8} ms: {what}", self.origin.elapsed().as_millis());
        }
    }
}

/// When writes were acknowledged, in order of time.
fn acknowledged_writes(operations: &[Operation], begun: Time, ended: Time) -> Vec<Time> {
    let is_write = |operation: &&Operation| match &operation.outcome {
        Outcome::Answered(Response::Put(_)) => true,
        Outcome::Answered(Response::DeleteRange(deleted)) => deleted.deleted > 0,
        _ => false,
    };
    let times = operations.iter().filter(is_write).map(|operation| operation.completed);
    let mut times: Vec<Time> = times.filter(|at| (begun..=ended).contains(at)).collect();
    times.sort_unstable();
    times
}

fn longest_gap(times: &[Time], begun: Time, ended: Time) -> Time {
    let all = std::iter::once(begun).chain(times.iter().copied()).chain([ended]);
    let all: Vec<Time> = all.collect();
    all.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
}

/// The harness' own client, at work while nothing else is.
struct Keeper<'a> {
    methods: &'a Methods,
    shared: &'a Shared,
    operations: Vec<Operation>,
}

impl Keeper<'_> {
    /// Asks until there is an answer or a refusal. Each attempt is recorded.
    async fn ask(&mut self, request: Request) -> anyhow::Result<Outcome> {
        until_works("the store does what it is asked", async || {
            let connection = connect(0).await?;
            let invoked = self.shared.now();
            let answer = timeout(PATIENCE, self.methods.send(&connection, &request)).await;
            let outcome = match &answer {
                Ok(Ok(response)) => Outcome::Answered(response.clone()),
                Ok(Err(error)) => outcome_of_error(&request, error),
                Err(_) => nobody_knows(&request),
            };
            let (completed, request) = (self.shared.now(), request.clone());
            self.operations.push(Operation {
                client: 0,
                member: 1,
                invoked,
                completed,
                request,
                outcome: outcome.clone(),
            });
            match outcome {
                Outcome::Answered(_) | Outcome::Refused(_) => Ok(outcome),
                Outcome::Failed | Outcome::Unknown => bail!("{answer:?}"),
            }
        })
        .await
    }

    /// Revokes all leases, so that none goes on in the next epoch, and writes; the revision of that.
    async fn end_leases_and_write(&mut self, epoch: u64) -> anyhow::Result<i64> {
        let leases = until_works("leases are listed", async || {
            call::<pb::LeaseLeasesResponse>(0, "Lease/LeaseLeases", &pb::LeaseLeasesRequest::default()).await
        })
        .await?;
        for lease in leases.leases {
            // It may have run out by now.
            self.ask(Request::LeaseRevoke(pb::LeaseRevokeRequest { id: lease.id })).await?;
        }
        let value = format!("end of epoch {epoch}").into();
        let put = pb::PutRequest { key: "end".into(), value, ..Default::default() };
        match self.ask(Request::Put(put)).await? {
            Outcome::Answered(response) => Ok(response.revision()),
            other => bail!(Violation::new(Rule::Recovers, format!("a put at rest is refused: {other:?}"))),
        }
    }

    /// All that the store holds now.
    async fn everything(&mut self) -> anyhow::Result<Start> {
        let (key, range_end) = (bytes::Bytes::from_static(&[0]), bytes::Bytes::from_static(&[0]));
        let range = pb::RangeRequest { key, range_end, ..Default::default() };
        let Outcome::Answered(Response::Range(range)) = self.ask(Request::Range(range)).await? else {
            bail!(Violation::new(Rule::Recovers, "a read of everything at rest is refused"));
        };
        let revision = range.header.context("a header")?.revision;
        if let Some(kv) = range.kvs.iter().find(|kv| kv.lease != 0) {
            let what = format!("{:?} is there although all leases have ended: {kv:?}", kv.key);
            bail!(Violation::new(Rule::LeasesLast, what).at(revision));
        }
        Ok(Start { revision, kvs: range.kvs })
    }

    /// Compacts everything before a revision.
    async fn compact(&mut self, revision: i64) -> anyhow::Result<()> {
        self.ask(Request::Compact(pb::CompactionRequest { revision, physical: true })).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gap_counts_from_the_beginning_to_the_end() {
        assert_eq!(longest_gap(&[20, 25, 60], 10, 100), 40);
        assert_eq!(longest_gap(&[50], 10, 60), 40);
        assert_eq!(longest_gap(&[], 10, 60), 50);
    }
}
