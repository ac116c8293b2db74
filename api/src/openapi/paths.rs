//! Paths and operations of each resource: what may be asked, with which parameters, and what comes back.

use serde_json::{Map, Value, json};

use super::{Format, schemas};
use crate::resource::{Resource, Subresource};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PATCH_TYPES: &[&str] = &[
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

/// A query parameter: name, JSON type, description.
type Parameter = (&'static str, &'static str, &'static str);

const DRY_RUN: Parameter =
    ("dryRun", "string", "With All, the request is checked in full and nothing is stored.");
const FIELD_MANAGER: Parameter =
    ("fieldManager", "string", "The name under which ownership of the written fields is tracked.");
const FIELD_VALIDATION: Parameter =
    ("fieldValidation", "string", "What happens on unknown or repeated fields: Ignore, Warn or Strict.");
const WRITE: &[Parameter] = &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];
const PATCH: &[Parameter] = &[
    DRY_RUN,
    FIELD_MANAGER,
    FIELD_VALIDATION,
    ("force", "boolean", "Whether an apply takes over fields that other managers own."),
];
const LIST: &[Parameter] = &[
    ("allowWatchBookmarks", "boolean", "Whether a watch may send BOOKMARK events."),
    ("continue", "string", "The token with which the previous part of the list ended."),
    ("fieldSelector", "string", "Selects objects by their fields."),
    ("labelSelector", "string", "Selects objects by their labels."),
    ("limit", "integer", "The most objects to return in one part."),
    ("resourceVersion", "string", "The version that the answer must have or begin at."),
    ("resourceVersionMatch", "string", "How resourceVersion applies to a list: Exact or NotOlderThan."),
    ("sendInitialEvents", "boolean", "Whether a watch begins with the objects that exist."),
    ("timeoutSeconds", "integer", "The longest time that a list or watch may take."),
    ("watch", "boolean", "Whether to watch for changes in place of listing."),
];
const DELETE: &[Parameter] = &[
    DRY_RUN,
    ("gracePeriodSeconds", "integer", "The seconds that the object has to shut down."),
    ("orphanDependents", "boolean", "Superseded by propagationPolicy."),
    ("propagationPolicy", "string", "What happens to dependents: Orphan, Background or Foreground."),
];

/// Adds all paths of a resource.
pub(super) fn add_resource(resource: &Resource, format: Format, paths: &mut Map<String, Value>) {
    let Some(type_name) = schemas::type_name(resource) else { return };
    let builder = Builder { resource, type_name, format };
    let root = if resource.group.is_empty() {
        format!("/api/{}", resource.version)
    } else {
        format!("/apis/{}/{}", resource.group, resource.version)
    };
    let plural = resource.plural;
    let collection = if resource.namespaced {
        format!("{root}/namespaces/{{namespace}}/{plural}")
    } else {
        format!("{root}/{plural}")
    };
    paths.insert(collection.clone(), builder.collection());
    if !resource.has_verb("get") {
        return;
    }
    paths.insert(format!("{collection}/{{name}}"), builder.item());
    if resource.namespaced {
        paths.insert(format!("{root}/{plural}"), builder.all_namespaces());
    }
    for subresource in resource.subresources {
        paths.insert(format!("{collection}/{{name}}/{}", subresource.name), builder.subresource(subresource));
    }
}

struct Builder<'a> {
    resource: &'a Resource,
    type_name: String,
    format: Format,
}

/// One operation, before it takes its document's form.
struct Operation<'a> {
    verb: &'a str,
    id: String,
    description: String,
    action: &'a str,
    parameters: &'a [Parameter],
    /// The type of the body; `None` for none.
    body: Option<String>,
    is_patch: bool,
    /// The type of the answer; `None` for plain text.
    answer: Option<String>,
    statuses: &'a [&'a str],
    kind: Value,
}

fn capitalised(word: &str) -> String {
    let mut characters = word.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

impl Builder<'_> {
    /// The middle of an operation's id: `AppsV1`.
    fn group_version(&self) -> String {
        let group = self.resource.group.split('.').next().filter(|group| !group.is_empty()).unwrap_or("core");
        format!("{}{}", capitalised(group), capitalised(self.resource.version))
    }

    fn scope(&self) -> &'static str {
        if self.resource.namespaced { "Namespaced" } else { "" }
    }

    fn id(&self, verb: &str, suffix: &str) -> String {
        format!("{verb}{}{}{}{suffix}", self.group_version(), self.scope(), self.resource.kind)
    }

    fn kind(&self) -> Value {
        json!({"group": self.resource.group, "version": self.resource.version, "kind": self.resource.kind})
    }

    fn operation<'a>(
        &self,
        verb: &'a str,
        id: String,
        action: &'a str,
        description: String,
    ) -> Operation<'a> {
        Operation {
            verb,
            id,
            description,
            action,
            parameters: &[],
            body: None,
            is_patch: false,
            answer: Some(self.type_name.clone()),
            statuses: &["200"],
            kind: self.kind(),
        }
    }

    fn collection(&self) -> Value {
        let kind = self.resource.kind;
        let mut operations = Vec::new();
        if self.resource.has_verb("list") {
            operations.push(Operation {
                parameters: LIST,
                answer: Some(format!("{}List", self.type_name)),
                ..self.operation("get", self.id("list", ""), "list", format!("List or watch {kind} objects."))
            });
        }
        if self.resource.has_verb("create") {
            operations.push(Operation {
                parameters: WRITE,
                body: Some(self.type_name.clone()),
                statuses: &["200", "201", "202"],
                ..self.operation("post", self.id("create", ""), "post", format!("Create a {kind}."))
            });
        }
        if self.resource.has_verb("deletecollection") {
            let id = format!("delete{}Collection{}{kind}", self.group_version(), self.scope());
            operations.push(Operation {
                parameters: DELETE,
                body: Some(format!("{META}.DeleteOptions")),
                answer: Some(format!("{META}.Status")),
                ..self.operation(
                    "delete",
                    id,
                    "deletecollection",
                    format!("Delete a collection of {kind} objects."),
                )
            });
        }
        self.path(operations, false, self.resource.namespaced)
    }

    fn all_namespaces(&self) -> Value {
        let kind = self.resource.kind;
        let id = format!("list{}{kind}ForAllNamespaces", self.group_version());
        let operation = Operation {
            parameters: LIST,
            answer: Some(format!("{}List", self.type_name)),
            ..self.operation("get", id, "list", format!("List or watch {kind} objects of all namespaces."))
        };
        self.path(vec![operation], false, false)
    }

    fn item(&self) -> Value {
        let kind = self.resource.kind;
        let mut operations =
            self.read_and_write("", self.type_name.clone(), self.resource.verbs, &self.kind());
        if self.resource.has_verb("delete") {
            operations.push(Operation {
                parameters: DELETE,
                body: Some(format!("{META}.DeleteOptions")),
                answer: Some(format!("{META}.Status")),
                statuses: &["200", "202"],
                ..self.operation("delete", self.id("delete", ""), "delete", format!("Delete a {kind}."))
            });
        }
        self.path(operations, true, self.resource.namespaced)
    }

    fn read_and_write(
        &self,
        suffix: &str,
        type_name: String,
        verbs: &[&str],
        kind: &Value,
    ) -> Vec<Operation<'static>> {
        let what = if suffix.is_empty() {
            format!("the {}", self.resource.kind)
        } else {
            format!("{} of the {}", suffix.to_lowercase(), self.resource.kind)
        };
        let mut operations = Vec::new();
        if verbs.contains(&"get") {
            operations.push(self.operation("get", self.id("read", suffix), "get", format!("Read {what}.")));
        }
        if verbs.contains(&"update") {
            operations.push(Operation {
                parameters: WRITE,
                body: Some(type_name.clone()),
                statuses: &["200", "201"],
                ..self.operation("put", self.id("replace", suffix), "put", format!("Replace {what}."))
            });
        }
        if verbs.contains(&"patch") {
            operations.push(Operation {
                parameters: PATCH,
                body: Some(format!("{META}.Patch")),
                is_patch: true,
                statuses: &["200", "201"],
                ..self.operation(
                    "patch",
                    self.id("patch", suffix),
                    "patch",
                    format!("Change parts of {what}."),
                )
            });
        }
        for operation in &mut operations {
            operation.answer = Some(type_name.clone());
            operation.kind = kind.clone();
        }
        operations
    }

    fn subresource(&self, subresource: &Subresource) -> Value {
        let kind =
            json!({"group": subresource.group, "version": subresource.version, "kind": subresource.kind});
        let suffix = capitalised(subresource.name);
        let type_name = schemas::part_name(self.resource, subresource);
        let operations = match type_name {
            Some(type_name) if subresource.verbs.contains(&"create") => vec![Operation {
                parameters: WRITE,
                body: Some(type_name.clone()),
                answer: Some(type_name),
                statuses: &["200", "201", "202"],
                kind,
                ..self.operation(
                    "post",
                    self.id("create", &suffix),
                    "post",
                    format!("Create {} of a {}.", subresource.name, self.resource.kind),
                )
            }],
            Some(_) if subresource.name == "log" => vec![Operation {
                answer: None,
                kind,
                ..self.operation(
                    "get",
                    self.id("read", &suffix),
                    "get",
                    "Read the log of a container.".to_owned(),
                )
            }],
            Some(type_name) => self.read_and_write(&suffix, type_name, subresource.verbs, &kind),
            None => [("get", "Get"), ("post", "Post")]
                .into_iter()
                .map(|(verb, method)| Operation {
                    answer: None,
                    kind: kind.clone(),
                    ..self.operation(
                        verb,
                        format!(
                            "connect{}{method}{}{}{suffix}",
                            self.group_version(),
                            self.scope(),
                            self.resource.kind
                        ),
                        "connect",
                        format!("Connect to {} of a {}.", subresource.name, self.resource.kind),
                    )
                })
                .collect(),
        };
        self.path(operations, true, self.resource.namespaced)
    }

    /// A path with its operations and the parameters that they share.
    fn path(&self, operations: Vec<Operation<'_>>, named: bool, namespaced: bool) -> Value {
        let mut path = Map::new();
        for operation in operations {
            path.insert(operation.verb.to_owned(), self.finished(operation));
        }
        let mut parameters = Vec::new();
        if named {
            parameters.push(self.path_parameter("name", format!("The name of the {}.", self.resource.kind)));
        }
        if namespaced {
            parameters.push(self.path_parameter("namespace", "The namespace of the object.".to_owned()));
        }
        parameters.push(self.query_parameter(&("pretty", "string", "With true, the answer is indented.")));
        path.insert("parameters".into(), Value::Array(parameters));
        Value::Object(path)
    }

    fn typed_parameter(&self, mut parameter: Map<String, Value>, json_type: &str) -> Value {
        match self.format {
            Format::V2 => {
                parameter.insert("type".into(), json_type.into());
                parameter.insert("uniqueItems".into(), true.into());
            }
            Format::V3 => {
                parameter.insert("schema".into(), json!({"type": json_type, "uniqueItems": true}));
            }
        }
        Value::Object(parameter)
    }

    fn query_parameter(&self, (name, json_type, description): &Parameter) -> Value {
        let mut parameter = Map::new();
        parameter.insert("name".into(), (*name).into());
        parameter.insert("in".into(), "query".into());
        parameter.insert("description".into(), (*description).into());
        self.typed_parameter(parameter, json_type)
    }

    fn path_parameter(&self, name: &str, description: String) -> Value {
        let mut parameter = Map::new();
        parameter.insert("name".into(), name.into());
        parameter.insert("in".into(), "path".into());
        parameter.insert("required".into(), true.into());
        parameter.insert("description".into(), description.into());
        self.typed_parameter(parameter, "string")
    }

    fn finished(&self, operation: Operation<'_>) -> Value {
        let mut finished = Map::new();
        let mut parameters: Vec<Value> =
            operation.parameters.iter().map(|parameter| self.query_parameter(parameter)).collect();
        // Custom resources have no strategic merge, which is last; clients choose their patches by this list.
        let patch_types =
            if self.resource.custom.is_some() { &PATCH_TYPES[..PATCH_TYPES.len() - 1] } else { PATCH_TYPES };
        let body_types: &[&str] = if operation.is_patch { patch_types } else { &[JSON, YAML] };
        let content = |types: &[&str], schema: &Value| -> Value {
            Value::Object(
                types
                    .iter()
                    .map(|media_type| ((*media_type).to_owned(), json!({"schema": schema})))
                    .collect(),
            )
        };
        if let Some(body) = &operation.body {
            let schema = self.format.reference(body);
            let required = !body.ends_with("DeleteOptions");
            match self.format {
                Format::V2 => {
                    let mut parameter = json!({"name": "body", "in": "body", "schema": schema});
                    if required && let Value::Object(parameter) = &mut parameter {
                        parameter.insert("required".into(), true.into());
                    }
                    parameters.insert(0, parameter);
                    finished.insert(
                        "consumes".into(),
                        if operation.is_patch { json!(patch_types) } else { json!(["*/*"]) },
                    );
                }
                Format::V3 => {
                    let mut request = json!({"content": content(body_types, &schema)});
                    if required && let Value::Object(request) = &mut request {
                        request.insert("required".into(), true.into());
                    }
                    finished.insert("requestBody".into(), request);
                }
            }
        }
        let answer = match &operation.answer {
            Some(answer) => self.format.reference(answer),
            None => json!({"type": "string"}),
        };
        let answer_types: &[&str] = if operation.answer.is_some() { &[JSON, YAML] } else { &["text/plain"] };
        let mut responses = Map::new();
        for status in operation.statuses {
            let description = match *status {
                "201" => "Created",
                "202" => "Accepted",
                _ => "OK",
            };
            let response = match self.format {
                Format::V2 => json!({"description": description, "schema": answer}),
                Format::V3 => json!({"description": description, "content": content(answer_types, &answer)}),
            };
            responses.insert((*status).to_owned(), response);
        }
        responses.insert("401".into(), json!({"description": "Unauthorized"}));
        if self.format == Format::V2 {
            finished.insert("produces".into(), json!(answer_types));
            finished.insert("schemes".into(), json!(["https"]));
        }
        let tag = self.group_version();
        let (group, version) = tag.split_at(tag.len() - self.resource.version.len());
        finished
            .insert("tags".into(), json!([format!("{}_{}", group.to_lowercase(), version.to_lowercase())]));
        finished.insert("description".into(), operation.description.into());
        finished.insert("operationId".into(), operation.id.into());
        finished.insert("parameters".into(), Value::Array(parameters));
        finished.insert("responses".into(), Value::Object(responses));
        finished.insert("x-kubernetes-action".into(), operation.action.into());
        finished.insert("x-kubernetes-group-version-kind".into(), operation.kind);
        Value::Object(finished)
    }
}
