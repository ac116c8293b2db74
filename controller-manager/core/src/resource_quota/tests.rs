//! Tables of keys and statuses, and a small world in which charges, creates, failures, deletions and late watches mix.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::charges::{Charges, SETTLE};
use super::tally::Tally;
use super::*;

fn quota(hard: Value, status: Value) -> ResourceQuota {
    let quota = json!({"metadata": {"name": "q", "namespace": "n", "resourceVersion": "7"},
        "spec": {"hard": hard}, "status": status});
    serde_json::from_value(quota).expect("a quota")
}

fn amounts(value: Value) -> Amounts {
    coracle_api::kinds::pod_resources::amounts(Some(&value))
}

fn nothing() -> Amounts {
    Amounts::new()
}

fn settled() -> Pending {
    Pending::AtMost(Amounts::new())
}

fn written(action: Option<Action>) -> Value {
    match action {
        Some(Action::Patch { patch, subresource: "status", .. }) => patch["status"].clone(),
        None => Value::Null,
        other => panic!("{other:?}"),
    }
}

#[test]
fn keys_name_what_is_counted() {
    for (key, expected) in [
        ("pods", Some(("", "pods"))),
        ("requests.cpu", Some(("", "pods"))),
        ("hugepages-2Mi", Some(("", "pods"))),
        ("requests.example.com/gpu", Some(("", "pods"))),
        ("services.nodeports", Some(("", "services"))),
        ("requests.storage", Some(("", "persistentvolumeclaims"))),
        ("gold.storageclass.storage.k8s.io/requests.storage", Some(("", "persistentvolumeclaims"))),
        ("secrets", Some(("", "secrets"))),
        ("count/deployments.apps", Some(("apps", "deployments"))),
        ("count/widgets.example.com", Some(("example.com", "widgets"))),
        ("count/pods", Some(("", "pods"))),
        ("example.com/gpu", None),
    ] {
        let found = counted(key);
        assert_eq!(found.as_ref().map(|of| (&*of.group, &*of.plural)), expected, "{key}");
    }
}

#[test]
fn a_new_quota_gets_its_limits_and_counts() {
    let new = quota(json!({"pods": "5", "secrets": "2", "example.com/x": "1"}), json!({}));
    let status =
        written(plan(&new, &amounts(json!({"pods": "3", "secrets": "0"})), &nothing(), &Pending::Unknown));
    assert_eq!(status["hard"], json!({"pods": "5", "secrets": "2", "example.com/x": "1"}));
    assert_eq!(status["used"], json!({"pods": "3", "secrets": "0"}));
    let known = quota(json!({"pods": "5"}), json!({"hard": {"pods": "5"}, "used": {"pods": "3"}}));
    assert_eq!(plan(&known, &amounts(json!({"pods": "3"})), &nothing(), &settled()), None);
    let narrowed = quota(
        json!({"pods": "5"}),
        json!({"hard": {"pods": "5", "cpu": "1"}, "used": {"pods": "3", "cpu": "1"}}),
    );
    let status = written(plan(&narrowed, &amounts(json!({"pods": "3"})), &nothing(), &settled()));
    assert_eq!(status, json!({"hard": {"cpu": null}, "used": {"cpu": null}}));
}

#[test]
fn used_falls_only_by_what_no_request_may_still_need() {
    let known = quota(json!({"pods": "5"}), json!({"hard": {"pods": "5"}, "used": {"pods": "4"}}));
    let lowered = |counted: &str, freed: &str, pending: &Pending| {
        let (counted, freed) = (amounts(json!({"pods": counted})), amounts(json!({"pods": freed})));
        written(plan(&known, &counted, &freed, pending))
    };
    let one = Pending::AtMost(amounts(json!({"pods": "1"})));
    assert_eq!(lowered("2", "0", &Pending::Unknown), Value::Null);
    assert_eq!(lowered("2", "0", &one), json!({"used": {"pods": "3"}}));
    assert_eq!(lowered("2", "0", &settled()), json!({"used": {"pods": "2"}}));
    assert_eq!(lowered("3", "0", &one), Value::Null);
    assert_eq!(lowered("5", "0", &settled()), json!({"used": {"pods": "5"}}));
    assert_eq!(lowered("2", "1", &Pending::Unknown), json!({"used": {"pods": "3"}}));
    assert_eq!(lowered("2", "2", &one), json!({"used": {"pods": "2"}}));
    assert_eq!(lowered("3", "2", &one), json!({"used": {"pods": "3"}}));
}

#[test]
fn what_goes_or_shrinks_is_free_once() {
    let pods = Counted::core("pods");
    let keys = ["pods".to_owned(), "cpu".to_owned()];
    let of = |all: &[(&str, &str)]| -> HashMap<String, Amounts> {
        all.iter().map(|(uid, cpu)| ((*uid).to_owned(), amounts(json!({"pods": "1", "cpu": cpu})))).collect()
    };
    let mut tally = Tally::default();
    assert_eq!(tally.look(&pods, &keys, of(&[])), amounts(json!({"pods": "0", "cpu": "0"})));
    assert_eq!(
        tally.look(&pods, &keys, of(&[("a", "1"), ("b", "500m")])),
        amounts(json!({"pods": "2", "cpu": "1500m"}))
    );
    assert_eq!(tally.freed(), &nothing());
    tally.look(&pods, &keys, of(&[("a", "250m"), ("c", "2")]));
    assert_eq!(tally.freed(), &amounts(json!({"pods": "1", "cpu": "1250m"})));
    tally.look(&pods, &keys, of(&[("a", "250m"), ("c", "3")]));
    assert_eq!(tally.freed(), &amounts(json!({"pods": "1", "cpu": "1250m"})), "growth frees nothing");
    tally.settle();
    tally.look(&Counted::core("services"), &["services".to_owned()], HashMap::new());
    assert_eq!(tally.freed(), &nothing());
}

#[test]
fn pods_count_by_scope_and_while_they_run() {
    let best_effort = json!({"spec": {"scopes": ["BestEffort"]}});
    let pod = |phase: &str, resources: Value| json!({"status": {"phase": phase}, "spec": {"containers": [{"name": "c", "resources": resources}]}});
    let keys = ["pods".to_owned(), "count/pods".to_owned(), "requests.cpu".to_owned()];
    let usage_of = |quota: &Value, pod: &Value| {
        let mut usage = usage(quota, &Counted::core("pods"), &keys, pod, Timestamp::UNIX_EPOCH);
        usage.retain(|_, amount| !amount.is_zero());
        usage
    };
    let any = json!({"spec": {}});
    let (plain, failed) = (pod("Running", json!({})), pod("Failed", json!({})));
    let asking = pod("Running", json!({"requests": {"cpu": "1", "memory": "1Gi"}}));
    assert_eq!(usage_of(&best_effort, &plain), amounts(json!({"pods": "1", "count/pods": "1"})));
    assert_eq!(usage_of(&best_effort, &failed), amounts(json!({"count/pods": "1"})));
    assert_eq!(usage_of(&best_effort, &asking), nothing());
    assert_eq!(
        usage_of(&any, &asking),
        amounts(json!({"pods": "1", "count/pods": "1", "requests.cpu": "1"}))
    );
}

/// What happens next in the small world.
#[derive(Clone, Debug)]
enum Step {
    /// A create is charged; its object comes after so many milliseconds, or never.
    Charge { after: Option<u64> },
    /// An object is deleted.
    Delete,
    /// The controller looks, with a count that is this old.
    Look { lag: u64 },
    /// Time passes.
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => proptest::option::weighted(0.8, 0..20_000_u64).prop_map(|after| Step::Charge { after }),
        3 => Just(Step::Delete),
        3 => (0..60_000_u64).prop_map(|lag| Step::Look { lag }),
        3 => (1..30_000_u64).prop_map(Step::Pass),
    ]
}

/// A quota of four pods, its objects and its controller.
struct World {
    now: u64,
    used: i64,
    /// From when to when each is there, in milliseconds; what was charged and is not there yet comes in the future.
    objects: Vec<(u64, u64)>,
    charges: Charges,
    tally: Tally,
    /// Up to when the controller has seen all; a copy does not go back in time.
    seen: u64,
}

impl World {
    const ROOM: i64 = 4;

    fn status(used: i64) -> ResourceQuota {
        quota(json!({"pods": "4"}), json!({"hard": {"pods": "4"}, "used": {"pods": used.to_string()}}))
    }

    fn set(&mut self, used: i64) {
        self.charges.observe(&Self::status(self.used), &Self::status(used), Duration::from_millis(self.now));
        self.used = used;
    }

    fn look(&mut self, lag: u64) {
        self.seen = self.seen.max(self.now - lag);
        let there =
            self.objects.iter().enumerate().filter(|(_, (from, to))| *from <= self.seen && *to > self.seen);
        let objects = there.map(|(uid, _)| (uid.to_string(), amounts(json!({"pods": "1"})))).collect();
        let counted = self.tally.look(&Counted::core("pods"), &["pods".to_owned()], objects);
        let (pending, _) = self.charges.pending(Duration::from_millis(self.now));
        let action = written(plan(&Self::status(self.used), &counted, self.tally.freed(), &pending));
        self.tally.settle();
        if let Some(after) = action["used"]["pods"].as_str().and_then(|text| text.parse().ok()) {
            self.set(after);
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Charge { after } if self.used < Self::ROOM => {
                self.set(self.used + 1);
                self.objects.extend(after.map(|after| (self.now + after, u64::MAX)));
            }
            Step::Charge { .. } => {}
            Step::Delete => {
                let now = self.now;
                let there = |(from, to): &&mut (u64, u64)| *from <= now && *to == u64::MAX;
                if let Some(object) = self.objects.iter_mut().find(there) {
                    object.1 = now;
                }
            }
            Step::Look { lag } => self.look(*lag),
            Step::Pass(more) => self.now += more,
        }
    }

    fn there(&self) -> i64 {
        self.objects.iter().filter(|(_, to)| *to == u64::MAX).count() as i64
    }
}

proptest! {
    /// However charges, failures, deletions and late counts mix: never more objects than the quota has room for, and in the end `used` is
    /// what there is.
    #[test]
    fn a_quota_is_never_exceeded_and_ends_up_right(steps in proptest::collection::vec(step(), 1..60)) {
        let mut world = World {
            now: 100_000, used: 0, objects: Vec::new(), charges: Charges::new(Duration::ZERO), tally: Tally::default(), seen: 0,
        };
        for step in &steps {
            world.take(step);
            prop_assert!(world.there() <= World::ROOM, "{} objects", world.there());
        }
        // The raising of an undercount by a late look is itself let go in time.
        for _ in 0..3 {
            world.now += SETTLE.as_millis() as u64 + 2000;
            world.look(0);
        }
        prop_assert_eq!(world.used, world.there());
    }
}
