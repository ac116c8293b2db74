//! Fields that hold a count or a share, such as `maxUnavailable`.

use serde_json::Value;

use crate::field::{self, FieldError, FieldPath};
use crate::names;

/// Neither a negative count nor a text that is no percentage.
pub fn validate(value: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    match value {
        Value::String(text) if percentage(text).is_none() => errors.push(field::invalid(
            path,
            text.as_str(),
            names::regex_error(
                "a valid percent string must be a numeric string followed by an ending '%'",
                "[0-9]+%",
                &["1%", "93%"],
            ),
        )),
        Value::Number(number) if number.as_i64().is_none_or(|number| number < 0) => errors
            .push(field::invalid(path, Value::Number(number.clone()), "must be greater than or equal to 0")),
        _ => {}
    }
}

/// No share of more than everything.
pub fn validate_share(value: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    if value.as_str().and_then(percentage).is_some_and(|share| share > 100) {
        errors.push(field::invalid(path, value.clone(), "must not be greater than 100%"));
    }
}

/// Whether the field stands for nothing: missing, 0 or `0%`.
pub fn is_zero(value: Option<&Value>) -> bool {
    match value {
        Some(Value::String(text)) => {
            percentage(text).or_else(|| text.parse().ok()).is_none_or(|amount| amount == 0)
        }
        Some(number) => number.as_i64().unwrap_or_default() == 0,
        None => true,
    }
}

/// The number of a text such as `25%`.
fn percentage(text: &str) -> Option<u64> {
    let digits = text.strip_suffix('%')?;
    let numeric = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    numeric.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn counts_and_shares_are_checked() {
        let texts = |value: Value| {
            let mut errors = Vec::new();
            let path = FieldPath::new("x");
            validate(&value, &path, &mut errors);
            validate_share(&value, &path, &mut errors);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert!(texts(json!(3)).is_empty() && texts(json!("100%")).is_empty());
        assert_eq!(texts(json!(-1)), ["x: Invalid value: -1: must be greater than or equal to 0"]);
        assert_eq!(texts(json!("101%")), ["x: Invalid value: \"101%\": must not be greater than 100%"]);
        assert_eq!(
            texts(json!("5")),
            [
                "x: Invalid value: \"5\": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')"
            ]
        );
    }

    #[test]
    fn nothing_is_zero_in_every_form() {
        for value in [json!(0), json!("0%"), json!("0"), json!("x")] {
            assert!(is_zero(Some(&value)), "{value}");
        }
        assert!(is_zero(None) && !is_zero(Some(&json!(1))) && !is_zero(Some(&json!("1%"))));
    }
}
