//! PodTolerationRestriction: the pods of a namespace tolerate what an annotation of it says, and nothing but what another one lists.

use coracle_api::kinds::pod_qos;
use coracle_api::status::ApiError;
use futures::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Value, json};

use super::matching::namespace;
use super::{Plugin, is_core};
use crate::registry::Registry;
use crate::server::request_info::RequestInfo;

pub(super) const NAME: &str = "PodTolerationRestriction";
const DEFAULT: &str = "scheduler.alpha.kubernetes.io/defaultTolerations";
const ALLOWED: &str = "scheduler.alpha.kubernetes.io/tolerationsWhitelist";

/// What counts in namespaces that say nothing.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Configuration {
    #[serde(default)]
    default: Vec<Value>,
    #[serde(default)]
    whitelist: Vec<Value>,
}

pub(super) struct PodTolerationRestriction(Configuration);

impl PodTolerationRestriction {
    /// By the file's `Configuration` of `podtolerationrestriction.admission.k8s.io/v1alpha1`.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn new(configuration: Option<&Value>) -> Result<Self, String> {
        let Some(value) = configuration else { return Ok(Self(Configuration::default())) };
        let version = "podtolerationrestriction.admission.k8s.io/v1alpha1";
        if value["apiVersion"] != version || value["kind"] != "Configuration" {
            return Err(format!("{NAME}: it has to be a Configuration of {version}"));
        }
        Configuration::deserialize(value).map(Self).map_err(|error| format!("{NAME}: {error}"))
    }

    fn apply(&self, namespace: &Value, pod: &mut Value, is_new: bool) -> Result<(), String> {
        let mut all = Vec::new();
        if is_new {
            all = said(namespace, DEFAULT)?.unwrap_or_else(|| self.0.default.clone());
        }
        all.extend(pod["spec"]["tolerations"].as_array().into_iter().flatten().cloned());
        if pod_qos::class(&pod["spec"]) != "BestEffort" {
            all.push(json!({"key": "node.kubernetes.io/memory-pressure", "operator": "Exists", "effect": "NoSchedule"}));
        }
        let all = merged(all);
        let (allowed, scope) = match said(namespace, ALLOWED)? {
            Some(allowed) => (allowed, "namespace"),
            None => (self.0.whitelist.clone(), "cluster"),
        };
        let is_allowed = |toleration| allowed.iter().any(|wider| covers(wider, toleration));
        if !allowed.is_empty() && !all.iter().all(is_allowed) {
            return Err(format!(
                "pod tolerations (possibly merged with namespace default tolerations) conflict with its {scope} whitelist"
            ));
        }
        if !all.is_empty() {
            pod["spec"]["tolerations"] = all.into();
        }
        Ok(())
    }
}

/// The tolerations of an annotation.
fn said(namespace: &Value, annotation: &str) -> Result<Option<Vec<Value>>, String> {
    let text = namespace["metadata"]["annotations"][annotation].as_str().filter(|text| !text.is_empty());
    text.map(|text| serde_json::from_str(text).map_err(|error| error.to_string())).transpose()
}

/// Without those that others cover; of equal ones the first stays.
fn merged(all: Vec<Value>) -> Vec<Value> {
    let mut kept: Vec<Value> = Vec::new();
    for (index, toleration) in all.iter().enumerate() {
        let later = all.iter().skip(index + 1);
        if !kept.iter().any(|wider| covers(wider, toleration))
            && !later.into_iter().any(|wider| wider != toleration && covers(wider, toleration))
        {
            kept.push(toleration.clone());
        }
    }
    kept
}

/// Whether all that `narrow` tolerates, `wide` does too.
fn covers(wide: &Value, narrow: &Value) -> bool {
    let text = |toleration: &Value, field: &str| toleration[field].as_str().unwrap_or_default().to_owned();
    let exists = text(wide, "operator") == "Exists";
    if wide == narrow {
        return true;
    }
    let (wide_key, wide_effect) = (text(wide, "key"), text(wide, "effect"));
    if wide_key != text(narrow, "key") && !(wide_key.is_empty() && exists) {
        return false;
    }
    if wide_effect != text(narrow, "effect") && !wide_effect.is_empty() {
        return false;
    }
    if wide_effect == "NoExecute"
        && let Some(most) = wide["tolerationSeconds"].as_i64()
        && narrow["tolerationSeconds"].as_i64().is_none_or(|seconds| seconds > most)
    {
        return false;
    }
    let is_equal = |toleration: &Value| matches!(text(toleration, "operator").as_str(), "" | "Equal");
    exists || (is_equal(wide) && is_equal(narrow) && text(wide, "value") == text(narrow, "value"))
}

impl Plugin for PodTolerationRestriction {
    fn name(&self) -> &'static str {
        NAME
    }

    fn mutate<'a>(
        &'a self,
        registry: &'a Registry,
        request: &'a RequestInfo,
        object: &'a mut Value,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            if !is_core(request, "pods") {
                return Ok(());
            }
            let namespace = namespace(registry, request.namespace()).await?;
            self.apply(&namespace, object, old.is_none()).map_err(ApiError::internal)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerations_cover_those_that_are_narrower() {
        let all = json!({"operator": "Exists"});
        let key = json!({"key": "a", "operator": "Exists"});
        let value = json!({"key": "a", "value": "b", "effect": "NoSchedule"});
        assert!(covers(&all, &key) && covers(&key, &value) && covers(&all, &value));
        assert!(!covers(&value, &key) && !covers(&key, &all));
        let seconds = |seconds: Value| json!({"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds});
        assert!(
            covers(&seconds(json!(5)), &seconds(json!(3))) && !covers(&seconds(json!(5)), &seconds(json!(7)))
        );
        assert!(!covers(&seconds(json!(5)), &seconds(json!(null))));
        assert_eq!(merged(vec![value.clone(), key.clone(), key.clone(), value]), [key]);
    }

    #[test]
    fn defaults_are_added_and_lists_are_kept_to() {
        let plugin = PodTolerationRestriction::new(None).expect("none");
        let namespace = json!({"metadata": {"annotations": {
            DEFAULT: r#"[{"key": "a", "operator": "Exists"}]"#,
            ALLOWED: r#"[{"key": "a", "operator": "Exists"}, {"key": "b", "operator": "Exists"}]"#}}});
        let mut pod =
            json!({"spec": {"containers": [{}], "tolerations": [{"key": "b", "operator": "Exists"}]}});
        plugin.apply(&namespace, &mut pod, true).expect("allowed");
        assert_eq!(pod["spec"]["tolerations"].as_array().map(Vec::len), Some(2));
        pod["spec"]["tolerations"] = json!([{"key": "c", "operator": "Exists"}]);
        let error = plugin.apply(&namespace, &mut pod, false).expect_err("refused");
        assert!(error.contains("its namespace whitelist"));
    }
}
