//! Clients that watch: the scribe, who writes down everything, and watchers, who look at parts and whose answers are judged. Both go on at another
//! member when theirs is gone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use coracle_bench::grpc::{Messages, Requests, decode, frame};
use coracle_proto::etcdserverpb as pb;
use coracle_proto::mvccpb::event::EventType;
use pb::watch_request::RequestUnion;
use store_checker::{Event, Rule, Violation, Watch};
use store_clients::Watcher;
use store_clients::random::{Random, Stream};
use tokio::time::timeout;

use crate::calls::{Methods, connect};
use crate::clients::KEYS;
use crate::cluster::SIZE;
use crate::shared::Shared;

/// Watch id of answers for a whole stream.
const WHOLE_STREAM: i64 = -1;
/// How often progress is asked for where nothing comes.
const ASK_PROGRESS: Duration = Duration::from_millis(250);
/// A stream on which nothing comes, not even progress, is given up after so many times of asking.
const SILENCES_MAX: u32 = 6;
/// Before a watcher that was sent away tries elsewhere.
const BACK_OFF: Duration = Duration::from_millis(50);
/// Watchers have to come to the end within this time.
const END_DEADLINE: Duration = Duration::from_secs(60);
/// Responses after which a watcher leaves its stream without need, on average.
const LEAVING_ONE_IN: u64 = 3_000;

/// A watch stream at a member.
struct Link {
    requests: Requests,
    answers: Messages,
}

impl Link {
    /// Opens a stream with a first watch on it.
    async fn open(member: usize, methods: &Methods, create: pb::WatchCreateRequest) -> anyhow::Result<Self> {
        let connection = connect(member).await?;
        let opened = connection.stream(&methods.watch, request(RequestUnion::CreateRequest(create)));
        let (requests, answers) =
            timeout(ASK_PROGRESS * SILENCES_MAX, opened).await.context("open a watch stream")??;
        Ok(Self { requests, answers })
    }

    /// The next response; asks for progress where nothing comes.
    async fn next(&mut self) -> anyhow::Result<pb::WatchResponse> {
        for _ in 0..SILENCES_MAX {
            match timeout(ASK_PROGRESS, self.answers.next()).await {
                Ok(Ok(Some(message))) => return Ok(decode(message)?),
                Ok(Ok(None)) => bail!("the stream ended"),
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => self.ask_progress()?,
            }
        }
        bail!("nothing came")
    }

    fn ask_progress(&mut self) -> anyhow::Result<()> {
        Ok(self.requests.send(request(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})))?)
    }
}

fn request(union: RequestUnion) -> bytes::Bytes {
    frame(&pb::WatchRequest { request_union: Some(union) })
}

fn revision(response: &pb::WatchResponse) -> i64 {
    response.header.as_ref().map_or(0, |header| header.revision)
}

/// Writes down every change after the epoch's start until all up to [`Shared::last_written_down`] is there, and perhaps a few more.
///
/// # Errors
/// A [`Violation`] if the end is not reached in time.
pub async fn scribe(methods: Arc<Methods>, shared: Arc<Shared>) -> anyhow::Result<Vec<Event>> {
    let mut events: Vec<Event> = Vec::new();
    let mut member = 0;
    let mut end = None;
    let has_all = || shared.last_written_down().is_some_and(|last| shared.written_down() >= last);
    loop {
        let next = shared.written_down() + 1;
        let (begin, range_end) = (bytes::Bytes::from_static(&[0]), bytes::Bytes::from_static(&[0]));
        let create =
            pb::WatchCreateRequest { key: begin, range_end, start_revision: next, ..Default::default() };
        if let Ok(mut link) = Link::open(member, &methods, create).await {
            while let Ok(response) = link.next().await {
                if response.canceled {
                    break;
                }
                let seen = Some(shared.now());
                let of_response = response.events.into_iter().filter_map(|event| {
                    let is_deletion = event.r#type() == EventType::Delete;
                    Some(Event { kv: event.kv?, is_deletion, seen })
                });
                events.extend(of_response);
                if let Some(last) = events.last() {
                    shared.wrote_down(last.kv.mod_revision);
                }
                if has_all() {
                    return Ok(events);
                }
            }
        }
        if has_all() {
            return Ok(events);
        }
        check_deadline(&mut end, shared.last_written_down(), "the scribe")?;
        member = (member + 1) % SIZE;
        tokio::time::sleep(BACK_OFF).await;
    }
}

/// Counts from when the last revision is known.
fn check_deadline(end: &mut Option<Instant>, last: Option<i64>, who: &str) -> anyhow::Result<()> {
    let Some(last) = last else { return Ok(()) };
    let end = *end.get_or_insert_with(|| Instant::now() + END_DEADLINE);
    if Instant::now() > end {
        let what = format!("{who} does not get to revision {last} within {END_DEADLINE:?}");
        bail!(Violation::new(Rule::WatchReliable, what).at(last));
    }
    Ok(())
}

/// One watcher in one epoch.
pub struct Looker {
    watcher: Watcher,
    random: Random,
    methods: Arc<Methods>,
    shared: Arc<Shared>,
    member: usize,
    watches: Vec<Watch>,
}

impl Looker {
    /// A watcher; `number` must be another for each of a run.
    pub fn new(seed: u64, number: u64, methods: Arc<Methods>, shared: Arc<Shared>) -> Self {
        let random = Random::new(seed, Stream::Schedule, number);
        let watcher = Watcher::new(number, Random::new(seed, Stream::Watcher, number), KEYS.hot);
        Self { watcher, random, methods, shared, member: number as usize % SIZE, watches: Vec::new() }
    }

    /// Watches until everything up to [`Shared::last_watched`] has come; what was asked and came.
    ///
    /// # Errors
    /// A [`Violation`] if the end is not reached in time.
    pub async fn run(mut self) -> anyhow::Result<Vec<Watch>> {
        let mut end = None;
        loop {
            match self.follow(&mut end).await {
                Ok(true) => return Ok(self.watches),
                Err(error) if error.is::<Violation>() => return Err(error),
                // A stream that breaks is no fault of the store; what comes next is asked for elsewhere.
                Ok(false) | Err(_) => self.check_deadline(&mut end)?,
            }
            self.go_elsewhere();
            tokio::time::sleep(BACK_OFF).await;
        }
    }

    /// Follows one stream; whether everything up to the end has come.
    async fn follow(&mut self, end: &mut Option<Instant>) -> anyhow::Result<bool> {
        let wanted = std::mem::take(&mut self.watcher.wanted);
        let mut link: Option<Link> = None;
        for (watch_id, mut create) in (1..).zip(wanted) {
            self.keep_in_bounds(&mut create);
            self.watcher.watches.insert(watch_id, self.watches.len());
            self.watches.push(Watch {
                client: self.watcher.number,
                member: self.member as u64 + 1,
                create: create.clone(),
                ..Default::default()
            });
            create.watch_id = watch_id;
            match &mut link {
                None => link = Some(Link::open(self.member, &self.methods, create).await?),
                Some(link) => link.requests.send(request(RequestUnion::CreateRequest(create)))?,
            }
        }
        let mut link = link.context("nothing to watch")?;
        loop {
            let response = link.next().await?;
            let is_progress = response.watch_id == WHOLE_STREAM;
            let revision = revision(&response);
            if !self.take(response) || self.random.one_in(LEAVING_ONE_IN) {
                return Ok(false);
            }
            let Some(last) = self.shared.last_watched() else { continue };
            let open = self.watcher.watches.values();
            let is_created = open.clone().all(|place| !self.watches[*place].responses.is_empty());
            if is_progress && revision >= last && is_created {
                for place in open {
                    self.watches[*place].complete_through = Some(last);
                }
                return Ok(true);
            }
            self.check_deadline(end)?;
        }
    }

    fn check_deadline(&self, end: &mut Option<Instant>) -> anyhow::Result<()> {
        let open = self.watcher.watches.values().map(|place| &self.watches[*place]);
        let open: Vec<_> =
            open.map(|watch| (&watch.create, watch.next_revision(), watch.responses.last())).collect();
        let who = format!("watcher {} at member {} with {open:?}", self.watcher.number, self.member + 1);
        check_deadline(end, self.shared.last_watched(), &who)
    }

    /// Notes a response; whether any watch is left on the stream.
    fn take(&mut self, response: pb::WatchResponse) -> bool {
        let now = self.shared.now();
        if response.watch_id == WHOLE_STREAM {
            for place in self.watcher.watches.values() {
                let responses = &mut self.watches[*place].responses;
                // One that is not created yet has no part in it.
                if !responses.is_empty() {
                    responses.push((now, response.clone()));
                }
            }
            return true;
        }
        let Some(place) = self.watcher.watches.get(&response.watch_id).copied() else { return true };
        let (canceled, compacted) = (response.canceled, response.compact_revision);
        self.watches[place].responses.push((now, response));
        if canceled {
            self.watcher.watches.retain(|_, kept| *kept != place);
            let create = self.watches[place].create.clone();
            self.watcher.wanted.push(pb::WatchCreateRequest { start_revision: compacted.max(0), ..create });
        }
        !self.watcher.watches.is_empty()
    }

    /// Each watch goes on elsewhere with the first revision it has not seen, or there is something new to watch.
    fn go_elsewhere(&mut self) {
        self.member = (self.member + 1) % SIZE;
        let mut open: Vec<(i64, usize)> = std::mem::take(&mut self.watcher.watches).into_iter().collect();
        open.sort_unstable();
        for (_, place) in open {
            let old = &self.watches[place];
            let create = match old.next_revision() {
                Some(next) if !self.random.one_in(4) => {
                    pb::WatchCreateRequest { start_revision: next, ..old.create.clone() }
                }
                _ => self.watcher.create(self.shared.written_down()),
            };
            self.watcher.wanted.push(create);
        }
        self.watches.retain(|watch| !watch.responses.is_empty());
    }

    /// Nothing of before the epoch is asked for: that is judged already. Nor ranges without any key, which are refused for the whole stream.
    fn keep_in_bounds(&mut self, create: &mut pb::WatchCreateRequest) {
        if create.range_end.as_ref() != [0] && create.range_end <= create.key {
            create.range_end.clear();
        }
        let (first, last) = (self.shared.start + 1, self.shared.written_down());
        if create.start_revision > 0 && create.start_revision < first {
            let within = u64::try_from(last - first).unwrap_or(0);
            create.start_revision = first + self.random.below(within + 1) as i64;
        }
    }
}
