//! One run: the operations of some numbers to both stores, one after the other, until they differ.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use coracle_proto::etcdserverpb as pb;
use coracle_proto::etcdserverpb::watch_request::RequestUnion;
use prost::bytes::Bytes;

use super::chronicle::Chronicle;
use super::normal::{self, Answer, Reply};
use super::operation::{Operation, STREAMS, World};
use super::server::ComparedServer;
use super::versions;
use super::watches::{Entry, Log};
use crate::store::Program;

/// Characters of a request or an answer that are shown.
const SHOWN_MAX: usize = 20_000;
/// How long etcd may take to remove what a compaction left over.
const COMPACTION_DEADLINE: Duration = Duration::from_secs(5);
const COMPACTION_POLL: Duration = Duration::from_millis(20);
/// The stream that tells everything, and its one watch.
const CHRONICLER: usize = STREAMS;
const CHRONICLER_ID: i64 = 0;
/// The watch on that stream that shows that others have caught up.
const CAUGHT_UP_ID: i64 = 1;

/// Where the stores differ.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The number of the operation that showed it.
    pub number: u64,
    /// What was asked, and what of it differs.
    pub operation: String,
    /// etcd's answer.
    pub theirs: String,
    /// etcd-lite's.
    pub ours: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, operation, theirs, ours } = self;
        write!(f, "operation {number}: {operation}\n--- etcd\n{theirs}\n--- etcd-lite\n{ours}")
    }
}

/// What a run without difference has compared.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// By kind of operation: how many were answered, and how many refused.
    pub operations: BTreeMap<&'static str, (u64, u64)>,
    /// Events of watches.
    pub events: u64,
    /// Watches that ended for a compaction.
    pub ended_watches: u64,
    /// Known differences of versions, with how often they showed.
    pub known: BTreeMap<&'static str, u64>,
}

/// Runs the operations of these numbers against new servers.
///
/// # Errors
/// The first difference.
pub async fn run(seed: u64, numbers: &[u64], reference: Program) -> Result<Summary, Box<Difference>> {
    let (theirs, ours) =
        tokio::join!(ComparedServer::start(reference), ComparedServer::start(Program::EtcdLite));
    let mut run = Run {
        reference,
        theirs,
        ours,
        world: World { revision: 1, compacted: -1 },
        chronicle: Chronicle::default(),
        has_begun_in_past: false,
        summary: Summary::default(),
    };
    run.begin_chronicle().await.map_err(|found| Box::new(found.at(0)))?;
    for &number in numbers {
        let operation = Operation::generate(seed, number, run.world);
        run.step(&operation).await.map_err(|found| Box::new(found.at(number)))?;
    }
    let last = numbers.last().copied().unwrap_or(0);
    run.settle().await.map_err(|found| Box::new(found.at(last)))?;
    Ok(run.summary)
}

/// A difference before it has a number.
struct Found {
    operation: String,
    theirs: String,
    ours: String,
}

impl Found {
    fn new(operation: String, theirs: &impl fmt::Debug, ours: &impl fmt::Debug) -> Self {
        Self { operation, theirs: shown(theirs), ours: shown(ours) }
    }

    fn at(self, number: u64) -> Difference {
        let Self { operation, theirs, ours } = self;
        Difference { number, operation, theirs, ours }
    }
}

fn shown(value: &impl fmt::Debug) -> String {
    let mut text = format!("{value:#?}");
    if let Some((end, _)) = text.char_indices().nth(SHOWN_MAX) {
        text.truncate(end);
        text.push('…');
    }
    text
}

struct Run {
    reference: Program,
    theirs: ComparedServer,
    ours: ComparedServer,
    world: World,
    chronicle: Chronicle,
    /// Whether a watch was begun in the past since all were known to have caught up.
    has_begun_in_past: bool,
    summary: Summary,
}

impl Run {
    async fn begin_chronicle(&mut self) -> Result<(), Found> {
        let create = pb::WatchCreateRequest {
            key: Bytes::from_static(b"\0"),
            range_end: Bytes::from_static(b"\0"),
            start_revision: 1,
            prev_kv: true,
            ..Default::default()
        };
        let request = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        self.compare(&Operation::Watch { stream: CHRONICLER, request }).await.map(drop)
    }

    async fn step(&mut self, operation: &Operation) -> Result<(), Found> {
        // What is on its way to a watch may not arrive after these, or not as it was.
        let disturbs_watches = match operation {
            Operation::Compact(_) | Operation::Reopen { .. } => true,
            Operation::Watch { request, .. } => {
                matches!(request.request_union, Some(RequestUnion::CancelRequest(_)))
            }
            _ => false,
        };
        if matches!(operation, Operation::Compact(_)) && self.has_begun_in_past {
            self.catch_up().await?;
        }
        if disturbs_watches {
            self.settle().await?;
        }
        let answer = self.compare(operation).await?;
        let (answered, refused) = self.summary.operations.entry(kind(operation)).or_default();
        *if answer.is_ok() { answered } else { refused } += 1;
        if let Ok(reply) = &answer {
            self.world.revision = self.world.revision.max(revision(reply));
        }
        match (operation, &answer) {
            (Operation::Compact(request), Ok(_)) => self.world.compacted = request.revision,
            (Operation::Watch { stream, request }, Ok(Reply::Watch(answers))) => {
                self.chronicle.asked(*stream, request, answers, self.world);
                self.has_begun_in_past |= matches!(
                    &request.request_union,
                    Some(RequestUnion::CreateRequest(create)) if create.start_revision != 0
                );
            }
            (Operation::Reopen { stream }, _) => self.chronicle.closed(*stream),
            _ => {}
        }
        Ok(())
    }

    /// Waits until every watch that began in the past has caught up, told anything or not: else a compaction may still end it. etcd takes all that
    /// are behind in one go, so that they are not behind when one that was begun after them is told something.
    async fn catch_up(&mut self) -> Result<(), Found> {
        let key = Bytes::from_static(b"caught up");
        let put = pb::PutRequest { key: key.clone(), ..Default::default() };
        if let Ok(reply) = self.compare(&Operation::Put(put)).await? {
            self.world.revision = revision(&reply);
        }
        let watch_id = CAUGHT_UP_ID;
        let create = pb::WatchCreateRequest {
            key,
            start_revision: self.world.revision,
            watch_id,
            ..Default::default()
        };
        let cancel = pb::WatchCancelRequest { watch_id };
        let watch = |union| Operation::Watch {
            stream: CHRONICLER,
            request: pb::WatchRequest { request_union: Some(union) },
        };
        self.compare(&watch(RequestUnion::CreateRequest(create))).await.map(drop)?;
        let (their, our) = (&self.theirs.streams[CHRONICLER], &self.ours.streams[CHRONICLER]);
        let is_told = |log: &Log| log.entries.contains_key(&watch_id);
        tokio::join!(their.wait(is_told), our.wait(is_told));
        let (theirs, ours) = (their.take(watch_id), our.take(watch_id));
        if theirs.len() != 1 || theirs != ours {
            return Err(Found::new("a watch that begins at the newest revision".to_owned(), &theirs, &ours));
        }
        self.compare(&watch(RequestUnion::CancelRequest(cancel))).await.map(drop)?;
        self.has_begun_in_past = false;
        Ok(())
    }

    /// Has both answer, and gives etcd's answer if they are alike.
    async fn compare(&mut self, operation: &Operation) -> Result<Answer, Found> {
        let (mut theirs, ours) = tokio::join!(self.theirs.answer(operation), self.ours.answer(operation));
        let mut levelled = ours.clone();
        normal::level_remaining_times(&mut theirs, &mut levelled);
        if theirs == levelled {
            return Ok(theirs);
        }
        if let Some(known) = versions::known(self.reference, operation, &theirs, &ours) {
            *self.summary.known.entry(known.because).or_default() += 1;
            return Ok(theirs);
        }
        if matches!(operation, Operation::HashKv(_)) && self.comes_to_answer(operation, &ours).await {
            return Ok(ours);
        }
        Err(Found::new(shown(operation), &theirs, &ours))
    }

    /// Whether etcd gives this answer in the end. As long as its compaction works in the background, its hash may cover what is yet to be removed:
    /// where no key exists at the revision, it leaves nothing out.
    async fn comes_to_answer(&mut self, operation: &Operation, expected: &Answer) -> bool {
        let deadline = Instant::now() + COMPACTION_DEADLINE;
        while Instant::now() < deadline {
            tokio::time::sleep(COMPACTION_POLL).await;
            if self.theirs.answer(operation).await == *expected {
                return true;
            }
        }
        false
    }

    /// Waits until every watch has been told everything, and compares what it was told.
    async fn settle(&mut self) -> Result<(), Found> {
        self.settle_chronicle().await?;
        for stream in 0..STREAMS {
            let awaited = self.chronicle.awaited(stream);
            let has_all = |log: &Log| {
                awaited.iter().all(|(id, count)| log.entries.get(id).map_or(0, Vec::len) >= *count)
            };
            let (their, our) = (&self.theirs.streams[stream], &self.ours.streams[stream]);
            let all_came = tokio::join!(their.wait(has_all), our.wait(has_all));
            let mut ids = their.waiting();
            ids.extend(our.waiting());
            ids.sort_unstable();
            ids.dedup();
            for id in ids {
                let (mut theirs, mut ours) = (their.take(id), our.take(id));
                if let Some(compacted) = self.chronicle.began_at_compacted(stream, id) {
                    versions::drop_deletions_at(compacted, &mut theirs);
                    versions::drop_deletions_at(compacted, &mut ours);
                }
                if theirs != ours {
                    return Err(Found::new(
                        format!("events of watch {id} on stream {stream}"),
                        &theirs,
                        &ours,
                    ));
                }
                self.summary.ended_watches +=
                    theirs.iter().filter(|e| matches!(e, Entry::Ended(_))).count() as u64;
                self.summary.events += theirs.iter().filter(|e| matches!(e, Entry::Event(_))).count() as u64;
            }
            if all_came != (true, true) {
                let what = format!(
                    "watches of stream {stream} did not get as many entries as they should: {awaited:?}"
                );
                return Err(Found::new(what, &all_came.0, &all_came.1));
            }
            self.chronicle.taken(stream);
        }
        Ok(())
    }

    /// Waits until the newest revision is told, compares what was, and notes what happened.
    async fn settle_chronicle(&mut self) -> Result<(), Found> {
        let newest = self.world.revision;
        if self.chronicle.newest_revision() < newest {
            let is_told = |log: &Log| {
                log.entries.get(&CHRONICLER_ID).and_then(|entries| entries.last()).is_some_and(
                |entry| matches!(entry, Entry::Event(event) if event.kv.as_ref().is_some_and(|kv| kv.mod_revision >= newest)),
            )
            };
            let (their, our) = (&self.theirs.streams[CHRONICLER], &self.ours.streams[CHRONICLER]);
            tokio::join!(their.wait(is_told), our.wait(is_told));
        }
        let theirs = self.theirs.streams[CHRONICLER].take(CHRONICLER_ID);
        let ours = self.ours.streams[CHRONICLER].take(CHRONICLER_ID);
        if theirs != ours {
            return Err(Found::new("events of the watch of everything".to_owned(), &theirs, &ours));
        }
        for entry in &theirs {
            if let Entry::Event(event) = entry {
                self.chronicle.record(event);
            }
        }
        if self.chronicle.newest_revision() < newest {
            return Err(Found::new(
                format!("revision {newest} is not told to the watch of everything"),
                &theirs,
                &ours,
            ));
        }
        Ok(())
    }
}

/// The revision in the header of a reply, or 0.
fn revision(reply: &Reply) -> i64 {
    let header = match reply {
        Reply::Range(response) => response.header,
        Reply::Put(response) => response.header,
        Reply::DeleteRange(response) => response.header,
        Reply::Txn(response) => response.header,
        Reply::LeaseRevoke(response) => response.header,
        _ => None,
    };
    header.map_or(0, |header| header.revision)
}

fn kind(operation: &Operation) -> &'static str {
    match operation {
        Operation::Range(_) => "Range",
        Operation::Put(_) => "Put",
        Operation::DeleteRange(_) => "DeleteRange",
        Operation::Txn(_) => "Txn",
        Operation::Compact(_) => "Compact",
        Operation::LeaseGrant(_) => "LeaseGrant",
        Operation::BriefLease(_) => "BriefLease",
        Operation::LeaseRevoke(_) => "LeaseRevoke",
        Operation::LeaseKeepAlive(_) => "LeaseKeepAlive",
        Operation::LeaseTimeToLive(_) => "LeaseTimeToLive",
        Operation::LeaseLeases => "LeaseLeases",
        Operation::HashKv(_) => "HashKV",
        Operation::Status => "Status",
        Operation::Watch { .. } => "Watch",
        Operation::Reopen { .. } => "Reopen",
    }
}
