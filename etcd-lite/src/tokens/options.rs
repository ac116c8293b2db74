//! The flags about authentication, under etcd's names.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use component_base::duration::GoDuration;
use jsonwebtoken::Algorithm;

const BCRYPT_COST_DEFAULT: u32 = 10;
const SIMPLE_TOKEN_TTL_DEFAULT: Duration = Duration::from_secs(300);
const JWT_TTL_DEFAULT: Duration = Duration::from_secs(5 * 60);

/// Flags about authentication.
#[derive(Args, Clone, Debug)]
pub struct AuthOptions {
    /// Kind of tokens: simple, or jwt,sign-method=METHOD,pub-key=FILE,priv-key=FILE,ttl=DURATION.
    #[arg(long, default_value = "simple", value_name = "KIND[,OPTION=VALUE...]", help_heading = "Auth")]
    pub auth_token: String,
    /// Seconds a simple token lives after its last use.
    #[arg(long, default_value_t = 300, value_name = "SECONDS", help_heading = "Auth")]
    pub auth_token_ttl: u32,
    /// Cost of hashing passwords, 4 to 31.
    #[arg(long, default_value_t = BCRYPT_COST_DEFAULT, value_name = "COST", help_heading = "Auth")]
    pub bcrypt_cost: u32,
}

impl Default for AuthOptions {
    fn default() -> Self {
        Self { auth_token: "simple".into(), auth_token_ttl: 300, bcrypt_cost: BCRYPT_COST_DEFAULT }
    }
}

/// `--auth-token`, read.
#[derive(Debug, PartialEq)]
pub(super) enum TokenKind {
    Simple,
    Jwt(JwtOptions),
    None,
}

/// The options of `--auth-token=jwt`.
#[derive(Debug, PartialEq)]
pub(super) struct JwtOptions {
    pub(super) algorithm: Algorithm,
    pub(super) public_key: Option<PathBuf>,
    pub(super) private_key: Option<PathBuf>,
    pub(super) ttl: Duration,
}

impl AuthOptions {
    pub(super) fn simple_token_ttl(&self) -> Duration {
        match self.auth_token_ttl {
            0 => SIMPLE_TOKEN_TTL_DEFAULT,
            seconds => Duration::from_secs(seconds.into()),
        }
    }

    /// As in etcd, a cost that bcrypt does not have gives way to the default.
    pub(super) fn bcrypt_cost(&self) -> u32 {
        if (4..=31).contains(&self.bcrypt_cost) {
            return self.bcrypt_cost;
        }
        tracing::warn!(
            given = self.bcrypt_cost,
            "--bcrypt-cost is not in 4..=31; {BCRYPT_COST_DEFAULT} is used"
        );
        BCRYPT_COST_DEFAULT
    }

    pub(super) fn token_kind(&self) -> anyhow::Result<TokenKind> {
        let mut parts = self.auth_token.split(',');
        let kind = parts.next().unwrap_or_default();
        let mut options = BTreeMap::new();
        for part in parts {
            let pair = part.split_once('=').filter(|(_, value)| !value.contains('='));
            let (name, value) = pair.with_context(|| {
                format!("auth: invalid auth options: --auth-token: {part:?} is not OPTION=VALUE")
            })?;
            if options.insert(name, value).is_some() {
                bail!("auth: invalid auth options: --auth-token gives {name} twice");
            }
        }
        match kind {
            "simple" => Ok(TokenKind::Simple),
            "jwt" => jwt_options(options).map(TokenKind::Jwt),
            "" => Ok(TokenKind::None),
            other => {
                bail!("auth: invalid auth options: --auth-token={other} is not there; simple and jwt are")
            }
        }
    }
}

fn jwt_options(mut options: BTreeMap<&str, &str>) -> anyhow::Result<JwtOptions> {
    let method = options.remove("sign-method").unwrap_or_default();
    let algorithm = match method.parse() {
        Ok(Algorithm::EdDSA) | Err(_) => bail!(
            "auth: invalid auth signature method: --auth-token: sign-method={method} is not there; HS256, HS384, HS512, RS256, RS384, RS512, \
             PS256, PS384, PS512, ES256 and ES384 are"
        ),
        Ok(algorithm) => algorithm,
    };
    let mut path = |name| options.remove(name).filter(|path| !path.is_empty()).map(PathBuf::from);
    let (public_key, private_key) = (path("pub-key"), path("priv-key"));
    let ttl = match options.remove("ttl").filter(|ttl| !ttl.is_empty()) {
        None => JWT_TTL_DEFAULT,
        Some(text) => text
            .parse::<GoDuration>()
            .with_context(|| format!("auth: invalid auth options: --auth-token: ttl={text}"))?
            .get(),
    };
    if !options.is_empty() {
        let names: Vec<&str> = options.into_keys().collect();
        tracing::warn!(?names, "--auth-token has options that mean nothing");
    }
    Ok(JwtOptions { algorithm, public_key, private_key, ttl })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(text: &str) -> anyhow::Result<TokenKind> {
        AuthOptions { auth_token: text.into(), ..AuthOptions::default() }.token_kind()
    }

    #[test]
    fn the_kinds_of_tokens() {
        assert_eq!(kind("simple").expect("simple"), TokenKind::Simple);
        assert_eq!(kind("").expect("none"), TokenKind::None);
        assert_eq!(
            kind("jwt,pub-key=/p,priv-key=/k,sign-method=RS256,ttl=10m").expect("jwt"),
            TokenKind::Jwt(JwtOptions {
                algorithm: Algorithm::RS256,
                public_key: Some("/p".into()),
                private_key: Some("/k".into()),
                ttl: Duration::from_secs(600),
            })
        );
        for (text, part) in [
            ("jwt", "sign-method"),
            ("jwt,sign-method=ES512", "ES384"),
            ("jwt,sign-method=HS256,ttl=x", "ttl=x"),
            ("jwt,sign-method", "not OPTION=VALUE"),
            ("jwt,sign-method=HS256,sign-method=HS384", "twice"),
            ("opaque", "simple and jwt"),
        ] {
            let error = kind(text).expect_err(text).to_string();
            assert!(error.starts_with("auth: invalid auth") && error.contains(part), "{error}");
        }
    }

    #[test]
    fn out_of_range_values_give_way_to_defaults() {
        let options = AuthOptions { auth_token_ttl: 0, bcrypt_cost: 3, ..AuthOptions::default() };
        assert_eq!((options.simple_token_ttl(), options.bcrypt_cost()), (SIMPLE_TOKEN_TTL_DEFAULT, 10));
        let options = AuthOptions { auth_token_ttl: 7, bcrypt_cost: 4, ..AuthOptions::default() };
        assert_eq!((options.simple_token_ttl(), options.bcrypt_cost()), (Duration::from_secs(7), 4));
    }
}
