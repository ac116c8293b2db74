//! Which authorizers there are, in order: by `--authorization-mode` and its companions, or by the file `AuthorizationConfiguration` of
//! `apiserver.config.k8s.io`. Checks what they say; opens no other file.

use std::path::PathBuf;
use std::time::Duration;

use component_base::duration::GoDuration;
use coracle_api::names;
use serde::Deserialize;

use super::webhook::Settings;
use crate::extension::review::Version;
use crate::options::Options;

/// How long a webhook of the flags may take.
const PATIENCE_DEFAULT: Duration = Duration::from_secs(30);
/// The most that a webhook may be given.
const PATIENCE_MAX: Duration = Duration::from_secs(30);
const ALLOWED_DEFAULT: Duration = Duration::from_secs(300);
const REFUSED_DEFAULT: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    authorizers: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    name: String,
    webhook: Option<WebhookEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WebhookEntry {
    #[serde(rename = "authorizedTTL")]
    authorized_ttl: Option<GoDuration>,
    cache_authorized_requests: Option<bool>,
    #[serde(rename = "unauthorizedTTL")]
    unauthorized_ttl: Option<GoDuration>,
    cache_unauthorized_requests: Option<bool>,
    timeout: Option<GoDuration>,
    #[serde(default)]
    subject_access_review_version: String,
    #[serde(default)]
    match_condition_subject_access_review_version: String,
    #[serde(default)]
    failure_policy: String,
    connection_info: ConnectionInfo,
    #[serde(default)]
    match_conditions: Vec<MatchCondition>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ConnectionInfo {
    #[serde(rename = "type")]
    kind: String,
    kube_config_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MatchCondition {
    expression: String,
}

/// One authorizer.
pub(super) enum Choice {
    AlwaysAllow,
    AlwaysDeny,
    Node,
    Rbac,
    Abac(PathBuf),
    Webhook { settings: Settings, kubeconfig: PathBuf, conditions: Vec<String> },
}

/// The authorizers that the flags ask for.
///
/// # Errors
/// A text naming the flag.
pub(super) fn of(options: &Options) -> Result<Vec<Choice>, String> {
    if let Some(path) = &options.authorization_config {
        let named = |error: String| format!("--authorization-config: {}: {error}", path.display());
        let text =
            std::fs::read_to_string(path).map_err(|error| named(format!("cannot read it: {error}")))?;
        return of_file(&text).map_err(named);
    }
    options.authorization_modes().iter().map(|mode| of_mode(mode, options)).collect()
}

fn simple(kind: &str) -> Option<Choice> {
    match kind {
        "AlwaysAllow" => Some(Choice::AlwaysAllow),
        "AlwaysDeny" => Some(Choice::AlwaysDeny),
        "Node" => Some(Choice::Node),
        "RBAC" => Some(Choice::Rbac),
        _ => None,
    }
}

fn version(name: &str) -> Result<Version, String> {
    Version::of(name)
        .ok_or_else(|| format!("Unsupported value: {name:?}: supported values: \"v1\", \"v1beta1\""))
}

fn of_mode(mode: &str, options: &Options) -> Result<Choice, String> {
    if let Some(choice) = simple(mode) {
        return Ok(choice);
    }
    let missing = |flag: &str| format!("authorization-mode {mode}'s --{flag} file not passed");
    if mode == "ABAC" {
        let path = options.authorization_policy_file.clone();
        return path.map(Choice::Abac).ok_or_else(|| missing("authorization-policy-file"));
    }
    let kubeconfig = options.authorization_webhook_config_file.clone();
    let kubeconfig = kubeconfig.ok_or_else(|| missing("authorization-webhook-config-file"))?;
    let settings = Settings {
        name: "default".to_owned(),
        version: version(&options.authorization_webhook_version)
            .map_err(|error| format!("--authorization-webhook-version: {error}"))?,
        allowed: options.authorization_webhook_cache_authorized_ttl.get(),
        refused: options.authorization_webhook_cache_unauthorized_ttl.get(),
        patience: PATIENCE_DEFAULT,
        refuses_by_default: false,
    };
    Ok(Choice::Webhook { settings, kubeconfig, conditions: Vec::new() })
}

fn of_file(text: &str) -> Result<Vec<Choice>, String> {
    let file: File = serde_yaml_ng::from_str(text).map_err(|error| error.to_string())?;
    let versions = ["v1", "v1beta1", "v1alpha1"].map(|version| format!("apiserver.config.k8s.io/{version}"));
    if !versions.contains(&file.api_version) || file.kind != "AuthorizationConfiguration" {
        return Err(format!(
            "no kind {:?} is registered for version {:?}; it has to be AuthorizationConfiguration of apiserver.config.k8s.io/v1",
            file.kind, file.api_version
        ));
    }
    if file.authorizers.is_empty() {
        return Err("authorizers: Required value: at least one authorization mode must be defined".to_owned());
    }
    let mut choices = Vec::new();
    for (index, entry) in file.authorizers.iter().enumerate() {
        let path = format!("authorizers[{index}]");
        let before = &file.authorizers[..index];
        if entry.name.is_empty() {
            return Err(format!("{path}.name: Required value"));
        }
        if !names::dns1123_subdomain(&entry.name).is_empty() {
            return Err(format!("{path}.name: Invalid value: {:?}: authorizer name is invalid", entry.name));
        }
        if before.iter().any(|other| other.name == entry.name) {
            return Err(format!("{path}.name: Duplicate value: {:?}", entry.name));
        }
        let again = before.iter().any(|other| other.kind == entry.kind);
        choices.push(match (entry.kind.as_str(), &entry.webhook) {
            ("Webhook", Some(hook)) => of_webhook(&entry.name, hook).map_err(|error| format!("{path}.webhook.{error}"))?,
            ("Webhook", None) => return Err(format!("{path}.webhook: Required value: required when type=Webhook")),
            (_, Some(_)) => {
                return Err(format!("{path}.webhook: Invalid value: webhook config may only be set when type=Webhook"));
            }
            (kind, None) if again => return Err(format!("{path}.type: Duplicate value: {kind:?}")),
            (kind, None) => simple(kind).ok_or_else(|| {
                format!("{path}.type: Unsupported value: {kind:?}: supported values: \"AlwaysAllow\", \"AlwaysDeny\", \"Node\", \"RBAC\", \"Webhook\"")
            })?,
        });
    }
    Ok(choices)
}

fn of_webhook(name: &str, hook: &WebhookEntry) -> Result<Choice, String> {
    let patience = match hook.timeout.map(GoDuration::get) {
        None => return Err("timeout: Required value".to_owned()),
        Some(time) if time.is_zero() || time > PATIENCE_MAX => {
            return Err("timeout: Invalid value: must be > 0s and <= 30s".to_owned());
        }
        Some(time) => time,
    };
    let refuses_by_default = match hook.failure_policy.as_str() {
        "NoOpinion" => false,
        "Deny" => true,
        other => {
            return Err(format!(
                "failurePolicy: Unsupported value: {other:?}: supported values: \"NoOpinion\", \"Deny\""
            ));
        }
    };
    if !hook.match_conditions.is_empty() && hook.match_condition_subject_access_review_version != "v1" {
        return Err("matchConditionSubjectAccessReviewVersion: Required value: required if match conditions are specified; it has to be v1".to_owned());
    }
    let info = &hook.connection_info;
    let kubeconfig = match (info.kind.as_str(), &info.kube_config_file) {
        ("KubeConfigFile", Some(path)) => path.clone(),
        ("KubeConfigFile", None) => return Err("connectionInfo.kubeConfigFile: Required value".to_owned()),
        (kind, _) => {
            return Err(format!(
                "connectionInfo.type: {kind:?} is not implemented by Coracle; there is \"KubeConfigFile\""
            ));
        }
    };
    let remembered = |wanted: Option<bool>, time: Option<GoDuration>, default: Duration| match wanted {
        Some(false) => Duration::ZERO,
        _ => time.map(GoDuration::get).filter(|time| !time.is_zero()).unwrap_or(default),
    };
    let settings = Settings {
        name: name.to_owned(),
        version: version(&hook.subject_access_review_version)
            .map_err(|error| format!("subjectAccessReviewVersion: {error}"))?,
        allowed: remembered(hook.cache_authorized_requests, hook.authorized_ttl, ALLOWED_DEFAULT),
        refused: remembered(hook.cache_unauthorized_requests, hook.unauthorized_ttl, REFUSED_DEFAULT),
        patience,
        refuses_by_default,
    };
    let conditions = hook.match_conditions.iter().map(|one| one.expression.clone()).collect();
    Ok(Choice::Webhook { settings, kubeconfig, conditions })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(authorizers: &str) -> Result<Vec<Choice>, String> {
        of_file(&format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers: {authorizers}"
        ))
    }

    #[test]
    fn a_file_names_authorizers_in_order() {
        let hook = "{type: Webhook, name: h, webhook: {timeout: 3s, subjectAccessReviewVersion: v1, failurePolicy: Deny, unauthorizedTTL: 7s, cacheAuthorizedRequests: false, \
            matchConditionSubjectAccessReviewVersion: v1, connectionInfo: {type: KubeConfigFile, kubeConfigFile: /x}, matchConditions: [{expression: 'true'}]}}";
        let choices = read(&format!("[{{type: Node, name: n}}, {hook}, {{type: RBAC, name: r}}]"))
            .expect("makes sense");
        let [Choice::Node, Choice::Webhook { settings, conditions, .. }, Choice::Rbac] = choices.as_slice()
        else {
            panic!("other authorizers")
        };
        assert!(settings.refuses_by_default && conditions.len() == 1);
        assert_eq!((settings.allowed, settings.refused), (Duration::ZERO, Duration::from_secs(7)));
        for (authorizers, problem) in [
            ("[]", "authorizers: Required"),
            ("[{type: Node}]", "authorizers[0].name: Required"),
            ("[{type: Node, name: a}, {type: Node, name: b}]", "authorizers[1].type: Duplicate"),
            ("[{type: Other, name: a}]", "authorizers[0].type: Unsupported"),
            ("[{type: Webhook, name: a}]", "authorizers[0].webhook: Required"),
            (&format!("[{}]", hook.replace("timeout: 3s, ", "")), "authorizers[0].webhook.timeout: Required"),
        ] {
            assert!(read(authorizers).is_err_and(|error| error.starts_with(problem)), "{problem}");
        }
    }
}
