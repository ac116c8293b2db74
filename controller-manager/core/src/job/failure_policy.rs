//! What a Job's `podFailurePolicy` says about one failed pod. Owns the matching only.

use k8s_openapi::api::batch::v1::{
    PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use crate::object_meta::{name, namespace};

/// The first rule that matches decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The failure counts towards the limits (also if no rule matches).
    Count,
    /// The failure does not count.
    Ignore,
    /// The pod's index has failed for good.
    FailIndex,
    /// The whole Job has failed, for this reason.
    FailJob(String),
}

impl Verdict {
    /// Whether the failure counts towards the limits.
    pub fn counts(&self) -> bool {
        *self != Self::Ignore
    }
}

/// Decides about a failed pod.
pub fn verdict(policy: Option<&PodFailurePolicy>, pod: &Pod) -> Verdict {
    let rules = policy.map(|policy| policy.rules.as_slice()).unwrap_or_default();
    let (meta_name, meta_namespace) = (name(&pod.metadata), namespace(&pod.metadata));
    for (index, rule) in rules.iter().enumerate() {
        let reason = if let Some(requirement) = &rule.on_exit_codes {
            failed_container(pod, requirement).map(|(container, code)| {
                format!(
                    "Container {} for pod {meta_namespace}/{meta_name} failed with exit code {code} matching {} rule at index {index}",
                    container.name, rule.action
                )
            })
        } else {
            let patterns = rule.on_pod_conditions.as_deref().unwrap_or_default();
            condition_type(pod, patterns).map(|kind| {
                format!(
                    "Pod {meta_namespace}/{meta_name} has condition {kind} matching {} rule at index {index}",
                    rule.action
                )
            })
        };
        match (reason, rule.action.as_str()) {
            (Some(reason), "FailJob") => return Verdict::FailJob(reason),
            (Some(_), "FailIndex") => return Verdict::FailIndex,
            (Some(_), "Ignore") => return Verdict::Ignore,
            (Some(_), "Count") => return Verdict::Count,
            // An action of a later version: the rule is skipped.
            _ => {}
        }
    }
    Verdict::Count
}

fn failed_container<'a>(
    pod: &'a Pod,
    requirement: &PodFailurePolicyOnExitCodesRequirement,
) -> Option<(&'a ContainerStatus, i32)> {
    let status = pod.status.as_ref()?;
    let main = status.container_statuses.iter().flatten();
    main.chain(status.init_container_statuses.iter().flatten()).find_map(|container| {
        let code = container.state.as_ref()?.terminated.as_ref()?.exit_code;
        let named = requirement.container_name.as_ref().is_none_or(|name| *name == container.name);
        let listed = requirement.values.contains(&code);
        let matching = match requirement.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        };
        (named && code != 0 && matching).then_some((container, code))
    })
}

fn condition_type<'a>(pod: &'a Pod, patterns: &[PodFailurePolicyOnPodConditionsPattern]) -> Option<&'a str> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|condition| {
        patterns.iter().any(|pattern| {
            pattern.type_ == condition.type_
                && pattern.status.as_deref().unwrap_or("True") == condition.status
        })
    });
    found.map(|condition| condition.type_.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_objects::pod;
    use serde_json::json;

    fn policy(rules: serde_json::Value) -> PodFailurePolicy {
        serde_json::from_value(json!({ "rules": rules })).expect("policy")
    }

    fn failed(code: i32, condition: Option<&str>) -> Pod {
        let mut pod = pod("p", "Failed", false, "n1");
        let status = pod.status.as_mut().expect("status");
        status.container_statuses = serde_json::from_value(json!([
            { "name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": { "terminated": { "exitCode": code } } }
        ]))
        .expect("statuses");
        if let Some(kind) = condition {
            status.conditions =
                serde_json::from_value(json!([{ "type": kind, "status": "True" }])).expect("conditions");
        }
        pod
    }

    #[test]
    fn the_first_matching_rule_decides() {
        let policy = policy(json!([
            { "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }] },
            { "action": "FailIndex", "onExitCodes": { "operator": "In", "values": [3] } },
            { "action": "Count", "onExitCodes": { "containerName": "other", "operator": "In", "values": [42] } },
            { "action": "FailJob", "onExitCodes": { "containerName": "c", "operator": "In", "values": [42, 43] } },
        ]));
        let reason =
            "Container c for pod default/p failed with exit code 42 matching FailJob rule at index 3";
        for (pod, expected) in [
            (failed(42, Some("DisruptionTarget")), Verdict::Ignore),
            (failed(3, None), Verdict::FailIndex),
            (failed(42, None), Verdict::FailJob(reason.to_owned())),
            (failed(7, None), Verdict::Count),
            (failed(0, None), Verdict::Count),
        ] {
            assert_eq!(verdict(Some(&policy), &pod), expected);
        }
        assert_eq!(verdict(None, &failed(42, None)), Verdict::Count);
    }

    #[test]
    fn an_exit_code_of_zero_matches_no_rule() {
        let policy =
            policy(json!([{ "action": "FailJob", "onExitCodes": { "operator": "NotIn", "values": [1] } }]));
        assert_eq!(verdict(Some(&policy), &failed(0, None)), Verdict::Count);
        assert!(matches!(verdict(Some(&policy), &failed(2, None)), Verdict::FailJob(_)));
    }
}
