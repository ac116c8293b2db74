//! One run: the world of a seed, the process with its lives, the end of all trouble, the verdict.

use std::sync::Arc;
use std::time::Duration;

use history_oracle::{Key, Violation};
use tokio_util::sync::CancellationToken;

use crate::faults::Faults;
use crate::link::Link;
use crate::people::{Cast, People, collect};
use crate::random::Random;
use crate::rest::unsettled;
use crate::server::Server;
use crate::{nodes, objects};

/// How long things go wrong.
const TROUBLE: Duration = Duration::from_secs(90);
/// How long after it all may take to come to rest: expectations that an event was missed for expire after five minutes, Jobs wait after failures.
const REST_MAX: Duration = Duration::from_secs(1_500);
const LOOK: Duration = Duration::from_secs(5);

/// The controllers that run.
const CONTROLLERS: [&str; 7] = [
    "deployment-controller",
    "replicaset-controller",
    "statefulset-controller",
    "daemonset-controller",
    "job-controller",
    "disruption-controller",
    "resourcequota-controller",
];

/// What there was in a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Changes of objects.
    pub changes: usize,
    /// Lives of the process.
    pub lives: u64,
    /// Seconds of virtual time.
    pub seconds: u64,
}

impl seed_runner::seeds::Stats for Stats {
    fn add(&mut self, other: &Self) {
        self.changes += other.changes;
        self.lives += other.lives;
        self.seconds += other.seconds;
    }
}

/// How a run ended.
pub struct Finished {
    /// The first thing that is wrong.
    pub violation: Option<Violation>,
    /// What there was.
    pub stats: Stats,
    /// The history, if it was asked for.
    pub told: Vec<String>,
}

/// Runs a seed.
///
/// # Panics
/// There is no runtime to be had.
pub fn run(seed: u64, verbose: bool) -> Finished {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        controller_manager::clock::simulate(objects::epoch());
        let finished = live(seed, verbose).await;
        controller_manager::clock::end_simulation();
        finished
    })
}

async fn live(seed: u64, verbose: bool) -> Finished {
    let mut random = Random::new(seed, 1);
    let faults = Faults::new(&mut random);
    let cast = Cast::new(&mut random);
    let server = Server::new(verbose);
    server.tell(|| format!("{faults:?}\n{cast:?}"));
    let mut people = People::new(server.clone(), cast, seed);
    people.begin();
    let actors = [
        tokio::spawn(nodes::run(server.clone(), seed, faults.clone())),
        tokio::spawn(collect(server.clone())),
        tokio::spawn(people.run()),
    ];
    let ended = CancellationToken::new();
    let process = tokio::spawn(process(server.clone(), Arc::new(faults), seed, ended.clone()));
    let mut unrest = Vec::new();
    while server.elapsed() < TROUBLE + REST_MAX {
        tokio::time::sleep(LOOK).await;
        if server.elapsed() >= TROUBLE {
            server.calm();
        }
        if !server.judged().0.is_empty() {
            break;
        }
        unrest = if server.is_troubled() { vec!["still in trouble".to_owned()] } else { unsettled(&server) };
        if unrest.is_empty() {
            break;
        }
    }
    ended.cancel();
    let lives = process.await.unwrap_or_default();
    actors.iter().for_each(tokio::task::JoinHandle::abort);
    let (violations, changes) = server.judged();
    let restless = unrest.first().map(|text| Violation {
        invariant: "AllComesToRest",
        revision: 0,
        key: Key::new("all", "", ""),
        text: text.clone(),
    });
    Finished {
        violation: violations.into_iter().next().or(restless),
        stats: Stats { changes, lives, seconds: server.elapsed().as_secs() },
        told: server.told(),
    }
}

/// The process: when it is killed there is another one a little later. How many lives it had.
async fn process(server: Server, faults: Arc<Faults>, seed: u64, ended: CancellationToken) -> u64 {
    let mut random = Random::new(seed, 2);
    let mut lives = 0;
    loop {
        lives += 1;
        let died = CancellationToken::new();
        let link =
            Link::new(server.clone(), Arc::clone(&faults), Random::new(seed, 100 + lives), died.clone());
        let stop = CancellationToken::new();
        let life =
            tokio::spawn(controller_manager::run_controllers(link.client(), &CONTROLLERS, stop.clone()));
        tokio::select! {
            biased;
            () = ended.cancelled() => {}
            () = died.cancelled() => {}
        }
        link.end();
        stop.cancel();
        life.abort();
        if ended.is_cancelled() {
            return lives;
        }
        let pause = random.millis(10..4_000);
        tokio::time::sleep(pause).await;
    }
}
