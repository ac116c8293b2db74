//! ConfigMaps and Secrets that pods on this node use, each watched by name for as long as a pod uses it.
//!
//! Never here: objects that no pod names; a kubelet may not list them all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use coracle_client::informer::{Informer, Watchable};
use k8s_openapi::NamespaceResourceScope;
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

const FIRST_ANSWER: Duration = Duration::from_secs(10);

type Wake = Arc<dyn Fn(&str) + Send + Sync>;

struct Watched<K> {
    informer: Informer<K>,
    stop: CancellationToken,
    /// UIDs of the pods that use it; shared with the change handler.
    users: Arc<Mutex<BTreeSet<String>>>,
}

/// Objects of one kind by namespace and name.
pub struct ObjectCache<K> {
    client: Client,
    shutdown: CancellationToken,
    wake: Wake,
    watched: Mutex<BTreeMap<(String, String), Watched<K>>>,
}

impl<K> ObjectCache<K>
where
    K: Watchable + kube::Resource<Scope = NamespaceResourceScope>,
    K::DynamicType: Default + Clone,
{
    /// An empty cache. `wake` is called with the UID of each pod that uses an object when the object changes.
    pub fn new(client: Client, shutdown: CancellationToken, wake: Wake) -> Self {
        Self { client, shutdown, wake, watched: Mutex::new(BTreeMap::new()) }
    }

    /// The object as last seen, or `None` if it does not exist. Watches it from now on.
    ///
    /// # Errors
    /// If the API server does not answer in time.
    pub async fn get(&self, namespace: &str, name: &str, pod_uid: &str) -> Result<Option<Arc<K>>, String> {
        let key = (namespace.to_owned(), name.to_owned());
        let informer = {
            let mut watched = self.watched.lock();
            let entry = watched.entry(key).or_insert_with(|| {
                let stop = self.shutdown.child_token();
                let api = Api::<K>::namespaced(self.client.clone(), namespace);
                let informer = Informer::builder(api).fields(&format!("metadata.name={name}")).start(&stop);
                let users = Arc::new(Mutex::new(BTreeSet::new()));
                let (told, wake) = (Arc::clone(&users), Arc::clone(&self.wake));
                informer.on_change(move |_| told.lock().iter().for_each(|uid: &String| wake(uid)));
                Watched { informer, stop, users }
            });
            entry.users.lock().insert(pod_uid.to_owned());
            entry.informer.clone()
        };
        tokio::time::timeout(FIRST_ANSWER, informer.wait_synced()).await.map_err(|_| {
            let kind = K::kind(&K::DynamicType::default()).to_lowercase();
            format!("failed to get {kind} {namespace}/{name}: timed out waiting for the API server")
        })?;
        Ok(informer.store().get_named(namespace, name))
    }

    /// A pod no longer uses anything.
    pub fn release(&self, pod_uid: &str) {
        self.watched.lock().retain(|_, watched| {
            let mut users = watched.users.lock();
            users.remove(pod_uid);
            if users.is_empty() {
                watched.stop.cancel();
            }
            !users.is_empty()
        });
    }
}
