//! Refuses values of a wrong type, in the words of the decoder that clients know.

use base64::Engine;
use serde_json::Value;

use super::{Schema, StringFormat};
use crate::field::go_quote;
use crate::meta;
use crate::quantity::Quantity;

/// The first value whose type is not its field's, as a sentence such as
/// `json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32`.
pub fn check_types(value: &Value, schema: &Schema) -> Result<(), String> {
    let mut path = String::new();
    walk(value, schema, "", &mut path)
}

fn walk(value: &Value, schema: &Schema, within: &str, path: &mut String) -> Result<(), String> {
    let length = path.len();
    match (schema, value) {
        (_, Value::Null) | (Schema::Any, _) => Ok(()),
        (Schema::Struct(object), Value::Object(fields)) => {
            for (name, field) in fields {
                if let Some(known) = object.field(name) {
                    push_field(path, name);
                    walk(field, &known.schema, object.short_name(), path)?;
                    path.truncate(length);
                }
            }
            Ok(())
        }
        (Schema::Map { values, .. }, Value::Object(entries)) => {
            entries.values().try_for_each(|entry| walk(entry, values, within, path))
        }
        (Schema::List { items, .. }, Value::Array(list)) => {
            list.iter().try_for_each(|item| walk(item, items, within, path))
        }
        (Schema::String(StringFormat::Plain), Value::String(_)) | (Schema::Boolean, Value::Bool(_)) => Ok(()),
        (Schema::String(StringFormat::Bytes), Value::String(text)) => check_base64(text),
        (Schema::String(format @ (StringFormat::Time | StringFormat::MicroTime)), Value::String(text)) => {
            if meta::parse_time(text).is_some() {
                return Ok(());
            }
            let micro = if *format == StringFormat::MicroTime { ".000000" } else { "" };
            Err(format!(
                "parsing time {0} as \"2006-01-02T15:04:05{micro}Z07:00\": cannot parse {0} as \"2006\"",
                go_quote(text)
            ))
        }
        (Schema::Number, Value::Number(_)) | (Schema::IntOrString, Value::String(_)) => Ok(()),
        (Schema::Integer { bits: 64 }, Value::Number(number)) if number.as_i64().is_some() => Ok(()),
        (Schema::Integer { .. } | Schema::IntOrString, Value::Number(number))
            if number.as_i64().is_some_and(|number| i32::try_from(number).is_ok()) =>
        {
            Ok(())
        }
        (Schema::Quantity, Value::String(text)) => {
            text.parse::<Quantity>().map(|_| ()).map_err(|error| error.to_string())
        }
        (Schema::Quantity, Value::Number(number)) => {
            number.to_string().parse::<Quantity>().map(|_| ()).map_err(|error| error.to_string())
        }
        _ => Err(mismatch(value, schema, within, path)),
    }
}

fn push_field(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
}

fn check_base64(text: &str) -> Result<(), String> {
    base64::engine::general_purpose::STANDARD.decode(text).map(|_| ()).map_err(|error| {
        let position = match error {
            base64::DecodeError::InvalidByte(position, _)
            | base64::DecodeError::InvalidLastSymbol(position, _) => position,
            base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => text.len(),
        };
        format!("illegal base64 data at input byte {position}")
    })
}

fn mismatch(value: &Value, schema: &Schema, within: &str, path: &str) -> String {
    let found = match value {
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(number) if matches!(schema, Schema::Integer { .. } | Schema::IntOrString) => {
            format!("number {number}")
        }
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "string".to_owned(),
        Value::Array(_) => "array".to_owned(),
        Value::Object(_) => "object".to_owned(),
        Value::Null => "null".to_owned(),
    };
    let expected = type_text(schema);
    if path.is_empty() {
        format!("json: cannot unmarshal {found} into Go value of type {expected}")
    } else {
        format!("json: cannot unmarshal {found} into Go struct field {within}.{path} of type {expected}")
    }
}

fn type_text(schema: &Schema) -> String {
    match schema {
        Schema::Any => "interface {}".to_owned(),
        Schema::Struct(object) => {
            let mut parts = object.type_name.rsplit('.');
            let name = parts.next().unwrap_or_default();
            format!("{}.{name}", parts.next().unwrap_or("v1"))
        }
        Schema::Map { values, .. } => format!("map[string]{}", type_text(values)),
        Schema::List { items, .. } => format!("[]{}", type_text(items)),
        Schema::String(StringFormat::Bytes) => "[]uint8".to_owned(),
        Schema::String(StringFormat::Plain) => "string".to_owned(),
        Schema::String(StringFormat::Time) => "v1.Time".to_owned(),
        Schema::String(StringFormat::MicroTime) => "v1.MicroTime".to_owned(),
        Schema::Integer { bits } => format!("int{bits}"),
        Schema::Number => "float64".to_owned(),
        Schema::Boolean => "bool".to_owned(),
        Schema::IntOrString => "int32".to_owned(),
        Schema::Quantity => "resource.Quantity".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::of_kind;
    use serde_json::json;

    #[test]
    fn wrong_types_are_named_with_struct_path_and_type() {
        let schema = of_kind("apps", "v1", "Deployment").expect("deployments");
        let check = |value: Value| check_types(&value, schema).expect_err("a wrong type");
        assert_eq!(
            check(json!({"spec": {"replicas": "3"}})),
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32"
        );
        assert_eq!(
            check(json!({"spec": {"template": {"spec": {"containers": [{"image": 1}]}}}})),
            "json: cannot unmarshal number into Go struct field Container.spec.template.spec.containers.image of type string"
        );
        assert_eq!(
            check(json!({"metadata": {"labels": {"a": true}}})),
            "json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.labels of type string"
        );
        assert_eq!(
            check(json!({"spec": []})),
            "json: cannot unmarshal array into Go struct field Deployment.spec of type v1.DeploymentSpec"
        );
        assert_eq!(
            check(json!({"spec": {"replicas": 1.5}})),
            "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32"
        );
    }

    #[test]
    fn quantities_bytes_and_ports() {
        let pod = of_kind("", "v1", "Pod").expect("pods");
        let limits = |value| json!({"spec": {"containers": [{"resources": {"limits": {"cpu": value}}}]}});
        assert!(check_types(&limits(json!("1x")), pod).is_err());
        assert!(check_types(&limits(json!(0.5)), pod).is_ok());
        let probe =
            |value| json!({"spec": {"containers": [{"livenessProbe": {"httpGet": {"port": value}}}]}});
        assert!(check_types(&probe(json!("http")), pod).is_ok());
        assert!(check_types(&probe(json!(80)), pod).is_ok());
        assert!(check_types(&probe(json!(80.5)), pod).is_err());
        let secret = of_kind("", "v1", "Secret").expect("secrets");
        assert_eq!(
            check_types(&json!({"data": {"a": "!"}}), secret),
            Err("illegal base64 data at input byte 0".to_owned())
        );
    }
}
