//! What people do: they make workloads, scale and change them, delete pods, evict pods within budgets, delete owners with and without what they own, and make
//! them anew under the same name. Also the garbage collector's part: what has lost its owner goes.

use std::time::Duration;

use history_oracle::Key;
use serde_json::{Value, json};

use crate::objects;
use crate::random::Random;
use crate::server::{Deletion, Refused, Server};

const NAMESPACE: &str = "default";

/// What there is in a run.
#[derive(Clone, Debug)]
pub struct Cast {
    /// Deployments: name and strategy.
    pub deployments: Vec<(String, Value)>,
    /// ReplicaSets without a Deployment.
    pub replica_sets: Vec<String>,
    /// StatefulSets and their pod management.
    pub stateful_sets: Vec<(String, &'static str)>,
    /// Whether there is a DaemonSet.
    pub daemon_set: bool,
    /// Jobs: completions, parallelism, indexed.
    pub jobs: Vec<(String, u64, u64, bool)>,
    /// Whether the first Deployment has a budget.
    pub budget: bool,
    /// Whether people do nothing but evict once all is there.
    pub only_evictions: bool,
    /// Whether a quota limits pods.
    pub quota: Option<u64>,
}

impl Cast {
    /// That of a seed.
    pub fn new(random: &mut Random) -> Self {
        let strategies = [
            json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } }),
            json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 0, "maxUnavailable": 1 } }),
            json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": "25%", "maxUnavailable": "25%" } }),
            json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 2, "maxUnavailable": 2 } }),
            json!({ "type": "Recreate" }),
        ];
        let count = |random: &mut Random, chance: u64, most: u64| {
            if random.percent(chance) { random.below(1..most + 1) } else { 0 }
        };
        let strategy = |random: &mut Random| random.pick(&strategies).cloned().unwrap_or_default();
        Self {
            deployments: (0..count(random, 60, 2)).map(|n| (format!("web{n}"), strategy(random))).collect(),
            replica_sets: (0..count(random, 40, 1)).map(|n| format!("set{n}")).collect(),
            stateful_sets: (0..count(random, 40, 1))
                .map(|n| (format!("db{n}"), if random.percent(70) { "OrderedReady" } else { "Parallel" }))
                .collect(),
            daemon_set: random.percent(25),
            jobs: (0..count(random, 45, 2))
                .map(|n| (format!("job{n}"), random.below(1..9), random.below(1..5), random.percent(50)))
                .collect(),
            budget: random.percent(50),
            only_evictions: random.percent(20),
            quota: random.percent(30).then(|| random.below(2..10)),
        }
    }
}

fn key(resource: &str, name: &str) -> Key {
    Key::new(resource, NAMESPACE, name)
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

/// One who does things.
pub struct People {
    server: Server,
    cast: Cast,
    random: Random,
    images: u64,
}

impl People {
    /// Those of a seed.
    pub fn new(server: Server, cast: Cast, seed: u64) -> Self {
        Self { server, cast, random: Random::new(seed, 4), images: 1 }
    }

    /// Makes something; what is there already may stay.
    fn make(&self, resource: &str, object: Value) {
        let namespace = if resource == "nodes" { "" } else { NAMESPACE };
        let _ = self.server.create(resource, namespace, object);
    }

    fn change(&self, resource: &str, name: &str, change: impl FnOnce(&mut Value)) {
        let _ = self.server.update(&key(resource, name), "", |old| {
            let mut new = old.clone();
            change(&mut new);
            Ok(new)
        });
    }

    /// Makes what there is from the start.
    pub fn begin(&mut self) {
        for node in crate::nodes::NODES {
            self.make("nodes", objects::node(node));
        }
        if let Some(pods) = self.cast.quota {
            self.make("resourcequotas", objects::quota(pods));
        }
        for (name, strategy) in &self.cast.deployments.clone() {
            let replicas = self.random.below(2..7);
            self.make("deployments", objects::deployment(name, replicas, strategy, "v1"));
            if self.cast.budget {
                self.make("poddisruptionbudgets", objects::budget(name, replicas.saturating_sub(1)));
            }
        }
        for name in &self.cast.replica_sets.clone() {
            let replicas = self.random.below(1..8);
            self.make("replicasets", objects::replica_set(name, replicas));
        }
        for (name, policy) in &self.cast.stateful_sets.clone() {
            let replicas = self.random.below(1..5);
            self.make("statefulsets", objects::stateful_set(name, replicas, policy));
        }
        if self.cast.daemon_set {
            self.make("daemonsets", objects::daemon_set("agent"));
        }
        for (name, completions, parallelism, indexed) in &self.cast.jobs {
            self.make("jobs", objects::job(name, *completions, *parallelism, *indexed));
        }
    }

    /// Does things until there is no more trouble.
    pub async fn run(mut self) {
        while self.server.is_troubled() {
            let pause = if self.random.percent(70) {
                self.random.millis(100..3_000)
            } else {
                self.random.millis(3_000..15_000)
            };
            tokio::time::sleep(pause).await;
            if self.server.is_troubled() {
                self.act().await;
            }
        }
    }

    async fn act(&mut self) {
        let (deployments, sets, stateful) =
            (self.cast.deployments.clone(), self.cast.replica_sets.clone(), self.cast.stateful_sets.clone());
        let acts = if self.cast.only_evictions { 8..11 } else { 0..13 };
        match self.random.below(acts) {
            0..3 => {
                if let Some((name, _)) = self.random.pick(&deployments).cloned() {
                    self.images += 1;
                    // Sometimes back to an earlier one.
                    let image =
                        format!("v{}", self.random.below(self.images.saturating_sub(1)..self.images + 1));
                    self.change("deployments", &name, |it| {
                        it["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image)
                    });
                }
            }
            3 => self.scale("deployments", deployments.iter().map(|(name, _)| name.clone()).collect(), 1..8),
            4 => self.scale("replicasets", sets, 0..9),
            5 => self.scale("statefulsets", stateful.into_iter().map(|(name, _)| name).collect(), 0..5),
            6 => {
                if let Some((name, _)) = self.random.pick(&stateful).cloned() {
                    self.images += 1;
                    let image = format!("v{}", self.images);
                    self.change("statefulsets", &name, |it| {
                        it["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image)
                    });
                }
            }
            7 => {
                let pods = self.server.list("pods", NAMESPACE).0;
                let of_job = |pod: &&Value| pod["metadata"]["ownerReferences"][0]["kind"] == "Job";
                let pods: Vec<_> = pods.iter().filter(|pod| !of_job(pod)).map(name).collect();
                if let Some(pod) = self.random.pick(&pods).cloned() {
                    let _ = self.server.delete(&key("pods", &pod), &Deletion::default());
                }
            }
            8..10 => self.evict_one().await,
            10 => self.drain().await,
            11 => self.replace_set(&sets).await,
            _ => self.set_free(),
        }
    }

    fn scale(&mut self, resource: &str, names: Vec<String>, range: std::ops::Range<u64>) {
        if let Some(name) = self.random.pick(&names).cloned() {
            let replicas = self.random.below(range);
            self.change(resource, &name, |it| it["spec"]["replicas"] = json!(replicas));
        }
    }

    /// A pod no longer matches its selector.
    fn set_free(&mut self) {
        let sets = self.cast.replica_sets.clone();
        let Some(set) = self.random.pick(&sets) else { return };
        let pods: Vec<_> = self
            .server
            .list("pods", NAMESPACE)
            .0
            .iter()
            .filter(|pod| pod["metadata"]["labels"]["app"] == **set)
            .map(name)
            .collect();
        if let Some(pod) = self.random.pick(&pods).cloned() {
            self.change("pods", &pod, |pod| pod["metadata"]["labels"]["app"] = json!("free"));
        }
    }

    /// A set goes, its pods stay, and after a while there is another of its name.
    async fn replace_set(&mut self, sets: &[String]) {
        let Some(set) = self.random.pick(sets).cloned() else { return };
        let Ok(old) = self.server.get(&key("replicasets", &set)) else { return };
        let uid = old["metadata"]["uid"].clone();
        let at_once = Deletion::default();
        let _ = self.server.delete(&key("replicasets", &set), &at_once);
        for pod in self.server.list("pods", NAMESPACE).0 {
            if pod["metadata"]["ownerReferences"][0]["uid"] == uid {
                self.change("pods", &name(&pod), |pod| pod["metadata"]["ownerReferences"] = json!([]));
            }
        }
        let pause = self.random.millis(0..9_000);
        tokio::time::sleep(pause).await;
        let replicas = self.random.below(1..8);
        self.make("replicasets", objects::replica_set(&set, replicas));
    }

    fn evictable(&self) -> Vec<Value> {
        let is_ready = |pod: &Value| {
            pod["status"]["conditions"][0]["status"] == "True"
                && !pod["metadata"]["deletionTimestamp"].is_string()
        };
        self.server.list("pods", NAMESPACE).0.into_iter().filter(is_ready).collect()
    }

    async fn evict_one(&mut self) {
        if let Some(pod) = self.random.pick(&self.evictable()) {
            evict(&self.server, pod, Random::new(self.random.next(), 5)).await;
        }
    }

    /// Evicts what is on a node, all at once.
    async fn drain(&mut self) {
        let Some(node) = self.random.pick(&crate::nodes::NODES).copied() else { return };
        let mut pods = self.evictable();
        pods.retain(|pod| pod["spec"]["nodeName"] == node);
        let seeds: Vec<u64> = pods.iter().map(|_| self.random.next()).collect();
        let evictions =
            pods.iter().zip(seeds).map(|(pod, seed)| evict(&self.server, pod, Random::new(seed, 5)));
        futures::future::join_all(evictions).await;
    }
}

/// As the server does it: charged to the budget in one write, then, a little later, deleted. What is refused is tried again for a while.
async fn evict(server: &Server, pod: &Value, mut random: Random) {
    let budgets = server.list("poddisruptionbudgets", NAMESPACE).0;
    let app = &pod["metadata"]["labels"]["app"];
    if let Some(budget) =
        budgets.iter().find(|budget| budget["spec"]["selector"]["matchLabels"]["app"] == *app)
    {
        let charge = |old: &Value| {
            let mut new = old.clone();
            let allowed = old["status"]["disruptionsAllowed"].as_i64().unwrap_or(0);
            if allowed < 1 || old["status"]["observedGeneration"] != old["metadata"]["generation"] {
                return Err(Refused { code: 429, reason: "TooManyRequests", message: String::new() });
            }
            new["status"]["disruptionsAllowed"] = json!(allowed - 1);
            new["status"]["disruptedPods"][name(pod)] = json!(objects::timestamp());
            Ok(new)
        };
        let mut tries = 0;
        while server.update(&key("poddisruptionbudgets", &name(budget)), "status", charge).is_err() {
            tries += 1;
            tokio::time::sleep(random.millis(5..400)).await;
            let stays = server.get(&key("pods", &name(pod))).is_ok_and(|now| {
                now["metadata"]["uid"] == pod["metadata"]["uid"]
                    && !now["metadata"]["deletionTimestamp"].is_string()
            });
            if tries > 10 || !stays {
                return;
            }
        }
        tokio::time::sleep(random.millis(1..800)).await;
    }
    let uid = pod["metadata"]["uid"].as_str().map(str::to_owned);
    let _ = server.delete(&key("pods", &name(pod)), &Deletion { uid, ..Deletion::default() });
}

/// Removes what has lost its owner, a little later; runs until dropped.
pub async fn collect(server: Server) {
    loop {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let mut known: Vec<Value> = Vec::new();
        for owners in ["deployments", "replicasets", "statefulsets", "daemonsets", "jobs"] {
            known.extend(server.list(owners, "").0.into_iter().map(|owner| owner["metadata"]["uid"].clone()));
        }
        for resource in ["replicasets", "pods", "controllerrevisions"] {
            for object in server.list(resource, "").0 {
                let owner = &object["metadata"]["ownerReferences"][0]["uid"];
                if owner.is_string()
                    && !known.contains(owner)
                    && !object["metadata"]["deletionTimestamp"].is_string()
                {
                    let _ = server.delete(&key(resource, &name(&object)), &Deletion::default());
                }
            }
        }
    }
}
