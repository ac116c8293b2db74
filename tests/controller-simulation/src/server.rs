//! The API server: a map of objects, its history, and the rules of upstream's registry that controllers lean on: versions and uids as preconditions,
//! generations, finalizers, graceful deletion of pods, names made by the server, the selectors of Jobs, quotas of pods. Every change is judged at once.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use history_oracle::{Allowances, Change, Key, Oracle, Violation};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

/// More than two requests take.
const ANSWERED: Duration = Duration::from_secs(1);

/// Why a request is refused.
#[derive(Debug)]
pub struct Refused {
    /// The HTTP code.
    pub code: u16,
    /// The reason in CamelCase.
    pub reason: &'static str,
    /// The text.
    pub message: String,
}

impl Refused {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into() }
    }

    fn conflict(message: &str) -> Self {
        Self::new(409, "Conflict", message)
    }

    fn not_found(key: &Key) -> Self {
        Self::new(404, "NotFound", format!("{key} not found"))
    }
}

/// One step of the history, ready to be watched.
pub struct Logged {
    /// Its revision.
    pub revision: u64,
    /// When it happened.
    pub at: Instant,
    /// The line that watchers get.
    pub line: bytes::Bytes,
}

struct State {
    revision: u64,
    uids: u64,
    objects: BTreeMap<Key, Value>,
    log: HashMap<String, Vec<Arc<Logged>>>,
    oracle: Oracle,
    told: Option<Vec<String>>,
}

/// The server. Clones are the same one.
#[derive(Clone)]
pub struct Server {
    state: Arc<Mutex<State>>,
    news: Arc<watch::Sender<u64>>,
    started: Instant,
    trouble: Arc<AtomicBool>,
}

/// What a deletion asks for.
#[derive(Default)]
pub struct Deletion {
    /// Only the object with this uid.
    pub uid: Option<String>,
    /// Only this version.
    pub version: Option<String>,
    /// At once, whatever runs.
    pub at_once: bool,
}

fn meta<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

fn has_finalizers(object: &Value) -> bool {
    object["metadata"]["finalizers"].as_array().is_some_and(|all| !all.is_empty())
}

fn is_finished(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}

impl Server {
    /// An empty one. With `verbose` the history is told.
    pub fn new(verbose: bool) -> Self {
        let state = State {
            revision: 0,
            uids: 0,
            objects: BTreeMap::new(),
            log: HashMap::new(),
            oracle: Oracle::new(&Allowances { adoption: ANSWERED }),
            told: verbose.then(Vec::new),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            news: Arc::new(watch::channel(0).0),
            started: Instant::now(),
            trouble: Arc::new(AtomicBool::new(true)),
        }
    }

    /// Whether things still go wrong.
    pub fn is_troubled(&self) -> bool {
        self.trouble.load(Ordering::Relaxed)
    }

    /// Ends all trouble.
    pub fn calm(&self) {
        self.trouble.store(false, Ordering::Relaxed);
    }

    /// Virtual time since the start.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// What has been found, and how many changes there were.
    pub fn judged(&self) -> (Vec<Violation>, usize) {
        let state = self.state.lock();
        (state.oracle.violations().to_vec(), state.oracle.changes())
    }

    /// The history as it was told.
    pub fn told(&self) -> Vec<String> {
        self.state.lock().told.clone().unwrap_or_default()
    }

    /// Adds a line to what is told.
    pub fn tell(&self, line: impl FnOnce() -> String) {
        let at = self.elapsed();
        if let Some(told) = &mut self.state.lock().told {
            told.push(format!("{:>8.3} {}", at.as_secs_f64(), line()));
        }
    }

    /// Wakes whoever waits for changes.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// The changes of a resource after a revision.
    pub fn after(&self, resource: &str, revision: u64) -> Option<Arc<Logged>> {
        let state = self.state.lock();
        let log = state.log.get(resource)?;
        let from = log.partition_point(|logged| logged.revision <= revision);
        log.get(from).cloned()
    }

    /// All objects of a resource in a namespace (all with the empty one), and the revision.
    pub fn list(&self, resource: &str, namespace: &str) -> (Vec<Value>, u64) {
        let state = self.state.lock();
        let found = state.objects.range(Key::new(resource, namespace, "")..).take_while(|(key, _)| {
            key.resource == resource && (namespace.is_empty() || key.namespace == namespace)
        });
        (found.map(|(_, object)| object.clone()).collect(), state.revision)
    }

    /// One object.
    ///
    /// # Errors
    /// It is not there.
    pub fn get(&self, key: &Key) -> Result<Value, Refused> {
        self.state.lock().objects.get(key).cloned().ok_or_else(|| Refused::not_found(key))
    }

    fn with<T>(&self, change: impl FnOnce(&mut State, Duration) -> Result<T, Refused>) -> Result<T, Refused> {
        let at = self.elapsed();
        let (result, revision) = {
            let mut state = self.state.lock();
            (change(&mut state, at), state.revision)
        };
        self.news.send_replace(revision);
        result
    }

    /// Makes an object.
    ///
    /// # Errors
    /// There is one, or a quota is full.
    pub fn create(&self, resource: &str, namespace: &str, object: Value) -> Result<Value, Refused> {
        self.with(|state, at| state.create(resource, namespace, object, at))
    }

    /// Changes an object by `change`, which gets it as it is; a subresource may be `status`.
    ///
    /// # Errors
    /// It is not there, or not as the preconditions in the new one's metadata say.
    pub fn update(
        &self,
        key: &Key,
        subresource: &str,
        change: impl FnOnce(&Value) -> Result<Value, Refused>,
    ) -> Result<Value, Refused> {
        self.with(|state, at| {
            let old = state.objects.get(key).cloned().ok_or_else(|| Refused::not_found(key))?;
            let new = change(&old)?;
            state.replace(key, subresource, old, new, at)
        })
    }

    /// Deletes an object, or begins to.
    ///
    /// # Errors
    /// It is not there, or another one.
    pub fn delete(&self, key: &Key, deletion: &Deletion) -> Result<Value, Refused> {
        self.with(|state, at| state.delete(key, deletion, at))
    }
}

impl State {
    fn commit(&mut self, key: &Key, new: Option<Value>, at: Duration) -> Value {
        self.revision += 1;
        let version = self.revision.to_string();
        let before = self.objects.get(key).cloned();
        let (event, object) = match new {
            Some(mut object) => {
                object["metadata"]["resourceVersion"] = json!(version);
                let event = if before.is_some() { "MODIFIED" } else { "ADDED" };
                self.objects.insert(key.clone(), object.clone());
                (event, object)
            }
            None => {
                let mut last = self.objects.remove(key).unwrap_or_default();
                last["metadata"]["resourceVersion"] = json!(version);
                ("DELETED", last)
            }
        };
        if let Some(told) = &mut self.told {
            told.push(format!(
                "{:>8.3} {:>5} {event} {key} {}",
                at.as_secs_f64(),
                self.revision,
                brief(&object)
            ));
        }
        let line = format!("{}\n", json!({ "type": event, "object": object }));
        let logged = Logged { revision: self.revision, at: Instant::now(), line: line.into() };
        self.log.entry(key.resource.clone()).or_default().push(Arc::new(logged));
        let folder = if key.resource == "nodes" { "minions" } else { &key.resource };
        self.oracle.take(&Change {
            revision: self.revision,
            at,
            key: Key::new(folder, &key.namespace, &key.name),
            object: (event != "DELETED").then(|| object.clone()),
        });
        object
    }

    fn create(
        &mut self,
        resource: &str,
        namespace: &str,
        mut object: Value,
        at: Duration,
    ) -> Result<Value, Refused> {
        self.uids += 1;
        if meta(&object, "name").is_empty() {
            // Not in order, as real names: nothing may lean on it.
            let suffix = self.uids.wrapping_mul(0x9E37_79B9) % 0xF_FFFF;
            object["metadata"]["name"] = json!(format!("{}{suffix:05x}", meta(&object, "generateName")));
        }
        let key = Key::new(resource, namespace, meta(&object, "name"));
        if self.objects.contains_key(&key) {
            return Err(Refused::new(409, "AlreadyExists", format!("{key} already exists")));
        }
        if resource == "pods" {
            self.charge(namespace, at)?;
            object["status"] = json!({ "phase": "Pending" });
        }
        let uid = format!("u{}", self.uids);
        let own = &mut object["metadata"];
        own["uid"] = json!(uid);
        own["generation"] = json!(1);
        own["creationTimestamp"] = json!(crate::objects::timestamp());
        if !namespace.is_empty() {
            own["namespace"] = json!(namespace);
        }
        if resource == "jobs" {
            let labels = json!({ "batch.kubernetes.io/controller-uid": uid });
            object["spec"]["selector"] = json!({ "matchLabels": labels });
            object["spec"]["template"]["metadata"] = json!({ "labels": labels });
        }
        Ok(self.commit(&key, Some(object), at))
    }

    /// Charges a pod to the namespace's quotas.
    fn charge(&mut self, namespace: &str, at: Duration) -> Result<(), Refused> {
        let quotas: Vec<Key> = self
            .objects
            .range(Key::new("resourcequotas", namespace, "")..)
            .map(|(key, _)| key.clone())
            .take_while(|key| key.resource == "resourcequotas" && key.namespace == namespace)
            .collect();
        for key in &quotas {
            let mut quota = self.objects[key].clone();
            let number = |value: &Value| value.as_str().and_then(|text| text.parse::<i64>().ok());
            let Some(hard) = number(&quota["status"]["hard"]["pods"]) else {
                return Err(Refused::new(403, "Forbidden", "status unknown for quota"));
            };
            let used = number(&quota["status"]["used"]["pods"]).unwrap_or(0);
            if used + 1 > hard {
                return Err(Refused::new(
                    403,
                    "Forbidden",
                    format!("exceeded quota: {key}, used: pods={used}, limited: pods={hard}"),
                ));
            }
            quota["status"]["used"]["pods"] = json!((used + 1).to_string());
            self.commit(key, Some(quota), at);
        }
        Ok(())
    }

    fn replace(
        &mut self,
        key: &Key,
        subresource: &str,
        old: Value,
        mut new: Value,
        at: Duration,
    ) -> Result<Value, Refused> {
        for field in ["resourceVersion", "uid"] {
            let asked = meta(&new, field);
            if !asked.is_empty() && asked != meta(&old, field) {
                return Err(Refused::conflict(&format!("{key}: the {field} is not {asked}")));
            }
        }
        let mut result = old.clone();
        if subresource == "status" {
            result["status"] = new["status"].take();
        } else {
            for (field, value) in new.as_object_mut().into_iter().flatten() {
                if field != "status" && field != "metadata" {
                    result[field] = value.take();
                }
            }
            for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
                match new["metadata"].get_mut(field).map(Value::take).filter(|value| !value.is_null()) {
                    Some(value) => result["metadata"][field] = value,
                    None => {
                        if let Some(fields) = result["metadata"].as_object_mut() {
                            fields.remove(field);
                        }
                    }
                }
            }
            if result["spec"] != old["spec"] && key.resource != "pods" {
                let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
                result["metadata"]["generation"] = json!(generation);
            }
        }
        if result == old {
            return Ok(old);
        }
        Ok(self.settle(key, result, at))
    }

    /// Stores an object, or removes it if nothing holds it any more.
    fn settle(&mut self, key: &Key, object: Value, at: Duration) -> Value {
        let going = object["metadata"]["deletionTimestamp"].is_string();
        let runs = key.resource == "pods" && object["metadata"]["deletionGracePeriodSeconds"] != 0;
        if going && !runs && !has_finalizers(&object) {
            self.objects.insert(key.clone(), object);
            return self.commit(key, None, at);
        }
        self.commit(key, Some(object), at)
    }

    fn delete(&mut self, key: &Key, deletion: &Deletion, at: Duration) -> Result<Value, Refused> {
        let mut object = self.objects.get(key).cloned().ok_or_else(|| Refused::not_found(key))?;
        let is =
            |asked: &Option<String>, field| asked.as_ref().is_none_or(|asked| asked == meta(&object, field));
        if !is(&deletion.uid, "uid") || !is(&deletion.version, "resourceVersion") {
            return Err(Refused::conflict(&format!("{key}: the precondition does not hold")));
        }
        let before = object.clone();
        let runs = key.resource == "pods" && object["spec"]["nodeName"].is_string() && !is_finished(&object);
        let grace = if runs && !deletion.at_once { 30 } else { 0 };
        if grace == 0 && !has_finalizers(&object) {
            return Ok(self.commit(key, None, at));
        }
        let own = &mut object["metadata"];
        if !own["deletionTimestamp"].is_string() {
            own["deletionTimestamp"] = json!(crate::objects::timestamp());
            own["deletionGracePeriodSeconds"] = json!(grace);
        } else if grace == 0 {
            own["deletionGracePeriodSeconds"] = json!(0);
        }
        if object == before {
            return Ok(object);
        }
        Ok(self.settle(key, object, at))
    }
}

/// What of an object is told.
fn brief(object: &Value) -> String {
    let mut words = vec![format!("uid={}", meta(object, "uid"))];
    let mut add = |name: &str, value: &Value| {
        if !value.is_null() {
            words.push(format!("{name}={}", value.to_string().replace('"', "")));
        }
    };
    add("replicas", &object["spec"]["replicas"]);
    add("node", &object["spec"]["nodeName"]);
    add("owner", &object["metadata"]["ownerReferences"][0]["uid"]);
    add("deleted", &object["metadata"]["deletionTimestamp"]);
    add("finalizers", &object["metadata"]["finalizers"]);
    if object["kind"] == "Pod" {
        add("phase", &object["status"]["phase"]);
        add("ready", &object["status"]["conditions"][0]["status"]);
    } else {
        add("status", &object["status"]);
    }
    words.join(" ")
}
