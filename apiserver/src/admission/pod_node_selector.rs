//! PodNodeSelector: the pods of a namespace go to the nodes that an annotation of it, or the configuration, says.

use std::collections::BTreeMap;

use coracle_api::status::ApiError;
use futures::future::BoxFuture;
use serde_json::Value;

use super::matching::namespace;
use super::{Plugin, creates_pod, refusal};
use crate::registry::Registry;
use crate::server::request_info::RequestInfo;

pub(super) const NAME: &str = "PodNodeSelector";
const ANNOTATION: &str = "scheduler.alpha.kubernetes.io/node-selector";
const DEFAULT: &str = "clusterDefaultNodeSelector";

type Labels = BTreeMap<String, String>;

/// The selectors of the configuration: of the cluster, and what namespaces may ask for.
pub(super) struct PodNodeSelector(BTreeMap<String, Labels>);

impl PodNodeSelector {
    /// By the file's `podNodeSelectorPluginConfig`.
    ///
    /// # Errors
    /// A selector cannot be read.
    pub(super) fn new(configuration: Option<&Value>) -> Result<Self, String> {
        let Some(configuration) = configuration else { return Ok(Self(BTreeMap::new())) };
        let selectors = configuration["podNodeSelectorPluginConfig"]
            .as_object()
            .ok_or_else(|| format!("{NAME}: podNodeSelectorPluginConfig is missing"))?;
        let selectors = selectors
            .iter()
            .map(|(name, selector)| Ok((name.clone(), labels(selector.as_str().unwrap_or_default())?)));
        selectors.collect::<Result<_, String>>().map(Self).map_err(|error| format!("{NAME}: {error}"))
    }

    /// What the pods of a namespace select.
    fn of(&self, namespace: &Value) -> Result<Labels, String> {
        match namespace["metadata"]["annotations"][ANNOTATION].as_str() {
            Some(selector) => labels(selector),
            None => Ok(self.0.get(DEFAULT).cloned().unwrap_or_default()),
        }
    }

    /// Gives a pod its namespace's selector, or says what stands against that.
    fn apply(&self, namespace: &str, wanted: Labels, pod: &mut Value) -> Result<(), &'static str> {
        let mut all = wanted;
        for (key, value) in pod["spec"]["nodeSelector"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_default().to_owned();
            if all.insert(key.clone(), value.clone()).is_some_and(|other| other != value) {
                return Err("pod node label selector conflicts with its namespace node label selector");
            }
        }
        let allowed = self.0.get(namespace).filter(|allowed| !allowed.is_empty());
        if allowed.is_some_and(|allowed| all.iter().any(|(key, value)| allowed.get(key) != Some(value))) {
            return Err("pod node label selector labels conflict with its namespace whitelist");
        }
        if !all.is_empty() {
            pod["spec"]["nodeSelector"] = all.into_iter().collect();
        }
        Ok(())
    }
}

/// `a=b,c=d`.
fn labels(selector: &str) -> Result<Labels, String> {
    let pairs = selector.split(',').map(str::trim).filter(|pair| !pair.is_empty());
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=').ok_or_else(|| format!("invalid selector: {pair}"))?;
        Ok((key.trim().to_owned(), value.trim().to_owned()))
    };
    pairs.map(pair).collect()
}

impl Plugin for PodNodeSelector {
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
            if !creates_pod(request, old) {
                return Ok(());
            }
            let namespace = namespace(registry, request.namespace()).await?;
            let wanted = self.of(&namespace).map_err(ApiError::internal)?;
            self.apply(request.namespace(), wanted, object)
                .map_err(|text| refusal(request, Some(object), text))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_namespace_says_where_unless_pod_or_configuration_disagree() {
        let plugin = PodNodeSelector::new(Some(&json!({"podNodeSelectorPluginConfig": {
            DEFAULT: "disk=ssd", "a": "disk=ssd,zone=z"}})))
        .expect("reads");
        let plain = json!({"metadata": {}});
        let annotated = json!({"metadata": {"annotations": {ANNOTATION: "zone=z"}}});
        let apply = |namespace: &Value, selector: Value| {
            let mut pod = json!({"spec": {"nodeSelector": selector}});
            let wanted = plugin.of(namespace).expect("selector");
            plugin.apply("a", wanted, &mut pod).map(|()| pod["spec"]["nodeSelector"].clone())
        };
        assert_eq!(apply(&plain, json!(null)), Ok(json!({"disk": "ssd"})));
        assert_eq!(apply(&annotated, json!({"disk": "ssd"})), Ok(json!({"disk": "ssd", "zone": "z"})));
        assert!(apply(&plain, json!({"disk": "hdd"})).is_err_and(|text| text.contains("conflicts with")));
        assert!(apply(&plain, json!({"x": "y"})).is_err_and(|text| text.contains("whitelist")));
        assert!(PodNodeSelector::new(Some(&json!({"podNodeSelectorPluginConfig": {"a": "b"}}))).is_err());
    }
}
