//! Rollouts under the simulated eyes of ReplicaSets whose pods become ready when the test says so.

use super::*;
use crate::test_objects::{deployment, template};
use k8s_openapi::api::apps::v1::{DeploymentStrategy, ReplicaSetStatus, RollingUpdateDeployment};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use proptest::prelude::*;
use serde_json::Value;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("valid")
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in fields {
        if value.is_null() {
            target.as_object_mut().expect("object").remove(key);
        } else {
            merge(&mut target[key], value);
        }
    }
}

/// Carries out a Deployment's actions on objects in memory, as the API server would.
struct World {
    deployment: Deployment,
    sets: Vec<ReplicaSet>,
    events: Vec<String>,
    deleted: Vec<String>,
    second: i64,
}

impl World {
    fn new(deployment: Deployment) -> Self {
        Self { deployment, sets: vec![], events: vec![], deleted: vec![], second: 10_000 }
    }

    fn change(&mut self, change: impl FnOnce(&mut DeploymentSpec)) {
        change(self.deployment.spec.as_mut().expect("spec"));
        self.deployment.metadata.generation =
            self.deployment.metadata.generation.map(|generation| generation + 1);
    }

    fn sync(&mut self) -> Plan {
        self.second += 1;
        let sets: Vec<_> = self.sets.iter().cloned().map(Arc::new).collect();
        let plan = plan(&self.deployment, &sets, &[], at(self.second));
        for action in &plan.actions {
            self.execute(action);
        }
        plan
    }

    fn execute(&mut self, action: &Action) {
        match action {
            Action::Create { object, .. } => {
                let mut set: ReplicaSet = serde_json::from_value(object.clone()).expect("a ReplicaSet");
                set.metadata.uid = set.metadata.name.clone();
                set.metadata.generation = Some(1);
                set.metadata.creation_timestamp = Some(crate::object_meta::seconds(at(self.second)));
                assert!(self.sets.iter().all(|other| other.metadata.name != set.metadata.name));
                self.sets.push(set);
            }
            Action::Patch { target, patch, .. } if target.resource == DEPLOYMENTS => {
                let mut value = serde_json::to_value(&self.deployment).expect("JSON");
                merge(&mut value, patch);
                self.deployment = serde_json::from_value(value).expect("a Deployment");
            }
            Action::Patch { target, patch, .. } => {
                let set =
                    self.sets.iter_mut().find(|set| name(&set.metadata) == target.name).expect("exists");
                let mut value = serde_json::to_value(&*set).expect("JSON");
                merge(&mut value, patch);
                *set = serde_json::from_value(value).expect("a ReplicaSet");
            }
            Action::Delete { target, .. } => {
                self.sets.retain(|set| name(&set.metadata) != target.name);
                self.deleted.push(target.name.clone());
            }
            Action::Event { message, .. } => self.events.push(message.clone()),
        }
    }

    /// Every ReplicaSet has the pods it asks for, of which at most `ready` are available.
    fn report(&mut self, index: usize, ready: i32) {
        let set = &mut self.sets[index];
        let replicas = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
        let ready = ready.clamp(0, replicas);
        set.status = Some(ReplicaSetStatus {
            replicas,
            ready_replicas: Some(ready),
            available_replicas: Some(ready),
            observed_generation: set.metadata.generation,
            terminating_replicas: Some(0),
            ..Default::default()
        });
    }

    fn settle(&mut self) {
        for _ in 0..50 {
            for index in 0..self.sets.len() {
                self.report(index, i32::MAX);
            }
            if self.sync().actions.is_empty() {
                return;
            }
        }
        panic!("does not settle: {:?}", self.events);
    }

    fn sizes(&self) -> Vec<i32> {
        self.sets.iter().map(|set| set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0)).collect()
    }

    fn reason(&self, kind: &str) -> String {
        let status = self.deployment.status.as_ref().expect("status");
        let condition = status.conditions.iter().flatten().find(|condition| condition.type_ == kind);
        condition.and_then(|condition| condition.reason.clone()).unwrap_or_default()
    }

    fn revision(&self) -> Option<&str> {
        annotation(&self.deployment.metadata, REVISION)
    }
}

#[test]
fn a_new_deployment_creates_its_set_and_reports_completion() {
    let mut world = World::new(deployment("web", 3, "demo:v1"));
    world.sync();
    let set_name = name(&world.sets[0].metadata).to_owned();
    assert_eq!(world.sizes(), [3]);
    assert_eq!(world.events, [format!("Scaled up replica set {set_name} to 3 from 0")]);
    assert_eq!(world.reason("Available"), "MinimumReplicasUnavailable");
    assert_eq!(world.reason("Progressing"), "NewReplicaSetCreated");
    assert_eq!(world.revision(), Some("1"));
    world.report(0, 1);
    world.sync();
    assert_eq!(world.reason("Progressing"), "ReplicaSetUpdated");
    world.settle();
    assert_eq!(world.reason("Progressing"), "NewReplicaSetAvailable");
    assert_eq!(world.reason("Available"), "MinimumReplicasAvailable");
    let status = world.deployment.status.clone().expect("status");
    assert_eq!(
        (status.replicas, status.available_replicas, status.unavailable_replicas),
        (Some(3), Some(3), None)
    );
    assert_eq!(annotation(&world.sets[0].metadata, MAX_REPLICAS), Some("4"));
}

#[test]
fn an_update_rolls_and_a_rollback_finds_the_old_set_again() {
    let mut world = World::new(deployment("web", 3, "demo:v1"));
    world.settle();
    world.change(|spec| spec.template = template("web", "demo:v2"));
    world.settle();
    assert_eq!(world.sizes(), [0, 3]);
    assert_eq!(world.revision(), Some("2"));
    world.change(|spec| spec.template = template("web", "demo:v1"));
    world.settle();
    assert_eq!(world.sizes(), [3, 0]);
    assert_eq!(world.revision(), Some("3"));
    assert_eq!(annotation(&world.sets[0].metadata, REVISION_HISTORY), Some("1"));
    assert_eq!(world.reason("Progressing"), "NewReplicaSetAvailable");
}

/// Found by the simulation: a shrunk set that still reported its old number was taken to zero, and with it what the new set did not have yet.
#[test]
fn pods_that_a_set_is_to_give_up_are_not_spare() {
    let mut world = World::new(deployment("web", 7, "demo:v1"));
    world.change(|spec| {
        spec.strategy = Some(DeploymentStrategy {
            type_: Some("RollingUpdate".into()),
            rolling_update: Some(RollingUpdateDeployment {
                max_surge: Some(IntOrString::Int(2)),
                max_unavailable: Some(IntOrString::Int(2)),
            }),
        });
    });
    world.settle();
    world.change(|spec| spec.template = template("web", "demo:v2"));
    world.sync();
    // From here on the old set reports nothing new, and three of the new set's pods become available.
    for _ in 0..10 {
        world.report(1, 3);
        world.sync();
        let sizes = world.sizes();
        assert!(sizes[0] + sizes[1].min(3) >= 5, "{sizes:?}");
    }
    assert_eq!(world.sizes(), [2, 7], "it went as far as it could");
}

#[test]
fn a_paused_deployment_scales_but_does_not_roll() {
    let mut world = World::new(deployment("web", 2, "demo:v1"));
    world.settle();
    world.change(|spec| {
        spec.paused = Some(true);
        spec.template = template("web", "demo:v2");
        spec.replicas = Some(5);
    });
    world.settle();
    assert_eq!(world.sizes(), [5]);
    assert_eq!(world.reason("Progressing"), "DeploymentPaused");
    world.change(|spec| spec.paused = None);
    world.settle();
    assert_eq!(world.sizes(), [0, 5]);
    assert_eq!(world.reason("Progressing"), "NewReplicaSetAvailable");
}

#[test]
fn recreate_waits_until_the_old_pods_are_gone() {
    let mut world = World::new(deployment("web", 2, "demo:v1"));
    world.change(|spec| {
        spec.strategy = Some(DeploymentStrategy { type_: Some("Recreate".into()), rolling_update: None });
    });
    world.settle();
    world.change(|spec| spec.template = template("web", "demo:v2"));
    world.sync();
    assert_eq!(world.sizes(), [0]);
    world.sync();
    assert_eq!(world.sizes(), [0], "the old set still reports pods");
    world.report(0, 0);
    world.sync();
    assert_eq!(world.sizes(), [0, 2]);
}

#[test]
fn a_change_of_size_in_mid_rollout_is_shared_in_proportion() {
    let mut world = World::new(deployment("web", 10, "demo:v1"));
    world.settle();
    world.change(|spec| spec.template = template("web", "demo:v2"));
    world.sync();
    assert_eq!(world.sizes(), [8, 3]);
    world.report(0, 8);
    world.sync();
    assert_eq!(world.sizes(), [8, 5]);
    world.change(|spec| spec.replicas = Some(20));
    world.sync();
    assert_eq!(world.sizes(), [15, 10], "25 = 20 + 25%");
}

#[test]
fn old_sets_beyond_the_limit_are_forgotten() {
    let mut world = World::new(deployment("web", 1, "demo:v1"));
    world.change(|spec| spec.revision_history_limit = Some(1));
    for version in 1..5 {
        world.change(|spec| spec.template = template("web", &format!("demo:v{version}")));
        world.settle();
    }
    assert_eq!(world.sets.len(), 2);
    assert_eq!(world.deleted.len(), 2);
    assert_eq!(world.revision(), Some("4"));
}

#[test]
fn a_rollout_without_progress_is_reported_at_its_deadline_and_looked_at_then() {
    let mut world = World::new(deployment("web", 2, "demo:v1"));
    world.sync();
    world.report(0, 0);
    world.sync();
    let plan = world.sync();
    let left = plan.requeue_after.expect("the deadline is awaited").as_secs();
    assert!((595..=601).contains(&left), "{left}");
    world.second += 602;
    world.sync();
    assert_eq!(world.reason("Progressing"), "ProgressDeadlineExceeded");
    let status = world.deployment.status.clone().expect("status");
    let message =
        status.conditions.into_iter().flatten().find(|c| c.type_ == "Progressing").and_then(|c| c.message);
    assert!(message.expect("message").ends_with("has timed out progressing."));
    world.settle();
    assert_eq!(world.reason("Progressing"), "NewReplicaSetAvailable");
}

fn limit() -> impl Strategy<Value = IntOrString> {
    prop_oneof![
        (0i32..6).prop_map(IntOrString::Int),
        (0i32..=100).prop_map(|percent| IntOrString::String(format!("{percent}%"))),
    ]
}

proptest! {
    /// At every step of a rollout whose pods become ready at random: never more pods than replicas + maxSurge, and pods
    /// that were available never fall below replicas - maxUnavailable through the controller's doing; and it ends.
    #[test]
    fn surge_and_unavailability_hold_at_every_step(
        replicas in 1i32..25,
        surge in limit(),
        unavailable in limit(),
        readiness in prop::collection::vec((0usize..3, 0i32..25), 1..60),
    ) {
        let mut world = World::new(deployment("web", replicas, "demo:v1"));
        world.change(|spec| {
            spec.strategy = Some(DeploymentStrategy {
                type_: Some("RollingUpdate".into()),
                rolling_update: Some(RollingUpdateDeployment { max_surge: Some(surge), max_unavailable: Some(unavailable) }),
            });
        });
        world.settle();
        world.change(|spec| spec.template = template("web", "demo:v2"));
        let spec = world.deployment.spec.clone().expect("spec");
        let most = replicas + numbers::max_surge(&spec);
        let least = replicas - numbers::max_unavailable(&spec);
        let available = |world: &World| -> i32 {
            world.sets.iter().map(|set| set.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0)).sum()
        };
        for (which, ready) in readiness {
            world.sync();
            prop_assert!(world.sizes().iter().sum::<i32>() <= most, "{:?}", world.sizes());
            for index in 0..world.sets.len() {
                // Old pods stay available; shrinking removes unavailable ones first. New ones become ready as drawn.
                let now_ready = world.sets[index].status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0);
                let next = if index > 0 && index == which { now_ready.max(ready) } else { now_ready };
                world.report(index, next);
            }
            prop_assert!(available(&world) >= least, "{} available of {replicas}", available(&world));
        }
        world.settle();
        prop_assert_eq!(world.sizes(), vec![0, replicas]);
    }
}
