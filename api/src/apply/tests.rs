//! Behaviour of server-side apply as the API's documentation describes it.

use super::*;
use crate::schema::of_kind;
use proptest::prelude::*;

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().expect("a time")
}

fn later() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().expect("a time")
}

fn schema(kind: &str) -> &'static Schema {
    let group = if kind == "Deployment" { "apps" } else { "" };
    of_kind(group, "v1", kind).expect("a kind")
}

fn config_map(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "d"}, "data": data})
}

fn apply_map(live: Option<&Value>, data: Value, manager: &str, force: bool) -> Result<Value, ApiError> {
    apply(live, &config_map(data), manager, "", force, schema("ConfigMap"), now())
}

fn owners(object: &Value) -> Vec<(String, String, Vec<String>)> {
    managers::list_of(object)
        .iter()
        .map(|entry| {
            let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
            let set = FieldSet::from_fields_v1(&entry["fieldsV1"]).expect("a field set");
            (text("manager"), text("operation"), set.paths())
        })
        .collect()
}

fn deployment(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "d"}, "spec": spec})
}

#[test]
fn applied_fields_are_owned_and_written_as_fields_v1() {
    let object = deployment(json!({"replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "web", "image": "x", "ports": [{"containerPort": 80}], "args": ["a"]}]}}}));
    let created =
        apply(None, &object, "kubectl", "", false, schema("Deployment"), now()).expect("no conflict");
    assert_eq!(
        created["metadata"]["managedFields"],
        json!([{"manager": "kubectl", "operation": "Apply", "apiVersion": "apps/v1",
            "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:spec": {"f:replicas": {}, "f:selector": {}, "f:template": {
                "f:metadata": {"f:labels": {"f:app": {}}},
                "f:spec": {"f:containers": {"k:{\"name\":\"web\"}": {".": {}, "f:name": {}, "f:image": {}, "f:args": {},
                    "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}}}}}}}])
    );
}

#[test]
fn creating_by_update_owns_as_upstream_writes_it() {
    let object = deployment(json!({"replicas": 1, "strategy": {"type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": "25%"}}, "template": {"metadata": {"labels": {"app": "web"}}}}));
    let created = track_update(None, object, "kubectl", Operation::Update, "", schema("Deployment"), now());
    assert_eq!(
        created["metadata"]["managedFields"][0]["fieldsV1"],
        json!({"f:spec": {"f:replicas": {},
            "f:strategy": {"f:type": {}, "f:rollingUpdate": {".": {}, "f:maxSurge": {}}},
            "f:template": {"f:metadata": {"f:labels": {".": {}, "f:app": {}}}}}})
    );
}

#[test]
fn changing_what_another_owns_is_a_conflict_with_upstreams_words() {
    let live = deployment(json!({"replicas": 3}));
    let live = track_update(
        None,
        live,
        "kubectl-client-side-apply",
        Operation::Update,
        "",
        schema("Deployment"),
        now(),
    );
    let applied = deployment(json!({"replicas": 5}));
    let error = apply(Some(&live), &applied, "kubectl", "", false, schema("Deployment"), later())
        .expect_err("a conflict");
    assert_eq!(error.code(), 409);
    assert_eq!(
        error.message(),
        "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using apps/v1: .spec.replicas"
    );
    assert_eq!(
        error.to_status()["details"]["causes"],
        json!([{"reason": "FieldManagerConflict",
            "message": "conflict with \"kubectl-client-side-apply\" using apps/v1", "field": ".spec.replicas"}])
    );
    let forced =
        apply(Some(&live), &applied, "kubectl", "", true, schema("Deployment"), later()).expect("forced");
    assert_eq!(forced["spec"]["replicas"], 5);
    assert_eq!(owners(&forced), vec![("kubectl".into(), "Apply".into(), vec![".spec.replicas".into()])]);
}

#[test]
fn several_conflicts_are_listed_by_manager() {
    let live = apply_map(None, json!({"a": "1", "b": "1"}), "one", false).expect("new");
    let live = apply_map(Some(&live), json!({"c": "1"}), "two", false).expect("own field");
    let error =
        apply_map(Some(&live), json!({"a": "2", "b": "2", "c": "2"}), "three", false).expect_err("conflicts");
    assert_eq!(
        error.message(),
        "Apply failed with 3 conflicts: conflicts with \"one\":\n- .data.a\n- .data.b\nconflicts with \"two\":\n- .data.c"
    );
}

#[test]
fn equal_values_are_owned_together_and_stay_until_the_last_owner_leaves() {
    let live = apply_map(None, json!({"a": "1", "b": "1"}), "one", false).expect("new");
    let live = apply_map(Some(&live), json!({"a": "1"}), "two", false).expect("the same value");
    let live = apply_map(Some(&live), json!({"b": "1"}), "one", false).expect("one lets go");
    assert_eq!(live["data"], json!({"a": "1", "b": "1"}));
    let live = apply_map(Some(&live), json!({}), "two", false).expect("two lets go");
    assert_eq!(live["data"], json!({"b": "1"}));
    let live = apply_map(Some(&live), json!({}), "one", false).expect("one lets go of all");
    assert_eq!(live.get("data"), Some(&json!({})));
}

#[test]
fn items_no_longer_applied_go_with_what_was_defaulted_in_them() {
    let spec = |containers: Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": containers}});
    let one = spec(json!([{"name": "a", "image": "x"}, {"name": "b", "image": "y"}]));
    let mut live = apply(None, &one, "m", "", false, schema("Pod"), now()).expect("new");
    live["spec"]["containers"][1]["imagePullPolicy"] = json!("Always");
    live["spec"]["containers"][0]["imagePullPolicy"] = json!("Always");
    let two = spec(json!([{"name": "a", "image": "x"}]));
    let live = apply(Some(&live), &two, "m", "", false, schema("Pod"), now()).expect("fewer containers");
    assert_eq!(live["spec"]["containers"], json!([{"name": "a", "image": "x", "imagePullPolicy": "Always"}]));
}

#[test]
fn update_takes_ownership_and_removal_drops_it() {
    let live = apply_map(None, json!({"a": "1", "b": "1"}), "one", false).expect("new");
    let mut new = live.clone();
    new["data"] = json!({"a": "2"});
    let live = track_update(Some(&live), new, "two", Operation::Update, "", schema("ConfigMap"), later());
    assert_eq!(owners(&live), vec![("two".into(), "Update".into(), vec![".data.a".into()])]);
    assert!(apply_map(Some(&live), json!({"a": "1"}), "one", false).is_err());
}

#[test]
fn status_is_owned_through_its_subresource_alone() {
    let live = deployment(json!({"replicas": 1}));
    let mut with_status = live.clone();
    with_status["status"] = json!({"replicas": 1});
    let schema = schema("Deployment");
    let created = track_update(None, with_status.clone(), "m", Operation::Update, "", schema, now());
    assert_eq!(owners(&created)[0].2, vec![".spec.replicas"]);
    let updated = track_update(Some(&live), with_status, "m", Operation::Update, "status", schema, now());
    assert_eq!(updated["metadata"]["managedFields"][0]["subresource"], "status");
    assert_eq!(owners(&updated)[0].2, vec![".status.replicas"]);
}

#[test]
fn managers_can_be_edited_and_forgotten() {
    let live = apply_map(None, json!({"a": "1"}), "one", false).expect("new");
    let mut reset = live.clone();
    reset["metadata"]["managedFields"] = json!([{}]);
    let live_reset =
        track_update(Some(&live), reset, "m", Operation::Update, "", schema("ConfigMap"), later());
    assert_eq!(live_reset["metadata"].get("managedFields"), None);

    let mut renamed = live.clone();
    renamed["metadata"]["managedFields"][0]["manager"] = json!("other");
    let renamed =
        track_update(Some(&live), renamed, "m", Operation::Update, "", schema("ConfigMap"), later());
    assert_eq!(owners(&renamed)[0].0, "other");

    let mut left_out = live.clone();
    meta::remove(&mut left_out, "managedFields");
    let kept = track_update(Some(&live), left_out, "m", Operation::Update, "", schema("ConfigMap"), later());
    assert_eq!(kept, live);
}

#[test]
fn untracked_objects_belong_to_before_first_apply() {
    let live = config_map(json!({"a": "1"}));
    assert!(apply_map(Some(&live), json!({"a": "2"}), "m", false).is_err());
    let applied = apply_map(Some(&live), json!({"b": "2"}), "m", false).expect("another field");
    let managers: Vec<String> = owners(&applied).into_iter().map(|(manager, _, _)| manager).collect();
    assert_eq!(managers, vec!["m", "before-first-apply"]);
}

#[test]
fn kubectl_moves_from_client_side_apply_without_conflicts() {
    let record = config_map(json!({"a": "1"}));
    let mut live = record.clone();
    live["metadata"]["annotations"] = json!({LAST_APPLIED_ANNOTATION: record.to_string()});
    let live = track_update(
        None,
        live,
        "kubectl-client-side-apply",
        Operation::Update,
        "",
        schema("ConfigMap"),
        now(),
    );
    let moved = apply_map(Some(&live), json!({"a": "2"}), "kubectl", false).expect("its own fields");
    assert_eq!(moved["data"]["a"], "2");
    assert!(
        moved["metadata"]["annotations"][LAST_APPLIED_ANNOTATION]
            .as_str()
            .is_some_and(|text| text.contains("\"a\":\"2\""))
    );
    assert!(apply_map(Some(&live), json!({"a": "2"}), "someone", false).is_err());
}

#[test]
fn what_cannot_be_applied_is_a_bad_request() {
    let schema = schema("Deployment");
    let refused = |object: Value| {
        apply(None, &object, "m", "", false, schema, now()).expect_err("a bad request").message().to_owned()
    };
    assert_eq!(
        refused(deployment(json!({"foo": 1}))),
        "failed to create typed patch object (d/web; apps/v1, Kind=Deployment): .spec.foo: field not declared in schema"
    );
    let containers = |list: Value| deployment(json!({"template": {"spec": {"containers": list}}}));
    assert!(
        refused(containers(json!([{"name": "a"}, {"name": "a"}])))
            .ends_with(".spec.template.spec.containers: duplicate entries for key [name=\"a\"]")
    );
    assert!(refused(containers(json!([{"image": "a"}]))).contains("omits key field \"name\""));
}

#[test]
fn old_update_managers_are_joined() {
    let mut live = config_map(json!({}));
    for number in 0..20 {
        let mut new = live.clone();
        new["data"][format!("k{number}")] = json!("1");
        let time = Timestamp::from_second(1_700_000_000 + number).expect("a time");
        live = track_update(
            Some(&live),
            new,
            &format!("m{number}"),
            Operation::Update,
            "",
            schema("ConfigMap"),
            time,
        );
    }
    let owners = owners(&live);
    assert_eq!(owners.len(), 10);
    assert!(owners.iter().any(|(manager, _, fields)| manager == "ancient-changes" && fields.len() == 11));
}

fn data() -> impl Strategy<Value = Value> {
    prop::collection::btree_map("[a-e]", "[0-2]", 0..5).prop_map(|entries| {
        Value::Object(entries.into_iter().map(|(key, value)| (key, value.into())).collect())
    })
}

fn pod_of(names: &[String], image: &str) -> Value {
    let containers: Vec<Value> = names.iter().map(|name| json!({"name": name, "image": image})).collect();
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": containers}})
}

proptest! {
    #[test]
    fn applying_twice_changes_nothing(first in data(), second in data()) {
        let live = apply_map(None, first, "one", true).expect("forced");
        let once = apply_map(Some(&live), second.clone(), "two", true).expect("forced");
        let once = apply_map(Some(&once), json!({"f": "1"}), "two", true).expect("forced");
        let once = apply_map(Some(&once), second.clone(), "two", true).expect("forced");
        let again = apply(Some(&once), &config_map(second), "two", "", false, schema("ConfigMap"), later());
        prop_assert_eq!(again, Ok(once));
    }

    #[test]
    fn a_sole_manager_gets_exactly_what_it_applies(first in data(), second in data()) {
        let live = apply_map(None, first, "one", false).expect("new");
        let next = apply_map(Some(&live), second.clone(), "one", false).expect("its own");
        prop_assert_eq!(next.get("data").cloned().unwrap_or_else(|| json!({})), second);
    }

    #[test]
    fn every_field_in_an_object_has_an_owner(first in data(), second in data(), third in data()) {
        let live = apply_map(None, first, "one", true).expect("forced");
        let live = apply_map(Some(&live), second, "two", true).expect("forced");
        let mut new = live.clone();
        new["data"] = third;
        let live = track_update(Some(&live), new, "three", Operation::Update, "", schema("ConfigMap"), later());
        let owned: Vec<String> = owners(&live).into_iter().flat_map(|(_, _, fields)| fields).collect();
        for key in live["data"].as_object().expect("data").keys() {
            prop_assert!(owned.contains(&format!(".data.{key}")), "{} in {:?}", key, owned);
        }
    }

    #[test]
    fn a_sole_manager_orders_its_lists(
        first in prop::collection::btree_set("[a-e]", 1..5).prop_map(|set| set.into_iter().collect::<Vec<_>>()).prop_shuffle(),
        second in prop::collection::btree_set("[a-e]", 1..5).prop_map(|set| set.into_iter().collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let live = apply(None, &pod_of(&first, "x"), "m", "", false, schema("Pod"), now()).expect("new");
        let next = apply(Some(&live), &pod_of(&second, "y"), "m", "", false, schema("Pod"), now()).expect("its own");
        prop_assert_eq!(&next["spec"], &pod_of(&second, "y")["spec"]);
    }
}
