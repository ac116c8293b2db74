//! Static pods: pods that a file on the node describes, and the mirrors that show them in the API server.
//!
//! Never here: reading files, talking to the API server.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::pod_view;
use crate::spec_hash::fingerprint;

/// The annotation that says where a pod comes from; `file` for a static pod.
pub const SOURCE: &str = "kubernetes.io/config.source";
/// The annotation with a static pod's UID.
pub const HASH: &str = "kubernetes.io/config.hash";
/// The annotation that makes a pod a mirror; its value is the static pod's UID.
pub const MIRROR: &str = "kubernetes.io/config.mirror";
const SEEN: &str = "kubernetes.io/config.seen";

fn annotation<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// Whether the pod only shows a static one.
pub fn is_mirror(pod: &Pod) -> bool {
    annotation(pod, MIRROR).is_some()
}

/// Whether `mirror` shows this very version of `pod`.
pub fn shows(mirror: &Pod, pod: &Pod) -> bool {
    mirror.metadata.deletion_timestamp.is_none() && annotation(mirror, MIRROR) == annotation(pod, HASH)
}

/// A manifest's pod as this node runs it: named after the node, with a UID that follows from file and content.
///
/// # Errors
/// What is missing.
pub fn complete(mut pod: Pod, file: &str, node_name: &str, seen: Timestamp) -> Result<Pod, String> {
    let name = pod_view::name(&pod);
    if name.is_empty() {
        return Err("metadata.name is missing".to_owned());
    }
    if pod_view::spec(&pod).containers.is_empty() {
        return Err("spec.containers is missing".to_owned());
    }
    let name = format!("{name}-{node_name}").to_lowercase();
    let text = serde_json::to_string(&pod).map_err(|error| error.to_string())?;
    let bytes = || format!("{node_name}\0{file}\0{text}").into_bytes();
    let uid = format!("{:016x}{:016x}", fingerprint(0, bytes()), fingerprint(1, bytes()));
    let meta = &mut pod.metadata;
    meta.name = Some(name);
    meta.namespace =
        meta.namespace.take().filter(|namespace| !namespace.is_empty()).or(Some("default".to_owned()));
    meta.uid = Some(uid.clone());
    let annotations = meta.annotations.get_or_insert_default();
    annotations.insert(HASH.to_owned(), uid);
    annotations.insert(SOURCE.to_owned(), "file".to_owned());
    annotations.insert(SEEN.to_owned(), seen.to_string());
    annotations.remove(MIRROR);
    let spec = pod.spec.get_or_insert_default();
    spec.node_name = Some(node_name.to_owned());
    // Nothing drives it away: no one else can run it.
    let stays = Toleration {
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        ..Toleration::default()
    };
    spec.tolerations.get_or_insert_default().push(stays);
    pod.status = None;
    Ok(pod)
}

/// The pod to be made in the API server.
pub fn mirror_of(pod: &Pod, node_name: &str, node_uid: &str) -> Pod {
    let mut mirror = pod.clone();
    let hash = annotation(pod, HASH).unwrap_or_default().to_owned();
    mirror.metadata.uid = None;
    mirror.metadata.annotations.get_or_insert_default().insert(MIRROR.to_owned(), hash);
    mirror.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node_name.to_owned(),
        uid: node_uid.to_owned(),
        controller: Some(true),
        block_owner_deletion: None,
    }]);
    mirror
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn made(image: &str) -> Pod {
        let pod =
            json!({"metadata": {"name": "web"}, "spec": {"containers": [{"name": "a", "image": image}]}});
        complete(serde_json::from_value(pod).unwrap(), "/m/web.yaml", "Node-A", Timestamp::UNIX_EPOCH)
            .unwrap()
    }

    #[test]
    fn a_manifest_becomes_a_pod_of_the_node() {
        let pod = made("demo:v1");
        assert_eq!((pod_view::name(&pod), pod_view::namespace(&pod)), ("web-node-a", "default"));
        assert_eq!(pod_view::spec(&pod).node_name.as_deref(), Some("Node-A"));
        assert!(!is_mirror(&pod));
        assert_eq!(pod_view::uid(&pod), pod_view::uid(&made("demo:v1")), "the same file is the same pod");
        assert_ne!(pod_view::uid(&pod), pod_view::uid(&made("demo:v2")));
        assert_eq!(pod_view::uid(&pod).len(), 32);
        assert!(complete(Pod::default(), "f", "n", Timestamp::UNIX_EPOCH).is_err());
    }

    #[test]
    fn a_mirror_shows_one_version() {
        let pod = made("demo:v1");
        let mut mirror = mirror_of(&pod, "node-a", "node-uid");
        assert!(is_mirror(&mirror) && shows(&mirror, &pod));
        assert!(!shows(&mirror, &made("demo:v2")));
        assert_eq!(mirror.metadata.owner_references.as_ref().unwrap()[0].uid, "node-uid");
        mirror.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH));
        assert!(!shows(&mirror, &pod), "a mirror that is being deleted is made anew");
    }
}
