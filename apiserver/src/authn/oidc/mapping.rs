//! What claims of a token mean: what has to hold of them, the user they make, what has to hold of that. Pure.

use std::collections::BTreeMap;

use coracle_api::cel::{
    Environment, Inputs, Meter, Program, RUNTIME_COST_BUDGET, Shape, Type, Value as Found,
};
use serde_json::{Value, json};

use super::super::config::{Jwt, Source};
use crate::server::request_info::UserInfo;

/// A claim with a prefix, an expression, or nothing.
enum Origin {
    Nothing,
    Claim { name: String, prefix: String },
    Expression(Program),
}

/// What has to hold.
enum Rule {
    Claim { name: String, value: String },
    Expression { program: Program, text: String, message: String },
}

/// What claims mean.
pub(super) struct Mapping {
    name: Origin,
    groups: Origin,
    uid: Origin,
    extra: Vec<(String, Program)>,
    of_claims: Vec<Rule>,
    of_user: Vec<Rule>,
}

fn claims_shape() -> Shape {
    Shape::map(Shape::dynamic(), u64::MAX)
}

fn user_shape() -> Shape {
    let texts = || Shape::list(Shape::text(), u64::MAX);
    Shape::object(
        "kubernetes.UserInfo",
        [
            ("username", Shape::text()),
            ("uid", Shape::text()),
            ("groups", texts()),
            ("extra", Shape::map(texts(), u64::MAX)),
        ],
    )
}

impl Mapping {
    /// Of a configuration that has been checked.
    ///
    /// # Errors
    /// An expression that cannot be compiled or is no condition where there has to be one.
    pub(super) fn of(jwt: &Jwt) -> Result<Self, String> {
        let claims = Environment::new().with("claims", claims_shape());
        let user = Environment::new().with("user", user_shape());
        let compile = |environment: &Environment, field: &str, text: &str| {
            environment
                .compile(text)
                .map_err(|error| format!("{field}: {text:?}: compilation failed: {error}"))
        };
        let condition = |environment: &Environment, field: &str, text: &str| {
            let program = compile(environment, field, text)?;
            match program.ty() {
                Type::Bool => Ok(program),
                _ => Err(format!("{field}: {text:?}: must evaluate to bool")),
            }
        };
        let origin = |field: &str, source: &Source| match (source.claim.as_str(), source.expression.as_str())
        {
            ("", "") => Ok(Origin::Nothing),
            ("", text) => compile(&claims, field, text).map(Origin::Expression),
            (name, _) => {
                Ok(Origin::Claim { name: name.to_owned(), prefix: source.prefix.clone().unwrap_or_default() })
            }
        };
        let mappings = &jwt.claim_mappings;
        let rule = |environment: &Environment, field: &str, text: &str, message: &str| {
            condition(environment, field, text).map(|program| Rule::Expression {
                program,
                text: text.to_owned(),
                message: message.to_owned(),
            })
        };
        Ok(Self {
            name: origin("claimMappings.username", &mappings.username)?,
            groups: origin("claimMappings.groups", &mappings.groups)?,
            uid: origin("claimMappings.uid", &mappings.uid)?,
            extra: mappings
                .extra
                .iter()
                .map(|one| {
                    Ok((one.key.clone(), compile(&claims, "claimMappings.extra", &one.value_expression)?))
                })
                .collect::<Result<_, String>>()?,
            of_claims: jwt
                .claim_validation_rules
                .iter()
                .map(|one| match one.claim.as_str() {
                    "" => rule(&claims, "claimValidationRules", &one.expression, &one.message),
                    name => Ok(Rule::Claim { name: name.to_owned(), value: one.required_value.clone() }),
                })
                .collect::<Result<_, _>>()?,
            of_user: jwt
                .user_validation_rules
                .iter()
                .map(|one| rule(&user, "userValidationRules", &one.expression, &one.message))
                .collect::<Result<_, _>>()?,
        })
    }

    /// The user that claims make.
    ///
    /// # Errors
    /// What is missing, or does not hold.
    pub(super) fn user(&self, claims: &Value) -> Result<UserInfo, String> {
        let mut budget = Meter::new(RUNTIME_COST_BUDGET);
        let name = match &self.name {
            Origin::Claim { name, prefix } => {
                let value = claim(claims, name)?.as_str();
                let value = value.ok_or_else(|| format!("parse username claims {name:?}: no text"))?;
                if name == "email" && claims.get("email_verified").is_some_and(|is| is != &json!(true)) {
                    return Err("email not verified".to_owned());
                }
                format!("{prefix}{value}")
            }
            other => other.texts(claims, &mut budget)?.pop().unwrap_or_default(),
        };
        if name.is_empty() {
            return Err("the user name is empty".to_owned());
        }
        let mut extra = BTreeMap::new();
        for (key, program) in &self.extra {
            let values = texts(&evaluate(program, claims, &claims_shape(), &mut budget)?)?;
            if !values.is_empty() {
                extra.insert(key.clone(), values);
            }
        }
        let groups = self.groups.texts(claims, &mut budget)?;
        let uid = self.uid.texts(claims, &mut budget)?.pop().unwrap_or_default();
        for rule in &self.of_claims {
            rule.check(claims, &claims_shape(), &mut budget)?;
        }
        let user = UserInfo { name, uid, groups, extra };
        if !self.of_user.is_empty() {
            let seen =
                json!({"username": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra});
            for rule in &self.of_user {
                rule.check(&seen, &user_shape(), &mut budget)?;
            }
        }
        Ok(user)
    }
}

impl Origin {
    /// The texts it gives; a claim that is not there gives none.
    fn texts(&self, claims: &Value, budget: &mut Meter) -> Result<Vec<String>, String> {
        match self {
            Self::Nothing => Ok(Vec::new()),
            Self::Expression(program) => texts(&evaluate(program, claims, &claims_shape(), budget)?),
            Self::Claim { name, prefix } => {
                let Some(value) = claims.get(name) else { return Ok(Vec::new()) };
                let found = match value {
                    Value::String(one) => vec![one.as_str()],
                    several => several
                        .as_array()
                        .and_then(|all| all.iter().map(Value::as_str).collect::<Option<Vec<_>>>())
                        .ok_or_else(|| format!("parse claim {name:?}: neither a text nor a list of texts"))?,
                };
                Ok(found.into_iter().map(|text| format!("{prefix}{text}")).collect())
            }
        }
    }
}

impl Rule {
    fn check(&self, data: &Value, shape: &Shape, budget: &mut Meter) -> Result<(), String> {
        match self {
            Self::Claim { name, value } => match claim(data, name)?.as_str() {
                Some(found) if found == value => Ok(()),
                found => Err(format!(
                    "required claim {name} value does not match. Got = {found:?}, want = {value}"
                )),
            },
            Self::Expression { program, text, message } => match evaluate(program, data, shape, budget)? {
                Found::Bool(true) => Ok(()),
                _ if message.is_empty() => Err(format!("validation expression '{text}' failed")),
                _ => Err(format!("validation expression '{text}' failed: {message}")),
            },
        }
    }
}

fn claim<'a>(claims: &'a Value, name: &str) -> Result<&'a Value, String> {
    claims.get(name).ok_or_else(|| format!("claim {name:?} is not present"))
}

/// All expressions about one token have one budget.
fn evaluate<'a>(
    program: &Program,
    data: &'a Value,
    shape: &Shape,
    budget: &mut Meter,
) -> Result<Found<'a>, String> {
    let found = program.evaluate(&mut Inputs::new(vec![Some(Found::of(data, &shape.ty))]), budget);
    found.map_err(|error| format!("evaluation failed: {error}"))
}

/// A text or a list of texts; empty ones do not count.
fn texts(found: &Found<'_>) -> Result<Vec<String>, String> {
    let wrong = || format!("expected a string or a list of strings, got {}", found.type_name());
    let all = match (found, found.as_str()) {
        (Found::Null, _) => Vec::new(),
        (_, Some(one)) => vec![one.to_owned()],
        _ => found
            .items()
            .and_then(|all| all.iter().map(|one| one.as_str().map(str::to_owned)).collect::<Option<_>>())
            .ok_or_else(wrong)?,
    };
    Ok(all.into_iter().filter(|text: &String| !text.is_empty()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(jwt: Value, claims: Value) -> Result<UserInfo, String> {
        let mut whole = json!({"issuer": {"url": "https://i", "audiences": ["a"]}});
        whole.as_object_mut().expect("an object").extend(jwt.as_object().expect("an object").clone());
        Mapping::of(&serde_json::from_value(whole).expect("reads"))?.user(&claims)
    }

    #[test]
    fn claims_become_a_user_by_name() {
        let jwt = json!({"claimMappings": {"username": {"claim": "email", "prefix": "o:"}, "groups": {"claim": "g", "prefix": "x-"}},
            "claimValidationRules": [{"claim": "hd", "requiredValue": "d"}]});
        let found = user(jwt.clone(), json!({"email": "e", "g": "one", "hd": "d"})).expect("is a user");
        assert_eq!((found.name.as_str(), found.groups), ("o:e", vec!["x-one".to_owned()]));
        for wrong in [
            json!({"email": "e", "hd": "other"}),
            json!({"hd": "d"}),
            json!({"email": "e", "hd": "d", "email_verified": false}),
            json!({"email": "e", "hd": "d", "g": [1]}),
        ] {
            assert!(user(jwt.clone(), wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn expressions_make_and_check_users() {
        let jwt = json!({
            "claimMappings": {"username": {"expression": "claims.sub + ':x'"}, "groups": {"expression": "claims.roles.split(',')"},
                "uid": {"claim": "id"}, "extra": [{"key": "example.com/t", "valueExpression": "claims.t"}]},
            "claimValidationRules": [{"expression": "claims.n > 3", "message": "too few"}],
            "userValidationRules": [{"expression": "!user.username.startsWith('system:')", "message": "reserved"}]});
        let claims = json!({"sub": "me", "roles": "a,b", "id": "7", "t": ["u", "v"], "n": 4});
        let found = user(jwt.clone(), claims.clone()).expect("is a user");
        assert_eq!((found.name.as_str(), found.uid.as_str()), ("me:x", "7"));
        assert_eq!(
            (found.groups, &found.extra["example.com/t"]),
            (vec!["a".to_owned(), "b".to_owned()], &vec!["u".to_owned(), "v".to_owned()])
        );
        let mut other = claims.clone();
        other["n"] = 1.into();
        assert!(user(jwt.clone(), other).is_err_and(|text| text.contains("too few")));
        let mut other = claims;
        other["sub"] = "system:a".into();
        assert!(user(jwt, other).is_err_and(|text| text.contains("reserved")));
        let bad = json!({"claimMappings": {"username": {"expression": "claims.sub"}}, "claimValidationRules": [{"expression": "claims.sub + 1 == 's' + "}]});
        assert!(user(bad, json!({})).is_err());
    }
}
