//! Whether a Job's `successPolicy` calls it done before all indexes are. Owns the matching only.

use k8s_openapi::api::batch::v1::SuccessPolicy;

use super::indexes::Intervals;

/// The text for the condition if a rule is fulfilled by these succeeded indexes.
pub fn matched(policy: Option<&SuccessPolicy>, completions: i32, succeeded: &Intervals) -> Option<String> {
    if succeeded.is_empty() {
        return None;
    }
    let rules = &policy?.rules;
    let fulfilled = rules.iter().position(|rule| {
        let enough = |count: i32| rule.succeeded_count.is_some_and(|wanted| count >= wanted);
        match &rule.succeeded_indexes {
            Some(text) => {
                let required = Intervals::parse(text, completions);
                let reached = required.overlap(succeeded);
                !required.is_empty() && (reached == required.total() || enough(reached))
            }
            None => enough(succeeded.total()),
        }
    });
    fulfilled.map(|index| format!("Matched rules at index {index}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rules_ask_for_indexes_or_counts_or_some_of_some() {
        for (rules, succeeded, expected) in [
            (json!([{ "succeededIndexes": "0-2" }]), "0,2", None),
            (json!([{ "succeededIndexes": "0-2" }]), "0-2,5", Some("Matched rules at index 0")),
            (
                json!([{ "succeededIndexes": "0-2", "succeededCount": 2 }]),
                "0,2",
                Some("Matched rules at index 0"),
            ),
            (
                json!([{ "succeededIndexes": "7" }, { "succeededCount": 2 }]),
                "0,2",
                Some("Matched rules at index 1"),
            ),
            (json!([{ "succeededCount": 1 }]), "", None),
        ] {
            let policy: SuccessPolicy = serde_json::from_value(json!({ "rules": rules })).expect("policy");
            let succeeded = Intervals::parse(succeeded, 10);
            assert_eq!(matched(Some(&policy), 10, &succeeded).as_deref(), expected, "{policy:?}");
        }
    }
}
