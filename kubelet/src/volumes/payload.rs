//! The files of configMap, secret, downwardAPI and projected volumes.
//!
//! Never here: fetching or writing.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, Volume};
use kubelet_core::field_ref::{self, NodeFacts};
use kubelet_core::pod_view;

use super::atomic_writer::FileContent;
use super::token::Token;

/// What was fetched for one volume.
#[derive(Default)]
pub struct Fetched {
    /// By name.
    pub config_maps: BTreeMap<String, Arc<ConfigMap>>,
    /// By name.
    pub secrets: BTreeMap<String, Arc<Secret>>,
    /// By path in the volume.
    pub tokens: BTreeMap<String, Token>,
}

type Files = BTreeMap<String, FileContent>;

/// Names of the ConfigMaps (`false`) and Secrets (`true`) that a volume needs.
pub fn references(volume: &Volume) -> Vec<(String, bool)> {
    let mut found = Vec::new();
    found.extend(volume.config_map.iter().map(|source| (source.name.clone(), false)));
    found.extend(volume.secret.iter().filter_map(|source| Some((source.secret_name.clone()?, true))));
    for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
        found.extend(source.config_map.iter().map(|source| (source.name.clone(), false)));
        found.extend(source.secret.iter().map(|source| (source.name.clone(), true)));
    }
    found
}

/// The volume's files, and when its tokens must be renewed.
///
/// # Errors
/// What is missing, in upstream's words.
pub fn files(
    pod: &Pod,
    volume: &Volume,
    fetched: &Fetched,
    node: &NodeFacts,
) -> Result<(Files, Option<Timestamp>), String> {
    let mut out = Files::new();
    let mode =
        |mode: Option<i32>, default: u32| mode.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(default);
    if let Some(source) = &volume.config_map {
        let data = config_map_data(fetched, &source.name, source.optional)?;
        let wanted = Wanted {
            items: source.items.as_deref(),
            mode: mode(source.default_mode, 0o644),
            optional: source.optional,
        };
        select(&mut out, &data, &wanted, "configmap")?;
    }
    if let Some(source) = &volume.secret {
        let name = source.secret_name.as_deref().unwrap_or_default();
        let data = secret_data(fetched, name, source.optional)?;
        let wanted = Wanted {
            items: source.items.as_deref(),
            mode: mode(source.default_mode, 0o644),
            optional: source.optional,
        };
        select(&mut out, &data, &wanted, "secret")?;
    }
    if let Some(source) = &volume.downward_api {
        let items = source.items.as_deref().unwrap_or_default();
        downward(&mut out, pod, items, mode(source.default_mode, 0o644), node)?;
    }
    let mut renew_at: Option<Timestamp> = None;
    if let Some(projected) = &volume.projected {
        let default = mode(projected.default_mode, 0o644);
        for source in projected.sources.iter().flatten() {
            if let Some(source) = &source.config_map {
                let data = config_map_data(fetched, &source.name, source.optional)?;
                let wanted =
                    Wanted { items: source.items.as_deref(), mode: default, optional: source.optional };
                select(&mut out, &data, &wanted, "configmap")?;
            } else if let Some(source) = &source.secret {
                let data = secret_data(fetched, &source.name, source.optional)?;
                let wanted =
                    Wanted { items: source.items.as_deref(), mode: default, optional: source.optional };
                select(&mut out, &data, &wanted, "secret")?;
            } else if let Some(source) = &source.downward_api {
                downward(&mut out, pod, source.items.as_deref().unwrap_or_default(), default, node)?;
            } else if let Some(source) = &source.service_account_token {
                let token = fetched
                    .tokens
                    .get(&source.path)
                    .ok_or_else(|| format!("no token for {}", source.path))?;
                renew_at = [renew_at, Some(token.renew_at)].into_iter().flatten().min();
                // As upstream: with a group it is readable by the group, with one user it belongs to that user.
                let owner = single_user(pod);
                let token_mode =
                    if owner.is_some() || super::fs_group(pod).is_some() { 0o600 } else { default };
                let content = FileContent { data: token.text.clone().into_bytes(), mode: token_mode, owner };
                out.insert(source.path.clone(), content);
            } else {
                return Err("a projected source of this kind is not supported by this kubelet yet".to_owned());
            }
        }
    }
    Ok((out, renew_at))
}

/// The user that all containers run as, if they agree on one and it is stated.
fn single_user(pod: &Pod) -> Option<u32> {
    let spec = pod_view::spec(pod);
    let of_pod = spec.security_context.as_ref().and_then(|context| context.run_as_user);
    let mut users = spec.containers.iter().chain(pod_view::init_containers(pod)).map(|container| {
        container.security_context.as_ref().and_then(|context| context.run_as_user).or(of_pod)
    });
    let first = users.next()??;
    users.all(|user| user == Some(first)).then(|| u32::try_from(first).ok()).flatten()
}

struct Wanted<'a> {
    items: Option<&'a [KeyToPath]>,
    mode: u32,
    optional: Option<bool>,
}

fn config_map_data(
    fetched: &Fetched,
    name: &str,
    optional: Option<bool>,
) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let Some(map) = fetched.config_maps.get(name) else {
        let missing = format!("configmap \"{name}\" not found");
        return if optional == Some(true) { Ok(BTreeMap::new()) } else { Err(missing) };
    };
    let text = map.data.iter().flatten().map(|(key, value)| (key.clone(), value.clone().into_bytes()));
    let binary = map.binary_data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone()));
    Ok(text.chain(binary).collect())
}

fn secret_data(
    fetched: &Fetched,
    name: &str,
    optional: Option<bool>,
) -> Result<BTreeMap<String, Vec<u8>>, String> {
    match fetched.secrets.get(name) {
        Some(secret) => {
            Ok(secret.data.iter().flatten().map(|(key, value)| (key.clone(), value.0.clone())).collect())
        }
        None if optional == Some(true) => Ok(BTreeMap::new()),
        None => Err(format!("secret \"{name}\" not found")),
    }
}

fn select(
    out: &mut Files,
    data: &BTreeMap<String, Vec<u8>>,
    wanted: &Wanted<'_>,
    kind: &str,
) -> Result<(), String> {
    match wanted.items {
        None | Some([]) => {
            for (key, bytes) in data {
                out.insert(key.clone(), FileContent { data: bytes.clone(), mode: wanted.mode, owner: None });
            }
        }
        Some(items) => {
            for item in items {
                match data.get(&item.key) {
                    Some(bytes) => {
                        let mode = item.mode.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(wanted.mode);
                        out.insert(item.path.clone(), FileContent { data: bytes.clone(), mode, owner: None });
                    }
                    None if wanted.optional == Some(true) => {}
                    None => return Err(format!("{kind} references non-existent {kind} key: {}", item.key)),
                }
            }
        }
    }
    Ok(())
}

fn downward(
    out: &mut Files,
    pod: &Pod,
    items: &[DownwardAPIVolumeFile],
    default_mode: u32,
    node: &NodeFacts,
) -> Result<(), String> {
    for item in items {
        let text = if let Some(reference) = &item.field_ref {
            field_ref::field(pod, &reference.field_path, node)?
        } else if let Some(reference) = &item.resource_field_ref {
            field_ref::resource_field(pod, "", reference, node)?
        } else {
            return Err(format!("downwardAPI item {} has neither fieldRef nor resourceFieldRef", item.path));
        };
        let mode = item.mode.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(default_mode);
        out.insert(item.path.clone(), FileContent { data: text.into_bytes(), mode, owner: None });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fetched() -> Fetched {
        let map: ConfigMap = serde_json::from_value(json!({"data": {"a": "1", "b": "2"}})).unwrap();
        let mut fetched = Fetched::default();
        fetched.config_maps.insert("cm".into(), Arc::new(map));
        fetched
    }

    fn run(volume: serde_json::Value) -> Result<Files, String> {
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "labels": {"x": "y"}},
            "spec": {"containers": []}}))
            .unwrap();
        let volume: Volume = serde_json::from_value(volume).unwrap();
        files(&pod, &volume, &fetched(), &NodeFacts::default()).map(|(files, _)| files)
    }

    #[test]
    fn items_choose_and_rename_keys() {
        let all = run(json!({"name": "v", "configMap": {"name": "cm", "defaultMode": 256}})).unwrap();
        assert_eq!(all.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(all["a"].mode, 0o400);
        let some =
            run(json!({"name": "v", "configMap": {"name": "cm", "items": [{"key": "b", "path": "dir/x"}]}}))
                .unwrap();
        assert_eq!(some["dir/x"].data, b"2");
    }

    #[test]
    fn missing_things_are_named_unless_optional() {
        let missing = run(json!({"name": "v", "configMap": {"name": "no"}}));
        assert_eq!(missing.unwrap_err(), "configmap \"no\" not found");
        let key =
            run(json!({"name": "v", "configMap": {"name": "cm", "items": [{"key": "z", "path": "z"}]}}));
        assert_eq!(key.unwrap_err(), "configmap references non-existent configmap key: z");
        assert!(
            run(json!({"name": "v", "secret": {"secretName": "no", "optional": true}})).unwrap().is_empty()
        );
    }

    #[test]
    fn projected_sources_are_merged() {
        let files = run(json!({"name": "v", "projected": {"sources": [
            {"configMap": {"name": "cm", "items": [{"key": "a", "path": "a"}]}},
            {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}}))
        .unwrap();
        assert_eq!(files["labels"].data, b"x=\"y\"");
        assert_eq!(files["a"].data, b"1");
    }
}
