//! The file `EncryptionConfiguration` of `apiserver.config.k8s.io/v1`: which resources have which keys. Pure.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use coracle_api::resource;
use serde::Deserialize;

use super::Rule;
use super::providers::Provider;
use crate::storage::keys;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    resources: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    resources: Vec<String>,
    providers: Vec<Choice>,
}

/// One provider; exactly one field is set.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Choice {
    aesgcm: Option<Keys>,
    aescbc: Option<Keys>,
    secretbox: Option<Keys>,
    identity: Option<Empty>,
    kms: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Empty {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    keys: Vec<Key>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    name: String,
    secret: String,
}

/// Reads the file; `prefix` is what all keys of the store begin with.
///
/// # Errors
/// What is wrong, with the path of the field.
pub(super) fn parse(text: &str, prefix: &str) -> Result<Vec<Rule>, String> {
    let file: File = serde_yaml_ng::from_str(text).map_err(|error| error.to_string())?;
    if (file.api_version.as_str(), file.kind.as_str())
        != ("apiserver.config.k8s.io/v1", "EncryptionConfiguration")
    {
        return Err(format!(
            "no kind {:?} is registered for version {:?}; it has to be EncryptionConfiguration of apiserver.config.k8s.io/v1",
            file.kind, file.api_version
        ));
    }
    if file.resources.is_empty() {
        return Err("resources: Required value: at least one resource is required".to_owned());
    }
    file.resources.iter().enumerate().map(|(number, entry)| rule(number, entry, prefix)).collect()
}

fn rule(number: usize, entry: &Entry, prefix: &str) -> Result<Rule, String> {
    let path = format!("resources[{number}]");
    if entry.resources.is_empty() || entry.providers.is_empty() {
        return Err(format!("{path}: Required value: resources and providers are required"));
    }
    let mut prefixes = Vec::new();
    for (at, name) in entry.resources.iter().enumerate() {
        let found = key_prefixes(name, prefix);
        if found.is_empty() {
            return Err(format!("{path}.resources[{at}]: Invalid value: {name:?}: not supported"));
        }
        prefixes.extend(found);
    }
    let mut providers = Vec::new();
    for (at, choice) in entry.providers.iter().enumerate() {
        providers.extend(choice.providers().map_err(|error| format!("{path}.providers[{at}]{error}"))?);
    }
    Ok(Rule { prefixes, providers })
}

impl Choice {
    fn providers(&self) -> Result<Vec<Provider>, String> {
        let Self { aesgcm, aescbc, secretbox, identity, kms } = self;
        let set =
            [aesgcm.is_some(), aescbc.is_some(), secretbox.is_some(), identity.is_some(), kms.is_some()];
        match set.iter().filter(|is_set| **is_set).count() {
            0 => {
                return Err(
                    ": Required value: provider does not contain any of the expected providers: KMS, \
                             AESGCM, AESCBC, Secretbox, Identity"
                        .to_owned(),
                );
            }
            1 => {}
            _ => return Err(
                ": Invalid value: more than one provider specified in a single element, should split into \
                             different list elements"
                    .to_owned(),
            ),
        }
        if kms.is_some() {
            return Err(".kms: this server has no KMS; take aesgcm, aescbc or secretbox".to_owned());
        }
        type Make = fn(&str, &[u8]) -> Option<Provider>;
        let kinds: [(&str, &Option<Keys>, Make, &str); 3] = [
            ("aesgcm", aesgcm, Provider::aes_gcm, "[16 24 32]"),
            ("aescbc", aescbc, Provider::aes_cbc, "[16 24 32]"),
            ("secretbox", secretbox, Provider::secret_box, "[32]"),
        ];
        for (kind, keys, make, lengths) in kinds {
            if let Some(Keys { keys }) = keys {
                return of_keys(keys, make, lengths).map_err(|error| format!(".{kind}.keys{error}"));
            }
        }
        Ok(vec![Provider::IDENTITY])
    }
}

fn of_keys(
    keys: &[Key],
    make: fn(&str, &[u8]) -> Option<Provider>,
    lengths: &str,
) -> Result<Vec<Provider>, String> {
    if keys.is_empty() {
        return Err(": Required value: at least one key is required".to_owned());
    }
    let of_key = |(at, key): (usize, &Key)| {
        if key.name.is_empty() || key.name.contains(':') {
            return Err(format!(
                "[{at}].name: Invalid value: {:?}: must not be empty or contain a colon",
                key.name
            ));
        }
        let secret = BASE64_STANDARD.decode(&key.secret).map_err(|_| {
            format!("[{at}].secret: Invalid value: \"REDACTED\": secret must be base64 encoded")
        })?;
        make(&key.name, &secret).ok_or_else(|| {
            format!(
                "[{at}].secret: Invalid value: \"REDACTED\": secret is not of the expected length, got {}, expected one of {lengths}",
                secret.len()
            )
        })
    };
    keys.iter().enumerate().map(of_key).collect()
}

/// What the keys of a resource begin with: `secrets`, `deployments.apps`, `*.apps`, `*.` (the core group) or `*.*`.
fn key_prefixes(name: &str, prefix: &str) -> Vec<String> {
    let (plural, group) = name.split_once('.').unwrap_or((name, ""));
    if (plural, group) == ("*", "*") {
        return vec![format!("{prefix}/")];
    }
    let rows = resource::table().filter(|row| row.is_stored() && row.group == group);
    let known: Vec<String> = rows
        .filter(|row| plural == "*" || row.plural == plural)
        .map(|row| keys::resource_prefix(prefix, row))
        .collect();
    // Custom resources lie under their group.
    if !known.is_empty() || !group.contains('.') {
        return known;
    }
    let folder = if plural == "*" { String::new() } else { format!("{plural}/") };
    vec![format!("{prefix}/{group}/{folder}")]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(resources: &str) -> String {
        let text = format!(
            "kind: EncryptionConfiguration\napiVersion: apiserver.config.k8s.io/v1\nresources: {resources}"
        );
        parse(&text, "/registry").err().unwrap_or_else(|| panic!("accepted: {resources}"))
    }

    #[test]
    fn resources_are_found_by_the_layout_of_the_store() {
        assert_eq!(key_prefixes("secrets", "/registry"), ["/registry/secrets/"]);
        assert_eq!(key_prefixes("services", "/registry"), ["/registry/services/specs/"]);
        assert_eq!(key_prefixes("deployments.apps", "/r"), ["/r/deployments/"]);
        assert!(key_prefixes("*.apps", "/registry").contains(&"/registry/replicasets/".to_owned()));
        assert!(key_prefixes("*.", "/registry").contains(&"/registry/minions/".to_owned()));
        assert_eq!(key_prefixes("*.*", "/registry"), ["/registry/"]);
        assert_eq!(key_prefixes("widgets.example.com", "/registry"), ["/registry/example.com/widgets/"]);
        assert_eq!(key_prefixes("secretz", "/registry"), Vec::<String>::new());
    }

    #[test]
    fn errors_name_the_field_and_never_show_a_secret() {
        for (resources, says) in [
            ("[]", "resources: Required value"),
            (
                "[{resources: [secretz], providers: [{identity: {}}]}]",
                "resources[0].resources[0]: Invalid value",
            ),
            ("[{resources: [secrets], providers: []}]", "resources[0]: Required value"),
            ("[{resources: [secrets], providers: [{}]}]", "resources[0].providers[0]: Required value"),
            (
                "[{resources: [secrets], providers: [{kms: {name: x}}]}]",
                "resources[0].providers[0].kms: this server has no KMS",
            ),
            (
                "[{resources: [secrets], providers: [{aesgcm: {keys: [{name: a, secret: c2VjcmV0}]}}]}]",
                "providers[0].aesgcm.keys[0].secret: Invalid value: \"REDACTED\": secret is not of the expected length, got 6",
            ),
            (
                "[{resources: [secrets], providers: [{secretbox: {keys: [{name: a, secret: '%'}]}}]}]",
                "must be base64 encoded",
            ),
            ("[{resources: [secrets], providers: [{secretbox: {keys: []}}]}]", "at least one key"),
            (
                "[{resources: [secrets], providers: [{identity: {}, aesgcm: {keys: []}}]}]",
                "more than one provider",
            ),
        ] {
            let error = error(resources);
            assert!(error.contains(says), "{resources}: {error}");
            assert!(!error.contains("c2VjcmV0"));
        }
    }
}
