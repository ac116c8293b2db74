//! A fingerprint of a container's spec, kept on the running container: tells whether the spec has changed since.
//!
//! Never here: fields that may change without a restart.

use k8s_openapi::api::core::v1::Container;

/// Fingerprint over the fields whose change means a new container: name and image, as upstream since 1.31. All other
/// fields either cannot change in a running pod or are changed in place.
pub fn container_hash(container: &Container) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let image = container.image.as_deref().unwrap_or_default();
    for byte in container.name.bytes().chain([0]).chain(image.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_name_and_image_count() {
        let mut container =
            Container { name: "web".into(), image: Some("demo:v1".into()), ..Container::default() };
        let before = container_hash(&container);
        container.tty = Some(true);
        assert_eq!(container_hash(&container), before);
        container.image = Some("demo:v2".into());
        assert_ne!(container_hash(&container), before);
    }
}
