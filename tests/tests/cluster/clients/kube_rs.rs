//! kube-rs as operators use it: a derived definition with rules, a controller that owns objects and cleans up behind them,
//! apply with conflicts, lists as streams.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use coracle_tests::cluster::Cluster;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::finalizer::{self, Event, finalizer};
use kube::runtime::wait::{Condition, await_condition, conditions};
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client, CustomResource, CustomResourceExt, KubeSchema, Resource, ResourceExt};
use serde::{Deserialize, Serialize};
use serde_json::json;

const DEADLINE: Duration = Duration::from_secs(90);
const NAMESPACE: &str = "kube-rs";
const FINALIZER: &str = "kube-rs.example.com/flag";

/// Ships that fly a flag: each owns a Deployment, and a ConfigMap in its name outside of garbage collection.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "kube-rs.example.com",
    version = "v1",
    kind = "Ship",
    namespaced,
    status = "ShipStatus",
    shortname = "sh",
    category = "fleet",
    printcolumn = r#"{"name":"Crew","type":"integer","jsonPath":".spec.crew"}"#,
    scale(spec_replicas_path = ".spec.crew", status_replicas_path = ".status.aboard"),
    selectable = ".spec.flag"
)]
#[x_kube(validation = Rule::new("self.flag != 'pirate' || self.crew >= 2").message("pirates sail in company"))]
#[serde(rename_all = "camelCase")]
pub struct ShipSpec {
    /// The flag that it flies.
    #[x_kube(validation = Rule::new("self == oldSelf").message("a ship keeps its flag").reason(Reason::FieldValueForbidden))]
    flag: String,
    /// How many pods.
    #[serde(default = "default_crew")]
    #[schemars(range(min = 0, max = 5))]
    crew: i32,
    /// Where it goes, if anywhere.
    harbour: Option<Harbour>,
}

/// An enumeration with data, of which kube-rs makes a structural schema.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Harbour {
    /// By its name.
    Named(String),
    /// By its place.
    At {
        /// North of the equator.
        degrees_north: i32,
    },
}

/// What has come of it.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShipStatus {
    aboard: i32,
    observed_generation: i64,
}

fn default_crew() -> i32 {
    1
}

/// All of it, within a deadline.
pub fn a_controller_lives(cluster: &Cluster) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    runtime.block_on(async {
        tokio::time::timeout(2 * DEADLINE, story(cluster)).await.expect("kube-rs in time")
    });
}

async fn story(cluster: &Cluster) {
    component_base::tls::install_provider();
    let kubeconfig = Kubeconfig::read_from(cluster.data().join("kubeconfig")).expect("kubeconfig");
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .expect("config");
    let client = Client::try_from(config).expect("client");
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = serde_json::from_value(json!({"metadata": {"name": NAMESPACE}})).expect("a Namespace");
    namespaces.create(&PostParams::default(), &namespace).await.expect("a namespace");

    the_definition_is_established(&client).await;
    rules_are_kept(&client).await;
    lists_are_streamed(&client).await;
    apply_has_owners(&client).await;
    the_controller_reaches_its_goal(&client).await;
}

/// Waits for a condition on one object.
async fn until<K>(api: &Api<K>, name: &str, what: &str, condition: impl Condition<K>) -> Option<K>
where
    K: Resource + Clone + std::fmt::Debug + Send + serde::de::DeserializeOwned + 'static,
{
    let waiting = await_condition(api.clone(), name, condition);
    let met = tokio::time::timeout(DEADLINE, waiting).await;
    met.unwrap_or_else(|_| panic!("{name}: {what}: not within {DEADLINE:?}")).expect(what)
}

async fn the_definition_is_established(client: &Client) {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let apply = PatchParams::apply("kube-rs").force();
    definitions.patch(Ship::crd_name(), &apply, &Patch::Apply(Ship::crd())).await.expect("the definition");
    until(&definitions, Ship::crd_name(), "established", conditions::is_crd_established()).await;
    let kind = kube::core::GroupVersionKind::gvk("kube-rs.example.com", "v1", "Ship");
    let found = kube::discovery::pinned_kind(client, &kind);
    let (resource, capabilities) = found.await.expect("discovered");
    assert_eq!(
        (resource.plural.as_str(), &capabilities.scope),
        ("ships", &kube::discovery::Scope::Namespaced)
    );
    assert!(capabilities.subresources.iter().any(|(scale, _)| scale.plural == "scale"), "{capabilities:?}");
}

fn ship(name: &str, flag: &str, crew: i32) -> Ship {
    Ship::new(name, ShipSpec { flag: flag.to_owned(), crew, harbour: None })
}

/// The Status that a call is refused with.
fn refused<T: std::fmt::Debug>(result: kube::Result<T>) -> Box<kube::core::Status> {
    match result {
        Err(kube::Error::Api(status)) => status,
        other => panic!("not refused: {other:?}"),
    }
}

async fn rules_are_kept(client: &Client) {
    let ships: Api<Ship> = Api::namespaced(client.clone(), NAMESPACE);
    let create = PostParams::default();
    let status = refused(ships.create(&create, &ship("lone", "pirate", 1)).await);
    assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"));
    assert!(status.message.ends_with("spec: Invalid value: pirates sail in company"), "{}", status.message);
    let status = refused(ships.create(&create, &ship("crowd", "navy", 6)).await);
    assert!(
        status.message.contains("spec.crew in body should be less than or equal to 5"),
        "{}",
        status.message
    );

    let mut made = ships.create(&create, &ship("brig", "navy", 0)).await.expect("create");
    made.spec.harbour = Some(Harbour::At { degrees_north: 54 });
    let mut made = ships.replace("brig", &create, &made).await.expect("replace");
    assert_eq!(made.metadata.generation, Some(2));
    // Only one of the enumeration's forms may be given.
    let both = json!({"spec": {"harbour": {"named": "Kiel"}}});
    let status = refused(ships.patch("brig", &PatchParams::default(), &Patch::Merge(&both)).await);
    assert!(status.message.contains("spec.harbour"), "{}", status.message);
    made.spec.flag = "pirate".to_owned();
    let status = refused(ships.replace("brig", &create, &made).await);
    assert!(status.message.contains("spec.flag: Forbidden: a ship keeps its flag"), "{}", status.message);
    let scale = ships.get_scale("brig").await.expect("scale");
    assert_eq!(scale.spec.and_then(|spec| spec.replicas), Some(0));
    ships.delete("brig", &DeleteParams::default()).await.expect("delete");
}

async fn lists_are_streamed(client: &Client) {
    let ships: Api<Ship> = Api::namespaced(client.clone(), NAMESPACE);
    for (name, flag) in [("a", "navy"), ("b", "navy"), ("c", "trade")] {
        ships.create(&PostParams::default(), &ship(name, flag, 0)).await.expect("create");
    }
    let config = watcher::Config::default().streaming_lists().fields("spec.flag=navy");
    let mut events = watcher(ships.clone(), config).boxed();
    let mut initial = BTreeSet::new();
    assert!(matches!(events.try_next().await.expect("event"), Some(watcher::Event::Init)));
    loop {
        match events.try_next().await.expect("event").expect("an endless stream") {
            watcher::Event::InitApply(ship) => {
                assert!(initial.insert(ship.name_any()), "{ship:?} came twice")
            }
            watcher::Event::InitDone => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(initial, BTreeSet::from(["a".to_owned(), "b".to_owned()]));
    // The same stream goes on with what happens.
    ships.create(&PostParams::default(), &ship("d", "trade", 0)).await.expect("create");
    ships.create(&PostParams::default(), &ship("e", "navy", 0)).await.expect("create");
    ships.delete("a", &DeleteParams::default()).await.expect("delete");
    assert!(
        matches!(events.try_next().await.expect("event"), Some(watcher::Event::Apply(ship)) if ship.name_any() == "e")
    );
    assert!(
        matches!(events.try_next().await.expect("event"), Some(watcher::Event::Delete(ship)) if ship.name_any() == "a")
    );

    // Page by page, and metadata alone.
    let page = ships.list_metadata(&ListParams::default().limit(2)).await.expect("a page");
    let next = page.metadata.continue_.as_deref().expect("more");
    let rest =
        ships.list_metadata(&ListParams::default().limit(2).continue_token(next)).await.expect("the rest");
    let names: Vec<_> = page.iter().chain(&rest).map(ResourceExt::name_any).collect();
    assert_eq!(names, ["b", "c", "d", "e"]);

    // All at once, and the watch says so for each.
    let listed = ships.list(&ListParams::default()).await.expect("list");
    let version = listed.metadata.resource_version.expect("resourceVersion");
    ships.delete_collection(&DeleteParams::default(), &ListParams::default()).await.expect("delete");
    let mut events = ships.watch(&WatchParams::default(), &version).await.expect("watch").boxed();
    let mut gone = BTreeSet::new();
    while gone.len() < 4 {
        match events.try_next().await.expect("event").expect("a deletion of each") {
            WatchEvent::Deleted(ship) => assert!(gone.insert(ship.name_any())),
            other => panic!("{other:?}"),
        }
    }
}

async fn apply_has_owners(client: &Client) {
    let ships: Api<Ship> = Api::namespaced(client.clone(), NAMESPACE);
    let wanted = |crew: i32| {
        let mut ship = json!({
            "apiVersion": "kube-rs.example.com/v1",
            "kind": "Ship",
            "metadata": {"name": "frigate"},
            "spec": {"flag": "navy"},
        });
        ship["spec"]["crew"] = crew.into();
        Patch::Apply(ship)
    };
    ships.patch("frigate", &PatchParams::apply("one"), &wanted(1)).await.expect("apply creates");
    let status = refused(ships.patch("frigate", &PatchParams::apply("two"), &wanted(0)).await);
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    assert_eq!(status.message, "Apply failed with 1 conflict: conflict with \"one\": .spec.crew");
    let taken = ships.patch("frigate", &PatchParams::apply("two").force(), &wanted(0)).await.expect("force");
    assert_eq!(taken.spec.crew, 0);
    let managers: BTreeSet<_> =
        taken.managed_fields().iter().filter_map(|entry| entry.manager.as_deref()).collect();
    assert_eq!(managers, BTreeSet::from(["one", "two"]));
    let rehearsed =
        ships.patch("frigate", &PatchParams::apply("two").dry_run(), &wanted(3)).await.expect("rehearsal");
    assert_eq!((rehearsed.spec.crew, ships.get("frigate").await.expect("get").spec.crew), (3, 0));
    ships.delete("frigate", &DeleteParams::default()).await.expect("delete");
}

async fn reconcile(ship: Arc<Ship>, client: Arc<Client>) -> Result<Action, finalizer::Error<kube::Error>> {
    let ships: Api<Ship> = Api::namespaced((*client).clone(), NAMESPACE);
    let maps: Api<ConfigMap> = Api::namespaced((*client).clone(), NAMESPACE);
    let deployments: Api<Deployment> = Api::namespaced((*client).clone(), NAMESPACE);
    finalizer(&ships, FINALIZER, ship, |event| async {
        let apply = PatchParams::apply("shipyard").force();
        match event {
            Event::Cleanup(ship) => {
                // Cleaning up may be asked for again before the finalizer is seen to be gone.
                match maps.delete(&ship.name_any(), &DeleteParams::default()).await {
                    Err(kube::Error::Api(status)) if status.code == 404 => {}
                    deleted => drop(deleted?),
                }
            }
            Event::Apply(ship) => {
                let name = ship.name_any();
                let map = json!({
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "metadata": {"name": name},
                    "data": {"flag": ship.spec.flag},
                });
                maps.patch(&name, &apply, &Patch::Apply(map)).await?;
                let labels = json!({"ship": name});
                let deployment = json!({
                    "apiVersion": "apps/v1",
                    "kind": "Deployment",
                    "metadata": {"name": name, "ownerReferences": [ship.controller_owner_ref(&()).expect("a stored ship")]},
                    "spec": {
                        "replicas": ship.spec.crew,
                        "selector": {"matchLabels": labels},
                        "template": {
                            "metadata": {"labels": labels},
                            "spec": {
                                "terminationGracePeriodSeconds": 1,
                                "containers": [{"name": "web", "image": "demo:v1"}],
                            },
                        },
                    },
                });
                let deployment = deployments.patch(&name, &apply, &Patch::Apply(deployment)).await?;
                let status = ShipStatus {
                    aboard: deployment.status.and_then(|status| status.ready_replicas).unwrap_or(0),
                    observed_generation: ship.metadata.generation.unwrap_or(0),
                };
                let status =
                    json!({"apiVersion": "kube-rs.example.com/v1", "kind": "Ship", "status": status});
                ships.patch_status(&name, &apply, &Patch::Apply(status)).await?;
            }
        }
        Ok(Action::await_change())
    })
    .await
}

/// The owned Deployment's changes lead back to its ship; the ship's end waits for the cleaning up.
async fn the_controller_reaches_its_goal(client: &Client) {
    let ships: Api<Ship> = Api::namespaced(client.clone(), NAMESPACE);
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let config = watcher::Config::default().streaming_lists();
    let controller = Controller::new(ships.clone(), config.clone())
        .owns(deployments.clone(), config)
        .run(reconcile, |_, _, _| Action::requeue(Duration::from_secs(1)), Arc::new(client.clone()))
        // What fails is tried again; the conditions below have the deadlines.
        .for_each(|result| async move {
            if let Err(error) = result {
                eprintln!("kube-rs: {error}");
            }
        });
    let controller = tokio::spawn(controller);

    ships.create(&PostParams::default(), &ship("schooner", "trade", 2)).await.expect("create");
    let aboard = |count: i32, generation: i64| {
        move |ship: Option<&Ship>| {
            ship.and_then(|ship| ship.status.as_ref())
                .is_some_and(|status| status.aboard == count && status.observed_generation == generation)
        }
    };
    let manned = until(&ships, "schooner", "two aboard", aboard(2, 1)).await.expect("a ship");
    assert_eq!(manned.finalizers(), [FINALIZER]);
    until(&deployments, "schooner", "complete", conditions::is_deployment_completed()).await;

    let scale = json!({"spec": {"replicas": 1}});
    ships.patch_scale("schooner", &PatchParams::default(), &Patch::Merge(&scale)).await.expect("scale");
    until(&ships, "schooner", "one aboard", aboard(1, 2)).await;

    // Who takes away what the ship owns gets it again.
    let uid = deployments.get("schooner").await.expect("the Deployment").uid().expect("a uid");
    deployments.delete("schooner", &DeleteParams::background()).await.expect("delete");
    until(&deployments, "schooner", "a new Deployment", |found: Option<&Deployment>| {
        found.is_some_and(|new| new.uid().is_some_and(|new| new != uid))
    })
    .await;
    until(&ships, "schooner", "one aboard again", aboard(1, 2)).await;

    let uid = ships.get("schooner").await.expect("the ship").uid().expect("a uid");
    ships.delete("schooner", &DeleteParams::foreground()).await.expect("delete");
    until(&ships, "schooner", "sunk", conditions::is_deleted(&uid)).await;
    assert!(maps.get_opt("schooner").await.expect("get").is_none(), "cleaned up");
    // A last reconciling of a ship not yet seen to go may have made it anew; it goes with its owner all the same.
    until(&deployments, "schooner", "gone with its owner", |found: Option<&Deployment>| found.is_none())
        .await;
    controller.abort();

    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let uid = definitions.get(Ship::crd_name()).await.expect("the definition").uid().expect("a uid");
    definitions.delete(Ship::crd_name(), &DeleteParams::default()).await.expect("delete");
    until(&definitions, Ship::crd_name(), "gone", conditions::is_deleted(&uid)).await;
}
