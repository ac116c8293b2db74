//! Which fields the API's messages have: the texts in `messages`, one a group, read once. Never reads a request.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

/// See `messages/README.md`.
const MESSAGES: &[&str] = &[
    include_str!("messages/admissionregistration.txt"),
    include_str!("messages/apiextensions.txt"),
    include_str!("messages/apiregistration.txt"),
    include_str!("messages/apps.txt"),
    include_str!("messages/authentication.txt"),
    include_str!("messages/authorization.txt"),
    include_str!("messages/autoscaling.txt"),
    include_str!("messages/batch.txt"),
    include_str!("messages/certificates.txt"),
    include_str!("messages/coordination.txt"),
    include_str!("messages/core.txt"),
    include_str!("messages/discovery.txt"),
    include_str!("messages/events.txt"),
    include_str!("messages/flowcontrol.txt"),
    include_str!("messages/meta.txt"),
    include_str!("messages/networking.txt"),
    include_str!("messages/node.txt"),
    include_str!("messages/policy.txt"),
    include_str!("messages/rbac.txt"),
    include_str!("messages/resource.txt"),
    include_str!("messages/scheduling.txt"),
    include_str!("messages/storage.txt"),
];

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    // The texts are a part of the program; the tests read them.
    Table::parse(MESSAGES).expect("the messages are well formed")
});

/// All messages.
pub(super) struct Table {
    messages: HashMap<&'static str, Message>,
}

/// A message: its fields by tag, in the order in which they are written.
pub(super) type Message = BTreeMap<u64, Field>;

/// A field of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    /// Its name in JSON.
    pub(super) name: &'static str,
    /// How many values it has, and where they go.
    pub(super) shape: Shape,
    /// What each value is.
    pub(super) kind: Kind,
    /// Whether JSON leaves a zero out.
    pub(super) omits_zero: bool,
    /// Whether it is written even if JSON has no value: Go holds it without a pointer.
    pub(super) always: bool,
}

/// How many values a field has, and where they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// One value.
    One,
    /// One message, whose fields JSON has in the message around it.
    Inline,
    /// Any number of values.
    List,
    /// String keys to values.
    Map,
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Text.
    String,
    /// A truth value.
    Bool,
    /// A number of 32 bits.
    Int32,
    /// A number of 64 bits.
    Int64,
    /// A floating-point number of 64 bits.
    Double,
    /// Bytes, in JSON as base64.
    Bytes,
    /// A message that holds a list of strings and is such in JSON.
    Strings,
    /// A number or text.
    IntOrString,
    /// A resource quantity.
    Quantity,
    /// A time with whole seconds.
    Time,
    /// A time with microseconds.
    MicroTime,
    /// Bytes that are JSON themselves.
    Json,
    /// A message of this name.
    Message(&'static str),
    /// A message of this name, of which JSON has the value of one field alone, told by its type.
    Either(&'static str),
}

/// The message called `name`, for example `apps/v1/Deployment`.
pub(super) fn message(name: &str) -> Option<&'static Message> {
    TABLE.messages.get(name)
}

impl Table {
    fn parse(texts: &[&'static str]) -> Result<Self, String> {
        let mut messages: HashMap<&'static str, Message> = HashMap::new();
        let mut current = None;
        for line in texts.iter().flat_map(|text| text.lines()) {
            let Some(row) = line.strip_prefix(' ') else {
                current = Some(messages.entry(line).or_default());
                continue;
            };
            let message = current.as_mut().ok_or_else(|| format!("no message before {row:?}"))?;
            let (tag, field) = Field::parse(row).ok_or_else(|| format!("no field: {row:?}"))?;
            if message.insert(tag, field).is_some() {
                return Err(format!("two fields with one tag: {row:?}"));
            }
        }
        Ok(Self { messages })
    }
}

impl Field {
    fn parse(row: &'static str) -> Option<(u64, Self)> {
        let mut words = row.split(' ');
        let (tag, name, kind) = (words.next()?.parse().ok()?, words.next()?, words.next()?);
        let (kind, omits_zero, always) = match (kind.strip_suffix('?'), kind.strip_suffix('!')) {
            (Some(kind), _) => (kind, true, true),
            (None, Some(kind)) => (kind, false, true),
            (None, None) => (kind, false, false),
        };
        let (shape, kind) = if let Some(kind) = kind.strip_prefix("[]") {
            (Shape::List, kind)
        } else if let Some(kind) = kind.strip_prefix("map:") {
            (Shape::Map, kind)
        } else if name == "." {
            (Shape::Inline, kind)
        } else {
            (Shape::One, kind)
        };
        let kind = match kind {
            "string" => Kind::String,
            "bool" => Kind::Bool,
            "int32" => Kind::Int32,
            "int64" => Kind::Int64,
            "double" => Kind::Double,
            "bytes" => Kind::Bytes,
            "strings" => Kind::Strings,
            "intorstring" => Kind::IntOrString,
            "quantity" => Kind::Quantity,
            "time" => Kind::Time,
            "microtime" => Kind::MicroTime,
            "json" => Kind::Json,
            message if message.contains('/') => match message.strip_prefix("either:") {
                Some(message) => Kind::Either(message),
                None => Kind::Message(message),
            },
            _ => return None,
        };
        Some((tag, Self { name, shape, kind, omits_zero, always }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::resource;
    use coracle_api::schema::{self, Schema, StringFormat, Struct};
    use std::collections::HashSet;

    /// The fields that a message has in JSON.
    fn json_fields(name: &str) -> BTreeMap<&'static str, Field> {
        let mut fields = BTreeMap::new();
        for field in message(name).unwrap_or_else(|| panic!("no message {name}")).values() {
            match field.kind {
                Kind::Message(inner) if field.shape == Shape::Inline => fields.extend(json_fields(inner)),
                _ => assert!(fields.insert(field.name, *field).is_none(), "{name}.{} twice", field.name),
            }
        }
        fields
    }

    fn check_value(path: &str, kind: Kind, schema: Schema, seen: &mut HashSet<&'static str>) {
        match (kind, schema) {
            (Kind::String, Schema::String(StringFormat::Plain))
            | (Kind::Bytes, Schema::String(StringFormat::Bytes))
            | (Kind::Time, Schema::String(StringFormat::Time))
            | (Kind::MicroTime, Schema::String(StringFormat::MicroTime))
            | (Kind::Bool, Schema::Boolean)
            | (Kind::Int32, Schema::Integer { bits: 32 })
            | (Kind::Int64, Schema::Integer { bits: 64 })
            | (Kind::IntOrString, Schema::IntOrString)
            | (Kind::Quantity, Schema::Quantity)
            | (Kind::Strings, Schema::List { items: Schema::String(_), .. })
            | (Kind::Json, Schema::Any) => {}
            // It holds itself, and where it does the published schema says nothing.
            (Kind::Message("apiextensions.k8s.io/v1/JSONSchemaProps"), _) => {}
            (Kind::Message(name), Schema::Any) if json_fields(name).is_empty() => {}
            (Kind::Message(name), Schema::Struct(object)) => {
                if seen.insert(name) {
                    check_message(path, name, object, seen);
                }
            }
            (kind, schema) => panic!("{path}: {kind:?} is not {schema:?}"),
        }
    }

    fn check_message(path: &str, name: &str, object: &Struct, seen: &mut HashSet<&'static str>) {
        let fields = json_fields(name);
        let known: Vec<&str> = object
            .fields()
            .iter()
            .map(|field| field.name)
            .filter(|field| fields.contains_key(field) || !matches!(*field, "apiVersion" | "kind"))
            .collect();
        assert_eq!(fields.keys().copied().collect::<Vec<_>>(), known, "{path} ({name})");
        for (field, facts) in fields {
            let path = format!("{path}.{field}");
            let schema = object.field(field).expect("compared above").schema;
            match (facts.shape, schema) {
                (Shape::List, Schema::List { items, .. }) => check_value(&path, facts.kind, *items, seen),
                (Shape::Map, Schema::Map { values, .. }) => check_value(&path, facts.kind, *values, seen),
                (Shape::One, schema) => check_value(&path, facts.kind, schema, seen),
                (shape, schema) => panic!("{path}: {shape:?} is not {schema:?}"),
            }
        }
    }

    #[test]
    fn every_field_of_every_served_kind_is_there_with_the_schemas_name_and_type() {
        let mut kinds = HashSet::from([("meta.k8s.io", "v1", "DeleteOptions")]);
        for row in resource::table() {
            kinds.insert((row.group, row.version, row.kind));
            kinds.extend(row.subresources.iter().map(|sub| (sub.group, sub.version, sub.kind)));
        }
        // Options of streams come in the URL.
        kinds.retain(|(_, _, kind)| {
            !matches!(*kind, "PodAttachOptions" | "PodExecOptions" | "PodPortForwardOptions")
                && !kind.ends_with("ProxyOptions")
        });
        let mut seen = HashSet::new();
        for (group, version, kind) in kinds {
            let name = format!("{}/{kind}", coracle_api::meta::join_api_version(group, version));
            let schema_group = if group == "meta.k8s.io" { "meta" } else { group };
            match schema::of_kind(schema_group, version, kind) {
                Some(Schema::Struct(object)) => check_message(kind, &name, object, &mut seen),
                other => panic!("{name} has schema {other:?}"),
            }
        }
        assert!(seen.len() > 150, "only {} messages were compared", seen.len());
    }

    #[test]
    fn every_message_that_a_field_names_is_there() {
        for (name, fields) in &TABLE.messages {
            for field in fields.values() {
                if let Kind::Message(inner) | Kind::Either(inner) = field.kind {
                    assert!(message(inner).is_some(), "{name}.{} is {inner}", field.name);
                }
            }
        }
    }

    #[test]
    fn zeros_that_say_something_are_told_from_those_that_do_not() {
        let omits = |name: &str, field: &str| json_fields(name)[field].omits_zero;
        assert!(!omits("apps/v1/DeploymentSpec", "replicas"));
        assert!(!omits("v1/PodSpec", "terminationGracePeriodSeconds"));
        assert!(!omits("v1/PodSpec", "automountServiceAccountToken"));
        assert!(!omits("v1/SecurityContext", "runAsUser"));
        assert!(!omits("scheduling.k8s.io/v1/PriorityClass", "value"));
        assert!(omits("v1/PodSpec", "hostNetwork"));
        assert!(omits("v1/ServicePort", "nodePort"));
        assert!(omits("meta.k8s.io/v1/ObjectMeta", "generateName"));
    }

    #[test]
    fn malformed_tables_are_refused() {
        for text in
            [" 1 name string", "v1/A\n x name string", "v1/A\n 1 name text", "v1/A\n 1 a bool\n 1 b bool"]
        {
            assert!(Table::parse(&[text]).is_err(), "{text:?}");
        }
    }
}
