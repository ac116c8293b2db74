//! The OpenAPI v2 document in the binary form that clients up to 1.27 insist on. It carries what they ask it before they write: which kinds' patch
//! operations take which query parameters. Schemas are in the JSON document only.

use serde_json::Value;

/// A length-delimited field.
fn field(out: &mut Vec<u8>, number: u64, content: &[u8]) {
    varint(out, number << 3 | 2);
    varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A message with these length-delimited fields.
fn message(fields: &[(u64, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, content) in fields {
        field(&mut out, *number, content);
    }
    out
}

fn text<'a>(value: &'a Value, key: &str) -> &'a [u8] {
    value.get(key).and_then(Value::as_str).unwrap_or_default().as_bytes()
}

/// Of the JSON document.
pub(super) fn document(json: &Value) -> Vec<u8> {
    let mut paths = Vec::new();
    for (path, item) in json["paths"].as_object().into_iter().flatten() {
        let Some(patch) = item.get("patch") else { continue };
        let mut operation = message(&[(5, text(patch, "operationId"))]);
        for parameter in patch["parameters"].as_array().into_iter().flatten() {
            if parameter["in"] == "query" {
                let query = message(&[(2, b"query"), (4, text(parameter, "name"))]);
                // Nested choices: parameter, not of the body, of the query.
                let wrapped = message(&[(1, &message(&[(2, &message(&[(3, &query)]))]))]);
                field(&mut operation, 8, &wrapped);
            }
        }
        let kind = patch["x-kubernetes-group-version-kind"].to_string();
        let any = message(&[(2, kind.as_bytes())]);
        field(&mut operation, 13, &message(&[(1, b"x-kubernetes-group-version-kind"), (2, &any)]));
        let item = message(&[(8, &operation)]);
        field(&mut paths, 2, &message(&[(1, path.as_bytes()), (2, &item)]));
    }
    let info = message(&[(1, text(&json["info"], "title")), (2, text(&json["info"], "version"))]);
    message(&[(1, b"2.0"), (2, &info), (8, &paths)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_lengths_are_encoded() {
        let mut out = Vec::new();
        varint(&mut out, 300);
        assert_eq!(out, [0xac, 2]);
        assert_eq!(message(&[(13, b"ab")]), [0x6a, 2, b'a', b'b']);
    }
}
