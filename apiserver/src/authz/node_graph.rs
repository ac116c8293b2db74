//! What the pods of each node refer to: Secrets, ConfigMaps, claims, ServiceAccounts. Follows the watch cache of pods at the moment it is asked; pods that are
//! bound keep what they refer to, so most events cost nothing.

use std::collections::HashMap;
use std::ops::Bound;
use std::sync::Arc;

use coracle_api::meta::{self, get};
use coracle_api::resource::lookup;
use parking_lot::Mutex;
use serde_json::Value;

use crate::cache::Cache;
use crate::cache::object::{CachedObject, EventType};
use crate::cache::resource::{Cursor, ResourceCache};
use crate::strategy;

const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
/// Events taken over at a time.
const BATCH: usize = 1024;

/// What a pod may refer to in its namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Claim,
    ConfigMap,
    Pod,
    ResourceClaim,
    Secret,
    ServiceAccount,
}

type Target = (Kind, Box<str>, Box<str>);

/// A pod that is bound to a node.
struct BoundPod {
    node: Box<str>,
    targets: Vec<Target>,
    /// Its resource claims are named in its status, which changes.
    has_resource_claims: bool,
}

#[derive(Default)]
struct State {
    cursor: Option<Cursor>,
    pods: HashMap<Box<str>, BoundPod>,
    /// How many pods of a node refer to something.
    nodes: HashMap<Box<str>, HashMap<Target, usize>>,
}

/// What the pods of each node refer to.
pub(super) struct NodeGraph {
    pods: Option<Arc<ResourceCache>>,
    state: Mutex<State>,
}

impl NodeGraph {
    /// Over the cache of pods.
    pub(super) fn new(cache: &Cache) -> Self {
        let pods = lookup("", "v1", "pods").and_then(|pods| cache.of(pods));
        Self { pods, state: Mutex::default() }
    }

    /// Whether a pod of `node` refers to an object (a pod: whether it is one of the node's).
    pub(super) fn reaches(&self, node: &str, kind: Kind, namespace: &str, name: &str) -> bool {
        let Some(pods) = &self.pods else { return false };
        let mut state = self.state.lock();
        state.follow(pods);
        let target = (kind, namespace.into(), name.into());
        state.nodes.get(node).is_some_and(|targets| targets.contains_key(&target))
    }
}

impl State {
    fn follow(&mut self, cache: &ResourceCache) {
        let mut events = Vec::new();
        if let Some(mut cursor) = self.cursor {
            loop {
                events.clear();
                match cache.read(&mut cursor, (BATCH, usize::MAX), &mut events) {
                    Ok(_) if events.is_empty() => {
                        self.cursor = Some(cursor);
                        return;
                    }
                    Ok(_) => {
                        for event in &events {
                            match event.event_type {
                                EventType::Deleted => self.remove(&event.object.suffix),
                                EventType::Added | EventType::Modified => self.set(cache, &event.object),
                            }
                        }
                    }
                    Err(_) => break,
                }
            }
        }
        let listing = cache.list("", Bound::Unbounded);
        *self = Self { cursor: Some(listing.cursor), ..Self::default() };
        for object in &listing.objects {
            self.set(cache, object);
        }
    }

    fn set(&mut self, cache: &ResourceCache, object: &CachedObject) {
        let fields = object.fields(strategy::for_resource(cache.resource));
        let node = fields.iter().find(|(field, _)| *field == "spec.nodeName").map_or("", |(_, node)| node);
        let unchanged = |known: &BoundPod| *known.node == *node && !known.has_resource_claims;
        if self.pods.get(&object.suffix).is_some_and(unchanged) {
            return;
        }
        self.remove(&object.suffix);
        if node.is_empty() {
            return;
        }
        let Ok(pod) = object.value() else { return };
        let pod = BoundPod {
            node: node.into(),
            targets: targets(&pod),
            has_resource_claims: !list(&pod, &["spec", "resourceClaims"]).is_empty(),
        };
        let counts = self.nodes.entry(pod.node.clone()).or_default();
        for target in &pod.targets {
            *counts.entry(target.clone()).or_default() += 1;
        }
        self.pods.insert(object.suffix.clone(), pod);
    }

    fn remove(&mut self, suffix: &str) {
        let Some(pod) = self.pods.remove(suffix) else { return };
        let Some(counts) = self.nodes.get_mut(&pod.node) else { return };
        for target in &pod.targets {
            if let Some(count) = counts.get_mut(target) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(target);
                }
            }
        }
        if counts.is_empty() {
            self.nodes.remove(&pod.node);
        }
    }
}

fn list<'a>(object: &'a Value, path: &[&str]) -> &'a [Value] {
    get(object, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    get(object, path).and_then(Value::as_str).unwrap_or_default()
}

/// Secrets that volumes of a pod name, by where they name them.
const VOLUME_SECRETS: &[&[&str]] = &[
    &["azureFile", "secretName"],
    &["cephfs", "secretRef", "name"],
    &["cinder", "secretRef", "name"],
    &["csi", "nodePublishSecretRef", "name"],
    &["flexVolume", "secretRef", "name"],
    &["iscsi", "secretRef", "name"],
    &["rbd", "secretRef", "name"],
    &["scaleIO", "secretRef", "name"],
    &["secret", "secretName"],
    &["storageos", "secretRef", "name"],
];

/// All that a pod gives its node access to, itself included.
fn targets(pod: &Value) -> Vec<Target> {
    let mut found = vec![(Kind::Pod, meta::name(pod).to_owned())];
    // A node makes its mirror pods itself: they must not give it anything.
    if get(pod, &["metadata", "annotations", MIRROR_ANNOTATION]).is_none() {
        found.extend(references(pod));
    }
    let namespace = meta::namespace(pod);
    found.into_iter().map(|(kind, name)| (kind, namespace.into(), name.into())).collect()
}

/// All that a pod refers to in its namespace.
pub(crate) fn references(pod: &Value) -> Vec<(Kind, String)> {
    let mut found: Vec<(Kind, String)> = Vec::new();
    let mut add = |kind, name: &str| {
        if !name.is_empty() {
            found.push((kind, name.to_owned()));
        }
    };
    add(Kind::ServiceAccount, text(pod, &["spec", "serviceAccountName"]));
    for secret in list(pod, &["spec", "imagePullSecrets"]) {
        add(Kind::Secret, text(secret, &["name"]));
    }
    for containers in ["containers", "initContainers", "ephemeralContainers"] {
        for container in list(pod, &["spec", containers]) {
            of_container(container, &mut add);
        }
    }
    for volume in list(pod, &["spec", "volumes"]) {
        of_volume(pod, volume, &mut add);
    }
    for claim in list(pod, &["spec", "resourceClaims"]) {
        add(Kind::ResourceClaim, text(claim, &["resourceClaimName"]));
    }
    for claim in list(pod, &["status", "resourceClaimStatuses"]) {
        add(Kind::ResourceClaim, text(claim, &["resourceClaimName"]));
    }
    add(Kind::ResourceClaim, text(pod, &["status", "extendedResourceClaimStatus", "resourceClaimName"]));
    found
}

fn of_container(container: &Value, add: &mut impl FnMut(Kind, &str)) {
    for variable in list(container, &["env"]) {
        add(Kind::Secret, text(variable, &["valueFrom", "secretKeyRef", "name"]));
        add(Kind::ConfigMap, text(variable, &["valueFrom", "configMapKeyRef", "name"]));
    }
    for source in list(container, &["envFrom"]) {
        add(Kind::Secret, text(source, &["secretRef", "name"]));
        add(Kind::ConfigMap, text(source, &["configMapRef", "name"]));
    }
}

fn of_volume(pod: &Value, volume: &Value, add: &mut impl FnMut(Kind, &str)) {
    for path in VOLUME_SECRETS {
        add(Kind::Secret, text(volume, path));
    }
    add(Kind::ConfigMap, text(volume, &["configMap", "name"]));
    for source in list(volume, &["projected", "sources"]) {
        add(Kind::Secret, text(source, &["secret", "name"]));
        add(Kind::ConfigMap, text(source, &["configMap", "name"]));
    }
    add(Kind::Claim, text(volume, &["persistentVolumeClaim", "claimName"]));
    if volume.get("ephemeral").is_some_and(Value::is_object) {
        add(Kind::Claim, &format!("{}-{}", meta::name(pod), text(volume, &["name"])));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn put(cache: &ResourceCache, name: &str, revision: i64, pod: &Value) {
        let mut pod = pod.clone();
        pod["metadata"]["name"] = name.into();
        pod["metadata"]["namespace"] = "a".into();
        cache.put(&format!("a/{name}"), pod.to_string().as_bytes(), revision).expect("JSON");
    }

    #[test]
    fn a_node_reaches_what_its_pods_name_while_they_are_there() {
        let cache = Cache::new("/registry", 4);
        let graph = NodeGraph::new(&cache);
        let pods = cache.of(lookup("", "v1", "pods").expect("pods")).expect("are stored");
        let spec = json!({
            "serviceAccountName": "robot",
            "containers": [{"name": "c", "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "env", "key": "k"}}}],
                "envFrom": [{"configMapRef": {"name": "all"}}]}],
            "volumes": [
                {"name": "v", "secret": {"secretName": "mounted"}},
                {"name": "p", "projected": {"sources": [{"configMap": {"name": "root-ca"}}]}},
                {"name": "d", "persistentVolumeClaim": {"claimName": "data"}},
                {"name": "e", "ephemeral": {}},
            ],
        });
        put(&pods, "one", 2, &json!({"spec": spec}));
        assert!(!graph.reaches("n", Kind::Secret, "a", "env"), "is not bound yet");
        let mut bound = json!({"spec": spec});
        bound["spec"]["nodeName"] = "n".into();
        put(&pods, "one", 3, &bound);
        let reached = [
            (Kind::Secret, "env"),
            (Kind::Secret, "mounted"),
            (Kind::ConfigMap, "all"),
            (Kind::ConfigMap, "root-ca"),
            (Kind::Claim, "data"),
            (Kind::Claim, "one-e"),
            (Kind::ServiceAccount, "robot"),
            (Kind::Pod, "one"),
        ];
        for (kind, name) in reached {
            assert!(graph.reaches("n", kind, "a", name), "{kind:?} {name}");
            assert!(
                !graph.reaches("m", kind, "a", name) && !graph.reaches("n", kind, "b", name),
                "{kind:?} {name}"
            );
        }
        assert!(!graph.reaches("n", Kind::Secret, "a", "other"));
        put(&pods, "two", 4, &bound);
        pods.delete("a/one", 5).expect("is known");
        assert!(graph.reaches("n", Kind::Secret, "a", "env") && !graph.reaches("n", Kind::Pod, "a", "one"));
        pods.delete("a/two", 6).expect("is known");
        assert!(!graph.reaches("n", Kind::Secret, "a", "env"));
        let mut mirror = bound.clone();
        mirror["metadata"] = json!({"annotations": {MIRROR_ANNOTATION: "x"}});
        put(&pods, "mirror", 7, &mirror);
        assert!(
            graph.reaches("n", Kind::Pod, "a", "mirror") && !graph.reaches("n", Kind::Secret, "a", "env")
        );
    }
}
