//! Tokens of OpenID Connect providers: whose signature is good, who are meant for this server, and whose claims make a user. The provider's keys are in
//! `keys`, what claims mean in `mapping`.

mod keys;
mod mapping;

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::Value;

use super::config::Jwt;
use crate::extension::tls::Trust;
use crate::registry::Registry;
use crate::server::request_info::UserInfo;
use keys::Keys;
use mapping::Mapping;

/// What providers may sign with, where nothing is said.
const ALGORITHMS: [&str; 8] = ["RS256", "RS384", "RS512", "ES256", "ES384", "PS256", "PS384", "PS512"];
/// By how much a token may be ahead of its time.
const NOT_BEFORE_LEEWAY_SECONDS: i64 = 300;

/// A provider.
pub struct Provider {
    issuer: String,
    audiences: Vec<String>,
    algorithms: Vec<Algorithm>,
    keys: Keys,
    mapping: Mapping,
}

impl Provider {
    /// Of a configuration that has been checked.
    ///
    /// # Errors
    /// Authorities that are none, expressions that cannot be compiled, algorithms that are not known.
    pub fn new(jwt: &Jwt, algorithms: &[String], registry: &Arc<Registry>) -> Result<Self, String> {
        let issuer = &jwt.issuer;
        let trust = match issuer.certificate_authority.as_str() {
            "" => Trust::System,
            pem => Trust::of_pem(pem.as_bytes())
                .map_err(|error| format!("{}: certificateAuthority: {error}", issuer.url))?,
        };
        let names: Vec<&str> = match algorithms {
            [] => ALGORITHMS.to_vec(),
            named => named.iter().map(String::as_str).collect(),
        };
        let algorithms = names
            .into_iter()
            .map(|name| match name.parse() {
                Ok(algorithm) if ALGORITHMS.contains(&name) => Ok(algorithm),
                _ => Err(format!("signing algorithm {name:?} is not implemented; there are {ALGORITHMS:?}")),
            })
            .collect::<Result<_, _>>()?;
        let discovery = match issuer.discovery_url.as_str() {
            "" => format!("{}/.well-known/openid-configuration", issuer.url.trim_end_matches('/')),
            url => url.to_owned(),
        };
        Ok(Self {
            issuer: issuer.url.clone(),
            audiences: issuer.audiences.clone(),
            algorithms,
            keys: Keys::new(&issuer.url, discovery, trust, registry),
            mapping: Mapping::of(jwt).map_err(|error| format!("{}: {error}", issuer.url))?,
        })
    }

    /// The user of a token; `None`: it is not this provider's.
    ///
    /// # Errors
    /// What is wrong with it. Never has the token in it.
    pub async fn user(&self, token: &str, now: i64) -> Option<Result<UserInfo, String>> {
        if claims(token)?.get("iss").and_then(Value::as_str) != Some(&self.issuer) {
            return None;
        }
        Some(self.verified(token, now).await.map_err(|error| format!("oidc: {error}")))
    }

    async fn verified(&self, token: &str, now: i64) -> Result<UserInfo, String> {
        let header = jsonwebtoken::decode_header(token).map_err(|error| format!("verify token: {error}"))?;
        if !self.algorithms.contains(&header.alg) {
            return Err(format!("verify token: id token signed with unsupported algorithm {:?}", header.alg));
        }
        let claims = self.keys.verify(token, &header).await?;
        timely(&claims, now)?;
        let meant: Vec<&str> = match &claims["aud"] {
            Value::String(one) => vec![one],
            several => several.as_array().into_iter().flatten().filter_map(Value::as_str).collect(),
        };
        if !self.audiences.iter().any(|wanted| meant.contains(&wanted.as_str())) {
            return Err(format!("verify token: expected audience in {:?} got {meant:?}", self.audiences));
        }
        self.mapping.user(&claims)
    }
}

/// Whether the token's time is now. Pure.
fn timely(claims: &Value, now: i64) -> Result<(), String> {
    let seconds = |name: &str| claims[name].as_f64().map(|seconds| seconds as i64);
    match (seconds("exp"), seconds("nbf")) {
        (None, _) => Err("verify token: token has no expiry".to_owned()),
        (Some(end), _) if end <= now => Err("verify token: token is expired".to_owned()),
        (_, Some(start)) if start > now + NOT_BEFORE_LEEWAY_SECONDS => {
            Err("verify token: current time is before the nbf (not before) time".to_owned())
        }
        _ => Ok(()),
    }
}

/// What a token says, whoever signed it.
fn claims(token: &str) -> Option<Value> {
    let mut parts = token.split('.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tokens_have_their_time() {
        assert!(timely(&json!({"exp": 100}), 99).is_ok());
        assert!(timely(&json!({"exp": 100}), 100).is_err());
        assert!(timely(&json!({}), 1).is_err());
        assert!(timely(&json!({"exp": 10_000, "nbf": 401}), 100).is_err());
        assert!(timely(&json!({"exp": 10_000, "nbf": 400}), 100).is_ok());
    }
}
