//! Static pods of this node: follows the directory of manifests and keeps a mirror of each pod in the API server.
//!
//! Never here: running them; the manager gives them workers as it does to all pods.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use coracle_client::config::{api_code, within};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client};
use kubelet_core::{pod_view, static_pod};
use parking_lot::Mutex;

use crate::context::Context;

const DEADLINE: Duration = Duration::from_secs(10);
/// Larger files are no manifests.
const MANIFEST_BYTES_MAX: u64 = 10 << 20;

type Listing = BTreeMap<PathBuf, (Option<SystemTime>, u64)>;

/// The directory and what was found in it.
pub struct StaticPods {
    directory: Option<PathBuf>,
    node_name: String,
    listing: Mutex<Option<Listing>>,
    pods: Mutex<BTreeMap<String, Arc<Pod>>>,
    /// Mirrors by the static pod's UID.
    mirrors: Mutex<BTreeMap<String, Arc<Pod>>>,
}

/// What a look at the directory has changed.
#[derive(Default)]
pub struct Changes {
    /// Pods that are no longer described.
    pub gone: Vec<Arc<Pod>>,
    /// Pods that are new, or other than before.
    pub new: Vec<Arc<Pod>>,
}

impl StaticPods {
    /// The pods of a directory; none if there is none.
    pub fn new(directory: Option<PathBuf>, node_name: String) -> Self {
        Self {
            directory,
            node_name,
            listing: Mutex::default(),
            pods: Mutex::default(),
            mirrors: Mutex::default(),
        }
    }

    /// By UID.
    pub fn get(&self, pod_uid: &str) -> Option<Arc<Pod>> {
        self.pods.lock().get(pod_uid).cloned()
    }

    /// All of them.
    pub fn list(&self) -> Vec<Arc<Pod>> {
        self.pods.lock().values().cloned().collect()
    }

    /// By namespace and name, the node's name included.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let pods = self.pods.lock();
        pods.values()
            .find(|pod| pod_view::namespace(pod) == namespace && pod_view::name(pod) == name)
            .cloned()
    }

    /// The pod in the API server that shows this static one.
    pub fn mirror(&self, pod_uid: &str) -> Option<Arc<Pod>> {
        self.mirrors.lock().get(pod_uid).cloned()
    }

    /// Looks at the directory. Cheap when no file has changed.
    pub fn look(&self) -> Changes {
        let Some(directory) = &self.directory else { return Changes::default() };
        let listing = list(directory);
        let mut known = self.listing.lock();
        if known.as_ref() == Some(&listing) {
            return Changes::default();
        }
        let mut found = BTreeMap::new();
        for path in listing.keys() {
            match self.read(path) {
                Ok(pod) => {
                    found.insert(pod_view::uid(&pod).to_owned(), Arc::new(pod));
                }
                Err(error) => tracing::error!(path = %path.display(), error, "not a static pod's manifest"),
            }
        }
        *known = Some(listing);
        let mut pods = self.pods.lock();
        let gone = pods.iter().filter(|(uid, _)| !found.contains_key(*uid));
        let gone = gone.map(|(_, pod)| Arc::clone(pod)).collect();
        pods.retain(|uid, _| found.contains_key(uid));
        let mut new = Vec::new();
        for (uid, pod) in found {
            pods.entry(uid).or_insert_with(|| {
                new.push(Arc::clone(&pod));
                pod
            });
        }
        Changes { gone, new }
    }

    fn read(&self, path: &Path) -> Result<Pod, String> {
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
        let pod: Pod = serde_yaml_ng::from_str(&text).map_err(|error| error.to_string())?;
        static_pod::complete(pod, &path.to_string_lossy(), &self.node_name, Timestamp::now())
    }

    /// Makes and removes mirrors so that each static pod has one. `pods` are those in the API server. Returns the UIDs of
    /// static pods whose mirror is another one than before. What fails is tried again the next time.
    pub async fn mirror_all(&self, context: &Context, pods: &[Arc<Pod>]) -> Vec<String> {
        let mut renewed = Vec::new();
        let described = self.list();
        for pod in &described {
            let same_name = pods.iter().find(|other| {
                pod_view::name(other) == pod_view::name(pod)
                    && pod_view::namespace(other) == pod_view::namespace(pod)
            });
            let uid = pod_view::uid(pod);
            match same_name {
                Some(mirror) if static_pod::shows(mirror, pod) => {
                    let before = self.mirrors.lock().insert(uid.to_owned(), Arc::clone(mirror));
                    if before.is_none_or(|before| pod_view::uid(&before) != pod_view::uid(mirror)) {
                        renewed.push(uid.to_owned());
                    }
                }
                Some(other) if static_pod::is_mirror(other) => remove(&context.client, other).await,
                Some(_) => {
                    tracing::warn!(pod = pod_view::describe(pod), "another pod has the name of a static one");
                }
                None => self.make(context, pod).await,
            }
        }
        self.mirrors.lock().retain(|uid, _| described.iter().any(|pod| pod_view::uid(pod) == uid));
        let left_over = pods.iter().filter(|pod| static_pod::is_mirror(pod)).filter(|mirror| {
            !described.iter().any(|pod| {
                pod_view::name(mirror) == pod_view::name(pod)
                    && pod_view::namespace(mirror) == pod_view::namespace(pod)
            })
        });
        for mirror in left_over {
            remove(&context.client, mirror).await;
        }
        renewed
    }

    async fn make(&self, context: &Context, pod: &Pod) {
        let Some(node) = context.nodes.store().list().pop() else { return };
        let node_uid = node.metadata.uid.clone().unwrap_or_default();
        let mirror = static_pod::mirror_of(pod, &self.node_name, &node_uid);
        let api: Api<Pod> = Api::namespaced(context.client.clone(), pod_view::namespace(pod));
        match within(DEADLINE, api.create(&PostParams::default(), &mirror)).await {
            Ok(_) => {}
            // It is there, only not seen yet.
            Err(error) if api_code(&error) == Some(409) => {}
            Err(error) => {
                tracing::warn!(pod = pod_view::describe(pod), %error, "cannot make the mirror of a static pod yet");
            }
        }
    }
}

fn list(directory: &Path) -> Listing {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
        .filter_map(|entry| {
            let meta = std::fs::metadata(entry.path()).ok()?;
            let small = meta.is_file() && meta.len() <= MANIFEST_BYTES_MAX;
            small.then(|| (entry.path(), (meta.modified().ok(), meta.len())))
        })
        .collect()
}

async fn remove(client: &Client, mirror: &Pod) {
    let api: Api<Pod> = Api::namespaced(client.clone(), pod_view::namespace(mirror));
    let params = DeleteParams {
        grace_period_seconds: Some(0),
        preconditions: Some(Preconditions { uid: mirror.metadata.uid.clone(), resource_version: None }),
        ..DeleteParams::default()
    };
    match within(DEADLINE, api.delete(pod_view::name(mirror), &params)).await {
        Ok(_) => {}
        Err(error) if matches!(api_code(&error), Some(404 | 409)) => {}
        Err(error) => {
            tracing::warn!(pod = pod_view::describe(mirror), %error, "cannot remove the mirror of a static pod yet");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_change_and_go() {
        let root = tempfile::tempdir().unwrap();
        let pods = StaticPods::new(Some(root.path().to_owned()), "n".to_owned());
        assert!(pods.look().new.is_empty());
        let path = root.path().join("web.yaml");
        let manifest = |image: &str| {
            format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec: {{containers: [{{name: a, image: {image}}}]}}\n"
            )
        };
        std::fs::write(&path, manifest("demo:v1")).unwrap();
        std::fs::write(root.path().join(".hidden.yaml"), manifest("demo:v1")).unwrap();
        std::fs::write(root.path().join("broken.yaml"), "kind: Service").unwrap();
        let first = pods.look();
        assert_eq!((first.new.len(), first.gone.len()), (1, 0));
        assert!(pods.find("default", "web-n").is_some());
        assert!(pods.look().new.is_empty(), "nothing has changed");
        std::fs::write(&path, manifest("demo:v20")).unwrap();
        let changed = pods.look();
        assert_eq!((changed.new.len(), changed.gone.len()), (1, 1));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(pods.look().gone.len(), 1);
        assert!(pods.list().is_empty());
    }
}
