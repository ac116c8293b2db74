//! A fingerprint of a container's spec, kept on the running container: tells whether the spec has changed since.
//!
//! Never here: fields that may change without a restart.

use k8s_openapi::api::core::v1::Container;

/// Fingerprint over the fields whose change means a new container: name and image, as upstream since 1.31. All other
/// fields either cannot change in a running pod or are changed in place.
pub fn container_hash(container: &Container) -> String {
    let image = container.image.as_deref().unwrap_or_default();
    format!("{:016x}", fingerprint(0, container.name.bytes().chain([0]).chain(image.bytes())))
}

/// FNV-1a over bytes; another `seed` is another function.
pub fn fingerprint(seed: u64, bytes: impl IntoIterator<Item = u8>) -> u64 {
    let start: u64 = 0xcbf2_9ce4_8422_2325 ^ seed;
    bytes.into_iter().fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
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
