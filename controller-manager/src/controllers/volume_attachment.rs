//! Runs the attach/detach controller: one look at a node whenever its pods, their claims, its attachments or the node itself change.

use std::collections::HashMap;
use std::sync::Arc;

use controller_manager_core::action::{NODES, Target, VOLUME_ATTACHMENTS};
use controller_manager_core::pod_state::node_name;
use controller_manager_core::volume_attachment::detach::Detachment;
use controller_manager_core::volume_attachment::wanted::{
    Lookup, User, needs_volumes, of_driver, of_pod, on_node,
};
use controller_manager_core::volume_attachment::{Memory, Plan, Seen, Volume, is_in_use, plan};
use controller_manager_core::volume_binder::claim_ref;
use controller_manager_core::volume_protection::claims_of;
use coracle_client::ObjectKey;
use coracle_client::config::{is_conflict, is_not_found};
use coracle_client::controller::Outcome;
use coracle_client::informer::{Change, Informer};
use coracle_client::store::Index;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{CSIDriver, VolumeAttachment};
use parking_lot::Mutex;

use crate::context::{Context, outcome};
use crate::executor::Executor;
use crate::informers::Informers;

const WORKERS: usize = 10;
/// Index of attachments by node.
const ON: &str = "node";
/// Index of attachments by PersistentVolume.
const OF: &str = "volume";

#[derive(Clone)]
struct Shared {
    informers: Informers,
    attachments: Informer<VolumeAttachment>,
    drivers: Informer<CSIDriver>,
    executor: Executor,
    never_by_force: bool,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// By node.
    memory: HashMap<String, Memory>,
    /// Attachments that we asked for and that our copy has not shown yet.
    asked_for: HashMap<String, Arc<VolumeAttachment>>,
}

/// Runs until shutdown.
pub async fn run(context: Context) {
    let shared = Shared {
        informers: context.informers.clone(),
        attachments: context
            .informer()
            .index(Index::new(ON, |attachment: &VolumeAttachment| vec![attachment.spec.node_name.clone()]))
            .index(Index::new(OF, |attachment: &VolumeAttachment| {
                attachment.spec.source.persistent_volume_name.clone().into_iter().collect()
            }))
            .start(&context.shutdown),
        drivers: context.informer().start(&context.shutdown),
        executor: context.executor("attachdetach-controller"),
        never_by_force: context.settings.never_detach_by_force,
        state: Arc::default(),
    };
    let all = || shared.clone();
    let (by_claim, by_volume, by_attachment, by_driver, worker) = (all(), all(), all(), all(), all());
    context
        .controller("attachdetach", WORKERS)
        .watch(&shared.informers.pods, |change| {
            let old = change.old().filter(|old| has_volumes(old)).map(|old| node_name(old));
            let new = Some(change.object()).filter(|pod| has_volumes(pod)).map(|pod| node_name(pod));
            nodes(old.into_iter().chain(new))
        })
        .watch(&shared.informers.nodes, |change| {
            let matters = change.is_deleted() || change.old().is_none_or(|old| differs(old, change.object()));
            matters.then(|| change.key()).into_iter().collect()
        })
        .watch(&shared.informers.claims, move |change| by_claim.nodes_of_claim(&change.key()))
        .watch(&shared.informers.volumes, move |change| {
            let volume = change.object();
            let mut keys = by_volume.nodes_of_volume(volume);
            keys.extend(by_volume.attached_to(volume.metadata.name.as_deref().unwrap_or_default()));
            keys
        })
        .watch(&shared.attachments, move |change| by_attachment.nodes_of_attachment(change))
        .watch(&shared.drivers, move |_| {
            let pods = by_driver.informers.pods.store().list();
            nodes(pods.iter().filter(|pod| has_volumes(pod)).map(|pod| node_name(pod)))
        })
        .run(&context.shutdown, move |key| {
            let shared = worker.clone();
            async move { shared.reconcile(&key.name).await }
        })
        .await;
}

/// Our copies of pods have volumes of claims alone.
fn has_volumes(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref()).is_some_and(|volumes| !volumes.is_empty())
}

fn nodes<'a>(names: impl Iterator<Item = &'a str>) -> Vec<ObjectKey> {
    let mut names: Vec<&str> = names.filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().map(|name| ObjectKey::new("", name)).collect()
}

/// Whether a node has changed in what decides about its volumes; heartbeats have not.
fn differs(old: &Node, new: &Node) -> bool {
    let view = |node: &Node| {
        let status = node.status.clone().unwrap_or_default();
        let mut ready = status.conditions.unwrap_or_default();
        ready.retain(|condition| condition.type_ == "Ready");
        let ready = ready.first().map(|condition| condition.status.clone());
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.clone());
        (ready, status.volumes_in_use, status.volumes_attached, taints, node.metadata.annotations.clone())
    };
    old.metadata.uid != new.metadata.uid || view(old) != view(new)
}

impl Lookup for Shared {
    fn claim(&self, namespace: &str, name: &str) -> Option<Arc<PersistentVolumeClaim>> {
        self.informers.claims.store().get_named(namespace, name)
    }

    fn volume(&self, name: &str) -> Option<Arc<PersistentVolume>> {
        self.informers.volumes.store().get_named("", name)
    }

    fn driver(&self, name: &str) -> Option<Arc<CSIDriver>> {
        self.drivers.store().get_named("", name)
    }
}

impl Shared {
    /// The nodes of the pods that name the claim.
    fn nodes_of_claim(&self, claim: &ObjectKey) -> Vec<ObjectKey> {
        let pods = self.informers.pods.store().indexed("namespace", &claim.namespace);
        let names = |pod: &&Arc<Pod>| claims_of(pod).iter().any(|name| **name == *claim.name);
        nodes(pods.iter().filter(names).map(|pod| node_name(pod)))
    }

    fn nodes_of_volume(&self, volume: &PersistentVolume) -> Vec<ObjectKey> {
        let claim =
            claim_ref(volume).and_then(|of| Some(ObjectKey::new(of.namespace.clone()?, of.name.clone()?)));
        claim.map(|claim| self.nodes_of_claim(&claim)).unwrap_or_default()
    }

    fn attached_to(&self, volume: &str) -> Vec<ObjectKey> {
        let attachments = self.attachments.store().indexed(OF, volume);
        nodes(attachments.iter().map(|attachment| attachment.spec.node_name.as_str()))
    }

    /// The attachment's node, and those that may have waited for its end.
    fn nodes_of_attachment(&self, change: &Change<VolumeAttachment>) -> Vec<ObjectKey> {
        let attachment = change.object();
        self.state.lock().asked_for.remove(&*change.key().name);
        let mut keys = vec![ObjectKey::new("", &*attachment.spec.node_name)];
        let named = attachment.spec.source.persistent_volume_name.as_deref().unwrap_or_default();
        if change.is_deleted()
            && let Some(volume) = self.volume(named)
        {
            keys.extend(self.nodes_of_volume(&volume));
        }
        keys
    }

    /// The pods of other nodes that the volume is attached to; none if it is attached to none.
    fn elsewhere(
        &self,
        asked_for: &HashMap<String, Arc<VolumeAttachment>>,
        volume: &Volume,
        node: &str,
    ) -> Option<Vec<User>> {
        let known = self.attachments.store().indexed(OF, &volume.name);
        let asked = asked_for
            .values()
            .filter(|asked| asked.spec.source.persistent_volume_name.as_deref() == Some(&*volume.name));
        let mut others: Vec<&str> = known
            .iter()
            .chain(asked)
            .map(|attachment| attachment.spec.node_name.as_str())
            .filter(|other| *other != node)
            .collect();
        others.sort_unstable();
        others.dedup();
        if others.is_empty() {
            return None;
        }
        let mut users = Vec::new();
        for other in others {
            let found = self.informers.nodes.store().get_named("", other);
            for pod in self.informers.pods.store().indexed("nodeName", other) {
                if has_volumes(&pod)
                    && needs_volumes(&pod, found.as_deref())
                    && of_pod(&pod, self).contains(volume)
                {
                    let meta = &pod.metadata;
                    let (namespace, name) = (meta.namespace.clone(), meta.name.clone());
                    users.push(User {
                        namespace: namespace.unwrap_or_default(),
                        name: name.unwrap_or_default(),
                    });
                }
            }
        }
        users.sort();
        Some(users)
    }

    /// What is to be done, with what is asked for noted down before anybody else looks.
    fn decide(&self, name: &str) -> anyhow::Result<Plan> {
        let mut state = self.state.lock();
        let node = self.informers.nodes.store().get_named("", name);
        let pods = self.informers.pods.store().indexed("nodeName", name);
        let wanted =
            on_node(pods.iter().map(|pod| &**pod).filter(|pod| has_volumes(pod)), node.as_deref(), self);
        let mut attachments = self.attachments.store().indexed(ON, name);
        for asked in state.asked_for.values().filter(|asked| asked.spec.node_name == name) {
            if !attachments.iter().any(|known| known.metadata.name == asked.metadata.name) {
                attachments.push(Arc::clone(asked));
            }
        }
        let attachments: Vec<&VolumeAttachment> =
            attachments.iter().map(|attachment| &**attachment).collect();
        let mut memory = state.memory.remove(name).unwrap_or_default();
        let decided = plan(
            &Seen {
                name,
                node: node.as_deref(),
                wanted: &wanted,
                attachments: &attachments,
                volume_of: &|attachment| {
                    let named = attachment.spec.source.persistent_volume_name.as_deref()?;
                    of_driver(&*self.volume(named)?)
                },
                elsewhere: &|volume| self.elsewhere(&state.asked_for, volume, name),
                never_by_force: self.never_by_force,
                now: crate::clock::now(),
            },
            &mut memory,
        );
        if !memory.is_empty() {
            state.memory.insert(name.to_owned(), memory);
        }
        for asked in &decided.attach {
            let mut object: VolumeAttachment = serde_json::from_value(asked.clone())?;
            object.metadata.creation_timestamp =
                Some(controller_manager_core::object_meta::seconds(crate::clock::now()));
            state.asked_for.insert(object.metadata.name.clone().unwrap_or_default(), Arc::new(object));
        }
        Ok(decided)
    }

    async fn reconcile(&self, name: &str) -> anyhow::Result<Outcome> {
        let plan = self.decide(name)?;
        let mut result = Ok(());
        // No attachment is lost sight of because an earlier call failed: what is noted as asked for is asked for.
        for attachment in &plan.attach {
            let created = self.executor.create(&VOLUME_ATTACHMENTS, "", attachment).await;
            if let Err(error) = created
                && !is_conflict(&error)
            {
                let asked = attachment["metadata"]["name"].as_str().unwrap_or_default();
                self.state.lock().asked_for.remove(asked);
                result = Err(error);
            }
        }
        self.executor.execute_all(&plan.events).await?;
        if let Some(report) = &plan.report {
            self.executor.execute(report).await?;
        }
        for detachment in &plan.detach {
            self.detach(name, detachment).await?;
        }
        result?;
        Ok(outcome(plan.wake.and_then(|time| time.try_into().ok())))
    }

    /// The node's status does not offer the volume any more. If its kubelet has begun to mount it before, it keeps it.
    async fn detach(&self, name: &str, detachment: &Detachment) -> Result<(), kube::Error> {
        if detachment.ask {
            let node: Option<Node> = match self.executor.get(&Target::new(&NODES, "", name)).await {
                Ok(object) => serde_json::from_value(object).map_err(kube::Error::SerdeError)?,
                Err(error) if is_not_found(&error) => None,
                Err(error) => return Err(error),
            };
            if is_in_use(node.as_ref(), &detachment.volume) {
                tracing::debug!(node = name, volume = detachment.volume, "in use again, not detached");
                return Ok(());
            }
        }
        self.executor.execute(&detachment.delete).await
    }
}
