//! Fills in the defaults of a structural schema.

use serde_json::Value;

use super::structural::Structural;

/// Gives missing fields their defaults, at every depth that is there. A `null` where none may be is missing if there is a default.
pub fn default(value: &mut Value, schema: &Structural) {
    match value {
        Value::Object(fields) => {
            for (name, property) in &schema.properties {
                let Some(default) = &property.default else { continue };
                let missing = match fields.get(name) {
                    None => true,
                    Some(found) => found.is_null() && !property.nullable,
                };
                if missing {
                    fields.insert(name.clone(), default.clone());
                }
            }
            for (name, field) in fields.iter_mut() {
                let Some(shape) = schema.field(name) else { continue };
                if field.is_null()
                    && !shape.nullable
                    && let Some(default) = &shape.default
                {
                    *field = default.clone();
                }
                self::default(field, shape);
            }
        }
        Value::Array(items) => {
            let Some(shape) = &schema.items else { return };
            for item in items {
                if item.is_null()
                    && !shape.nullable
                    && let Some(default) = &shape.default
                {
                    *item = default.clone();
                }
                self::default(item, shape);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn defaults_reach_every_depth_that_is_there() {
        let schema = Structural::of(&json!({"type": "object", "properties": {
            "a": {"type": "string", "default": "A"},
            "n": {"type": "string", "default": "N", "nullable": true},
            "inner": {"type": "object", "properties": {"b": {"type": "integer", "default": 1}}},
            "made": {"type": "object", "default": {}, "properties": {"c": {"type": "integer", "default": 2}}},
            "list": {"type": "array", "items": {"type": "object", "properties": {"d": {"type": "boolean", "default": true}}}}}}));
        let mut object = json!({"a": null, "n": null, "list": [{}, {"d": false}]});
        default(&mut object, &schema);
        assert_eq!(
            object,
            json!({"a": "A", "n": null, "made": {"c": 2}, "list": [{"d": true}, {"d": false}]})
        );
    }
}
