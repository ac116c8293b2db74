//! DefaultTolerationSeconds: pods stay a while (five minutes, unless the flags say otherwise) on a node that is not ready or cannot be reached, unless they
//! say otherwise.

use coracle_api::status::ApiError;
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::{Plugin, creates_pod};
use crate::options::Options;
use crate::registry::Registry;
use crate::server::request_info::RequestInfo;

const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

pub(super) struct DefaultTolerationSeconds {
    not_ready: i64,
    unreachable: i64,
}

impl DefaultTolerationSeconds {
    /// By the flags.
    pub(super) fn new(options: &Options) -> Self {
        Self {
            not_ready: options.default_not_ready_toleration_seconds,
            unreachable: options.default_unreachable_toleration_seconds,
        }
    }
}

impl Plugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn mutate<'a>(
        &'a self,
        _registry: &'a Registry,
        request: &'a RequestInfo,
        object: &'a mut Value,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        if creates_pod(request, old) {
            add(object, [self.not_ready, self.unreachable]);
        }
        Box::pin(std::future::ready(Ok(())))
    }
}

fn add(pod: &mut Value, seconds: [i64; 2]) {
    let tolerations = pod["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
    let tolerates = |taint: &str| {
        tolerations.iter().any(|toleration| {
            let key = toleration["key"].as_str().unwrap_or_default();
            let effect = toleration["effect"].as_str().unwrap_or_default();
            (key == taint || key.is_empty()) && (effect == "NoExecute" || effect.is_empty())
        })
    };
    let missing: Vec<Value> = TAINTS
        .into_iter()
        .zip(seconds)
        .filter(|(taint, _)| !tolerates(taint))
        .map(|(taint, seconds)| json!({"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}))
        .collect();
    if !missing.is_empty() {
        pod["spec"]["tolerations"] = tolerations.into_iter().chain(missing).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_taints_are_tolerated_for_as_long_as_is_said_unless_the_pod_says_otherwise() {
        let mut pod = json!({"spec": {}});
        add(&mut pod, [300, 20]);
        assert_eq!(pod["spec"]["tolerations"].as_array().expect("list").len(), 2);
        assert_eq!(pod["spec"]["tolerations"][0]["tolerationSeconds"], 300);
        assert_eq!(pod["spec"]["tolerations"][1]["tolerationSeconds"], 20);
        let mut pod = json!({"spec": {"tolerations": [{"key": TAINTS[0], "operator": "Exists", "effect": "NoExecute"}]}});
        add(&mut pod, [300, 300]);
        assert_eq!(pod["spec"]["tolerations"].as_array().expect("list").len(), 2);
        let mut pod = json!({"spec": {"tolerations": [{"operator": "Exists"}]}});
        add(&mut pod, [300, 300]);
        assert_eq!(pod["spec"]["tolerations"].as_array().expect("list").len(), 1);
    }
}
