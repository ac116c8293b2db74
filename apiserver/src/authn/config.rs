//! The file `AuthenticationConfiguration` of `apiserver.config.k8s.io`, and the flags that say the same: which issuers of tokens are trusted, how their
//! claims become users, and where nobody has to be known. Checks what it says; compiles nothing.

use serde::Deserialize;

use crate::options::Options;

/// The file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthenticationConfiguration {
    api_version: String,
    kind: String,
    /// Issuers.
    #[serde(default)]
    pub jwt: Vec<Jwt>,
    /// What becomes of requests without credentials.
    pub anonymous: Option<Anonymous>,
}

/// One issuer of tokens and what its claims mean.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Jwt {
    /// The issuer.
    pub issuer: Issuer,
    /// What has to hold of the claims.
    #[serde(default)]
    pub claim_validation_rules: Vec<ClaimRule>,
    /// What the user is called.
    pub claim_mappings: Mappings,
    /// What has to hold of the user.
    #[serde(default)]
    pub user_validation_rules: Vec<UserRule>,
}

/// Who issues.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Issuer {
    /// As tokens name it.
    pub url: String,
    /// Where it describes itself, if not at the usual place below its URL.
    #[serde(default, rename = "discoveryURL")]
    pub discovery_url: String,
    /// PEM; empty: the system's authorities count.
    #[serde(default)]
    pub certificate_authority: String,
    /// A token has to be meant for one of them.
    #[serde(default)]
    pub audiences: Vec<String>,
    /// `MatchAny` where there are several.
    #[serde(default)]
    pub audience_match_policy: String,
}

/// A claim or an expression over `claims`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Source {
    /// The claim's name.
    #[serde(default)]
    pub claim: String,
    /// What the claim's value is given in front.
    pub prefix: Option<String>,
    /// Instead of a claim.
    #[serde(default)]
    pub expression: String,
}

/// How claims become a user.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mappings {
    /// The name.
    pub username: Source,
    /// The groups.
    #[serde(default)]
    pub groups: Source,
    /// The uid.
    #[serde(default)]
    pub uid: Source,
    /// Further facts.
    #[serde(default)]
    pub extra: Vec<Extra>,
}

/// A further fact.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Extra {
    /// Its key: a domain and a path, in lower case.
    pub key: String,
    /// Its value or values.
    pub value_expression: String,
}

/// What has to hold of the claims.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaimRule {
    /// The claim that has to have a value.
    #[serde(default)]
    pub claim: String,
    /// The value.
    #[serde(default)]
    pub required_value: String,
    /// Or what has to be true.
    #[serde(default)]
    pub expression: String,
    /// What is said when it is not.
    #[serde(default)]
    pub message: String,
}

/// What has to hold of the user.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UserRule {
    /// What has to be true.
    pub expression: String,
    /// What is said when it is not.
    #[serde(default)]
    pub message: String,
}

/// Whether requests without credentials are anybody's.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anonymous {
    /// Whether they are.
    pub enabled: bool,
    /// The only paths for which they are; none: all.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// A path.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// As requests have it.
    pub path: String,
}

impl Anonymous {
    /// Whether a request for `path` may be anybody's.
    pub fn allows(&self, path: &str) -> bool {
        self.enabled && (self.conditions.is_empty() || self.conditions.iter().any(|one| one.path == path))
    }
}

/// An issuer, and the algorithms it may sign with; none: all that are known.
pub type Trusted = (Jwt, Vec<String>);

/// What flags and file say together: whose tokens count, and where nobody has to be known.
///
/// # Errors
/// A text naming flag or file and field.
pub fn of(options: &Options) -> Result<(Vec<Trusted>, Anonymous), String> {
    let by_flag = Anonymous { enabled: options.anonymous_auth.unwrap_or(true), conditions: Vec::new() };
    let Some(path) = &options.authentication_config else {
        let issuer = of_flags(options)?;
        return Ok((
            issuer.into_iter().map(|jwt| (jwt, options.oidc_signing_algs.clone())).collect(),
            by_flag,
        ));
    };
    let named = |error: String| format!("--authentication-config: {}: {error}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| named(format!("cannot read it: {error}")))?;
    let file = parse(&text).map_err(named)?;
    if file.anonymous.is_some() && options.anonymous_auth.is_some() {
        let text = "authentication-config and --anonymous-auth are mutually exclusive when anonymous is set in the file";
        return Err(format!("--{text}"));
    }
    let ours: Vec<&str> = options.service_account_issuer.iter().map(String::as_str).collect();
    let mut errors = Vec::new();
    for (index, jwt) in file.jwt.iter().enumerate() {
        check(jwt, &ours, &format!("jwt[{index}]"), &mut errors);
        if file.jwt[..index].iter().any(|other| other.issuer.url == jwt.issuer.url) {
            errors.push(format!("jwt[{index}].issuer.url: Duplicate value: {:?}", jwt.issuer.url));
        }
    }
    if !errors.is_empty() {
        return Err(named(errors.join("; ")));
    }
    Ok((file.jwt.into_iter().map(|jwt| (jwt, Vec::new())).collect(), file.anonymous.unwrap_or(by_flag)))
}

fn parse(text: &str) -> Result<AuthenticationConfiguration, String> {
    let file: AuthenticationConfiguration =
        serde_yaml_ng::from_str(text).map_err(|error| error.to_string())?;
    let versions = ["v1", "v1beta1", "v1alpha1"].map(|version| format!("apiserver.config.k8s.io/{version}"));
    if !versions.contains(&file.api_version) || file.kind != "AuthenticationConfiguration" {
        return Err(format!(
            "no kind {:?} is registered for version {:?}; it has to be AuthenticationConfiguration of apiserver.config.k8s.io/v1",
            file.kind, file.api_version
        ));
    }
    Ok(file)
}

/// What `--oidc-*` say.
fn of_flags(options: &Options) -> Result<Option<Jwt>, String> {
    if options.oidc_issuer_url.is_empty() {
        return Ok(None);
    }
    let certificate_authority = match &options.oidc_ca_file {
        None => String::new(),
        Some(path) => std::fs::read_to_string(path)
            .map_err(|error| format!("--oidc-ca-file: {}: {error}", path.display()))?,
    };
    let prefix = match (options.oidc_username_prefix.as_str(), options.oidc_username_claim.as_str()) {
        ("-", _) | ("", "email") => String::new(),
        ("", _) => format!("{}#", options.oidc_issuer_url),
        (prefix, _) => prefix.to_owned(),
    };
    let source = |claim: &str, prefix: String| Source {
        claim: claim.to_owned(),
        prefix: Some(prefix),
        expression: String::new(),
    };
    let mut mappings =
        Mappings { username: source(&options.oidc_username_claim, prefix), ..Mappings::default() };
    if !options.oidc_groups_claim.is_empty() {
        mappings.groups = source(&options.oidc_groups_claim, options.oidc_groups_prefix.clone());
    }
    let mut rules = Vec::new();
    for required in &options.oidc_required_claim {
        let (claim, value) = required
            .split_once('=')
            .ok_or_else(|| format!("--oidc-required-claim: {required:?} must be formatted as key=value"))?;
        rules.push(ClaimRule {
            claim: claim.trim().to_owned(),
            required_value: value.trim().to_owned(),
            ..ClaimRule::default()
        });
    }
    let jwt = Jwt {
        issuer: Issuer {
            url: options.oidc_issuer_url.clone(),
            certificate_authority,
            audiences: vec![options.oidc_client_id.clone()],
            ..Issuer::default()
        },
        claim_mappings: mappings,
        claim_validation_rules: rules,
        user_validation_rules: Vec::new(),
    };
    let mut errors = Vec::new();
    check(&jwt, &[], "--oidc", &mut errors);
    if errors.is_empty() { Ok(Some(jwt)) } else { Err(errors.join("; ")) }
}

/// What is wrong with an issuer. Pure.
fn check(jwt: &Jwt, own_issuers: &[&str], path: &str, errors: &mut Vec<String>) {
    let issuer = &jwt.issuer;
    let mut problem = |field: &str, text: String| errors.push(format!("{path}.{field}: {text}"));
    for (field, url) in [("issuer.url", &issuer.url), ("issuer.discoveryURL", &issuer.discovery_url)] {
        match url::Url::parse(url) {
            _ if url.is_empty() && field != "issuer.url" => {}
            _ if url.is_empty() => problem(field, "Required value: URL is required".to_owned()),
            Ok(parsed) if parsed.scheme() != "https" => {
                problem(field, format!("Invalid value: {url:?}: URL scheme must be https"));
            }
            Ok(parsed) if parsed.query().is_some() || parsed.fragment().is_some() => {
                problem(field, format!("Invalid value: {url:?}: URL must not contain a query or a fragment"));
            }
            Ok(_) => {}
            Err(error) => problem(field, format!("Invalid value: {url:?}: {error}")),
        }
    }
    if own_issuers.contains(&issuer.url.as_str()) {
        let text = "URL must not overlap with disallowed issuers";
        problem("issuer.url", format!("Invalid value: {:?}: {text}: {own_issuers:?}", issuer.url));
    }
    if issuer.audiences.is_empty() || issuer.audiences.iter().any(String::is_empty) {
        problem("issuer.audiences", "Required value: at least one issuer.audiences is required".to_owned());
    }
    match (issuer.audiences.len(), issuer.audience_match_policy.as_str()) {
        (0 | 1, "" | "MatchAny") | (_, "MatchAny") => {}
        (_, policy) => problem(
            "issuer.audienceMatchPolicy",
            format!("Invalid value: {policy:?}: audienceMatchPolicy must be MatchAny for multiple audiences"),
        ),
    }
    let mappings = &jwt.claim_mappings;
    for (field, source) in [("username", &mappings.username), ("groups", &mappings.groups)] {
        let given = !source.claim.is_empty() || !source.expression.is_empty();
        if !given && (field == "username" || source.prefix.is_some()) {
            problem(
                &format!("claimMappings.{field}"),
                "Required value: claim or expression is required".to_owned(),
            );
        }
        if !source.expression.is_empty() && (!source.claim.is_empty() || source.prefix.is_some()) {
            let text = "Invalid value: expression cannot be combined with claim or prefix";
            problem(&format!("claimMappings.{field}"), text.to_owned());
        }
        if !source.claim.is_empty() && source.prefix.is_none() {
            let text = "Required value: prefix is required when claim is set. It can be set to an empty string to disable prefixing";
            problem(&format!("claimMappings.{field}.prefix"), text.to_owned());
        }
    }
    if !mappings.uid.claim.is_empty() && !mappings.uid.expression.is_empty() {
        problem("claimMappings.uid", "Invalid value: claim and expression can't both be set".to_owned());
    }
    for (index, rule) in jwt.claim_validation_rules.iter().enumerate() {
        if rule.claim.is_empty() == rule.expression.is_empty() {
            problem(
                &format!("claimValidationRules[{index}]"),
                "Required value: exactly one of claim and expression is required".to_owned(),
            );
        }
    }
    let speaks_of_email =
        mappings.username.expression.replace("claims.email_verified", "").contains("claims.email");
    let verified = |text: &str| text.contains("claims.email_verified");
    if speaks_of_email
        && !verified(&mappings.username.expression)
        && !mappings.extra.iter().any(|extra| verified(&extra.value_expression))
        && !jwt.claim_validation_rules.iter().any(|rule| verified(&rule.expression))
    {
        let text = "claims.email_verified must be used in claimMappings.username.expression or claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in claimMappings.username.expression";
        problem("claimMappings.username.expression", format!("Invalid value: {text}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(yaml: &str) -> Vec<String> {
        let text =
            format!("apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n{yaml}");
        let (file, mut errors) = (parse(&text).expect("reads"), Vec::new());
        for (index, jwt) in file.jwt.iter().enumerate() {
            check(jwt, &["https://own"], &format!("jwt[{index}]"), &mut errors);
        }
        errors
    }

    #[test]
    fn an_issuer_says_where_it_is_for_whom_and_who_its_users_are() {
        let good = "jwt: [{issuer: {url: 'https://i', audiences: [a]}, claimMappings: {username: {claim: sub, prefix: ''}}}]";
        assert_eq!(problems(good), [""; 0]);
        let bad = problems("jwt: [{issuer: {url: 'http://i'}, claimMappings: {username: {claim: sub}}}]");
        assert_eq!(bad.len(), 3, "{bad:?}");
        assert!(bad[0].contains("URL scheme must be https") && bad[2].contains("prefix is required"));
        assert_eq!(problems(&good.replace("https://i", "https://own")).len(), 1);
        let email = good.replace("claim: sub, prefix: ''", "expression: claims.email");
        assert!(problems(&email)[0].contains("email_verified"));
    }

    #[test]
    fn nobody_is_known_where_the_conditions_say_so() {
        let file = parse(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\nanonymous: {enabled: true, conditions: [{path: /livez}]}",
        );
        let anonymous = file.expect("reads").anonymous.expect("is said");
        assert!(anonymous.allows("/livez") && !anonymous.allows("/livez/x") && !anonymous.allows("/api"));
        assert!(parse("apiVersion: v1\nkind: AuthenticationConfiguration").is_err());
    }
}
