//! The kubelet's configuration as one document: the file of `--config`, the drop-ins of `--config-dir` merged into it,
//! and what stands in for what it leaves open.
//!
//! Never here: flags; what fields mean.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

const KIND: &str = "KubeletConfiguration";
const DEFAULTS: &str = include_str!("defaults.yaml");
const VERSION: &str = "kubelet.config.k8s.io/v1beta1";

/// Reads the file, if there is one, and the files ending in `.conf` below the directory, in lexical order: later ones win,
/// maps are merged, lists replaced.
///
/// # Errors
/// The file that is wrong, and how.
pub fn load(file: Option<&Path>, drop_ins: Option<&Path>) -> Result<Value, String> {
    let mut document = match file {
        Some(path) => read(path).map_err(|error| format!("--config {}: {error}", path.display()))?,
        None => json!({}),
    };
    if let Some(directory) = drop_ins {
        let failed = |path: &Path, error: &str| {
            format!("--config-dir {}: {}: {error}", directory.display(), path.display())
        };
        let mut found = Vec::new();
        find(directory, &mut found).map_err(|error| failed(directory, &error.to_string()))?;
        found.sort();
        for path in found {
            let part = read(&path).map_err(|error| failed(&path, &error))?;
            merge(&mut document, part);
        }
    }
    Ok(document)
}

fn read(path: &Path) -> Result<Value, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    parse(&text)
}

/// Reads YAML or JSON.
///
/// # Errors
/// It is neither, or something else than a `KubeletConfiguration`.
pub fn parse(text: &str) -> Result<Value, String> {
    let document: Value = serde_yaml_ng::from_str(text).map_err(|error| error.to_string())?;
    let said = |name: &str| document.get(name).and_then(Value::as_str).unwrap_or_default();
    if said("kind") != KIND || said("apiVersion") != VERSION {
        return Err(format!(
            "kind {:?} of apiVersion {:?}; must be {KIND} of {VERSION}",
            said("kind"),
            said("apiVersion")
        ));
    }
    Ok(document)
}

fn find(directory: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "conf") {
            found.push(path);
        }
    }
    Ok(())
}

/// A JSON merge patch (RFC 7396).
pub fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(fields) = target else { return };
    for (name, value) in patch {
        if value.is_null() {
            fields.remove(&name);
        } else {
            merge(fields.entry(name).or_insert(Value::Null), value);
        }
    }
}

/// Sets the field at a dotted path, as a flag does.
pub fn set(document: &mut Value, path: &str, value: Value) {
    let patch = path.rsplit('.').fold(value, |inner, name| json!({ name: inner }));
    merge(document, patch);
}

/// What `/configz` shows: the document, and for what it leaves open upstream's defaults, or what is done here where that is
/// something else.
pub fn with_defaults(document: &Value) -> Value {
    let mut all = defaults();
    let patch = said(document, &all);
    merge(&mut all, patch);
    if let Some(fields) = all.as_object_mut() {
        fields.remove("kind");
        fields.remove("apiVersion");
    }
    all
}

/// What a document really says: empty values, and zeros where they stand for a default, are left out.
fn said(document: &Value, defaults: &Value) -> Value {
    let Value::Object(fields) = document else { return document.clone() };
    let is_open = |name: &str, value: &Value| match value {
        Value::Null => true,
        Value::String(text) => matches!(text.as_str(), "" | "0s") && defaults.get(name).is_some(),
        Value::Number(number) => number.as_i64() == Some(0) && ZERO_IS_OPEN.contains(&name),
        _ => false,
    };
    let kept = fields.iter().filter(|(name, value)| !is_open(name, value)).map(|(name, value)| {
        let below = defaults.get(name).filter(|below| below.is_object());
        (name.clone(), below.map_or_else(|| value.clone(), |below| said(value, below)))
    });
    Value::Object(kept.collect())
}

/// Numbers of which upstream takes 0 for "not said".
const ZERO_IS_OPEN: &[&str] = &[
    "port",
    "registryBurst",
    "eventBurst",
    "nodeLeaseDurationSeconds",
    "maxPods",
    "maxOpenFiles",
    "kubeAPIBurst",
];

fn defaults() -> Value {
    // Read by a test, too.
    serde_yaml_ng::from_str(DEFAULTS).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drop_ins_are_merged_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, body: &str| {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, format!("apiVersion: {VERSION}\nkind: {KIND}\n{body}")).unwrap();
        };
        write("main.yaml", "port: 1\nclusterDNS: [a, b]\nauthentication: {anonymous: {enabled: true}}\n");
        write("d/90-last.conf", "port: 3\n");
        write("d/sub/10-deep.conf", "maxPods: 7\nport: 4\n");
        write("d/10-first.conf", "port: 2\nclusterDNS: [c]\nauthentication: {webhook: {enabled: false}}\n");
        write("d/notes.txt", "port: 9\n");
        let (file, drop_ins) = (directory.path().join("main.yaml"), directory.path().join("d"));
        let document = load(Some(&file), Some(&drop_ins)).unwrap();
        assert_eq!(document["port"], 4, "the directory `sub` comes last");
        assert_eq!(document["maxPods"], 7);
        assert_eq!(document["clusterDNS"], json!(["c"]), "lists are replaced");
        assert_eq!(
            document["authentication"],
            json!({"anonymous": {"enabled": true}, "webhook": {"enabled": false}})
        );
        std::fs::write(drop_ins.join("99-bad.conf"), "port: 1\n").unwrap();
        assert!(load(Some(&file), Some(&drop_ins)).unwrap_err().contains("99-bad.conf: kind \"\""));
        assert!(load(None, Some(&directory.path().join("none"))).unwrap_err().starts_with("--config-dir "));
    }

    #[test]
    fn configz_fills_in_what_is_left_open() {
        let document = json!({"kind": KIND, "apiVersion": VERSION, "port": 0, "maxPods": 5, "healthzPort": 0,
            "syncFrequency": "0s", "shutdownGracePeriod": "0s", "cgroupDriver": "", "resolvConf": "/r",
            "authentication": {"webhook": {"cacheTTL": "0s", "enabled": false}}, "staticPodPath": "/m",
            "logging": {"flushFrequency": 0, "verbosity": 3}});
        let shown = with_defaults(&document);
        for (pointer, value) in [
            ("/port", json!(10250)),
            ("/maxPods", json!(5)),
            ("/healthzPort", json!(0)),
            ("/syncFrequency", json!("1m0s")),
            ("/cgroupDriver", json!("cgroupfs")),
            ("/resolvConf", json!("/r")),
            ("/staticPodPath", json!("/m")),
            ("/authentication/webhook", json!({"cacheTTL": "2m0s", "enabled": false})),
            ("/logging/verbosity", json!(3)),
            ("/shutdownGracePeriod", json!("0s")),
        ] {
            assert_eq!(shown.pointer(pointer), Some(&value), "{pointer}");
        }
        assert_eq!(shown.get("kind"), None);
    }

    #[test]
    fn the_defaults_are_fields() {
        let defaults = defaults();
        assert!(defaults.as_object().is_some_and(|fields| fields.len() > 60), "{defaults}");
        let mut warnings = Vec::new();
        super::super::fields::check(&defaults, &mut warnings).unwrap();
        assert_eq!(warnings, Vec::<String>::new());
    }

    #[test]
    fn a_path_sets_one_field() {
        let mut document = json!({"authentication": {"anonymous": {"enabled": false}}});
        set(&mut document, "authentication.webhook.enabled", json!(true));
        assert_eq!(document["authentication"]["webhook"]["enabled"], true);
        assert_eq!(document["authentication"]["anonymous"]["enabled"], false);
    }
}
