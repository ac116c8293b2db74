//! Finds out who sends a request: front proxy, client certificate, static token, ServiceAccount token, bootstrap token, or nobody. Decides nothing about
//! what they may do.

pub mod bootstrap_token;
pub mod certificate;
pub mod impersonation;
pub mod service_account;
pub mod static_tokens;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use coracle_api::resource::{Resource, lookup};
use http::HeaderMap;
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::cache::Cache;
use crate::options::Options;
use crate::server::request_info::UserInfo;
use certificate::ClientCa;
use service_account::{Claims, TokenError, TokenKeys};
use static_tokens::StaticTokens;

/// The group of everybody who is known.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of everybody else.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// How long a verified token is not verified again.
const TOKEN_MEMORY: Duration = Duration::from_secs(10);
const TOKENS_REMEMBERED_MAX: usize = 4096;

/// Why a request has no user. Only for the log: clients are told no more than 401.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthenticationError {
    /// Nothing to go by, and anonymous requests are not allowed.
    #[error("no credentials were sent")]
    None,
    /// A certificate that no CA vouches for.
    #[error("client certificate: {0}")]
    Certificate(String),
    /// A token that nobody knows, or that is no longer valid.
    #[error("bearer token: {0}")]
    Token(String),
}

/// What a connection states about its client; the answers are found once.
#[derive(Debug, Default)]
pub struct Connection {
    /// The client's address.
    pub peer: Option<std::net::SocketAddr>,
    /// The client's certificates, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    client: OnceLock<Result<(UserInfo, i64), String>>,
    proxy: OnceLock<bool>,
}

impl Connection {
    /// Of a connection with these certificates.
    pub fn new(peer: Option<std::net::SocketAddr>, chain: Vec<CertificateDer<'static>>) -> Self {
        Self { peer, chain, ..Self::default() }
    }
}

struct FrontProxy {
    ca: ClientCa,
    allowed_names: Vec<String>,
    username_headers: Vec<String>,
    group_headers: Vec<String>,
    extra_prefixes: Vec<String>,
}

/// All authenticators.
pub struct Authenticator {
    client_ca: Option<ClientCa>,
    front_proxy: Option<FrontProxy>,
    static_tokens: StaticTokens,
    /// Keys of ServiceAccount tokens, for issuing too.
    pub token_keys: Arc<TokenKeys>,
    audiences: Vec<String>,
    bootstrap_tokens: bool,
    anonymous: bool,
    cache: Arc<Cache>,
    verified: Mutex<HashMap<[u8; 32], (Instant, Claims)>>,
}

impl Authenticator {
    /// Reads all files named by the flags.
    ///
    /// # Errors
    /// A text naming flag and file.
    pub fn new(options: &Options, cache: Arc<Cache>) -> Result<Self, String> {
        let client_ca = options
            .client_ca_file
            .as_deref()
            .map(|path| ClientCa::load(path).map_err(|error| format!("--client-ca-file: {error}")))
            .transpose()?;
        let front_proxy = match &options.requestheader_client_ca_file {
            None => None,
            Some(path) => Some(FrontProxy {
                ca: ClientCa::load(path)
                    .map_err(|error| format!("--requestheader-client-ca-file: {error}"))?,
                allowed_names: options.requestheader_allowed_names.clone(),
                username_headers: options.requestheader_username_headers.clone(),
                group_headers: options.requestheader_group_headers.clone(),
                extra_prefixes: options.requestheader_extra_headers_prefix.clone(),
            }),
        };
        let static_tokens = match &options.token_auth_file {
            None => StaticTokens::default(),
            Some(path) => StaticTokens::load(path).map_err(|error| format!("--token-auth-file: {error}"))?,
        };
        let token_keys = TokenKeys::load(
            &options.service_account_key_file,
            options.service_account_signing_key_file.as_deref(),
            &options.service_account_issuer,
        )
        .map_err(|error| {
            format!("--service-account-key-file or --service-account-signing-key-file: {error}")
        })?;
        Ok(Self {
            client_ca,
            front_proxy,
            static_tokens,
            token_keys: Arc::new(token_keys),
            audiences: options.audiences(),
            bootstrap_tokens: options.enable_bootstrap_token_auth,
            anonymous: options.anonymous_auth,
            cache,
            verified: Mutex::default(),
        })
    }

    /// The CAs whose names the handshake offers.
    pub fn authorities(&self) -> Vec<&ClientCa> {
        self.client_ca.iter().chain(self.front_proxy.iter().map(|proxy| &proxy.ca)).collect()
    }

    /// Who sends a request with these headers on this connection.
    ///
    /// # Errors
    /// Bad credentials, or none where some are needed.
    pub fn authenticate(
        &self,
        connection: &Connection,
        headers: &HeaderMap,
    ) -> Result<UserInfo, AuthenticationError> {
        if let Some(user) = self.front_proxy_user(connection, headers) {
            return Ok(user);
        }
        let certificate = self.certificate_user(connection);
        if let Some(Ok(user)) = certificate {
            return Ok(user);
        }
        if let Some(token) = bearer_token(headers) {
            return self.token_user(&token, &self.audiences);
        }
        match certificate {
            Some(Err(error)) => Err(AuthenticationError::Certificate(error)),
            _ if self.anonymous => Ok(UserInfo {
                name: "system:anonymous".into(),
                groups: vec![UNAUTHENTICATED.into()],
                ..UserInfo::default()
            }),
            _ => Err(AuthenticationError::None),
        }
    }

    fn certificate_user(&self, connection: &Connection) -> Option<Result<UserInfo, String>> {
        let ca = self.client_ca.as_ref()?;
        if connection.chain.is_empty() {
            return None;
        }
        let verified = connection.client.get_or_init(|| {
            ca.vouches_for(&connection.chain)?;
            let subject = component_base::tls::subject(&connection.chain[0]).map_err(|e| e.to_string())?;
            if subject.common_name.is_empty() {
                return Err("the certificate's subject has no common name".into());
            }
            let mut groups = subject.organizations;
            groups.push(AUTHENTICATED.into());
            let user = UserInfo { name: subject.common_name, groups, ..UserInfo::default() };
            Ok((user, subject.not_after))
        });
        Some(match verified {
            Ok((_, not_after)) if jiff::Timestamp::now().as_second() > *not_after => {
                Err("the certificate has expired".into())
            }
            Ok((user, _)) => Ok(user.clone()),
            Err(error) => Err(error.clone()),
        })
    }

    fn front_proxy_user(&self, connection: &Connection, headers: &HeaderMap) -> Option<UserInfo> {
        let proxy = self.front_proxy.as_ref()?;
        if connection.chain.is_empty() {
            return None;
        }
        let trusted = connection.proxy.get_or_init(|| {
            proxy.ca.vouches_for(&connection.chain).is_ok()
                && component_base::tls::subject(&connection.chain[0]).is_ok_and(|subject| {
                    proxy.allowed_names.is_empty() || proxy.allowed_names.contains(&subject.common_name)
                })
        });
        if !trusted {
            return None;
        }
        let values = |name: &String| {
            headers.get_all(name.as_str()).iter().filter_map(|v| v.to_str().ok()).map(str::to_owned)
        };
        let name = proxy.username_headers.iter().flat_map(values).find(|name| !name.is_empty())?;
        let mut groups: Vec<String> = proxy.group_headers.iter().flat_map(values).collect();
        if !groups.iter().any(|group| group == AUTHENTICATED || group == UNAUTHENTICATED) {
            groups.push(AUTHENTICATED.into());
        }
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (header, value) in headers {
            for prefix in &proxy.extra_prefixes {
                if let Some(key) = header.as_str().strip_prefix(&prefix.to_ascii_lowercase())
                    && let Ok(value) = value.to_str()
                {
                    extra.entry(impersonation::unescape(key)).or_default().push(value.to_owned());
                }
            }
        }
        Some(UserInfo { name, uid: String::new(), groups, extra })
    }

    /// The user of a bearer token that is meant for one of `audiences`. Also what TokenReview asks.
    ///
    /// # Errors
    /// [`AuthenticationError::Token`].
    pub fn token_user(&self, token: &str, audiences: &[String]) -> Result<UserInfo, AuthenticationError> {
        if let Some(user) = self.static_tokens.user(token) {
            return Ok(user.clone());
        }
        if self.bootstrap_tokens
            && let Some(user) = bootstrap_token::user(token, &self.cache, jiff::Timestamp::now())
        {
            return Ok(user);
        }
        let refused = |error: String| AuthenticationError::Token(error);
        let claims = self.claims(token, audiences).map_err(|error| refused(error.to_string()))?;
        self.bound_objects_exist(&claims).map_err(refused)?;
        Ok(service_account_user(&claims))
    }

    fn claims(&self, token: &str, audiences: &[String]) -> Result<Claims, TokenError> {
        let now = jiff::Timestamp::now().as_second();
        let ours = audiences == self.audiences;
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if ours
            && let Some((at, claims)) = self.verified.lock().get(&digest)
            && at.elapsed() < TOKEN_MEMORY
            && claims.exp > now
        {
            return Ok(claims.clone());
        }
        let claims = self.token_keys.verify(token, audiences, now)?;
        if ours {
            let mut verified = self.verified.lock();
            if verified.len() >= TOKENS_REMEMBERED_MAX {
                verified.clear();
            }
            verified.insert(digest, (Instant::now(), claims.clone()));
        }
        Ok(claims)
    }

    /// A token dies with what it is bound to.
    fn bound_objects_exist(&self, claims: &Claims) -> Result<(), String> {
        let binding = &claims.binding;
        let account = Some(&binding.serviceaccount);
        // A node named beside a pod only tells where the pod ran.
        let node = binding.node.as_ref().filter(|_| binding.pod.is_none());
        for (plural, bound, namespace) in [
            ("serviceaccounts", account, binding.namespace.as_str()),
            ("pods", binding.pod.as_ref(), binding.namespace.as_str()),
            ("secrets", binding.secret.as_ref(), binding.namespace.as_str()),
            ("nodes", node, ""),
        ] {
            let Some(bound) = bound else { continue };
            let Some(resource) = core(plural) else { continue };
            let found =
                self.cache.get(resource, namespace, &bound.name).and_then(|object| object.value().ok());
            let uid = found.as_ref().and_then(|o| o["metadata"]["uid"].as_str()).unwrap_or_default();
            match found {
                Some(_) if bound.uid.is_empty() || bound.uid == uid => {}
                Some(_) => {
                    return Err(format!("{plural} {:?} is not the one the token is bound to", bound.name));
                }
                None => return Err(format!("{plural} {:?} does not exist (any more)", bound.name)),
            }
        }
        Ok(())
    }
}

fn core(plural: &str) -> Option<&'static Resource> {
    lookup("", "v1", plural)
}

fn service_account_user(claims: &Claims) -> UserInfo {
    let binding = &claims.binding;
    let mut extra = BTreeMap::new();
    let mut put = |key: &str, value: &str| {
        if !value.is_empty() {
            extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
        }
    };
    if let Some(pod) = &binding.pod {
        put("pod-name", &pod.name);
        put("pod-uid", &pod.uid);
    }
    if let Some(node) = &binding.node {
        put("node-name", &node.name);
        put("node-uid", &node.uid);
    }
    if !claims.jti.is_empty() {
        put("credential-id", &format!("JTI={}", claims.jti));
    }
    UserInfo {
        name: claims.sub.clone(),
        uid: binding.serviceaccount.uid.clone(),
        groups: vec![
            "system:serviceaccounts".into(),
            format!("system:serviceaccounts:{}", binding.namespace),
            AUTHENTICATED.into(),
        ],
        extra,
    }
}

/// The token of `Authorization: Bearer TOKEN`, or of a WebSocket's protocol list, where browsers must put it.
fn bearer_token(headers: &HeaderMap) -> Option<Cow<'_, str>> {
    let Some(value) = headers.get(http::header::AUTHORIZATION) else { return websocket_token(headers) };
    let (scheme, token) = value.to_str().ok()?.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(Cow::Borrowed(token))
}

fn websocket_token(headers: &HeaderMap) -> Option<Cow<'_, str>> {
    use base64::Engine;
    let encoded = headers
        .get_all(http::header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(|protocol| protocol.trim().strip_prefix("base64url.bearer.authorization.k8s.io."))?;
    let bytes =
        base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(encoded.trim_end_matches('=')).ok()?;
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

/// `data[key]` of a Secret, decoded.
fn secret_text(secret: &Value, key: &str) -> Option<String> {
    use base64::Engine;
    let encoded = secret.get("data")?.get(key)?.as_str()?;
    let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).ok()?;
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bearer_tokens_are_taken_from_the_header() {
        let mut headers = HeaderMap::new();
        assert_eq!(bearer_token(&headers), None);
        headers.insert("authorization", "bearer  abc ".parse().expect("header"));
        assert_eq!(bearer_token(&headers), Some("abc".into()));
        headers.insert("authorization", "Basic abc".parse().expect("header"));
        assert_eq!(bearer_token(&headers), None);
        headers.remove("authorization");
        let protocols = "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.YWJj";
        headers.insert("sec-websocket-protocol", protocols.parse().expect("header"));
        assert_eq!(bearer_token(&headers), Some("abc".into()));
    }
}
