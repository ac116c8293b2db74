//! The aggregated discovery document: all groups with all their resources at once. Pure.

use coracle_api::resource::{Resource, Served};
use serde_json::{Map, Value, json};

use crate::aggregation::Group;

/// The versions of apidiscovery.k8s.io in which the document is served; they differ in name only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Since 1.30.
    V2,
    /// Since 1.26.
    V2beta1,
}

impl Version {
    fn name(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::V2beta1 => "v2beta1",
        }
    }

    /// The media type of the answer.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::V2 => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            Self::V2beta1 => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
        }
    }
}

/// Whether an `Accept` header prefers this form over the old one, and in which version.
pub fn wanted(header: Option<&str>) -> Option<Version> {
    for clause in header?.split(',') {
        let parts: Vec<&str> = clause.split(';').map(str::trim).collect();
        let has = |parameter: &str| parts.contains(&parameter);
        match parts.first().copied() {
            Some("application/json") if has("as=APIGroupDiscoveryList") && has("g=apidiscovery.k8s.io") => {
                if has("v=v2") {
                    return Some(Version::V2);
                }
                if has("v=v2beta1") {
                    return Some(Version::V2beta1);
                }
            }
            Some("application/json" | "*/*" | "application/*" | "application/yaml")
                if !has("as=APIGroupDiscoveryList") =>
            {
                return None;
            }
            _ => {}
        }
    }
    None
}

/// The document of the core group alone (`/api`) or of all named groups (`/apis`). `foreign` gives the entry of a version that another server has.
pub fn document(
    served: &Served,
    groups: &[Group],
    foreign: &dyn Fn(&str, &str) -> Option<Value>,
    core: bool,
    version: Version,
) -> Value {
    let of_version = |group: &str, version: &str, is_foreign: bool| {
        if is_foreign {
            let unknown = || json!({"version": version, "resources": [], "freshness": "Stale"});
            return foreign(group, version).unwrap_or_else(unknown);
        }
        let rows = served.rows().filter(|row| row.group == group && row.version == version);
        json!({"version": version, "resources": rows.map(entry).collect::<Vec<_>>(), "freshness": "Current"})
    };
    let items: Vec<Value> = groups
        .iter()
        .filter(|group| group.name.is_empty() == core)
        .map(|group| {
            let versions = group.versions.iter();
            let versions: Vec<Value> =
                versions.map(|(version, foreign)| of_version(&group.name, version, *foreign)).collect();
            let mut metadata = json!({"creationTimestamp": null});
            if !group.name.is_empty() {
                metadata["name"] = group.name.as_str().into();
            }
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{}", version.name()),
        "metadata": {},
        "items": items,
    })
}

fn entry(row: &Resource) -> Value {
    let mut entry = Map::new();
    entry.insert("resource".into(), row.plural.into());
    entry.insert("responseKind".into(), kind(row.group, row.version, row.kind));
    entry.insert("scope".into(), if row.namespaced { "Namespaced" } else { "Cluster" }.into());
    entry.insert("singularResource".into(), row.singular.into());
    entry.insert("verbs".into(), json!(row.verbs));
    for (key, values) in [("shortNames", row.short_names), ("categories", row.categories)] {
        if !values.is_empty() {
            entry.insert(key.into(), json!(values));
        }
    }
    if !row.subresources.is_empty() {
        let parts: Vec<Value> = row
            .subresources
            .iter()
            .map(|part| {
                json!({
                    "subresource": part.name,
                    "responseKind": kind(part.group, part.version, part.kind),
                    "verbs": part.verbs,
                })
            })
            .collect();
        entry.insert("subresources".into(), parts.into());
    }
    Value::Object(entry)
}

fn kind(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_the_first_version_they_name() {
        let kubectl = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        assert_eq!(wanted(Some(kubectl)), Some(Version::V2));
        assert_eq!(
            wanted(Some("application/json;v=v2beta1;g=apidiscovery.k8s.io;as=APIGroupDiscoveryList")),
            Some(Version::V2beta1)
        );
        for plain in [None, Some("application/json"), Some("*/*"), Some("application/json, */*")] {
            assert_eq!(wanted(plain), None);
        }
    }

    fn built_in(core: bool, version: Version) -> Value {
        let groups = crate::aggregation::groups(&Served::default(), &[]);
        document(&Served::default(), &groups, &|_, _| None, core, version)
    }

    #[test]
    fn groups_hold_resources_and_their_parts() {
        let core = built_in(true, Version::V2);
        assert_eq!(core["apiVersion"], "apidiscovery.k8s.io/v2");
        let resources = core["items"][0]["versions"][0]["resources"].as_array().expect("resources");
        let pods = resources.iter().find(|r| r["resource"] == "pods").expect("pods");
        assert_eq!(pods["scope"], "Namespaced");
        assert!(
            pods["subresources"]
                .as_array()
                .is_some_and(|parts| parts.iter().any(|p| p["subresource"] == "log"))
        );
        let named = built_in(false, Version::V2);
        let groups = named["items"].as_array().expect("groups");
        let autoscaling: Vec<_> =
            groups.iter().filter(|group| group["metadata"]["name"] == "autoscaling").collect();
        assert_eq!(autoscaling.len(), 1);
        assert_eq!(autoscaling[0]["versions"][0]["version"], "v2");
        assert_eq!(autoscaling[0]["versions"][1]["version"], "v1");
        assert!(built_in(false, Version::V2beta1)["items"].as_array().is_some_and(|items| items.len() > 4));
    }
}
