//! What a pod calls itself: host name and domain.

use k8s_openapi::api::core::v1::Pod;

use crate::pod_view;

/// Linux' limit, and so that of the short name's label.
const KERNEL_CHARACTERS_MAX: usize = 64;
const LABEL_CHARACTERS_MAX: usize = 63;

/// A pod's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName {
    /// The name without domain.
    pub short: String,
    /// `SUBDOMAIN.NAMESPACE.svc.CLUSTER`; empty for a pod without subdomain.
    pub domain: String,
}

/// The pod's names: what it asks for, else its own name, cut to what fits.
pub fn of(pod: &Pod, cluster_domain: &str) -> HostName {
    let spec = pod_view::spec(pod);
    let given = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
    if let Some(short) = given(&spec.hostname_override) {
        return HostName { short, domain: String::new() };
    }
    let wanted = given(&spec.hostname).unwrap_or_else(|| pod_view::name(pod).to_owned());
    let short: String = wanted.chars().take(LABEL_CHARACTERS_MAX).collect();
    let domain = given(&spec.subdomain)
        .map(|subdomain| format!("{subdomain}.{}.svc.{cluster_domain}", pod_view::namespace(pod)));
    HostName { short: short.trim_end_matches(['-', '.']).to_owned(), domain: domain.unwrap_or_default() }
}

impl HostName {
    /// The name with its domain, if it has one.
    pub fn qualified(&self) -> Option<String> {
        (!self.domain.is_empty()).then(|| format!("{}.{}", self.short, self.domain))
    }

    /// What the kernel is told; `qualified` is `setHostnameAsFQDN`.
    ///
    /// # Errors
    /// The qualified name is too long for the kernel.
    pub fn for_kernel(&self, qualified: bool) -> Result<String, String> {
        let Some(full) = self.qualified().filter(|_| qualified) else { return Ok(self.short.clone()) };
        if full.len() <= KERNEL_CHARACTERS_MAX {
            return Ok(full);
        }
        Err(format!(
            "Failed to construct FQDN from pod hostname and cluster domain, FQDN {full} is too long ({KERNEL_CHARACTERS_MAX} characters is the max, {} characters requested)",
            full.len()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn names(name: &str, spec: serde_json::Value) -> HostName {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": name, "namespace": "n"}, "spec": spec}))
                .unwrap();
        of(&pod, "cluster.local")
    }

    #[test]
    fn a_subdomain_makes_a_qualified_name() {
        let plain = names("web", json!({"containers": []}));
        assert_eq!((plain.qualified(), plain.for_kernel(true)), (None, Ok("web".to_owned())));
        let named = names("web", json!({"containers": [], "hostname": "h", "subdomain": "s"}));
        assert_eq!(named.qualified().as_deref(), Some("h.s.n.svc.cluster.local"));
        assert_eq!(named.for_kernel(false).as_deref(), Ok("h"));
        assert_eq!(named.for_kernel(true).as_deref(), Ok("h.s.n.svc.cluster.local"));
    }

    #[test]
    fn long_names_are_cut_or_refused() {
        let long = names(&format!("{}-{}", "a".repeat(62), "b".repeat(30)), json!({"containers": []}));
        assert_eq!(long.short, "a".repeat(62), "no dash at the end");
        let full = names(&"a".repeat(60), json!({"containers": [], "subdomain": "s"}));
        assert!(
            full.for_kernel(true)
                .unwrap_err()
                .ends_with("(64 characters is the max, 82 characters requested)")
        );
    }

    #[test]
    fn an_override_has_no_domain() {
        let spec =
            json!({"containers": [], "hostname": "h", "subdomain": "s", "hostnameOverride": "other.example"});
        assert_eq!(names("web", spec), HostName { short: "other.example".into(), domain: String::new() });
    }
}
