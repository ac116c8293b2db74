//! What is wrong with the spec of a Job, in Jobs and in templates of CronJobs.

use serde_json::Value;

use super::access::{integer, present, text};
use super::replica_set::not_negative;
use super::{job_policies, pod_template};
use crate::field::{self, FieldError, FieldPath};
use crate::names;

const PARALLELISM_INDEXED_MAX: i64 = 100_000;
const FAILED_INDEXES_MAX: i64 = 100_000;
/// With more completions than this, some limits are lower.
const COMPLETIONS_MANY: i64 = 100_000;
const PARALLELISM_OF_MANY_MAX: i64 = 10_000;
const FAILED_INDEXES_OF_MANY_MAX: i64 = 10_000;
const MANAGED_BY_BYTES_MAX: usize = 63;

/// Everything wrong with a Job's spec but for its selector.
pub fn validate(spec: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    for name in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        not_negative(spec, name, path, errors);
    }
    if present(spec, "maxFailedIndexes").is_some() && present(spec, "backoffLimitPerIndex").is_none() {
        errors
            .push(field::required(path.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified"));
    }
    managed_by(spec, path, errors);
    completion_mode(spec, path, errors);
    job_policies::validate_failure(spec, path, errors);
    job_policies::validate_success(spec, path, errors);
    let failure_policy = present(spec, "podFailurePolicy").is_some();
    if let Some(policy) = present(spec, "podReplacementPolicy").and_then(Value::as_str) {
        let allowed: &[&str] = if failure_policy { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
        if !allowed.contains(&policy) {
            errors.push(field::not_supported(path.child("podReplacementPolicy"), policy, allowed));
        }
    }
    let none = Value::Null;
    let template = spec.get("template").unwrap_or(&none);
    pod_template::validate_template(template, &path.child("template"), errors);
    let at = path.child("template").child("spec").child("restartPolicy");
    match text(template.get("spec").unwrap_or(&none), "restartPolicy") {
        "" | "Always" => {
            errors.push(field::required(at, "valid values: \"OnFailure\", \"Never\""));
        }
        "OnFailure" if failure_policy => errors.push(field::invalid(
            at,
            "OnFailure",
            "only \"Never\" is supported when podFailurePolicy is specified",
        )),
        "OnFailure" | "Never" => {}
        other => errors.push(field::not_supported_in_order(at, other, &["OnFailure", "Never"])),
    }
}

/// A path with a domain before it, such as `acme.io/foo`.
fn managed_by(spec: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    const FORMAT: &str = "[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+";
    let Some(manager) = present(spec, "managedBy").and_then(Value::as_str) else { return };
    let at = path.child("managedBy");
    let (domain, rest) = manager.split_once('/').unwrap_or_default();
    if manager.is_empty() {
        errors.push(field::required(&at, ""));
    } else if domain.is_empty() || rest.is_empty() {
        let problem = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        errors.push(field::invalid(&at, manager, problem));
    } else {
        let problems = names::dns1123_subdomain(domain);
        errors.extend(problems.into_iter().map(|problem| field::invalid(&at, domain, problem)));
        if !rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&byte)) {
            errors.push(field::invalid(&at, rest, names::regex_error("Invalid path", FORMAT, &[])));
        }
    }
    if manager.len() > MANAGED_BY_BYTES_MAX {
        errors.push(field::too_long(at, MANAGED_BY_BYTES_MAX));
    }
}

fn completion_mode(spec: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let number = |name: &str| integer(spec, name);
    let mut over = |name: &str, most: i64, problem: String| {
        if let Some(found) = number(name).filter(|found| *found > most) {
            errors.push(field::invalid(path.child(name), found, problem));
        }
    };
    let most = |most: i64| format!("must be less than or equal to {most}");
    match text(spec, "completionMode") {
        "Indexed" => {
            over(
                "parallelism",
                PARALLELISM_INDEXED_MAX,
                format!("{} when completion mode is Indexed", most(PARALLELISM_INDEXED_MAX)),
            );
            if let Some(completions) = number("completions") {
                let problem = "must be less than or equal to completions".to_owned();
                over("maxFailedIndexes", completions, problem);
            }
            over("maxFailedIndexes", FAILED_INDEXES_MAX, most(FAILED_INDEXES_MAX));
            let many = number("completions").is_some_and(|completions| completions > COMPLETIONS_MANY);
            if many && number("backoffLimitPerIndex").is_some() {
                for (name, limit) in [
                    ("parallelism", PARALLELISM_OF_MANY_MAX),
                    ("maxFailedIndexes", FAILED_INDEXES_OF_MANY_MAX),
                ] {
                    let when = format!(
                        "when completions are above {COMPLETIONS_MANY} and used with backoff limit per index"
                    );
                    over(name, limit, format!("{} {when}", most(limit)));
                }
                if number("maxFailedIndexes").is_none() {
                    errors.push(field::required(
                        path.child("maxFailedIndexes"),
                        format!("must be specified when completions is above {COMPLETIONS_MANY}"),
                    ));
                }
            }
            if number("completions").is_none() {
                errors.push(field::required(path.child("completions"), "when completion mode is Indexed"));
            }
        }
        // Templates of CronJobs need not say.
        "NonIndexed" | "" => {
            for name in ["backoffLimitPerIndex", "maxFailedIndexes"] {
                if let Some(found) = number(name) {
                    errors.push(field::invalid(path.child(name), found, "requires indexed completion mode"));
                }
            }
        }
        other => errors.push(field::not_supported_in_order(
            path.child("completionMode"),
            other,
            &["NonIndexed", "Indexed"],
        )),
    }
}

/// Warns of more indexes than can be kept track of.
pub fn warning(spec: &Value, path: &str) -> Option<String> {
    let over = |name: &str, most: i64| integer(spec, name).is_some_and(|found| found > most);
    let many = text(spec, "completionMode") == "Indexed"
        && over("completions", COMPLETIONS_MANY)
        && over("parallelism", PARALLELISM_OF_MANY_MAX);
    many.then(|| {
        format!(
            "{path}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn other_controllers_are_named_by_domain_and_path() {
        for (manager, problem) in [
            ("acme.io/foo", None),
            ("foo", Some("\"foo\": must be a domain-prefixed path (such as \"acme.io/foo\")")),
            (
                "acme.io/f oo",
                Some(
                    "\"f oo\": Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')",
                ),
            ),
        ] {
            let mut errors = Vec::new();
            managed_by(&json!({"managedBy": manager}), &FieldPath::new("spec"), &mut errors);
            let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
            let expected: Vec<String> = problem
                .map(|problem| format!("spec.managedBy: Invalid value: {problem}"))
                .into_iter()
                .collect();
            assert_eq!(texts, expected);
        }
    }
}
