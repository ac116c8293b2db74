//! What a CustomResourceDefinition says of its custom resources, read once and kept as long as the process: requests hold on to it without counting
//! references. A definition that comes again, after a restart of a watch or a deletion, is the one that was kept.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, OnceLock, PoisonError};

use serde_json::{Value, json};

use super::json_path::JsonPath;
use super::merge;
use super::rules::Rules;
use super::structural::Structural;
use crate::kinds::access::{boolean, items, text};
use crate::meta;
use crate::resource::{Resource, Subresource};
use crate::schema::Schema;

/// One column of a table.
#[derive(Clone, Debug)]
pub struct Column {
    /// As `columnDefinitions` shows it.
    pub definition: Value,
    /// Its type, for instance `integer`.
    pub kind: String,
    /// Where its cells are.
    pub path: JsonPath,
}

/// Where the parts of a Scale are.
#[derive(Clone, Debug)]
pub struct Scale {
    /// The replicas wanted.
    pub spec_replicas: Vec<String>,
    /// The replicas there are.
    pub status_replicas: Vec<String>,
    /// The selector as text; empty for none.
    pub selector: Vec<String>,
}

/// A webhook that converts between versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversion {
    /// Where it is.
    pub client_config: Value,
    /// The forms of reviews that it takes, preferred first.
    pub review_versions: Vec<String>,
}

impl Conversion {
    fn of(spec: &Value) -> Option<Self> {
        let conversion = spec.get("conversion").filter(|one| text(one, "strategy") == "Webhook")?;
        let webhook = conversion.get("webhook")?;
        let versions = items(webhook, "conversionReviewVersions");
        Some(Self {
            client_config: webhook.get("clientConfig")?.clone(),
            review_versions: versions.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        })
    }
}

/// One version of a custom resource.
#[derive(Debug)]
pub struct Definition {
    /// The name of the CustomResourceDefinition.
    pub name: String,
    /// The kind of its lists.
    pub list_kind: String,
    /// `GROUP/VERSION`.
    pub api_version: String,
    /// What its objects look like.
    pub schema: Structural,
    /// The schema as the definition has it; `None` when it has none.
    pub open_api: Option<Value>,
    /// Whether the status is written apart.
    pub has_status: bool,
    /// Where the scale is, if it has one.
    pub scale: Option<Scale>,
    /// The columns after the name.
    pub columns: Vec<Column>,
    /// What field selectors may name.
    pub selectable: Vec<(&'static str, JsonPath)>,
    /// The names of [`Definition::selectable`].
    pub selectable_names: &'static [&'static str],
    /// What writers and readers are warned of.
    pub deprecation: Option<String>,
    /// The webhook that converts between versions; without one nothing but `apiVersion` differs.
    pub conversion: Option<Conversion>,
    /// The version that is stored, when it is another one.
    pub stored_as: Option<&'static Resource>,
    /// The schemas of all versions by `apiVersion`: stored objects may be in any of them.
    siblings: HashMap<String, Structural>,
    merge: OnceLock<Schema>,
    rules: OnceLock<Option<Rules>>,
}

impl PartialEq for Definition {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Definition {}

impl Definition {
    /// How objects merge under server-side apply.
    pub fn merge_schema(&self) -> &Schema {
        self.merge.get_or_init(|| merge::merge_schema(&self.schema))
    }

    /// The rules that objects are held to, compiled when they are first needed.
    pub fn rules(&self) -> Option<&Rules> {
        self.rules.get_or_init(|| Rules::of(&self.schema)).as_ref()
    }

    /// A stored object as the definition sees it now: pruned and with the defaults of the version it was stored in, in this version.
    pub fn revive(&self, object: &mut Value) {
        if let Some(stored) = self.siblings.get(text(object, "apiVersion")) {
            super::prune(object, stored);
            super::default(object, stored);
        }
        self.convert(object);
    }

    /// An object of another version in this one, unless that takes a webhook: then it stays what it is.
    pub fn convert(&self, object: &mut Value) {
        if self.conversion.is_none() && text(object, "apiVersion") != self.api_version {
            crate::kinds::access::set(object, "apiVersion", self.api_version.as_str());
            super::prune(object, &self.schema);
        }
    }
}

/// The rows that a CustomResourceDefinition adds to the table of resources.
#[derive(Debug)]
pub struct Rows {
    /// The version that is stored, served or not.
    pub storage: &'static Resource,
    /// The versions that are served.
    pub served: Vec<&'static Resource>,
}

static KEPT: LazyLock<Mutex<HashMap<String, Option<&'static Rows>>>> = LazyLock::new(Mutex::default);

/// The rows of a CustomResourceDefinition; `None` unless it is established.
pub fn established(definition: &Value) -> Option<&'static Rows> {
    if !super::condition(definition, "Established") {
        return None;
    }
    let accepted = meta::get(definition, &["status", "acceptedNames"])?;
    let spec = definition.get("spec")?;
    let key = json!([spec, accepted]).to_string();
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    *kept.entry(key).or_insert_with(|| build(meta::name(definition), spec, accepted))
}

fn keep<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

fn keep_text(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}

fn keep_list<T>(list: Vec<T>) -> &'static [T] {
    Box::leak(list.into_boxed_slice())
}

fn keep_texts(object: &Value, key: &str) -> &'static [&'static str] {
    keep_list(items(object, key).iter().filter_map(Value::as_str).map(keep_text).collect())
}

const VERBS: &[&str] = &["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
const PART_VERBS: &[&str] = &["get", "patch", "update"];

fn build(name: &str, spec: &Value, names: &Value) -> Option<&'static Rows> {
    let (storage, others): (Vec<&Value>, Vec<&Value>) =
        items(spec, "versions").iter().partition(|version| boolean(version, "storage"));
    let storage_version = *storage.first()?;
    let storage = row(name, spec, names, storage_version, None);
    let mut served: Vec<&'static Resource> = others
        .into_iter()
        .filter(|version| boolean(version, "served"))
        .map(|version| row(name, spec, names, version, Some(storage)))
        .collect();
    if boolean(storage_version, "served") {
        served.push(storage);
    }
    Some(keep(Rows { storage, served }))
}

fn row(
    name: &str,
    spec: &Value,
    names: &Value,
    version: &Value,
    stored_as: Option<&'static Resource>,
) -> &'static Resource {
    let group = keep_text(text(spec, "group"));
    let plural = keep_text(text(names, "plural"));
    let kind = keep_text(text(names, "kind"));
    let version_name = keep_text(text(version, "name"));
    let definition = definition(name, spec, names, version, stored_as);
    let part = |name, group, version, kind| Subresource { name, group, version, kind, verbs: PART_VERBS };
    let mut parts = Vec::new();
    if definition.has_status {
        parts.push(part("status", group, version_name, kind));
    }
    if definition.scale.is_some() {
        parts.push(part("scale", "autoscaling", "v1", "Scale"));
    }
    let storage_api_version =
        stored_as.map_or(definition.api_version.as_str(), |row| row.storage_api_version);
    keep(Resource {
        group,
        version: version_name,
        kind,
        plural,
        singular: keep_text(text(names, "singular")),
        namespaced: text(spec, "scope") == "Namespaced",
        short_names: keep_texts(names, "shortNames"),
        categories: keep_texts(names, "categories"),
        verbs: VERBS,
        subresources: keep_list(parts),
        storage_prefix: keep_text(&format!("{group}/{plural}")),
        storage_api_version,
        custom: Some(definition),
    })
}

fn open_api(version: &Value) -> Option<&Value> {
    meta::get(version, &["schema", "openAPIV3Schema"])
}

fn structural(version: &Value) -> Structural {
    open_api(version).map(Structural::of).unwrap_or_default()
}

fn definition(
    name: &str,
    spec: &Value,
    names: &Value,
    version: &Value,
    stored_as: Option<&'static Resource>,
) -> &'static Definition {
    let group = text(spec, "group");
    let api_version = |version: &Value| format!("{group}/{}", text(version, "name"));
    let subresources = &version["subresources"];
    let selectable: Vec<(&'static str, JsonPath)> = items(version, "selectableFields")
        .iter()
        .filter_map(|field| {
            let path = text(field, "jsonPath");
            let name = keep_text(path.strip_prefix('.').unwrap_or(path));
            Some((name, JsonPath::parse(path).ok()?))
        })
        .collect();
    let fields = |scale: &Value, key: &str| -> Vec<String> {
        let path = JsonPath::parse(text(scale, key)).ok();
        let fields = path.as_ref().and_then(JsonPath::fields).unwrap_or_default();
        fields.into_iter().map(str::to_owned).collect()
    };
    let deprecation = boolean(version, "deprecated").then(|| match text(version, "deprecationWarning") {
        "" => format!("{} {} is deprecated", api_version(version), text(names, "kind")),
        warning => warning.to_owned(),
    });
    keep(Definition {
        name: name.to_owned(),
        list_kind: text(names, "listKind").to_owned(),
        api_version: api_version(version),
        schema: structural(version),
        open_api: open_api(version).cloned(),
        has_status: subresources["status"].is_object(),
        scale: subresources.get("scale").filter(|scale| scale.is_object()).map(|scale| Scale {
            spec_replicas: fields(scale, "specReplicasPath"),
            status_replicas: fields(scale, "statusReplicasPath"),
            selector: fields(scale, "labelSelectorPath"),
        }),
        columns: columns(version),
        selectable_names: keep_list(selectable.iter().map(|(name, _)| *name).collect()),
        selectable,
        deprecation,
        conversion: Conversion::of(spec),
        stored_as,
        siblings: items(spec, "versions")
            .iter()
            .map(|version| (api_version(version), structural(version)))
            .collect(),
        merge: OnceLock::new(),
        rules: OnceLock::new(),
    })
}

const CREATED: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

fn columns(version: &Value) -> Vec<Column> {
    let given = items(version, "additionalPrinterColumns");
    let age = [
        json!({"name": "Age", "type": "date", "description": CREATED, "jsonPath": ".metadata.creationTimestamp"}),
    ];
    let columns = if given.is_empty() { &age[..] } else { given };
    columns
        .iter()
        .filter_map(|column| {
            Some(Column {
                definition: json!({
                    "name": text(column, "name"),
                    "type": text(column, "type"),
                    "format": text(column, "format"),
                    "description": match text(column, "description") {
                        "" => format!("Custom resource definition column (in JSONPath format): {}", text(column, "jsonPath")),
                        description => description.to_owned(),
                    },
                    "priority": column.get("priority").and_then(Value::as_i64).unwrap_or_default(),
                }),
                kind: text(column, "type").to_owned(),
                path: JsonPath::parse(text(column, "jsonPath")).ok()?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crd() -> Value {
        json!({"metadata": {"name": "cats.example.com"},
            "spec": {"group": "example.com", "scope": "Namespaced", "names": {"kind": "Cat"}, "versions": [
                {"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": {"a": {"type": "string", "default": "x"}}}}}}},
                {"name": "v1beta1", "served": true, "storage": false, "deprecated": true,
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object"}}}}},
                {"name": "v1alpha1", "served": false, "storage": false}]},
            "status": {"acceptedNames": {"plural": "cats", "singular": "cat", "kind": "Cat", "listKind": "CatList", "shortNames": ["c"]},
                "conditions": [{"type": "Established", "status": "True"}]}})
    }

    #[test]
    fn an_established_definition_gives_a_row_a_served_version_and_is_kept() {
        let rows = established(&crd()).expect("is established");
        let mut versions: Vec<&str> = rows.served.iter().map(|row| row.version).collect();
        versions.sort_unstable();
        assert_eq!((versions, rows.storage.version), (vec!["v1", "v1beta1"], "v1"));
        assert_eq!(rows.storage.storage_prefix, "example.com/cats");
        assert_eq!(rows.storage.subresource("status").map(|part| part.kind), Some("Cat"));
        assert!(std::ptr::eq(rows, established(&crd()).expect("again")));
        let mut other = crd();
        other["status"]["conditions"][0]["status"] = "False".into();
        assert!(established(&other).is_none());
    }

    #[test]
    fn stored_objects_follow_the_definition_of_today() {
        let rows = established(&crd()).expect("is established");
        let old = rows.served.iter().find(|row| row.version == "v1beta1").expect("is served");
        let old = old.custom.expect("is custom");
        assert_eq!(old.deprecation.as_deref(), Some("example.com/v1beta1 Cat is deprecated"));
        let mut object = json!({"apiVersion": "example.com/v1", "kind": "Cat", "spec": {"gone": 1}});
        rows.storage.custom.expect("is custom").revive(&mut object);
        assert_eq!(object, json!({"apiVersion": "example.com/v1", "kind": "Cat", "spec": {"a": "x"}}));
        old.convert(&mut object);
        assert_eq!(object, json!({"apiVersion": "example.com/v1beta1", "kind": "Cat", "spec": {}}));
    }
}
