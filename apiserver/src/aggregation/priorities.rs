//! The order in which discovery shows groups and their versions: upstream's numbers. Pure.

use serde_json::{Value, json};

/// How a version of a group is ordered: higher ones come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Priority {
    /// `groupPriorityMinimum`.
    pub group: i64,
    /// `versionPriority`.
    pub version: i64,
}

/// That of all custom resources.
const CUSTOM: Priority = Priority { group: 1000, version: 100 };

const BUILT_IN: &[(&str, &str, i64, i64)] = &[
    ("", "v1", 18_000, 1),
    ("apps", "v1", 17_800, 15),
    ("events.k8s.io", "v1", 17_750, 15),
    ("authentication.k8s.io", "v1", 17_700, 15),
    ("authorization.k8s.io", "v1", 17_600, 15),
    ("autoscaling", "v1", 17_500, 15),
    ("autoscaling", "v2", 17_500, 30),
    ("batch", "v1", 17_400, 15),
    ("certificates.k8s.io", "v1", 17_300, 15),
    ("networking.k8s.io", "v1", 17_200, 15),
    ("policy", "v1", 17_100, 15),
    ("rbac.authorization.k8s.io", "v1", 17_000, 15),
    ("storage.k8s.io", "v1", 16_800, 15),
    ("apiextensions.k8s.io", "v1", 16_700, 15),
    ("admissionregistration.k8s.io", "v1", 16_700, 15),
    ("admissionregistration.k8s.io", "v1beta1", 16_700, 12),
    ("scheduling.k8s.io", "v1", 16_600, 15),
    ("scheduling.k8s.io", "v1alpha1", 16_600, 9),
    ("coordination.k8s.io", "v1", 16_500, 15),
    ("node.k8s.io", "v1", 16_300, 15),
    ("discovery.k8s.io", "v1", 16_200, 15),
    ("flowcontrol.apiserver.k8s.io", "v1", 16_100, 21),
    ("resource.k8s.io", "v1", 15_900, 15),
];

fn built_in(group: &str, version: &str) -> Option<Priority> {
    let (.., group, version) = BUILT_IN.iter().find(|row| (row.0, row.1) == (group, version))?;
    Some(Priority { group: *group, version: *version })
}

/// The priority of a version that this server has itself.
pub fn of(group: &str, version: &str) -> Priority {
    built_in(group, version).unwrap_or(CUSTOM)
}

/// Whether the version is registered once, at the start, rather than kept as it should be: what is built in is. `None`: it is never registered, since
/// APIServices have to be there first.
pub(super) fn is_built_in(group: &str, version: &str) -> Option<bool> {
    (group != super::GROUP).then(|| built_in(group, version).is_some())
}

/// The spec of the APIService of a version that this server has itself.
pub(super) fn spec(group: &str, version: &str) -> Value {
    let priority = of(group, version);
    let mut spec = json!({
        "version": version,
        "groupPriorityMinimum": priority.group,
        "versionPriority": priority.version,
    });
    if !group.is_empty() {
        spec["group"] = group.into();
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_version_has_its_place() {
        for (group, version) in coracle_api::resource::groups() {
            assert_ne!(is_built_in(group, version), Some(false), "{group}/{version}");
        }
        assert_eq!(of("example.com", "v1"), CUSTOM);
        assert_eq!(
            spec("", "v1"),
            json!({"version": "v1", "groupPriorityMinimum": 18000, "versionPriority": 1})
        );
    }
}
