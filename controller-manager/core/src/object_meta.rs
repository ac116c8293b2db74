//! Owners and claims: who controls an object, and what a controller with a selector adopts or releases. Owns the rules of
//! upstream's `ControllerRefManager`, never a call.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference, Time};
use serde_json::{Value, json};

use crate::action::{Action, ResourceId, Target};
use crate::label_selector;

/// `metadata.name`, empty if absent.
pub fn name(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

/// `metadata.namespace`, empty if absent.
pub fn namespace(meta: &ObjectMeta) -> &str {
    meta.namespace.as_deref().unwrap_or_default()
}

/// `metadata.uid`, empty if absent.
pub fn uid(meta: &ObjectMeta) -> &str {
    meta.uid.as_deref().unwrap_or_default()
}

/// One annotation.
pub fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

/// Seconds since the epoch at which the object was made; 0 if unknown.
pub fn created(meta: &ObjectMeta) -> jiff::Timestamp {
    meta.creation_timestamp.as_ref().map_or(jiff::Timestamp::UNIX_EPOCH, |time| time.0)
}

/// The owner that controls the object.
pub fn controller(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// Whether the object with this uid controls the object.
pub fn is_controlled_by(meta: &ObjectMeta, uid: &str) -> bool {
    controller(meta).is_some_and(|owner| owner.uid == uid)
}

/// The reference that makes `owner` the controller of what it creates.
pub fn controller_reference(resource: &ResourceId, owner: &ObjectMeta) -> OwnerReference {
    OwnerReference {
        api_version: resource.api_version(),
        kind: resource.kind.to_string(),
        name: name(owner).to_owned(),
        uid: uid(owner).to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// A reference to an object for events.
pub fn object_reference(resource: &ResourceId, meta: &ObjectMeta) -> ObjectReference {
    ObjectReference {
        api_version: Some(resource.api_version()),
        kind: Some(resource.kind.to_string()),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

/// A Kubernetes timestamp: whole seconds.
pub fn seconds(now: jiff::Timestamp) -> Time {
    Time(jiff::Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// The preconditions of a patch: the object is the one seen (`uid`), and not changed since if `version` is given.
pub fn preconditions(meta: &ObjectMeta, version: bool) -> Value {
    match (&meta.uid, &meta.resource_version) {
        (Some(uid), Some(seen)) if version => json!({ "uid": uid, "resourceVersion": seen }),
        (Some(uid), _) => json!({ "uid": uid }),
        _ => json!({}),
    }
}

/// A list for a merge patch; an empty one takes the field away, as upstream leaves out empty lists.
pub fn list_or_null<T: serde::Serialize>(list: &[T]) -> Value {
    if list.is_empty() { Value::Null } else { json!(list) }
}

/// What a controller does about one object it may own.
#[derive(Clone, Debug, PartialEq)]
pub enum Claim {
    /// It is ours already.
    Keep,
    /// It is nobody's and matches: it becomes ours by this patch.
    Adopt(Action),
    /// It is ours but does not match any more: it is set free by this patch.
    Release(Action),
    /// It is none of our business.
    Ignore,
}

/// Decides about one object in the owner's namespace.
pub fn claim(
    owner_resource: &ResourceId,
    owner: &ObjectMeta,
    selector: &LabelSelector,
    resource: &ResourceId,
    object: &ObjectMeta,
) -> Claim {
    let matches = label_selector::matches(selector, object.labels.as_ref());
    let target = || Target::new(resource, namespace(object), name(object));
    let patch = |owners: Vec<OwnerReference>| {
        let mut patch = json!({ "metadata": preconditions(object, true) });
        patch["metadata"]["ownerReferences"] = list_or_null(&owners);
        Action::Patch { target: target(), subresource: "", patch }
    };
    let owners = || object.owner_references.clone().unwrap_or_default();
    match controller(object) {
        Some(current) if current.uid != uid(owner) => Claim::Ignore,
        Some(_) if matches => Claim::Keep,
        Some(_) if owner.deletion_timestamp.is_some() => Claim::Ignore,
        Some(_) => Claim::Release(patch(owners().into_iter().filter(|o| o.uid != uid(owner)).collect())),
        None if !matches || owner.deletion_timestamp.is_some() || object.deletion_timestamp.is_some() => {
            Claim::Ignore
        }
        None => {
            let mut all: Vec<_> = owners().into_iter().filter(|o| o.uid != uid(owner)).collect();
            all.push(controller_reference(owner_resource, owner));
            Claim::Adopt(patch(all))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::{PODS, REPLICA_SETS};

    fn meta(uid: &str, label: Option<&str>, owner: Option<&str>) -> ObjectMeta {
        ObjectMeta {
            name: Some(uid.into()),
            uid: Some(uid.into()),
            resource_version: Some("7".into()),
            labels: label.map(|label| [("app".to_owned(), label.to_owned())].into()),
            owner_references: owner.map(|owner| {
                vec![OwnerReference { uid: owner.into(), controller: Some(true), ..Default::default() }]
            }),
            ..Default::default()
        }
    }

    #[test]
    fn claims_follow_selector_and_owner() {
        let selector = LabelSelector {
            match_labels: Some([("app".to_owned(), "web".to_owned())].into()),
            ..Default::default()
        };
        let owner = meta("rs", None, None);
        let decide = |object: ObjectMeta| claim(&REPLICA_SETS, &owner, &selector, &PODS, &object);
        assert_eq!(decide(meta("p", Some("web"), Some("rs"))), Claim::Keep);
        assert_eq!(decide(meta("p", Some("web"), Some("other"))), Claim::Ignore);
        assert_eq!(decide(meta("p", Some("db"), None)), Claim::Ignore);
        let Claim::Release(Action::Patch { patch, .. }) = decide(meta("p", Some("db"), Some("rs"))) else {
            panic!("must release")
        };
        assert_eq!(patch["metadata"].get("ownerReferences"), Some(&Value::Null));
        assert_eq!(patch["metadata"]["uid"], "p");
        let Claim::Adopt(Action::Patch { patch, .. }) = decide(meta("p", Some("web"), None)) else {
            panic!("must adopt")
        };
        assert_eq!(patch["metadata"]["ownerReferences"][0]["uid"], "rs");
    }

    #[test]
    fn an_owner_that_is_being_deleted_adopts_and_releases_nothing() {
        let selector = LabelSelector {
            match_labels: Some([("app".to_owned(), "web".to_owned())].into()),
            ..Default::default()
        };
        let mut owner = meta("rs", None, None);
        owner.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        for object in [meta("p", Some("web"), None), meta("p", Some("db"), Some("rs"))] {
            assert_eq!(claim(&REPLICA_SETS, &owner, &selector, &PODS, &object), Claim::Ignore);
        }
    }
}
