//! Bools as Go's `strconv.ParseBool` reads them, on command lines and in feature gates.

/// Reads one of Go's forms; `None` for all that is none of them, other spellings of yes and no among it.
pub fn parse(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Go's text for what is none.
pub fn problem(text: &str) -> String {
    format!("strconv.ParseBool: parsing {text:?}: invalid syntax")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gos_forms_are_read_and_no_others() {
        assert!(["1", "t", "T", "true", "TRUE", "True"].into_iter().all(|text| parse(text) == Some(true)));
        assert!(
            ["0", "f", "F", "false", "FALSE", "False"].into_iter().all(|text| parse(text) == Some(false))
        );
        for text in ["", "yes", "on", "tRUE", " true", "2"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
