//! Registers what this server has itself: an APIService for every built-in group and version, made once, and one for every version of custom resources,
//! which comes and goes with it. APIServices that others made are left alone.

use std::sync::Arc;
use std::time::Duration;

use coracle_api::kinds::access::{items, text};
use coracle_api::meta;
use coracle_api::resource::{Resource, Served, lookup};
use coracle_api::status::ApiError;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{GROUP, priorities};
use crate::cache::changes;
use crate::cache::layout::definitions_resource;
use crate::cache::resource::WakeKey;
use crate::registry::Registry;
use crate::registry::delete::DeleteOptions;
use crate::server::request_info::{RequestInfo, Verb};

/// Says that an APIService is this controller's: made once (`onstart`) or kept (`true`).
const LABEL: &str = "kube-aggregator.kubernetes.io/automanaged";
const RETRY: Duration = Duration::from_millis(200);
/// Changes that come together are looked at together.
const PAUSE: Duration = Duration::from_millis(10);

/// The resource of APIServices.
pub(super) fn resource() -> Result<&'static Resource, ApiError> {
    lookup(GROUP, "v1", "apiservices").ok_or_else(|| ApiError::internal("APIServices are not served"))
}

/// Works until `stop` fires.
pub async fn run(registry: Arc<Registry>, stop: CancellationToken) {
    let caches =
        [definitions_resource(), resource().ok()].map(|row| row.and_then(|row| registry.cache.of(row)));
    let [Some(definitions), Some(services)] = caches else { return };
    let (of_definitions, of_services) =
        (definitions.subscribe(WakeKey::All), services.subscribe(WakeKey::All));
    let mut first = true;
    loop {
        let settled = match pass(&registry, first).await {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(%error, "registering groups and versions; trying again");
                false
            }
        };
        first &= !settled;
        let at_most = (!settled).then_some(RETRY);
        if !changes::next(&[&of_definitions, &of_services], at_most, PAUSE, &stop).await {
            return;
        }
    }
}

/// What is to be done to one APIService.
#[derive(Debug, PartialEq)]
enum Action {
    Create(Value),
    Update(Value),
    Delete,
}

/// The versions wanted: the built-in ones, and those that definitions, established or not, say are served.
fn wanted(served: &Served, definitions: &[Value]) -> Vec<(String, String)> {
    let mut wanted: Vec<(String, String)> = served
        .groups()
        .into_iter()
        .flat_map(|(group, versions)| {
            versions.into_iter().map(|version| (group.to_owned(), version.to_owned()))
        })
        .filter(|(group, version)| priorities::is_built_in(group, version).is_some())
        .collect();
    for definition in definitions.iter().filter(|one| !meta::is_being_deleted(one)) {
        let spec = &definition["spec"];
        for version in items(spec, "versions").iter().filter(|version| version["served"] == true) {
            let one = (text(spec, "group").to_owned(), text(version, "name").to_owned());
            if !wanted.contains(&one) {
                wanted.push(one);
            }
        }
    }
    wanted
}

/// What is to be done, by the APIServices' names. Pure.
fn plan(wanted: &[(String, String)], services: &[Value], first: bool) -> Vec<(String, Action)> {
    let mut actions = Vec::new();
    for (group, version) in wanted {
        let name = format!("{version}.{group}");
        let once = priorities::is_built_in(group, version) == Some(true);
        let spec = priorities::spec(group, version);
        let labels = json!({LABEL: if once { "onstart" } else { "true" }});
        match services.iter().find(|one| meta::name(one) == name) {
            None if first || !once => {
                let object = json!({"metadata": {"name": name, "labels": labels}, "spec": spec});
                actions.push((name, Action::Create(object)));
            }
            Some(known) if is_ours(known) && (first || !once) && known["spec"] != spec => {
                actions.push((name, Action::Update(spec)));
            }
            _ => {}
        }
    }
    for known in services.iter().filter(|known| is_ours(known)) {
        let name = meta::name(known);
        if !wanted.iter().any(|(group, version)| format!("{version}.{group}") == name) {
            actions.push((name.to_owned(), Action::Delete));
        }
    }
    actions
}

fn is_ours(service: &Value) -> bool {
    meta::labels(service).is_some_and(|labels| labels.contains_key(LABEL))
}

async fn pass(registry: &Arc<Registry>, first: bool) -> Result<(), ApiError> {
    if registry.cache.wait_for(0).await.is_err() {
        return Err(ApiError::service_unavailable("the watch cache is still being filled"));
    }
    let row = resource()?;
    let definitions = definitions_resource().map(|row| registry.cache.values(row)).unwrap_or_default();
    let planned = plan(&wanted(&registry.cache.served(), &definitions), &registry.cache.values(row), first);
    for (name, action) in planned {
        let request = |verb| {
            let mut request = RequestInfo::internal(verb, row, None, Some(&name));
            // What this server has does not depend on who admits what.
            request.admitted = true;
            request
        };
        let done = match action {
            Action::Create(mut object) => {
                object["apiVersion"] = row.api_version().into();
                object["kind"] = row.kind.into();
                registry.create(&request(Verb::Create), object).await.map(|_| ())
            }
            Action::Update(spec) => {
                let change = |current: &Value| {
                    let mut changed = current.clone();
                    changed["spec"] = spec.clone();
                    Ok(changed)
                };
                registry.guaranteed_update(row, "", &name, &change).await.map(|_| ())
            }
            Action::Delete => {
                registry.delete(&request(Verb::Delete), &DeleteOptions::default()).await.map(|_| ())
            }
        };
        match done {
            // Another server was faster.
            Err(error) if matches!(error.code(), 404 | 409) => {}
            done => done?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_registered_kept_and_forgotten_but_only_ours() {
        let crd = json!({"metadata": {"name": "cats.example.com"}, "spec": {"group": "example.com",
            "versions": [{"name": "v1", "served": true}, {"name": "v2", "served": false}]}});
        let wanted = wanted(&Served::default(), std::slice::from_ref(&crd));
        assert!(
            wanted.contains(&("apps".into(), "v1".into())) && !wanted.contains(&(GROUP.into(), "v1".into()))
        );
        let made: Vec<Value> = plan(&wanted, &[], true)
            .into_iter()
            .map(|(_, action)| match action {
                Action::Create(object) => object,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(made.len(), wanted.len());
        assert_eq!(plan(&wanted, &made, false), []);
        let cats = made.iter().find(|one| meta::name(one) == "v1.example.com").expect("the cats");
        assert_eq!(cats["metadata"]["labels"][LABEL], "true");
        let mut changed = cats.clone();
        changed["spec"]["versionPriority"] = 1.into();
        let others: Vec<Value> = made.iter().filter(|one| *one != cats).cloned().collect();
        let with = |one: Value| others.iter().cloned().chain([one]).collect::<Vec<_>>();
        let update = Action::Update(cats["spec"].clone());
        assert_eq!(plan(&wanted, &with(changed.clone()), false), [("v1.example.com".into(), update)]);
        changed["metadata"]["labels"] = json!({});
        assert_eq!(plan(&wanted, &with(changed), false), []);
        let without = &wanted[..wanted.len() - 1];
        assert_eq!(plan(without, &made, false), [("v1.example.com".into(), Action::Delete)]);
        // A built-in one that somebody took out stays out until the next start.
        assert_eq!(plan(&wanted, &made[1..], false), []);
        assert_eq!(plan(&wanted, &made[1..], true).len(), 1);
    }
}
