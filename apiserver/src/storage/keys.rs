//! Where objects live in the store: upstream's layout, so that a store can change hands between servers. Pure.

use coracle_api::resource::Resource;

/// `PREFIX/FOLDER/`: what all keys of the resource begin with.
pub fn resource_prefix(prefix: &str, resource: &Resource) -> String {
    format!("{}/{}/", prefix.trim_end_matches('/'), resource.storage_prefix)
}

/// What follows the resource's prefix in an object's key: `NAMESPACE/NAME` or `NAME`.
pub fn object_suffix(resource: &Resource, namespace: &str, name: &str) -> String {
    if resource.namespaced { format!("{namespace}/{name}") } else { name.to_owned() }
}

/// The first key after all that begin with `prefix`; `"\0"` (everything) when there is none.
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

/// Whether text can be one segment of a key (and of a path): no slash, not `.` or `..`, no `%`.
///
/// # Errors
/// Upstream's text for a name that is none.
pub fn check_segment(text: &str) -> Result<(), String> {
    if matches!(text, "." | "..") {
        return Err(format!("name may not be '{text}'"));
    }
    for illegal in ["/", "%"] {
        if text.contains(illegal) {
            return Err(format!("name may not contain '{illegal}'"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::resource::lookup;

    fn of(group: &str, version: &str, plural: &str) -> String {
        resource_prefix("/registry", lookup(group, version, plural).expect("in the table"))
    }

    #[test]
    fn keys_are_laid_out_as_upstream_has_them() {
        assert_eq!(of("", "v1", "pods"), "/registry/pods/");
        assert_eq!(of("", "v1", "nodes"), "/registry/minions/");
        assert_eq!(of("", "v1", "services"), "/registry/services/specs/");
        assert_eq!(of("", "v1", "endpoints"), "/registry/services/endpoints/");
        assert_eq!(of("apps", "v1", "deployments"), "/registry/deployments/");
        assert_eq!(of("coordination.k8s.io", "v1", "leases"), "/registry/leases/");
        assert_eq!(of("discovery.k8s.io", "v1", "endpointslices"), "/registry/endpointslices/");
        assert_eq!(of("events.k8s.io", "v1", "events"), of("", "v1", "events"));
    }

    #[test]
    fn the_end_of_a_prefix_is_its_successor() {
        assert_eq!(prefix_end(b"/registry/pods/"), b"/registry/pods0");
        assert_eq!(prefix_end(&[b'a', 255]), b"b");
        assert_eq!(prefix_end(&[255]), [0]);
    }
}
