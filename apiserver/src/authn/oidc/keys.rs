//! The keys of an OpenID Connect provider: found through its description of itself when its first token comes, and fetched anew when a token is signed with a
//! key that is not among them.

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{DecodingKey, Header, Validation};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::extension::Endpoint;
use crate::extension::client::Clients;
use crate::extension::tls::Trust;
use crate::registry::Registry;

/// How long one document may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Keys are not fetched more often than this, whatever tokens come.
const PAUSE: Duration = Duration::from_secs(1);

/// A provider's keys.
pub(super) struct Keys {
    issuer: String,
    discovery: String,
    trust: Trust,
    clients: Clients,
    /// Held while keys are fetched, so that many tokens ask once.
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    keys: Arc<[Jwk]>,
    /// When they were asked for last, and what kept them from coming.
    asked: Option<(Instant, Result<(), String>)>,
}

impl Keys {
    pub(super) fn new(issuer: &str, discovery: String, trust: Trust, registry: &Arc<Registry>) -> Self {
        let clients = Clients::new(Arc::clone(registry), None);
        Self { issuer: issuer.to_owned(), discovery, trust, clients, known: Mutex::default() }
    }

    /// The claims of a token that one of the keys has signed.
    ///
    /// # Errors
    /// None has, or the provider does not say which there are.
    pub(super) async fn verify(&self, token: &str, header: &Header) -> Result<Value, String> {
        let keys = Arc::clone(&self.known.lock().await.keys);
        if let Some(claims) = signed(token, header, &keys) {
            return Ok(claims);
        }
        let newer = self.renewed(&keys).await?;
        signed(token, header, &newer)
            .ok_or_else(|| "verify token: failed to verify id token signature".to_owned())
    }

    /// The keys after `seen` were found wanting.
    async fn renewed(&self, seen: &Arc<[Jwk]>) -> Result<Arc<[Jwk]>, String> {
        let mut known = self.known.lock().await;
        let just_asked = known.asked.as_ref().filter(|(at, _)| at.elapsed() < PAUSE);
        if let Some((_, outcome)) = just_asked {
            outcome.clone()?;
        } else if Arc::ptr_eq(&known.keys, seen) {
            let fetched = self.fetch().await;
            known.asked = Some((Instant::now(), fetched.as_ref().map(|_| ()).map_err(Clone::clone)));
            known.keys = fetched?;
        }
        Ok(Arc::clone(&known.keys))
    }

    async fn fetch(&self) -> Result<Arc<[Jwk]>, String> {
        let description = self.document(&self.discovery).await?;
        let issuer = description["issuer"].as_str().unwrap_or_default();
        if issuer != self.issuer {
            return Err(format!(
                "issuer did not match the issuer returned by provider, expected {:?} got {issuer:?}",
                self.issuer
            ));
        }
        let uri = description["jwks_uri"].as_str().unwrap_or_default();
        let set = self.document(uri).await?;
        let set: JwkSet = serde_json::from_value(set).map_err(|error| format!("fetching keys: {error}"))?;
        Ok(set.keys.into())
    }

    async fn document(&self, url: &str) -> Result<Value, String> {
        let endpoint = Endpoint::of_url(url, self.trust.clone())?;
        let bytes = self.clients.get(&endpoint, PATIENCE).await?;
        serde_json::from_slice(&bytes).map_err(|error| format!("{url}: {error}"))
    }
}

/// The claims, if one of the keys has signed them: that of the token's key id, or any if it names none. Pure.
fn signed(token: &str, header: &Header, keys: &[Jwk]) -> Option<Value> {
    let mut validation = Validation::new(header.alg);
    // Times and audiences are the caller's matter.
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.set_required_spec_claims::<&str>(&[]);
    keys.iter().filter(|key| header.kid.is_none() || key.common.key_id == header.kid).find_map(|key| {
        let key = DecodingKey::from_jwk(key).ok()?;
        jsonwebtoken::decode::<Value>(token, &key, &validation).ok().map(|decoded| decoded.claims)
    })
}
