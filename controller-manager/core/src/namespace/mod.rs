//! The namespace lifecycle: what the status says while the content of a terminating Namespace goes, and when it may be
//! finalized. What goes in which order is [`deletion_order`]'s; the calls are the shell's.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use serde_json::{Value, json};

use crate::action::{PODS, ResourceId};
use crate::object_meta::seconds;

/// The finalizer that this controller removes.
pub const FINALIZER: &str = "kubernetes";

/// What one pass over the content found.
#[derive(Clone, Debug, Default)]
pub struct Content {
    /// Objects left, by resource (`pods.`, `deployments.apps`).
    pub remaining: BTreeMap<String, usize>,
    /// How many objects wait for each finalizer.
    pub finalizers: BTreeMap<String, usize>,
    /// What went wrong finding out which resources there are.
    pub discovery_errors: Vec<String>,
    /// What went wrong deleting.
    pub deletion_errors: Vec<String>,
}

impl Content {
    /// Whether nothing is left and nothing went wrong.
    pub fn is_gone(&self) -> bool {
        self.remaining.is_empty() && self.discovery_errors.is_empty() && self.deletion_errors.is_empty()
    }
}

/// Resources in the order of deletion: pods first, so that what they use outlives them; the rest after no pod is left.
pub fn deletion_order(resources: &[ResourceId]) -> [Vec<ResourceId>; 2] {
    let (pods, rest): (Vec<_>, Vec<_>) = resources.iter().cloned().partition(|resource| *resource == PODS);
    [pods, rest]
}

/// Whether the Namespace is to be emptied by us.
pub fn is_terminating(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_some()
        && namespace.spec.iter().flat_map(|spec| spec.finalizers.iter().flatten()).any(|f| f == FINALIZER)
}

/// The new list of conditions, if it differs from what is reported.
pub fn conditions(
    namespace: &Namespace,
    content: &Content,
    now: Timestamp,
) -> Option<Vec<NamespaceCondition>> {
    let before = namespace.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let mut after = before.clone();
    let mut say = |kind: &str,
                   bad: bool,
                   (bad_reason, bad_message): (&str, String),
                   (reason, message): (&str, &str)| {
        let (status, reason, message) =
            if bad { ("True", bad_reason, bad_message) } else { ("False", reason, message.to_owned()) };
        let old = after.iter().position(|condition| condition.type_ == kind);
        let same = old.filter(|at| after[*at].status == status);
        let since =
            same.and_then(|at| after[at].last_transition_time.clone()).unwrap_or_else(|| seconds(now));
        let condition = NamespaceCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: Some(since),
        };
        match old {
            Some(at) => after[at] = condition,
            None => after.push(condition),
        }
    };
    say(
        "NamespaceDeletionDiscoveryFailure",
        !content.discovery_errors.is_empty(),
        (
            "DiscoveryFailed",
            format!(
                "Discovery failed for some groups, {} failing: {}",
                content.discovery_errors.len(),
                content.discovery_errors.join("; ")
            ),
        ),
        ("ResourcesDiscovered", "All resources successfully discovered"),
    );
    say(
        "NamespaceDeletionGroupVersionParsingFailure",
        false,
        ("GroupVersionParsingFailed", String::new()),
        ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
    );
    say(
        "NamespaceDeletionContentFailure",
        !content.deletion_errors.is_empty(),
        (
            "ContentDeletionFailed",
            format!(
                "Failed to delete all resource types, {} remaining: {}",
                content.deletion_errors.len(),
                content.deletion_errors.join(", ")
            ),
        ),
        ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
    );
    let list = |counts: &BTreeMap<String, usize>, what: &str| {
        counts
            .iter()
            .map(|(name, count)| format!("{name} {what} {count} resource instances"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    say(
        "NamespaceContentRemaining",
        !content.remaining.is_empty(),
        ("SomeResourcesRemain", format!("Some resources are remaining: {}", list(&content.remaining, "has"))),
        ("ContentRemoved", "All content successfully removed"),
    );
    say(
        "NamespaceFinalizersRemaining",
        !content.finalizers.is_empty(),
        (
            "SomeFinalizersRemain",
            format!(
                "Some content in the namespace has finalizers remaining: {}",
                list(&content.finalizers, "in")
            ),
        ),
        ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
    );
    (after != before).then_some(after)
}

/// The body for the `finalize` subresource: the Namespace without our finalizer.
pub fn finalized(namespace: &Namespace) -> Value {
    let kept: Vec<_> = namespace
        .spec
        .iter()
        .flat_map(|spec| spec.finalizers.iter().flatten())
        .filter(|finalizer| *finalizer != FINALIZER)
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": namespace.metadata.name,
            "uid": namespace.metadata.uid,
            "resourceVersion": namespace.metadata.resource_version,
        },
        "spec": { "finalizers": kept },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{NamespaceSpec, NamespaceStatus};

    #[test]
    fn conditions_name_what_remains_and_settle() {
        let mut namespace = Namespace {
            spec: Some(NamespaceSpec { finalizers: Some(vec!["kubernetes".into(), "mine".into()]) }),
            ..Default::default()
        };
        namespace.metadata.deletion_timestamp = Some(seconds(Timestamp::UNIX_EPOCH));
        assert!(is_terminating(&namespace));
        let content = Content { remaining: [("pods.".to_owned(), 2)].into(), ..Default::default() };
        let list = conditions(&namespace, &content, Timestamp::UNIX_EPOCH).expect("new");
        let remaining = list.iter().find(|c| c.type_ == "NamespaceContentRemaining").expect("is there");
        assert_eq!(
            remaining.message.as_deref(),
            Some("Some resources are remaining: pods. has 2 resource instances")
        );
        namespace.status = Some(NamespaceStatus { conditions: Some(list), ..Default::default() });
        let later = Timestamp::from_second(9).expect("valid");
        assert_eq!(conditions(&namespace, &content, later), None);
        assert_eq!(finalized(&namespace)["spec"]["finalizers"], json!(["mine"]));
    }
}
