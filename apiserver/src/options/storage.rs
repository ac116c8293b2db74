//! What can be wrong with `--watch-cache-sizes`. Pure.

/// Upstream's words for what is malformed, and ours for a resource that should not be served from memory.
pub(super) fn watch_cache_problem(text: &str) -> Option<String> {
    let Some((resource, size)) = text.split_once('#').filter(|(_, size)| !size.contains('#')) else {
        return Some(format!("invalid value of watch cache size: {text}"));
    };
    match size.parse::<i64>() {
        Err(_) => Some(format!("invalid size of watch cache size: {text}")),
        Ok(size) if size < 0 => Some(format!("watch cache size cannot be negative: {text}")),
        // Upstream itself never keeps events in memory and may be told so.
        Ok(0) if resource != "events" && resource != "events.events.k8s.io" => Some(format!(
            "--watch-cache-sizes: {text} is not implemented by Coracle: all resources are served from memory"
        )),
        Ok(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_size_means_that_there_is_a_cache() {
        assert_eq!(watch_cache_problem("pods#100"), None);
        assert_eq!(watch_cache_problem("deployments.apps#1"), None);
        assert_eq!(watch_cache_problem("events#0"), None);
        for (text, error) in [
            ("pods", "invalid value of watch cache size: pods"),
            ("pods#1#2", "invalid value of watch cache size: pods#1#2"),
            ("pods#many", "invalid size of watch cache size: pods#many"),
            ("pods#-1", "watch cache size cannot be negative: pods#-1"),
        ] {
            assert_eq!(watch_cache_problem(text).as_deref(), Some(error));
        }
        assert!(watch_cache_problem("pods#0").is_some_and(|error| error.contains("is not implemented")));
    }
}
