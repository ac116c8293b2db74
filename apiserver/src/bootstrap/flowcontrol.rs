//! The objects of priority and fairness: the default FlowSchemas and PriorityLevelConfigurations are made and kept, schemas told whether their level is
//! there, and what there is put into force.

use std::sync::Arc;
use std::time::Duration;

use coracle_api::kinds::access::{items, text};
use coracle_api::meta;
use coracle_api::resource::Resource;
use coracle_api::status::ApiError;
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::{RETRY, ensure, of};
use crate::cache::changes;
use crate::cache::resource::WakeKey;
use crate::flowcontrol::{ADJUSTMENT_PERIOD, FlowControl, defaults};
use crate::registry::Registry;
use crate::strategy;

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
/// Changes that come together are looked at together.
const PAUSE: Duration = Duration::from_millis(20);

/// Works until `stop` fires.
pub async fn run(registry: Arc<Registry>, control: Arc<FlowControl>, stop: CancellationToken) {
    let (Ok(schemas), Ok(levels)) =
        (of(GROUP, "v1", "flowschemas"), of(GROUP, "v1", "prioritylevelconfigurations"))
    else {
        return;
    };
    tokio::join!(follow(&registry, &control, schemas, levels, &stop), adjust(&control, &stop));
}

/// Lends and borrows seats regularly.
async fn adjust(control: &FlowControl, stop: &CancellationToken) {
    let mut period = tokio::time::interval(ADJUSTMENT_PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = period.tick() => control.adjust(),
        }
    }
}

async fn follow(
    registry: &Arc<Registry>,
    control: &FlowControl,
    schemas: &'static Resource,
    levels: &'static Resource,
    stop: &CancellationToken,
) {
    let (Some(of_schemas), Some(of_levels)) = (registry.cache.of(schemas), registry.cache.of(levels)) else {
        return;
    };
    let changed = [of_schemas.subscribe(WakeKey::All), of_levels.subscribe(WakeKey::All)];
    loop {
        let settled = match pass(registry, control, schemas, levels).await {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(%error, "keeping the objects of priority and fairness; trying again");
                false
            }
        };
        if !changes::next(&[&changed[0], &changed[1]], (!settled).then_some(RETRY), PAUSE, stop).await {
            return;
        }
    }
}

async fn pass(
    registry: &Arc<Registry>,
    control: &FlowControl,
    schemas: &'static Resource,
    levels: &'static Resource,
) -> Result<(), ApiError> {
    registry
        .cache
        .wait_for(0)
        .await
        .map_err(|_| ApiError::service_unavailable("the watch cache is still being filled"))?;
    // Levels first: schemas refer to them.
    for (resource, wanted) in [(levels, defaults::priority_levels()), (schemas, defaults::flow_schemas())] {
        for (mandatory, object) in wanted {
            keep(registry, resource, mandatory, object).await?;
        }
    }
    let (known_schemas, known_levels) = (registry.cache.values(schemas), registry.cache.values(levels));
    control.configure(&known_schemas, &known_levels);
    for schema in &known_schemas {
        let Some(condition) = dangling(schema, &known_levels) else { continue };
        let change = |current: &Value| {
            let mut changed = current.clone();
            let mut conditions = items(current.get("status").unwrap_or(&Value::Null), "conditions").to_vec();
            conditions.retain(|one| text(one, "type") != "Dangling");
            conditions.push(condition.clone());
            changed["status"]["conditions"] = conditions.into();
            Ok(changed)
        };
        match registry.guaranteed_update(schemas, "", meta::name(schema), &change).await {
            Err(error) if error.code() != 404 => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Makes a default object that is missing, and brings one back to what it was if it is mandatory or wants to be kept.
async fn keep(
    registry: &Arc<Registry>,
    resource: &'static Resource,
    mandatory: bool,
    mut wanted: Value,
) -> Result<(), ApiError> {
    let name = meta::name(&wanted).to_owned();
    let Some(known) = registry.cached(resource, "", &name).and_then(|object| object.value().ok()) else {
        return ensure(registry, GROUP, "v1", resource.plural, None, wanted).await;
    };
    strategy::for_resource(resource).default(&mut wanted);
    if !is_to_be_kept(&known, mandatory) || known["spec"] == wanted["spec"] {
        return Ok(());
    }
    let change = |current: &Value| {
        let mut changed = current.clone();
        changed["spec"] = wanted["spec"].clone();
        changed["metadata"]["annotations"][defaults::AUTO_UPDATE] = "true".into();
        let generation = current["metadata"]["generation"].as_i64().unwrap_or(0);
        changed["metadata"]["generation"] = (generation + 1).into();
        Ok(changed)
    };
    match registry.guaranteed_update(resource, "", &name, &change).await {
        Err(error) if error.code() != 404 => Err(error),
        _ => Ok(()),
    }
}

/// Suggested objects are the operator's as soon as the annotation says so.
fn is_to_be_kept(object: &Value, mandatory: bool) -> bool {
    mandatory || object["metadata"]["annotations"][defaults::AUTO_UPDATE] == "true"
}

/// The condition that a schema ought to have, if it does not have it yet.
fn dangling(schema: &Value, levels: &[Value]) -> Option<Value> {
    let level = text(schema["spec"].get("priorityLevelConfiguration")?, "name");
    let found = levels.iter().any(|one| meta::name(one) == level);
    let (status, reason, rest) =
        if found { ("False", "Found", "it exists") } else { ("True", "NotFound", "there is no such object") };
    let message = format!(
        "This FlowSchema references the PriorityLevelConfiguration object named {level:?} {} {rest}",
        if found { "and" } else { "but" }
    );
    let known = items(schema.get("status").unwrap_or(&Value::Null), "conditions")
        .iter()
        .find(|one| text(one, "type") == "Dangling");
    if known.is_some_and(|one| text(one, "status") == status && text(one, "message") == message) {
        return None;
    }
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    Some(
        json!({"type": "Dangling", "status": status, "lastTransitionTime": now, "reason": reason, "message": message}),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_are_told_whether_their_level_is_there() {
        let schema =
            json!({"metadata": {"name": "s"}, "spec": {"priorityLevelConfiguration": {"name": "l"}}});
        let missing = dangling(&schema, &[]).expect("has to be told");
        assert_eq!((&missing["status"], &missing["reason"]), (&json!("True"), &json!("NotFound")));
        let mut told = schema.clone();
        told["status"] = json!({"conditions": [missing]});
        assert_eq!(dangling(&told, &[]), None);
        let levels = [json!({"metadata": {"name": "l"}})];
        assert_eq!(
            dangling(&told, &levels).expect("has to be told")["message"],
            "This FlowSchema references the PriorityLevelConfiguration object named \"l\" and it exists"
        );
    }
}
