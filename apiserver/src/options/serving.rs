//! What can be wrong with the flags of the port and of the requests on it, in upstream's words. Pure.

use super::Options;

const GOAWAY_CHANCE_MAX: f64 = 0.02;

/// One line a problem.
pub(super) fn problems(options: &Options) -> Vec<String> {
    let mut errors = Vec::new();
    let (read_only, mutating) = (options.max_requests_inflight, options.max_mutating_requests_inflight);
    if options.enable_priority_and_fairness && read_only + mutating == 0 {
        errors.push(
            "invalid configuration: MaxRequestsInFlight=0 and MaxMutatingRequestsInFlight=0; they must add up to something positive"
                .to_owned(),
        );
    }
    if !(0.0..=GOAWAY_CHANCE_MAX).contains(&options.goaway_chance) {
        errors.push("--goaway-chance can not be less than 0 or greater than 0.02".to_owned());
    }
    errors.extend(options.strict_transport_security_directives.iter().filter_map(|text| hsts_problem(text)));
    let origins = options.cors_allowed_origins.iter().filter(|pattern| !pattern.is_empty());
    errors.extend(
        origins
            .filter_map(|pattern| origin_problem(pattern))
            .map(|problem| format!("--cors-allowed-origins has an invalid regular expression: {problem}")),
    );
    errors.extend(options.tls.protocols().err());
    errors
}

fn hsts_problem(directive: &str) -> Option<String> {
    let age = |text: &str| text.strip_prefix("max-age=").is_some_and(|age| !age.contains('='));
    match directive {
        "includeSubDomains" | "preload" => None,
        text if text.trim().is_empty() => {
            Some("empty value in strict-transport-security-directives".to_owned())
        }
        text if age(text) => None,
        _ => Some(
            "--strict-transport-security-directives invalid, allowed values: max-age=expireTime, includeSubDomains, preload. see https://tools.ietf.org/html/rfc6797#section-6.1 for more information"
                .to_owned(),
        ),
    }
}

/// A pattern that does not hold on to both ends of the host would let a page of `example.com.elsewhere` in.
fn origin_problem(pattern: &str) -> Option<String> {
    if let Err(error) = regex::Regex::new(pattern) {
        return Some(error.to_string());
    }
    let has = |marks: [&str; 2]| marks.iter().any(|mark| pattern.contains(mark));
    (!has(["^", "//"]) || !has(["$", ":"]))
        .then(|| "regular expression does not pin to start/end of host in the origin header".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_are_those_of_the_header() {
        for good in ["max-age=31536000", "max-age=", "includeSubDomains", "preload"] {
            assert_eq!(hsts_problem(good), None, "{good}");
        }
        for bad in ["max-age", "fakevalue", "max-age=1=2", "includesubdomains"] {
            assert!(hsts_problem(bad).is_some_and(|text| text.contains("invalid, allowed values")), "{bad}");
        }
        assert_eq!(hsts_problem(" ").as_deref(), Some("empty value in strict-transport-security-directives"));
    }

    #[test]
    fn origins_hold_on_to_the_host() {
        for good in ["//example.com(:|$)", "^https://example.com$", "//localhost(:[0-9]+)?$"] {
            assert_eq!(origin_problem(good), None, "{good}");
        }
        for bad in ["example.com", "//example.com", "example.com$", ".*", "//(a$"] {
            assert!(origin_problem(bad).is_some(), "{bad}");
        }
    }
}
