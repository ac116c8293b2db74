//! Tables of keys and statuses, and a small world in which charges, creates, failures, deletions and late watches mix.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::charges::{Charges, SETTLE};
use super::*;

fn quota(hard: Value, status: Value) -> ResourceQuota {
    let quota = json!({"metadata": {"name": "q", "namespace": "n", "resourceVersion": "7"},
        "spec": {"hard": hard}, "status": status});
    serde_json::from_value(quota).expect("a quota")
}

fn amounts(value: Value) -> Amounts {
    coracle_api::kinds::pod_resources::amounts(Some(&value))
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
    let status = written(plan(&new, &amounts(json!({"pods": "3", "secrets": "0"})), &Pending::Unknown));
    assert_eq!(status["hard"], json!({"pods": "5", "secrets": "2", "example.com/x": "1"}));
    assert_eq!(status["used"], json!({"pods": "3", "secrets": "0"}));
    let known = quota(json!({"pods": "5"}), json!({"hard": {"pods": "5"}, "used": {"pods": "3"}}));
    assert_eq!(plan(&known, &amounts(json!({"pods": "3"})), &settled()), None);
    let narrowed = quota(
        json!({"pods": "5"}),
        json!({"hard": {"pods": "5", "cpu": "1"}, "used": {"pods": "3", "cpu": "1"}}),
    );
    let status = written(plan(&narrowed, &amounts(json!({"pods": "3"})), &settled()));
    assert_eq!(status, json!({"hard": {"cpu": null}, "used": {"cpu": null}}));
}

#[test]
fn used_falls_only_by_what_no_request_may_still_need() {
    let known = quota(json!({"pods": "5"}), json!({"hard": {"pods": "5"}, "used": {"pods": "4"}}));
    let lowered =
        |counted: &str, pending: &Pending| written(plan(&known, &amounts(json!({"pods": counted})), pending));
    let one = Pending::AtMost(amounts(json!({"pods": "1"})));
    assert_eq!(lowered("2", &Pending::Unknown), Value::Null);
    assert_eq!(lowered("2", &one), json!({"used": {"pods": "3"}}));
    assert_eq!(lowered("2", &settled()), json!({"used": {"pods": "2"}}));
    assert_eq!(lowered("3", &one), Value::Null);
    assert_eq!(lowered("5", &settled()), json!({"used": {"pods": "5"}}));
}

#[test]
fn pods_count_by_scope_and_while_they_run() {
    let best_effort = json!({"spec": {"scopes": ["BestEffort"]}});
    let pod = |phase: &str, resources: Value| json!({"status": {"phase": phase}, "spec": {"containers": [{"name": "c", "resources": resources}]}});
    let all = [
        pod("Running", json!({})),
        pod("Failed", json!({})),
        pod("Running", json!({"requests": {"cpu": "1"}})),
    ];
    let keys = ["pods".to_owned(), "count/pods".to_owned(), "requests.cpu".to_owned()];
    let now = Timestamp::UNIX_EPOCH;
    let kind = Counted::core("pods");
    assert_eq!(
        count(&best_effort, &kind, &keys, all.iter(), now),
        amounts(json!({"pods": "1", "count/pods": "2", "requests.cpu": "0"}))
    );
    assert_eq!(
        count(&json!({"spec": {}}), &kind, &keys, all.iter(), now),
        amounts(json!({"pods": "2", "count/pods": "3", "requests.cpu": "1"}))
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
        4 => proptest::option::weighted(0.8, 0..1500_u64).prop_map(|after| Step::Charge { after }),
        3 => Just(Step::Delete),
        3 => (0..1500_u64).prop_map(|lag| Step::Look { lag }),
        3 => (1..4000_u64).prop_map(Step::Pass),
    ]
}

proptest! {
    /// However charges, failures, deletions and late counts mix: never more objects than the quota has room for, and in the end `used` is
    /// what there is.
    #[test]
    fn a_quota_is_never_exceeded_and_ends_up_right(steps in proptest::collection::vec(step(), 1..60)) {
        const ROOM: i64 = 4;
        // Objects as (from, to) in milliseconds; those charged and not there yet come in the future.
        let mut objects: Vec<(u64, u64)> = Vec::new();
        let (mut used, mut now) = (0_i64, 20_000_u64);
        let time = Duration::from_millis;
        let status = |used: i64| quota(json!({"pods": "4"}), json!({"hard": {"pods": "4"}, "used": {"pods": used.to_string()}}));
        let mut charges = Charges::new(time(0));
        let look = |objects: &[(u64, u64)], used: &mut i64, charges: &mut Charges, now: u64, lag: u64| {
            let seen = objects.iter().filter(|(from, to)| *from <= now - lag && *to > now - lag).count();
            let (pending, _) = charges.pending(time(now));
            let counted = amounts(json!({"pods": seen.to_string()}));
            let action = written(plan(&status(*used), &counted, &pending));
            if let Some(after) = action["used"]["pods"].as_str().and_then(|text| text.parse().ok()) {
                charges.observe(&status(*used), &status(after), time(now));
                *used = after;
            }
        };
        for step in steps {
            match step {
                Step::Charge { after } if used < ROOM => {
                    charges.observe(&status(used), &status(used + 1), time(now));
                    used += 1;
                    if let Some(after) = after {
                        objects.push((now + after, u64::MAX));
                    }
                }
                Step::Charge { .. } => {}
                Step::Delete => {
                    if let Some(object) = objects.iter_mut().find(|(from, to)| *from <= now && *to == u64::MAX) {
                        object.1 = now;
                    }
                }
                Step::Look { lag } => look(&objects, &mut used, &mut charges, now, lag),
                Step::Pass(more) => now += more,
            }
            let there = objects.iter().filter(|(_, to)| *to == u64::MAX).count();
            prop_assert!(there as i64 <= ROOM, "{there} objects");
        }
        // The raising of an undercount by a late look is itself let go in time.
        for _ in 0..3 {
            now += SETTLE.as_millis() as u64 + 2000;
            look(&objects, &mut used, &mut charges, now, 0);
        }
        let there = objects.iter().filter(|(_, to)| *to == u64::MAX).count();
        prop_assert_eq!(used, there as i64);
    }
}
