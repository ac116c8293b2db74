//! Image names and pull policies.
//!
//! Never here: registries; the runtime pulls.

/// When an image is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    /// Before every start.
    Always,
    /// When the node does not have it.
    IfNotPresent,
    /// Not at all.
    Never,
}

impl PullPolicy {
    /// The policy of a container: what it says, else `Always` for the tag `latest` and `IfNotPresent` for others.
    pub fn of(policy: Option<&str>, image: &str) -> Self {
        match policy {
            Some("Always") => Self::Always,
            Some("Never") => Self::Never,
            Some("IfNotPresent") => Self::IfNotPresent,
            _ if with_tag(image).ends_with(":latest") => Self::Always,
            _ => Self::IfNotPresent,
        }
    }
}

/// The name with `:latest` added when it has neither tag nor digest.
pub fn with_tag(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    if last.contains(':') || image.contains('@') { image.to_owned() } else { format!("{image}:latest") }
}

/// The name in full, as containerd stores it: `demo:v1` is `docker.io/library/demo:v1`.
pub fn full_name(image: &str) -> String {
    let image = with_tag(image);
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => image,
        Some(_) => format!("docker.io/{image}"),
        None => format!("docker.io/library/{image}"),
    }
}

/// Checks a name's form.
///
/// # Errors
/// Upstream's text for `InvalidImageName`.
pub fn validate(image: &str) -> Result<(), String> {
    let failed = |why: &str| {
        Err(format!(
            "Failed to apply default image tag \"{image}\": couldn't parse image name \"{image}\": {why}"
        ))
    };
    if image.is_empty() || image.len() > 4096 {
        return failed("invalid reference format");
    }
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    let slash = name.rfind('/').map_or(0, |index| index + 1);
    let (repository, tag) = match name[slash..].find(':') {
        Some(index) => (&name[..slash + index], Some(&name[slash + index + 1..])),
        None => (name, None),
    };
    let mut parts: Vec<&str> = repository.split('/').collect();
    if parts.len() > 1 && (parts[0].contains(['.', ':']) || parts[0] == "localhost") {
        let host = parts.remove(0);
        let host_ok = host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]_".contains(&b));
        if !host_ok {
            return failed("invalid reference format");
        }
    }
    if repository.chars().any(char::is_uppercase)
        && parts.iter().any(|part| part.chars().any(char::is_uppercase))
    {
        return failed("invalid reference format: repository name must be lowercase");
    }
    let part_ok = |part: &&str| {
        let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        !part.is_empty()
            && part.bytes().all(|b| alnum(b) || b"._-".contains(&b))
            && part.bytes().next().is_some_and(alnum)
            && part.bytes().last().is_some_and(alnum)
    };
    let tag_ok = tag.is_none_or(|tag| {
        (1..=128).contains(&tag.len())
            && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
            && !tag.starts_with(['.', '-'])
    });
    let digest_ok = digest.is_none_or(|digest| {
        digest.split_once(':').is_some_and(|(algorithm, hex)| {
            !algorithm.is_empty() && hex.len() >= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit())
        })
    });
    if parts.iter().all(part_ok) && tag_ok && digest_ok { Ok(()) } else { failed("invalid reference format") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed() {
        assert_eq!(full_name("demo:v1"), "docker.io/library/demo:v1");
        assert_eq!(full_name("me/demo"), "docker.io/me/demo:latest");
        assert_eq!(full_name("localhost:5000/demo"), "localhost:5000/demo:latest");
        assert_eq!(full_name("reg.example/a/b:c"), "reg.example/a/b:c");
    }

    #[test]
    fn the_policy_follows_the_tag() {
        assert_eq!(PullPolicy::of(None, "demo"), PullPolicy::Always);
        assert_eq!(PullPolicy::of(None, "demo:v1"), PullPolicy::IfNotPresent);
        assert_eq!(PullPolicy::of(Some("Never"), "demo"), PullPolicy::Never);
        let digest = format!("demo@sha256:{}", "a".repeat(64));
        assert_eq!(PullPolicy::of(None, &digest), PullPolicy::IfNotPresent);
    }

    #[test]
    fn malformed_names_are_refused() {
        let digest = format!("demo@sha256:{}", "a".repeat(64));
        for good in
            ["demo", "demo:v1", "localhost:5000/a/b", "docker.io/library/demo:V1", &digest, "a/b_c-d.e:1"]
        {
            assert_eq!(validate(good), Ok(()), "{good}");
        }
        for bad in ["", "Demo", "demo:", "de mo", "demo::1", "/demo", "demo/", "demo@sha256:xyz", "-x"] {
            assert!(validate(bad).is_err(), "{bad}");
        }
    }
}
