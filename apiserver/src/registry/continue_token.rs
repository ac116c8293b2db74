//! The opaque token that continues a paged list: the list's revision and the key to go on from. Pure; upstream's form.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

const VERSION: &str = "meta.k8s.io/v1";

/// A decoded token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContinueToken {
    #[serde(rename = "v")]
    version: String,
    /// The list's revision; -1 goes on with whatever is newest.
    #[serde(rename = "rv")]
    pub revision: i64,
    /// The first key of the next page, relative to what all keys of the list begin with.
    pub start: String,
}

impl ContinueToken {
    /// Goes on behind `last`.
    pub fn behind(revision: i64, last: &str) -> Self {
        Self { version: VERSION.into(), revision, start: format!("{last}\0") }
    }

    /// Goes on at the same place with whatever is newest.
    pub fn inconsistent(&self) -> Self {
        Self { revision: -1, ..self.clone() }
    }

    /// As clients get it.
    pub fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    /// Back from what a client sent.
    ///
    /// # Errors
    /// Upstream's text for what is no token.
    pub fn decode(text: &str) -> Result<Self, String> {
        let raw = URL_SAFE_NO_PAD
            .decode(text.trim_end_matches('='))
            .map_err(|error| format!("continue key is not valid: {error}"))?;
        let token: Self =
            serde_json::from_slice(&raw).map_err(|error| format!("continue key is not valid: {error}"))?;
        if token.version != VERSION {
            return Err(format!(
                "continue key is not valid: server does not recognize this encoded version {}",
                token.version
            ));
        }
        if token.revision == 0 {
            return Err(
                "continue key is not valid: incorrect encoded start resourceVersion (version meta.k8s.io/v1)"
                    .into(),
            );
        }
        if token.start.is_empty() {
            return Err("continue key is not valid: encoded start key empty (version meta.k8s.io/v1)".into());
        }
        // A key that climbs out of the list's folder would read other resources.
        let start = token.start.trim_end_matches('\0');
        if start.is_empty() || start.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(format!("continue key is not valid: {}", token.start));
        }
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_as_they_went() {
        let token = ContinueToken::behind(17, "default/web");
        assert_eq!(ContinueToken::decode(&token.encode()), Ok(token));
    }

    #[test]
    fn tokens_that_are_none_or_climb_are_refused() {
        for text in ["", "%%%", "e30"] {
            assert!(ContinueToken::decode(text).is_err(), "{text}");
        }
        let climbing = ContinueToken::behind(1, "../secrets/x").encode();
        assert!(ContinueToken::decode(&climbing).is_err());
    }
}
