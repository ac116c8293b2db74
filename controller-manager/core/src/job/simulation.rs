//! A server, a watch that is late in any way it likes, and a controller that dies between any two writes: whatever they do,
//! no pod is counted twice and none is forgotten.

use super::tests::{at, job, tracked};
use super::*;
use proptest::prelude::*;
use serde_json::json;
use std::collections::BTreeMap;

/// What the server knows.
struct Server {
    job: Job,
    pods: BTreeMap<String, Pod>,
    born: usize,
    /// Pods that have ended, by uid: well or badly. Each must be counted once.
    ended: BTreeMap<String, bool>,
}

/// What the controller knows: its copies are taken apart, and may be old. Its memory is lost when it dies.
struct Controller {
    job: Job,
    pods: BTreeMap<String, Pod>,
    written: u64,
    expected: HashSet<String>,
    removing: HashSet<String>,
}

impl Server {
    fn version(&self) -> u64 {
        self.job.metadata.resource_version.as_ref().and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    fn write(&mut self, seen: u64, status: JobStatus) -> Option<u64> {
        if seen != self.version() {
            return None;
        }
        self.job.metadata.resource_version = Some((seen + 1).to_string());
        self.job.status = Some(status);
        Some(seen + 1)
    }

    fn create(&mut self, new: &NewPod) -> String {
        self.born += 1;
        let name = format!("p{}", self.born);
        let pod = tracked(&name, "Running", new.index);
        let uid = uid(&pod.metadata).to_owned();
        self.pods.insert(uid.clone(), pod);
        uid
    }

    fn end_one(&mut self, pick: usize, well: bool) {
        let running: Vec<_> =
            self.pods.iter().filter(|(_, pod)| is_active(pod)).map(|(uid, _)| uid.clone()).collect();
        let Some(uid) = running.get(pick % running.len().max(1)) else { return };
        let name = self.pods[uid].metadata.name.clone().unwrap_or_default();
        let index = completion_index(&self.pods[uid]);
        self.pods.insert(uid.clone(), tracked(&name, if well { "Succeeded" } else { "Failed" }, index));
        self.ended.insert(uid.clone(), well);
    }
}

impl Controller {
    fn born(server: &Server) -> Self {
        let (job, pods) = (server.job.clone(), server.pods.clone());
        Self { job, pods, written: 0, expected: HashSet::new(), removing: HashSet::new() }
    }

    fn see_pods(&mut self, server: &Server) {
        self.pods = server.pods.clone();
        self.expected.retain(|uid| !server.pods.contains_key(uid));
        self.removing.retain(|uid| server.pods.get(uid).is_some_and(is_tracked));
    }

    /// One look; dies after `steps` writes.
    fn look(&mut self, server: &mut Server, now: i64, mut steps: usize) {
        let seen =
            self.job.metadata.resource_version.as_ref().and_then(|text| text.parse().ok()).unwrap_or(0);
        if seen < self.written {
            return;
        }
        let job = self.job.clone();
        let observed = Observed {
            job: &job,
            pods: self.pods.values().cloned().map(Arc::new).collect(),
            satisfied: self.expected.is_empty(),
            removing: self.removing.clone(),
            backoff: Backoff::default(),
            now: at(now),
        };
        let Some(mut sync) = begin(observed) else { return };
        let mut dies = || {
            steps = steps.saturating_sub(1);
            steps == 0
        };
        let mut done = Done::default();
        match sync.step().clone() {
            PodStep::Nothing => {}
            PodStep::Create(new) => {
                for new in &new {
                    if dies() {
                        return;
                    }
                    self.expected.insert(server.create(new));
                    done.created += 1;
                }
            }
            PodStep::Delete { pods, .. } => {
                for pod in &pods {
                    if dies() {
                        return;
                    }
                    server.pods.remove(uid(&pod.metadata));
                    done.deleted += 1;
                }
            }
        }
        let counting = sync.count(done);
        let mut version = seen;
        if let Some(status) = counting.flush {
            if dies() {
                return;
            }
            let Some(new) = server.write(version, status) else { return };
            (version, self.written) = (new, new);
        }
        let mut removed = HashSet::new();
        for pod in counting.remove {
            if dies() {
                return;
            }
            let uid = uid(&pod.metadata).to_owned();
            if let Some(pod) = server.pods.get_mut(&uid) {
                pod.metadata.finalizers = None;
            }
            self.removing.insert(uid.clone());
            removed.insert(uid);
        }
        if let Some(status) = sync.finish(&removed, false) {
            if dies() {
                return;
            }
            if let Some(new) = server.write(version, status) {
                self.written = new;
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Move {
    Look(usize),
    SeeJob,
    SeePods,
    End(usize, bool),
    Collect,
    Die,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        4 => (1usize..12).prop_map(Move::Look),
        2 => Just(Move::SeeJob),
        2 => Just(Move::SeePods),
        3 => (0usize..8, prop::bool::weighted(0.8)).prop_map(|(pick, well)| Move::End(pick, well)),
        1 => Just(Move::Collect),
        1 => Just(Move::Die),
    ];
    prop::collection::vec(one, 10..150)
}

proptest! {
    #[test]
    fn every_pod_is_counted_exactly_once(
        moves in moves(),
        completions in 1i32..8,
        parallelism in 1i32..5,
        indexed in any::<bool>(),
    ) {
        let mode = if indexed { "Indexed" } else { "NonIndexed" };
        let spec = json!({ "completions": completions, "parallelism": parallelism, "completionMode": mode, "backoffLimit": 1000 });
        let job = job(spec, json!({}));
        let mut server = Server { job, pods: BTreeMap::new(), born: 0, ended: BTreeMap::new() };
        let mut controller = Controller::born(&server);
        let settle = (0..60).flat_map(|_| [Move::SeeJob, Move::SeePods, Move::Look(1000), Move::End(0, true)]);
        for (step, next) in moves.into_iter().chain(settle).enumerate() {
            match next {
                Move::Look(steps) => {
                    // Long after the last failure, so that backoff does not hold.
                    let now = 1_000_000 + i64::try_from(step).unwrap_or(0) * 1_000;
                    controller.look(&mut server, now, steps);
                    if steps < 12 && steps % 5 == 0 {
                        controller = Controller::born(&server);
                    }
                }
                Move::SeeJob => controller.job = server.job.clone(),
                Move::SeePods => controller.see_pods(&server),
                Move::End(pick, well) => server.end_one(pick, well),
                Move::Collect => server.pods.retain(|_, pod| is_tracked(pod)),
                Move::Die => controller = Controller::born(&server),
            }
            let active = server.pods.values().filter(|pod| is_active(pod)).count();
            prop_assert!(active <= usize::try_from(parallelism).unwrap_or(0), "{active} pods at a time");
            let status = server.job.status.clone().unwrap_or_default();
            let well = server.ended.values().filter(|well| **well).count();
            prop_assert!(status.succeeded.unwrap_or(0) as usize <= well, "counted more than ended");
        }
        let status = server.job.status.clone().unwrap_or_default();
        let ended = |well: bool| i32::try_from(server.ended.values().filter(|w| **w == well).count()).unwrap_or(0);
        prop_assert_eq!(status.succeeded, Some(completions));
        prop_assert_eq!(status.succeeded.unwrap_or(0), ended(true), "none more than asked for, each counted once");
        prop_assert_eq!(status.failed.unwrap_or(0), ended(false));
        prop_assert!(conditions::finished(&server.job).is_some_and(|end| end.type_ == "Complete"));
    }
}
