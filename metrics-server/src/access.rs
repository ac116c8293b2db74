//! Who asks, and whether they may, as the API server decides it: users that its front proxy names, client certificates, reviewed tokens; then a
//! review of the access. Whom to trust is read from the ConfigMap that the API server publishes for servers like this one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use component_base::tls;
use coracle_api::status::ApiError;
use coracle_client::delegated::{Recent, is_allowed, owner_of_token};
use coracle_client::informer::Informer;
use http::HeaderMap;
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, ResourceAttributes, SubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};
use parking_lot::RwLock;
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use tokio_util::sync::CancellationToken;

use crate::answers::{GROUP, Target, VERSION};

/// How long an answer of the API server holds, as upstream.
const REMEMBERED: Duration = Duration::from_secs(10);
const CONFIG_NAMESPACE: &str = "kube-system";
const CONFIG_NAME: &str = "extension-apiserver-authentication";
/// Served to everyone, as upstream.
const OPEN_PATHS: [&str; 3] = ["/healthz", "/livez", "/readyz"];
const MASTERS: &str = "system:masters";

/// A user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct User {
    name: String,
    uid: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

/// Whom to trust, as the ConfigMap says.
pub struct Trust {
    /// The authorities of both kinds of certificates together, for the handshake.
    pub roots: Arc<RootCertStore>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
    front_proxies: Option<Arc<dyn ClientCertVerifier>>,
    /// Empty: any name.
    allowed_names: Vec<String>,
    user_headers: Vec<String>,
    uid_headers: Vec<String>,
    group_headers: Vec<String>,
    extra_prefixes: Vec<String>,
}

impl Trust {
    fn of(config: &ConfigMap) -> Self {
        let text = |key: &str| config.data.as_ref().and_then(|data| data.get(key)).map_or("", String::as_str);
        let list = |key: &str| serde_json::from_str::<Vec<String>>(text(key)).unwrap_or_default();
        let (clients, front_proxies) =
            (roots(text("client-ca-file")), roots(text("requestheader-client-ca-file")));
        let mut all = RootCertStore::empty();
        all.extend(clients.roots.iter().chain(&front_proxies.roots).cloned());
        let verifier = |roots: RootCertStore| -> Option<Arc<dyn ClientCertVerifier>> {
            WebPkiClientVerifier::builder(Arc::new(roots)).build().ok().map(|verifier| verifier as _)
        };
        Self {
            roots: Arc::new(all),
            clients: verifier(clients),
            front_proxies: verifier(front_proxies),
            allowed_names: list("requestheader-allowed-names"),
            user_headers: list("requestheader-username-headers"),
            uid_headers: list("requestheader-uid-headers"),
            group_headers: list("requestheader-group-headers"),
            extra_prefixes: list("requestheader-extra-headers-prefix"),
        }
    }

    /// What a client's certificates make it: a front proxy, a user, or nobody.
    fn peer(&self, chain: &[CertificateDer<'static>]) -> Peer {
        let Some((leaf, rest)) = chain.split_first() else { return Peer::Nobody };
        let Ok(subject) = tls::subject(leaf) else { return Peer::Nobody };
        let signed_by = |verifier: &Option<Arc<dyn ClientCertVerifier>>| {
            verifier.as_ref().is_some_and(|one| one.verify_client_cert(leaf, rest, UnixTime::now()).is_ok())
        };
        let is_allowed = self.allowed_names.is_empty() || self.allowed_names.contains(&subject.common_name);
        if is_allowed && signed_by(&self.front_proxies) {
            return Peer::FrontProxy;
        }
        if signed_by(&self.clients) {
            let user = User { name: subject.common_name, groups: subject.organizations, ..User::default() };
            return Peer::User(user);
        }
        Peer::Nobody
    }

    /// The user that a front proxy names.
    fn named(&self, headers: &HeaderMap) -> Option<User> {
        let all = |names: &[String]| -> Vec<String> {
            let values = names.iter().flat_map(|name| headers.get_all(name.as_str()));
            values.filter_map(|value| value.to_str().ok()).map(str::to_owned).collect()
        };
        let first = |names: &[String]| all(names).into_iter().find(|value| !value.is_empty());
        let name = first(&self.user_headers)?;
        let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (header, value) in headers {
            let key = self
                .extra_prefixes
                .iter()
                .find_map(|prefix| header.as_str().strip_prefix(prefix.to_ascii_lowercase().as_str()));
            if let (Some(key), Ok(value)) = (key, value.to_str()) {
                // The key was escaped, as it may hold what a header's name may not.
                let key = decoded(key);
                extra.entry(key).or_default().push(value.to_owned());
            }
        }
        let uid = first(&self.uid_headers).unwrap_or_default();
        Some(User { name, uid, groups: all(&self.group_headers), extra })
    }
}

fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut index) = (Vec::with_capacity(bytes.len()), 0);
    while index < bytes.len() {
        let hex = (bytes[index] == b'%').then(|| text.get(index + 1..index + 3)).flatten();
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                index += 3;
            }
            None => {
                out.push(bytes[index]);
                index += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn roots(pem: &str) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for certificate in rustls_pemfile::certs(&mut pem.as_bytes()).flatten() {
        if let Err(error) = roots.add(certificate) {
            tracing::warn!(%error, "an authority in {CONFIG_NAMESPACE}/{CONFIG_NAME} cannot be used");
        }
    }
    roots
}

#[derive(Debug, PartialEq)]
enum Peer {
    FrontProxy,
    User(User),
    Nobody,
}

/// Who wants to do what.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Question {
    Metrics { user: User, verb: &'static str, resource: String, namespace: String, name: String },
    Path { user: User, verb: String, path: String },
}

/// Decides about requests.
pub struct Access {
    reviewer: Client,
    judge: Client,
    trust: Arc<RwLock<Arc<Trust>>>,
    tokens: Recent<String, Option<User>>,
    decisions: Recent<Question, bool>,
}

impl Access {
    /// Begins to follow the ConfigMap; returns when it has been read, or is known not to be there.
    pub async fn start(reviewer: Client, judge: Client, stop: &CancellationToken) -> Self {
        let trust = Arc::new(RwLock::new(Arc::new(Trust::of(&ConfigMap::default()))));
        let configs = Informer::<ConfigMap>::builder(Api::namespaced(reviewer.clone(), CONFIG_NAMESPACE))
            .fields(&format!("metadata.name={CONFIG_NAME}"))
            .start(stop);
        let followed = Arc::clone(&trust);
        configs.on_change(move |change| {
            *followed.write() = Arc::new(Trust::of(change.object()));
        });
        tokio::select! {
            () = configs.wait_synced() => {}
            () = stop.cancelled() => {}
        }
        Self { reviewer, judge, trust, tokens: Recent::default(), decisions: Recent::default() }
    }

    /// Whom to trust now.
    pub fn trust(&self) -> Arc<Trust> {
        Arc::clone(&self.trust.read())
    }

    /// Lets a request pass or says why not. `target` is set for metrics.
    ///
    /// # Errors
    /// 401 for who is not known, 403 for who may not, 500 if the API server cannot be asked.
    pub async fn check(
        &self,
        chain: &[CertificateDer<'static>],
        headers: &HeaderMap,
        verb: &'static str,
        path: &str,
        target: Option<&Target>,
    ) -> Result<(), ApiError> {
        if OPEN_PATHS.contains(&path) {
            return Ok(());
        }
        let user = self.user(chain, headers).await?;
        if user.groups.iter().any(|group| group == MASTERS) {
            return Ok(());
        }
        let question = match target {
            Some(target) => Question::Metrics {
                user: user.clone(),
                verb,
                resource: target.resource.clone(),
                namespace: target.namespace.clone(),
                name: target.name.clone(),
            },
            None => Question::Path { user: user.clone(), verb: verb.to_owned(), path: path.to_owned() },
        };
        if self.may(question).await? {
            return Ok(());
        }
        Err(match target {
            Some(target) => {
                let at = match target.namespace.as_str() {
                    "" => "at the cluster scope".to_owned(),
                    namespace => format!("in the namespace {namespace:?}"),
                };
                let text = format!(
                    "User {:?} cannot {verb} resource {:?} in API group {GROUP:?} {at}",
                    user.name, target.resource
                );
                ApiError::forbidden(target.group_resource(), &target.name, text)
            }
            None => {
                let text = format!("forbidden: User {:?} cannot {verb} path {path:?}", user.name);
                ApiError::new(403, "Forbidden", text)
            }
        })
    }

    async fn user(&self, chain: &[CertificateDer<'static>], headers: &HeaderMap) -> Result<User, ApiError> {
        let trust = self.trust();
        let authenticated = |mut user: User| {
            let group = "system:authenticated";
            if !user.groups.iter().any(|known| known == group) {
                user.groups.push(group.to_owned());
            }
            user
        };
        match trust.peer(chain) {
            Peer::FrontProxy => {
                if let Some(user) = trust.named(headers) {
                    // The front proxy has said of each user whether it is authenticated.
                    return Ok(user);
                }
            }
            Peer::User(user) => return Ok(authenticated(user)),
            Peer::Nobody => {}
        }
        match bearer(headers) {
            Some(token) => self.review(token).await?.map(authenticated).ok_or_else(ApiError::unauthorized),
            None => Ok(User {
                name: "system:anonymous".into(),
                groups: vec!["system:unauthenticated".into()],
                ..User::default()
            }),
        }
    }

    async fn review(&self, token: &str) -> Result<Option<User>, ApiError> {
        if let Some(user) = self.tokens.get(token) {
            return Ok(user);
        }
        let owner = owner_of_token(&self.reviewer, token).await;
        let user = owner.map_err(|error| failed("have a token reviewed", &error))?.map(|user| User {
            name: user.username.unwrap_or_default(),
            uid: user.uid.unwrap_or_default(),
            groups: user.groups.unwrap_or_default(),
            extra: user.extra.unwrap_or_default(),
        });
        self.tokens.insert(token.to_owned(), user.clone(), REMEMBERED);
        Ok(user)
    }

    async fn may(&self, question: Question) -> Result<bool, ApiError> {
        if let Some(allowed) = self.decisions.get(&question) {
            return Ok(allowed);
        }
        let answer = is_allowed(&self.judge, asked(&question)).await;
        let allowed = answer.map_err(|error| failed("ask whether a user may", &error))?;
        self.decisions.insert(question, allowed, REMEMBERED);
        Ok(allowed)
    }
}

fn asked(question: &Question) -> SubjectAccessReviewSpec {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let (Question::Metrics { user, .. } | Question::Path { user, .. }) = question;
    let mut spec = SubjectAccessReviewSpec {
        user: some(&user.name),
        uid: some(&user.uid),
        groups: Some(user.groups.clone()),
        extra: Some(user.extra.clone()),
        ..SubjectAccessReviewSpec::default()
    };
    match question {
        Question::Metrics { verb, resource, namespace, name, .. } => {
            spec.resource_attributes = Some(ResourceAttributes {
                verb: some(verb),
                group: some(GROUP),
                version: some(VERSION),
                resource: some(resource),
                namespace: some(namespace),
                name: some(name),
                ..ResourceAttributes::default()
            });
        }
        Question::Path { verb, path, .. } => {
            spec.non_resource_attributes = Some(NonResourceAttributes { path: some(path), verb: some(verb) });
        }
    }
    spec
}

fn failed(what: &str, error: &kube::Error) -> ApiError {
    let error = coracle_client::config::describe(error);
    tracing::warn!(error, "cannot {what}; is this user bound to system:auth-delegator?");
    ApiError::internal(format!("cannot {what}: {error}"))
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

    use super::*;

    fn authority() -> (Issuer<'static, KeyPair>, String) {
        let key = KeyPair::generate().expect("key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("certificate").pem();
        (Issuer::new(params, key), certificate)
    }

    fn leaf(issuer: &Issuer<'static, KeyPair>, name: &str) -> Vec<CertificateDer<'static>> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("key");
        vec![params.signed_by(&key, issuer).expect("certificate").der().clone()]
    }

    #[test]
    fn only_the_front_proxy_may_name_users() {
        tls::install_provider();
        let ((clients, client_ca), (proxies, proxy_ca)) = (authority(), authority());
        let data = [
            ("client-ca-file", client_ca.as_str()),
            ("requestheader-client-ca-file", &proxy_ca),
            ("requestheader-allowed-names", r#"["front"]"#),
            ("requestheader-username-headers", r#"["X-Remote-User"]"#),
            ("requestheader-group-headers", r#"["X-Remote-Group"]"#),
            ("requestheader-extra-headers-prefix", r#"["X-Remote-Extra-"]"#),
        ];
        let data = data.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let trust = Trust::of(&ConfigMap { data: Some(data), ..ConfigMap::default() });
        assert_eq!(trust.roots.len(), 2);
        assert_eq!(trust.peer(&leaf(&proxies, "front")), Peer::FrontProxy);
        assert_eq!(trust.peer(&leaf(&proxies, "other")), Peer::Nobody);
        let front = User { name: "front".into(), ..User::default() };
        assert_eq!(trust.peer(&leaf(&clients, "front")), Peer::User(front), "a user of that name is a user");
        assert_eq!(trust.peer(&leaf(&authority().0, "front")), Peer::Nobody);
        assert_eq!(trust.peer(&[]), Peer::Nobody);

        let mut headers = HeaderMap::new();
        headers.append("x-remote-user", "me".parse().expect("value"));
        headers.append("x-remote-group", "a".parse().expect("value"));
        headers.append("x-remote-group", "b".parse().expect("value"));
        headers.append("x-remote-extra-example.com%2fkey", "1".parse().expect("value"));
        let user = trust.named(&headers).expect("a user");
        assert_eq!(
            (user.name.as_str(), user.groups.len(), &user.extra["example.com/key"][0]),
            ("me", 2, &"1".to_owned())
        );
        assert_eq!(trust.named(&HeaderMap::new()), None);
        let none = Trust::of(&ConfigMap::default());
        assert_eq!(
            none.peer(&leaf(&proxies, "front")),
            Peer::Nobody,
            "without the ConfigMap nobody is trusted"
        );
    }
}
