//! Keeps the rules of aggregated ClusterRoles (`admin`, `edit`, `view` and users' own) the sum of the rules of the roles that their selectors find.

use std::sync::Arc;
use std::time::Duration;

use coracle_api::meta;
use coracle_api::selector::LabelSelector;
use coracle_api::status::ApiError;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{RETRY, of};
use crate::cache::changes;
use crate::cache::resource::WakeKey;
use crate::registry::Registry;
use crate::registry::update::Change;
use crate::server::request_info::{RequestInfo, Verb};

const MANAGER: &str = "clusterrole-aggregation-controller";
/// Changes that come together are looked at together.
const PAUSE: Duration = Duration::from_millis(10);

/// Works until `stop` fires.
pub async fn run(registry: Arc<Registry>, stop: CancellationToken) {
    let Ok(resource) = of("rbac.authorization.k8s.io", "v1", "clusterroles") else { return };
    let Some(cache) = registry.cache.of(resource) else { return };
    let changed = cache.subscribe(WakeKey::All);
    loop {
        let settled = match aggregate(&registry).await {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(%error, "aggregating ClusterRoles; trying again");
                false
            }
        };
        if !changes::next(&[&changed], (!settled).then_some(RETRY), PAUSE, &stop).await {
            return;
        }
    }
}

async fn aggregate(registry: &Arc<Registry>) -> Result<(), ApiError> {
    let resource = of("rbac.authorization.k8s.io", "v1", "clusterroles")?;
    let roles = registry.cache.values(resource);
    for (name, rules) in plan(&roles) {
        let mut request = RequestInfo::internal(Verb::Update, resource, None, Some(name));
        request.field_manager = MANAGER.to_owned();
        let change = move |mut role: Value| {
            role["rules"] = Value::Array(rules.clone());
            Ok(role)
        };
        match registry.update(&request, Change::With(&change)).await {
            Err(error) if error.code() != 404 => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The aggregated roles whose rules are not what they should be, with what they should be. Roles come in the order of their names.
fn plan(roles: &[Value]) -> Vec<(&str, Vec<Value>)> {
    let mut changes = Vec::new();
    for role in roles {
        let Some(selectors) = role["aggregationRule"]["clusterRoleSelectors"].as_array() else { continue };
        let rules = sum(role, selectors, roles);
        if role["rules"].as_array().map_or(&[][..], Vec::as_slice) != rules {
            changes.push((meta::name(role), rules));
        }
    }
    changes
}

fn sum(role: &Value, selectors: &[Value], roles: &[Value]) -> Vec<Value> {
    let mut rules: Vec<Value> = Vec::new();
    // A selector that makes no sense, which validation keeps out, finds nothing.
    for selector in selectors.iter().filter_map(|selector| LabelSelector::from_object(selector).ok()) {
        for source in roles.iter().filter(|source| meta::name(source) != meta::name(role)) {
            if !selector.matches_object(source) {
                continue;
            }
            for rule in source["rules"].as_array().into_iter().flatten() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_aggregated_role_is_the_sum_of_those_it_selects_without_itself_and_repeats() {
        let rule = |resource: &str| json!({"apiGroups": [""], "resources": [resource], "verbs": ["get"]});
        let labelled = json!({"to-a": "true"});
        let selecting = json!({"clusterRoleSelectors": [{"matchLabels": {"to-a": "true"}}]});
        let mut roles = vec![
            json!({"metadata": {"name": "a", "labels": labelled}, "aggregationRule": selecting, "rules": [rule("old")]}),
            json!({"metadata": {"name": "b", "labels": labelled}, "rules": [rule("pods"), rule("services")]}),
            json!({"metadata": {"name": "c", "labels": labelled}, "rules": [rule("services"), rule("nodes")]}),
            json!({"metadata": {"name": "d"}, "rules": [rule("secrets")]}),
        ];
        let planned = vec![rule("pods"), rule("services"), rule("nodes")];
        assert_eq!(plan(&roles), [("a", planned.clone())]);
        roles[0]["rules"] = planned.into();
        assert_eq!(plan(&roles), []);
    }
}
