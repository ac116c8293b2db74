//! LimitPodHardAntiAffinityTopology: a pod may keep others off its node, not off a whole zone.

use coracle_api::status::ApiError;
use futures::future::BoxFuture;
use serde_json::Value;

use super::{Plugin, is_core, refusal};
use crate::registry::Registry;
use crate::server::request_info::RequestInfo;

const HOST: &str = "kubernetes.io/hostname";

pub(super) struct LimitPodHardAntiAffinityTopology;

impl Plugin for LimitPodHardAntiAffinityTopology {
    fn name(&self) -> &'static str {
        "LimitPodHardAntiAffinityTopology"
    }

    fn validate<'a>(
        &'a self,
        _registry: &'a Registry,
        request: &'a RequestInfo,
        object: Option<&'a Value>,
        _old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        let problem = object.filter(|_| is_core(request, "pods")).and_then(too_wide);
        let decided = problem.map_or(Ok(()), |text| Err(refusal(request, object, &text)));
        Box::pin(std::future::ready(decided))
    }
}

fn too_wide(pod: &Value) -> Option<String> {
    let terms = pod["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        .as_array();
    let key = terms?
        .iter()
        .map(|term| term["topologyKey"].as_str().unwrap_or_default())
        .find(|key| *key != HOST)?;
    Some(format!(
        "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey {key} but only key {HOST} is allowed"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_the_node_is_narrow_enough() {
        let pod = |key: &str| {
            let terms = json!([{"topologyKey": key}]);
            json!({"spec": {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}}})
        };
        assert_eq!(too_wide(&pod(HOST)), None);
        assert!(too_wide(&pod("zone")).is_some_and(|text| text.contains("TopologyKey zone but")));
        assert_eq!(too_wide(&json!({"spec": {}})), None);
    }
}
