//! Finds out who sends a request: front proxy, client certificate, static token, ServiceAccount token, bootstrap token, token of an OpenID Connect provider,
//! token that a webhook knows, or nobody. Decides nothing about what they may do.

pub mod bootstrap_token;
pub mod certificate;
mod config;
pub mod impersonation;
mod legacy;
mod oidc;
pub mod service_account;
pub mod static_tokens;
mod webhook;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coracle_api::resource::{Resource, lookup};
use http::HeaderMap;
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::extension::kubeconfig::Remote;
use crate::extension::review::Version;
use crate::options::Options;
use crate::recent::Recent;
use crate::registry::Registry;
use crate::server::request_info::UserInfo;
use certificate::ClientCa;
use config::{Anonymous, Trusted};
use oidc::Provider;
use service_account::{Claims, TokenError, TokenKeys};
use static_tokens::StaticTokens;
use webhook::TokenWebhook;

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

/// Who a token belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The user.
    pub user: UserInfo,
    /// Those of the audiences asked for that the token is meant for.
    pub audiences: Vec<String>,
}

/// The fact about a user that names the credential.
const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

/// What a connection states about its client; the answers are found once.
#[derive(Debug, Default)]
pub struct Connection {
    /// The client's address.
    pub peer: Option<std::net::SocketAddr>,
    /// The client's certificates, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    client: ByBundle<Result<(UserInfo, i64), String>>,
    proxy: ByBundle<bool>,
}

/// What a CA's file, by the number of its content, says of a connection.
#[derive(Debug)]
struct ByBundle<T>(Mutex<Option<(u64, T)>>);

impl<T> Default for ByBundle<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> ByBundle<T> {
    /// Finds it out once for each content.
    fn get(&self, generation: u64, find_out: impl FnOnce() -> T) -> T {
        let mut known = self.0.lock();
        match &*known {
            Some((of, found)) if *of == generation => found.clone(),
            _ => known.insert((generation, find_out())).1.clone(),
        }
    }
}

impl Connection {
    /// Of a connection with these certificates.
    pub fn new(peer: Option<std::net::SocketAddr>, chain: Vec<CertificateDer<'static>>) -> Self {
        Self { peer, chain, ..Self::default() }
    }
}

struct FrontProxy {
    ca: Arc<ClientCa>,
    allowed_names: Vec<String>,
    username_headers: Vec<String>,
    uid_headers: Vec<String>,
    group_headers: Vec<String>,
    extra_prefixes: Vec<String>,
}

/// All authenticators.
pub struct Authenticator {
    client_ca: Option<Arc<ClientCa>>,
    front_proxy: Option<FrontProxy>,
    static_tokens: StaticTokens,
    /// Keys of ServiceAccount tokens, for issuing too.
    pub token_keys: Arc<TokenKeys>,
    audiences: Vec<String>,
    bootstrap_tokens: bool,
    /// Whether tokens of Secrets have to be those that the Secrets hold.
    look_up: bool,
    providers: Vec<Provider>,
    webhook: Option<TokenWebhook>,
    anonymous: Anonymous,
    registry: Arc<Registry>,
    verified: Recent<[u8; 32], Claims>,
}

impl Authenticator {
    /// Reads all files named by the flags.
    ///
    /// # Errors
    /// A text naming flag and file.
    pub fn new(options: &Options, registry: Arc<Registry>) -> Result<Self, String> {
        let client_ca = options
            .client_ca_file
            .as_deref()
            .map(|path| {
                ClientCa::load(path).map(Arc::new).map_err(|error| format!("--client-ca-file: {error}"))
            })
            .transpose()?;
        let front_proxy = match &options.requestheader_client_ca_file {
            None => None,
            Some(path) => Some(FrontProxy {
                ca: ClientCa::load(path)
                    .map(Arc::new)
                    .map_err(|error| format!("--requestheader-client-ca-file: {error}"))?,
                allowed_names: options.requestheader_allowed_names.clone(),
                username_headers: options.requestheader_username_headers.clone(),
                uid_headers: options.requestheader_uid_headers.clone(),
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
        let (issuers, anonymous) = config::of(options)?;
        let provider = |(jwt, algorithms): &Trusted| Provider::new(jwt, algorithms, &registry);
        let providers = issuers.iter().map(provider).collect::<Result<_, _>>();
        let providers = providers.map_err(|error| format!("--authentication-config, --oidc-*: {error}"))?;
        let webhook = match &options.authentication_token_webhook_config_file {
            None => None,
            Some(path) => {
                let version = &options.authentication_token_webhook_version;
                let version = Version::of(version).ok_or_else(|| {
                    format!("--authentication-token-webhook-version: {version:?} is neither v1 nor v1beta1")
                })?;
                let remote = Remote::load(path, &registry)
                    .map_err(|error| format!("--authentication-token-webhook-config-file: {error}"))?;
                let remember = options.authentication_token_webhook_cache_ttl.get();
                Some(TokenWebhook::new(remote, version, remember))
            }
        };
        Ok(Self {
            client_ca,
            front_proxy,
            static_tokens,
            token_keys: Arc::new(token_keys),
            audiences: options.audiences(),
            bootstrap_tokens: options.enable_bootstrap_token_auth,
            look_up: options.service_account_lookup,
            providers,
            webhook,
            anonymous,
            registry,
            verified: Recent::new(TOKENS_REMEMBERED_MAX),
        })
    }

    /// The CAs whose names the handshake offers.
    pub fn authorities(&self) -> Vec<Arc<ClientCa>> {
        let all = self.client_ca.iter().chain(self.front_proxy.iter().map(|proxy| &proxy.ca));
        all.map(Arc::clone).collect()
    }

    /// Who sends a request for this path with these headers on this connection.
    ///
    /// # Errors
    /// Bad credentials, or none where some are needed.
    pub async fn authenticate(
        &self,
        connection: &Connection,
        headers: &HeaderMap,
        path: &str,
    ) -> Result<UserInfo, AuthenticationError> {
        if let Some(user) = self.front_proxy_user(connection, headers) {
            return Ok(user);
        }
        let certificate = self.certificate_user(connection);
        if let Some(Ok(user)) = certificate {
            return Ok(user);
        }
        if let Some(token) = bearer_token(headers) {
            return self.token_user(&token, &self.audiences).await.map(|verified| verified.user);
        }
        match certificate {
            Some(Err(error)) => Err(AuthenticationError::Certificate(error)),
            _ if self.anonymous.allows(path) => Ok(UserInfo {
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
        let (generation, bundle) = ca.current();
        let verified = connection.client.get(generation, || {
            bundle.vouches_for(&connection.chain)?;
            let subject = component_base::tls::subject(&connection.chain[0]).map_err(|e| e.to_string())?;
            if subject.common_name.is_empty() {
                return Err("the certificate's subject has no common name".into());
            }
            let mut groups = subject.organizations;
            groups.push(AUTHENTICATED.into());
            let extra = BTreeMap::from([(CREDENTIAL_ID.to_owned(), vec![fingerprint(&connection.chain[0])])]);
            let user = UserInfo { name: subject.common_name, groups, extra, ..UserInfo::default() };
            Ok((user, subject.not_after))
        });
        Some(match verified {
            Ok((_, not_after)) if jiff::Timestamp::now().as_second() > not_after => {
                Err("the certificate has expired".into())
            }
            Ok((user, _)) => Ok(user),
            Err(error) => Err(error),
        })
    }

    fn front_proxy_user(&self, connection: &Connection, headers: &HeaderMap) -> Option<UserInfo> {
        let proxy = self.front_proxy.as_ref()?;
        if connection.chain.is_empty() {
            return None;
        }
        let (generation, bundle) = proxy.ca.current();
        let trusted = connection.proxy.get(generation, || {
            bundle.vouches_for(&connection.chain).is_ok()
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
        let uid = proxy.uid_headers.iter().flat_map(values).find(|uid| !uid.is_empty()).unwrap_or_default();
        Some(UserInfo { name, uid, groups, extra })
    }

    /// Who a bearer token belongs to that is meant for one of `audiences`. Also what TokenReview asks.
    ///
    /// # Errors
    /// [`AuthenticationError::Token`], with what each of those said who know tokens of this sort.
    pub async fn token_user(
        &self,
        token: &str,
        audiences: &[String],
    ) -> Result<Verified, AuthenticationError> {
        let now = jiff::Timestamp::now();
        // Tokens that say nothing of audiences are meant for this server.
        let ours: Vec<String> =
            audiences.iter().filter(|one| self.audiences.contains(one)).cloned().collect();
        let mut refusals = Vec::new();
        if !ours.is_empty()
            && let Some(found) = self.user_for_us(token, now).await
        {
            match found {
                Ok(mut user) => {
                    if !user.in_group(AUTHENTICATED) {
                        user.groups.push(AUTHENTICATED.into());
                    }
                    return Ok(Verified { user, audiences: ours });
                }
                Err(error) => refusals.push(error),
            }
        }
        match self.claims(token, audiences) {
            Ok(claims) => match self.bound_objects_exist(&claims) {
                Ok(()) => {
                    let found = claims.aud.list();
                    let audiences = audiences.iter().filter(|one| found.contains(one)).cloned().collect();
                    return Ok(Verified { user: service_account_user(&claims), audiences });
                }
                Err(error) => refusals.push(error),
            },
            Err(TokenError::NotOurs) => {}
            Err(error) => refusals.push(error.to_string()),
        }
        if let Some(webhook) = &self.webhook {
            match webhook.user(token, audiences, &self.audiences).await {
                Ok(mut verified) => {
                    if !verified.user.in_group(AUTHENTICATED) {
                        verified.user.groups.push(AUTHENTICATED.into());
                    }
                    return Ok(verified);
                }
                Err(error) => refusals.push(error),
            }
        }
        refusals.insert(0, "invalid bearer token".to_owned());
        Err(AuthenticationError::Token(match refusals.as_slice() {
            [one] => one.clone(),
            all => format!("[{}]", all.join(", ")),
        }))
    }

    /// The user of a token that says nothing of audiences; `None`: it is of another sort.
    async fn user_for_us(&self, token: &str, now: jiff::Timestamp) -> Option<Result<UserInfo, String>> {
        if let Some(user) = self.static_tokens.user(token) {
            return Some(Ok(user.clone()));
        }
        if self.bootstrap_tokens
            && let Some(user) = bootstrap_token::user(token, &self.registry.cache, now)
        {
            return Some(Ok(user));
        }
        match self.token_keys.verify_legacy(token) {
            Ok(claims) => return Some(self.legacy_user(&claims, token, now)),
            Err(TokenError::NotOurs) => {}
            Err(error) => return Some(Err(error.to_string())),
        }
        for provider in &self.providers {
            if let Some(found) = provider.user(token, now.as_second()).await {
                return Some(found);
            }
        }
        None
    }

    /// The account of a token that lives in a Secret, which notes that it was used.
    fn legacy_user(
        &self,
        claims: &legacy::LegacyClaims,
        token: &str,
        now: jiff::Timestamp,
    ) -> Result<UserInfo, String> {
        legacy::check(claims)?;
        if self.look_up {
            let known = |plural: &str, name: &str| {
                self.registry.cached(core(plural)?, &claims.namespace, name)?.value().ok()
            };
            let secret = known("secrets", &claims.secret);
            let account = known("serviceaccounts", &claims.account);
            legacy::look_up(claims, token, secret.as_ref(), account.as_ref())?;
            if let Some(day) = secret.and_then(|secret| legacy::day_to_note(&secret, now)) {
                self.note_use(claims, day);
            }
        }
        Ok(account_user(&claims.sub, &claims.uid, &claims.namespace, BTreeMap::new()))
    }

    fn note_use(&self, claims: &legacy::LegacyClaims, day: String) {
        let (registry, claims) = (Arc::clone(&self.registry), claims.clone());
        tokio::spawn(async move {
            let Some(secrets) = core("secrets") else { return };
            let note = |secret: &Value| {
                let mut noted = secret.clone();
                noted["metadata"]["labels"][legacy::LAST_USED] = day.as_str().into();
                Ok(noted)
            };
            let noted = registry.guaranteed_update(secrets, &claims.namespace, &claims.secret, &note).await;
            if let Err(error) = noted {
                tracing::warn!(%error, secret = claims.secret, "could not note that a token was used");
            }
        });
    }

    fn claims(&self, token: &str, audiences: &[String]) -> Result<Claims, TokenError> {
        let now = jiff::Timestamp::now().as_second();
        let ours = audiences == self.audiences;
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if ours
            && let Some(claims) = self.verified.get(&digest)
            && claims.exp > now
        {
            return Ok(claims);
        }
        let claims = self.token_keys.verify(token, audiences, now)?;
        if ours {
            self.verified.put(digest, claims.clone(), TOKEN_MEMORY);
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
                self.registry.cached(resource, namespace, &bound.name).and_then(|object| object.value().ok());
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
        extra.insert(CREDENTIAL_ID.to_owned(), vec![format!("JTI={}", claims.jti)]);
    }
    account_user(&claims.sub, &binding.serviceaccount.uid, &binding.namespace, extra)
}

fn account_user(name: &str, uid: &str, namespace: &str, extra: BTreeMap<String, Vec<String>>) -> UserInfo {
    let groups = vec![
        "system:serviceaccounts".into(),
        format!("system:serviceaccounts:{namespace}"),
        AUTHENTICATED.into(),
    ];
    UserInfo { name: name.to_owned(), uid: uid.to_owned(), groups, extra }
}

/// What a certificate is called as a credential.
fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let digest = Sha256::digest(certificate);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("X509SHA256={hex}")
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
