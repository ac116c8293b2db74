//! The file `AdmissionConfiguration` of `apiserver.config.k8s.io`: what is said about plugins one by one. What it means is for the plugins to say.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

/// The plugins that have something to be said about.
const CONFIGURABLE: &[&str] = &["PodSecurity", "PodNodeSelector", "PodTolerationRestriction"];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    plugins: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Entry {
    name: String,
    #[serde(default)]
    path: PathBuf,
    configuration: Option<Value>,
}

/// What is said about plugins, by their names.
#[derive(Debug, Default)]
pub(super) struct Configuration(Vec<(String, Value)>);

impl Configuration {
    /// Reads the file; without one nothing is said.
    ///
    /// # Errors
    /// A text naming flag and file.
    pub(super) fn load(path: Option<&Path>) -> Result<Self, String> {
        let Some(path) = path else { return Ok(Self::default()) };
        let named = |error: String| format!("--admission-control-config-file: {}: {error}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| named(error.to_string()))?;
        Self::parse(&text, path.parent().unwrap_or(Path::new("."))).map_err(named)
    }

    fn parse(text: &str, base: &Path) -> Result<Self, String> {
        let file: File = serde_yaml_ng::from_str(text).map_err(|error| error.to_string())?;
        let versions = ["v1", "v1alpha1"].map(|version| format!("apiserver.config.k8s.io/{version}"));
        if !versions.contains(&file.api_version) || file.kind != "AdmissionConfiguration" {
            return Err(format!(
                "no kind {:?} is registered for version {:?}; it has to be AdmissionConfiguration of apiserver.config.k8s.io/v1",
                file.kind, file.api_version
            ));
        }
        let mut found: Vec<(String, Value)> = Vec::new();
        for entry in file.plugins {
            if !CONFIGURABLE.contains(&entry.name.as_str()) {
                return Err(format!(
                    "configurations of {} are not implemented by Coracle; there are those of {}",
                    entry.name,
                    CONFIGURABLE.join(", ")
                ));
            }
            let value = match entry.configuration {
                Some(value) => value,
                None => {
                    let path = base.join(&entry.path);
                    let text = std::fs::read_to_string(&path)
                        .map_err(|error| format!("{}: {error}", path.display()))?;
                    serde_yaml_ng::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?
                }
            };
            found.push((entry.name, value));
        }
        Ok(Self(found))
    }

    /// What is said about a plugin.
    pub(super) fn of(&self, plugin: &str) -> Option<&Value> {
        self.0.iter().find(|(name, _)| name == plugin).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugins_are_configured_in_the_file_or_beside_it() {
        let file = |plugins: &str| {
            format!(
                "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins: {plugins}"
            )
        };
        let dir = tempfile::tempdir().expect("directory");
        std::fs::write(dir.path().join("x.yaml"), "a: 1").expect("write");
        let read = |plugins: &str| Configuration::parse(&file(plugins), dir.path());
        let beside = read("[{name: PodSecurity, path: x.yaml}]").expect("reads");
        assert_eq!(beside.of("PodSecurity"), Some(&serde_json::json!({"a": 1})));
        let within = read("[{name: PodSecurity, configuration: {b: 2}}]").expect("reads");
        assert_eq!(within.of("PodSecurity"), Some(&serde_json::json!({"b": 2})));
        assert!(read("[{name: Other, path: x.yaml}]").is_err_and(|error| error.contains("Other")));
    }
}
