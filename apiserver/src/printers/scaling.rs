//! The tables of what bounds the number of pods: autoscalers and disruption budgets.

use coracle_api::autoscaler_versions::to_v2;
use coracle_api::meta::get;
use serde_json::Value;

use super::Context;
use super::cells::{NONE, UNKNOWN, age, list, name, number, text};
use super::columns::{AGE, Column, NAME, number as count, text as column};

/// More metrics than this are only counted.
const METRICS_SHOWN_MAX: usize = 2;

pub(super) const AUTOSCALER: &[Column] = &[
    NAME,
    column("Reference", "What is scaled"),
    column("Targets", "What was measured, and what is aimed at"),
    column("MinPods", "Fewest pods"),
    column("MaxPods", "Most pods"),
    column("Replicas", "Pods that are there"),
    AGE,
];

/// The same for both versions.
pub(super) fn autoscaler(object: &Value, context: &Context) -> Vec<Value> {
    let converted;
    let object = if text(object, &["apiVersion"]) == "autoscaling/v1" {
        converted = to_v2(object.clone());
        &converted
    } else {
        object
    };
    let reference = |field| text(object, &["spec", "scaleTargetRef", field]);
    let low = get(object, &["spec", "minReplicas"]).and_then(Value::as_i64);
    vec![
        name(object),
        format!("{}/{}", reference("kind"), reference("name")).into(),
        targets(object).into(),
        low.map_or("<unset>".to_owned(), |low| low.to_string()).into(),
        number(object, &["spec", "maxReplicas"]).to_string().into(),
        number(object, &["status", "currentReplicas"]).to_string().into(),
        age(object, context),
    ]
}

fn targets(object: &Value) -> String {
    let metrics = list(object, &["spec", "metrics"]);
    let measured = list(object, &["status", "currentMetrics"]);
    let all: Vec<String> =
        metrics.iter().enumerate().map(|(index, metric)| target(metric, measured.get(index))).collect();
    match all.len() {
        0 => NONE.to_owned(),
        count if count > METRICS_SHOWN_MAX => {
            format!("{} + {} more...", all[..METRICS_SHOWN_MAX].join(", "), count - METRICS_SHOWN_MAX)
        }
        _ => all.join(", "),
    }
}

/// `measured/aimed at`, as the type of the metric has it.
fn target(metric: &Value, measured: Option<&Value>) -> String {
    let field = match text(metric, &["type"]) {
        "Object" => "object",
        "External" => "external",
        "Pods" => "pods",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        _ => return "<unknown type>".to_owned(),
    };
    let wanted = |name| get(metric, &[field, "target", name]);
    let current = |name| measured.and_then(|measured| get(measured, &[field, "current", name]));
    let amount = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or(UNKNOWN).to_owned();
    let share = |value: Option<&Value>, missing: &str| {
        value.and_then(Value::as_i64).map_or(missing.to_owned(), |share| format!("{share}%"))
    };
    let average = wanted("averageValue").is_some();
    if matches!(field, "resource" | "containerResource") {
        let resource = text(metric, &[field, "name"]);
        return if average {
            format!("{resource}: {}/{}", amount(current("averageValue")), amount(wanted("averageValue")))
        } else {
            let measured = share(current("averageUtilization"), UNKNOWN);
            format!("{resource}: {measured}/{}", share(wanted("averageUtilization"), "<auto>"))
        };
    }
    let value = if average { "averageValue" } else { "value" };
    let shown = format!("{}/{}", amount(current(value)), amount(wanted(value)));
    if average && field != "pods" { format!("{shown} (avg)") } else { shown }
}

pub(super) const DISRUPTION_BUDGET: &[Column] = &[
    NAME,
    column("Min Available", "Pods that have to stay"),
    column("Max Unavailable", "Pods that may be missing"),
    count("Allowed Disruptions", "Pods that may be evicted now"),
    AGE,
];

pub(super) fn disruption_budget(object: &Value, context: &Context) -> Vec<Value> {
    let bound = |name| match get(object, &["spec", name]) {
        Some(Value::String(text)) => Value::from(text.as_str()),
        Some(Value::Number(number)) => number.to_string().into(),
        _ => "N/A".into(),
    };
    vec![
        name(object),
        bound("minAvailable"),
        bound("maxUnavailable"),
        number(object, &["status", "disruptionsAllowed"]).into(),
        age(object, context),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const CONTEXT: Context = Context { now: jiff::Timestamp::UNIX_EPOCH };

    #[test]
    fn autoscalers_show_the_same_in_both_versions() {
        let v2 = json!({"apiVersion": "autoscaling/v2", "metadata": {"name": "web"}, "spec": {"minReplicas": 1, "maxReplicas": 5,
            "scaleTargetRef": {"kind": "Deployment", "name": "web"}, "metrics": [
                {"type": "External", "external": {"metric": {"name": "q"}, "target": {"type": "AverageValue", "averageValue": "30"}}},
                {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}},
                {"type": "Pods", "pods": {"metric": {"name": "r"}, "target": {"type": "AverageValue", "averageValue": "1k"}}}]},
            "status": {"currentReplicas": 2}});
        let expected = json!([
            "web",
            "Deployment/web",
            "<unknown>/30 (avg), cpu: <unknown>/70% + 1 more...",
            "1",
            "5",
            "2",
            "<unknown>"
        ]);
        assert_eq!(Value::from(autoscaler(&v2, &CONTEXT)), expected);
        let v1 = coracle_api::autoscaler_versions::to_v1(v2);
        let v1_cells = autoscaler(&v1, &CONTEXT);
        assert_eq!(v1_cells[1], "Deployment/web");
        assert!(v1_cells[2].as_str().is_some_and(|targets| targets.ends_with("+ 1 more...")));
        let cpu = json!({"apiVersion": "autoscaling/v1", "metadata": {"name": "web"},
            "spec": {"maxReplicas": 5, "targetCPUUtilizationPercentage": 50}, "status": {"currentCPUUtilizationPercentage": 20}});
        assert_eq!(autoscaler(&cpu, &CONTEXT)[2], "cpu: 20%/50%");
    }

    #[test]
    fn budgets_show_their_bound() {
        let budget = json!({"metadata": {"name": "web"}, "spec": {"maxUnavailable": "25%"}, "status": {"disruptionsAllowed": 2}});
        assert_eq!(
            Value::from(disruption_budget(&budget, &CONTEXT)),
            json!(["web", "N/A", "25%", 2, "<unknown>"])
        );
    }
}
