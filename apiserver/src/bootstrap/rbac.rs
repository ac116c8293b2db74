//! Creates the default roles and bindings at start and gives back to them what they have lost. What somebody added stays, and an object whose annotation
//! `rbac.authorization.kubernetes.io/autoupdate` is `false` is left alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use coracle_api::status::ApiError;
use futures::StreamExt;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::{RETRY, ensure, of};
use crate::authz::defaults::{self, AUTOUPDATE, DefaultObject};
use crate::authz::rule::{self, PolicyRule};
use crate::registry::Registry;
use crate::registry::delete::DeleteOptions;
use crate::registry::update::Change;
use crate::server::request_info::{RequestInfo, Verb};

/// Writes under way at a time: the store syncs many at once.
const WRITES_MAX: usize = 32;
const NAMESPACES: &[&str] = &["kube-system", "kube-public"];

/// Works until all is there or `stop` fires; sets `done` then.
pub async fn run(registry: Arc<Registry>, done: Arc<AtomicBool>, stop: CancellationToken) {
    loop {
        match ensure_all(&registry).await {
            Ok(()) => return done.store(true, Ordering::Release),
            Err(error) => tracing::debug!(%error, "making the default roles; trying again"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

async fn ensure_all(registry: &Arc<Registry>) -> Result<(), ApiError> {
    if registry.cache.wait_for(0).await.is_err() {
        return Err(ApiError::service_unavailable("the watch cache is still being filled"));
    }
    for name in NAMESPACES {
        ensure(registry, "", "v1", "namespaces", None, json!({"metadata": {"name": name}})).await?;
    }
    let gates = registry.options.gates().map_err(ApiError::internal)?;
    let mut written = futures::stream::iter(defaults::all(&gates))
        .map(|default| reconcile(registry, default))
        .buffer_unordered(WRITES_MAX);
    let mut result = Ok(());
    while let Some(one) = written.next().await {
        result = result.and(one);
    }
    result
}

async fn reconcile(registry: &Arc<Registry>, default: DefaultObject) -> Result<(), ApiError> {
    let resource = of("rbac.authorization.k8s.io", "v1", default.plural)?;
    let name = default.object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let request = |verb| RequestInfo::internal(verb, resource, default.namespace, Some(&name));
    let create = async |object| match registry.create(&request(Verb::Create), object).await {
        // Another API server was faster.
        Err(error) if error.reason() == "AlreadyExists" => Ok(()),
        result => result.map(|_| ()),
    };
    let Some(known) = registry.cached(resource, default.namespace.unwrap_or_default(), &name) else {
        return create(default.object).await;
    };
    match step(&known.value().map_err(ApiError::internal)?, &default.object) {
        Step::Keep => Ok(()),
        Step::Update(object) => {
            registry.update(&request(Verb::Update), Change::Replace(object)).await.map(|_| ())
        }
        Step::Replace => {
            registry.delete(&request(Verb::Delete), &DeleteOptions::default()).await?;
            create(default.object).await
        }
    }
}

/// What an existing object needs.
#[derive(Debug, PartialEq)]
enum Step {
    Keep,
    Update(Value),
    /// A binding's role cannot be changed.
    Replace,
}

fn step(existing: &Value, wanted: &Value) -> Step {
    if existing["metadata"]["annotations"][AUTOUPDATE] == "false" {
        return Step::Keep;
    }
    if !wanted["roleRef"].is_null() && existing["roleRef"] != wanted["roleRef"] {
        return Step::Replace;
    }
    let mut object = existing.clone();
    for key in ["labels", "annotations"] {
        add_entries(&mut object["metadata"][key], &wanted["metadata"][key]);
    }
    if let Some(rules) = wanted.get("rules") {
        add_rules(&mut object["rules"], rules);
    }
    if let Some(subjects) = wanted.get("subjects") {
        add_items(&mut object["subjects"], subjects);
    }
    if let Some(aggregation) = wanted.get("aggregationRule") {
        if !object["aggregationRule"].is_object() {
            object["aggregationRule"] = json!({});
        }
        let key = "clusterRoleSelectors";
        add_items(&mut object["aggregationRule"][key], &aggregation[key]);
    }
    if object == *existing { Step::Keep } else { Step::Update(object) }
}

/// Adds the entries whose keys are not there.
fn add_entries(into: &mut Value, from: &Value) {
    if !into.is_object() {
        *into = Value::Object(Map::new());
    }
    let (Some(into), Some(from)) = (into.as_object_mut(), from.as_object()) else { return };
    for (key, value) in from {
        into.entry(key.as_str()).or_insert_with(|| value.clone());
    }
}

fn list(value: &mut Value) -> Option<&mut Vec<Value>> {
    if !value.is_array() {
        *value = json!([]);
    }
    value.as_array_mut()
}

/// Adds the items that are not there.
fn add_items(into: &mut Value, from: &Value) {
    let missing: Vec<Value> = from
        .as_array()
        .into_iter()
        .flatten()
        .filter(|item| !into.as_array().is_some_and(|known| known.contains(item)))
        .cloned()
        .collect();
    if let Some(into) = (!missing.is_empty()).then_some(into).and_then(list) {
        into.extend(missing);
    }
}

/// Adds what the rules that are there do not cover.
fn add_rules(into: &mut Value, from: &Value) {
    let rules = |value: &Value| serde_json::from_value::<Vec<PolicyRule>>(value.clone()).unwrap_or_default();
    let missing = rule::uncovered(&rules(into), &rules(from));
    if let Some(into) = (!missing.is_empty()).then_some(into).and_then(list) {
        into.extend(missing.iter().map(|rule| json!(rule)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use component_base::feature_gates::FeatureGates;

    fn default(name: &str, plural: &str) -> Value {
        let found = defaults::all(&FeatureGates::default())
            .into_iter()
            .find(|object| object.plural == plural && object.object["metadata"]["name"] == name);
        found.expect("a default object").object
    }

    #[test]
    fn what_was_lost_comes_back_and_what_was_added_stays() {
        let wanted = default("system:kube-dns", "clusterroles");
        assert_eq!(step(&wanted, &wanted), Step::Keep);
        let mut existing = wanted.clone();
        existing["metadata"]["labels"] = json!({"mine": "1"});
        existing["rules"] = json!([
            {"apiGroups": [""], "resources": ["services"], "verbs": ["*"]},
            {"apiGroups": ["mine"], "resources": ["things"], "verbs": ["get"]},
        ]);
        let Step::Update(object) = step(&existing, &wanted) else { panic!("needs an update") };
        assert_eq!(object["metadata"]["labels"]["mine"], "1");
        assert_eq!(object["metadata"]["labels"]["kubernetes.io/bootstrapping"], "rbac-defaults");
        let rules = object["rules"].as_array().expect("rules");
        assert_eq!(rules.len(), 4, "list and watch of endpoints were missing: {rules:?}");
        assert_eq!(step(&object, &wanted), Step::Keep);
        existing["metadata"]["annotations"][AUTOUPDATE] = "false".into();
        assert_eq!(step(&existing, &wanted), Step::Keep);
    }

    #[test]
    fn bindings_get_their_subjects_back_and_are_replaced_for_another_role() {
        let wanted = default("system:discovery", "clusterrolebindings");
        let mut existing = wanted.clone();
        existing["subjects"] = json!([{"kind": "User", "name": "bob"}]);
        let Step::Update(object) = step(&existing, &wanted) else { panic!("needs an update") };
        assert_eq!(object["subjects"].as_array().map(Vec::len), Some(2));
        existing["roleRef"]["name"] = "other".into();
        assert_eq!(step(&existing, &wanted), Step::Replace);
    }
}
