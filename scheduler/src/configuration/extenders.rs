//! Servers outside that are asked (`extenders` of the file). Owns that part of the file's form and upstream's rules for what it may say.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::bail;
use component_base::duration::GoDuration;
use k8s_openapi::ByteString;
use serde::Deserialize;

/// One server.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ExtenderFile {
    /// Where it is; verbs are added to it.
    pub url_prefix: String,
    /// Added for questions which nodes will do; empty if it has no say in that, as with the other verbs.
    pub filter_verb: String,
    /// Added for questions who may be preempted.
    pub preempt_verb: String,
    /// Added for questions which nodes are better.
    pub prioritize_verb: String,
    /// How much its scores count.
    pub weight: i64,
    /// Added when a pod is to be bound by it.
    pub bind_verb: String,
    /// Whether it need not prove who it is when no authority is given.
    #[serde(rename = "enableHTTPS")]
    pub enable_https: bool,
    /// How each knows the other.
    pub tls_config: Option<TlsFile>,
    /// How long it may take to answer; 5 s if unset.
    pub http_timeout: GoDuration,
    /// Whether it knows the nodes, so that names do.
    pub node_cache_capable: bool,
    /// Resources that it manages: it is asked only about pods that name one of them; about all if there are none.
    pub managed_resources: Vec<ManagedResource>,
    /// Whether decisions go on without it when it fails.
    pub ignorable: bool,
}

/// How scheduler and extender know each other.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct TlsFile {
    /// Whether the extender need not prove who it is.
    pub insecure: bool,
    /// The name its certificate is checked for, if not the host's.
    pub server_name: Option<String>,
    /// The scheduler's certificate, as the other files in PEM.
    pub cert_file: Option<PathBuf>,
    /// The scheduler's key.
    pub key_file: Option<PathBuf>,
    /// Who may sign the extender's certificate.
    pub ca_file: Option<PathBuf>,
    /// The scheduler's certificate in place of a file.
    pub cert_data: Option<ByteString>,
    /// The scheduler's key in place of a file.
    pub key_data: Option<ByteString>,
    /// Who may sign the extender's certificate, in place of a file.
    pub ca_data: Option<ByteString>,
}

/// A resource that an extender manages.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ManagedResource {
    /// Its name.
    pub name: String,
    /// Whether NodeResourcesFit leaves it to the extender.
    #[serde(default)]
    pub ignored_by_scheduler: bool,
}

/// Checks what the file says of extenders.
///
/// # Errors
/// Something that upstream refuses.
pub(super) fn check(extenders: &[ExtenderFile]) -> anyhow::Result<()> {
    let mut managed = BTreeSet::new();
    for (index, extender) in extenders.iter().enumerate() {
        let at = format!("extenders[{index}]");
        if !extender.prioritize_verb.is_empty() && extender.weight <= 0 {
            bail!(
                "{at}.weight: Invalid value: {}: must have a positive weight applied to it",
                extender.weight
            );
        }
        if extender.url_prefix.parse::<http::Uri>().is_err() {
            bail!("{at}.urlPrefix: Invalid value: {:?}: must be a URL", extender.url_prefix);
        }
        for (index, resource) in extender.managed_resources.iter().enumerate() {
            let (at, name) = (format!("{at}.managedResources[{index}].name"), &resource.name);
            let is_extended = name.split_once('/').is_some_and(|(domain, rest)| {
                !domain.is_empty()
                    && !rest.is_empty()
                    && domain != "kubernetes.io"
                    && !domain.ends_with(".kubernetes.io")
            });
            if !is_extended {
                bail!("{at}: Invalid value: {name:?}: must be a valid extended resource name");
            }
            if !managed.insert(name) {
                bail!("{at}: Invalid value: {name:?}: duplicate extender managed resource name");
            }
        }
    }
    let binders = extenders.iter().filter(|extender| !extender.bind_verb.is_empty()).count();
    if binders > 1 {
        bail!(
            "extenders: Invalid value: \"found {binders} extenders implementing bind\": only one extender can implement bind"
        );
    }
    Ok(())
}
