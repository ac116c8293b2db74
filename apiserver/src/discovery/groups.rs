//! The old discovery documents: all paths, versions of the core group, groups, resources of a group and version. Pure.

use base64::Engine;
use coracle_api::resource::{Resource, Served, Subresource};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::aggregation::Group;

/// What is served beside the groups.
const OTHER_PATHS: [&str; 12] = [
    "/.well-known/openid-configuration",
    "/api",
    "/apis",
    "/apis/",
    "/healthz",
    "/livez",
    "/metrics",
    "/openapi/v2",
    "/openapi/v3",
    "/openid/v1/jwks",
    "/readyz",
    "/version",
];

/// `/`.
pub fn root_paths(groups: &[Group]) -> Value {
    let mut paths: Vec<String> = OTHER_PATHS.iter().map(|path| (*path).to_owned()).collect();
    for group in groups {
        let path = if group.name.is_empty() { "/api".to_owned() } else { format!("/apis/{}", group.name) };
        paths.extend(group.versions.iter().map(|(version, _)| format!("{path}/{version}")));
        paths.push(path);
    }
    paths.sort();
    paths.dedup();
    json!({"paths": paths})
}

/// `/api`.
pub fn core_versions(server_address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
    })
}

fn group_entry(group: &Group) -> Value {
    let versions: Vec<Value> = group
        .versions
        .iter()
        .map(|(version, _)| json!({"groupVersion": format!("{}/{version}", group.name), "version": version}))
        .collect();
    json!({"name": group.name, "preferredVersion": versions.first(), "versions": versions})
}

/// `/apis`.
pub fn group_list(groups: &[Group]) -> Value {
    let groups: Vec<Value> = groups.iter().filter(|group| !group.name.is_empty()).map(group_entry).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP`.
pub fn group(groups: &[Group], name: &str) -> Option<Value> {
    let mut entry = group_entry(groups.iter().find(|group| !group.name.is_empty() && group.name == name)?);
    entry["kind"] = "APIGroup".into();
    entry["apiVersion"] = "v1".into();
    Some(entry)
}

/// `/api/VERSION` and `/apis/GROUP/VERSION`.
pub fn resource_list(served: &Served, group: &str, version: &str) -> Option<Value> {
    let mut resources = Vec::new();
    for row in served.rows().filter(|row| row.group == group && row.version == version) {
        resources.push(entry(row));
        resources.extend(row.subresources.iter().map(|subresource| part(row, subresource)));
    }
    if resources.is_empty() {
        return None;
    }
    let mut list = json!({
        "kind": "APIResourceList",
        "groupVersion": coracle_api::meta::join_api_version(group, version),
        "resources": resources,
    });
    if !group.is_empty() {
        list["apiVersion"] = "v1".into();
    }
    Some(list)
}

fn entry(row: &Resource) -> Value {
    let mut entry = Map::new();
    entry.insert("name".into(), row.plural.into());
    entry.insert("singularName".into(), row.singular.into());
    entry.insert("namespaced".into(), row.namespaced.into());
    entry.insert("kind".into(), row.kind.into());
    entry.insert("verbs".into(), json!(row.verbs));
    for (key, values) in [("shortNames", row.short_names), ("categories", row.categories)] {
        if !values.is_empty() {
            entry.insert(key.into(), json!(values));
        }
    }
    if row.is_stored() {
        // Eight bytes that change with the form in which objects are stored.
        let digest = Sha256::digest(format!("{}/{}", row.storage_api_version, row.kind));
        let hash = base64::engine::general_purpose::STANDARD.encode(&digest[..8]);
        entry.insert("storageVersionHash".into(), hash.into());
    }
    Value::Object(entry)
}

fn part(row: &Resource, subresource: &Subresource) -> Value {
    let mut entry = json!({
        "name": format!("{}/{}", row.plural, subresource.name),
        "singularName": "",
        "namespaced": row.namespaced,
        "kind": subresource.kind,
        "verbs": subresource.verbs,
    });
    if (subresource.group, subresource.version) != (row.group, row.version) {
        entry["group"] = subresource.group.into();
        entry["version"] = subresource.version.into();
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built_in() -> Vec<Group> {
        crate::aggregation::groups(&Served::default(), &[])
    }

    fn named<'a>(list: &'a Value, name: &str) -> &'a Value {
        let found = list["resources"].as_array().and_then(|all| all.iter().find(|r| r["name"] == name));
        found.unwrap_or_else(|| panic!("{name} is listed"))
    }

    #[test]
    fn resources_carry_names_verbs_and_parts_with_their_own_kind() {
        let core = resource_list(&Served::default(), "", "v1").expect("core");
        let pods = named(&core, "pods");
        assert_eq!((&pods["shortNames"], &pods["categories"]), (&json!(["po"]), &json!(["all"])));
        assert_eq!(pods["singularName"], "pod");
        let eviction = named(&core, "pods/eviction");
        assert_eq!((&eviction["group"], &eviction["kind"]), (&json!("policy"), &json!("Eviction")));
        assert_eq!(core["groupVersion"], "v1");
        let apps = resource_list(&Served::default(), "apps", "v1").expect("apps");
        assert_eq!(apps["groupVersion"], "apps/v1");
        assert_eq!(named(&apps, "deployments/scale")["group"], "autoscaling");
        assert!(
            resource_list(&Served::default(), "apps", "v2").is_none() && group(&built_in(), "").is_none()
        );
    }

    #[test]
    fn all_paths_are_listed_once_and_in_order() {
        let document = root_paths(&built_in());
        let paths: Vec<&str> =
            document["paths"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        assert!(paths.is_sorted());
        for path in ["/api", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1", "/version"] {
            assert_eq!(paths.iter().filter(|listed| **listed == path).count(), 1, "{path}");
        }
    }

    #[test]
    fn groups_prefer_their_version() {
        let apps = group(&built_in(), "apps").expect("apps");
        assert_eq!(apps["preferredVersion"]["groupVersion"], "apps/v1");
        let autoscaling = group(&built_in(), "autoscaling").expect("autoscaling");
        assert_eq!(autoscaling["preferredVersion"]["version"], "v2");
        assert_eq!(autoscaling["versions"][1]["groupVersion"], "autoscaling/v1");
        assert!(
            group_list(&built_in())["groups"]
                .as_array()
                .is_some_and(|groups| groups.iter().all(|g| g["name"] != ""))
        );
    }
}
