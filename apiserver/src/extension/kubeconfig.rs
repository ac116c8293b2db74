//! A server outside the cluster that a kubeconfig file names, to which questions are posted: webhooks that authenticate, authorize and audit. What is asked, and
//! what answers mean, belongs to the callers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderValue;
use serde::Deserialize;
use serde_json::Value;

use super::Endpoint;
use super::client::Clients;
use super::tls::{Identity, Trust};
use crate::registry::Registry;

/// How often a question is asked that nobody answers.
const ATTEMPTS_MAX: u32 = 5;
const BACKOFF_FIRST: Duration = Duration::from_millis(500);

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    users: Vec<NamedUser>,
    #[serde(default)]
    contexts: Vec<NamedContext>,
    #[serde(default)]
    current_context: String,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
    // What would change where connections go, or whom they trust.
    tls_server_name: Option<String>,
    proxy_url: Option<String>,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    #[serde(default)]
    user: User,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct User {
    client_certificate: Option<PathBuf>,
    client_key: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    username: Option<String>,
    password: Option<String>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    #[serde(default)]
    user: String,
}

/// A server, and what is shown to it.
pub struct Remote {
    clients: Clients,
    endpoint: Endpoint,
}

impl Remote {
    /// Of a kubeconfig file. Paths in it start from where it is.
    ///
    /// # Errors
    /// A text naming the file.
    pub fn load(path: &Path, registry: &Arc<Registry>) -> Result<Self, String> {
        let named = |error: String| format!("{}: {error}", path.display());
        let text =
            std::fs::read_to_string(path).map_err(|error| named(format!("cannot read it: {error}")))?;
        let file: File = serde_yaml_ng::from_str(&text).map_err(|error| named(error.to_string()))?;
        let base = path.parent().unwrap_or(Path::new("."));
        let (cluster, user) = chosen(&file).map_err(named)?;
        let trust = trust(cluster, base).map_err(named)?;
        let endpoint = Endpoint::of_url(&cluster.server, trust).map_err(named)?;
        let identity = identity(&user, base).map_err(named)?;
        // What cannot be used is told at the start and not with every question.
        endpoint.trust.client(identity.as_ref()).map_err(named)?;
        let authorization = authorization(&user, base).map_err(named)?;
        let clients = Clients::new(Arc::clone(registry), identity).with_authorization(authorization);
        Ok(Self { clients, endpoint })
    }

    /// Posts JSON once and reads the answer, all within `patience`.
    ///
    /// # Errors
    /// Why there is no good answer.
    pub async fn post(&self, body: Bytes, patience: Duration) -> Result<Bytes, String> {
        self.clients.post(&self.endpoint, body, patience).await
    }

    /// Posts a question and reads the answer; while nobody answers it is posted again, all within `patience`.
    ///
    /// # Errors
    /// Why there is no good answer.
    pub async fn ask(&self, question: &Value, patience: Duration) -> Result<Value, String> {
        let body = Bytes::from(serde_json::to_vec(question).map_err(|error| error.to_string())?);
        let end = tokio::time::Instant::now() + patience;
        let mut pause = BACKOFF_FIRST;
        for attempt in 1.. {
            let left = end.saturating_duration_since(tokio::time::Instant::now());
            match self.clients.try_post(&self.endpoint, body.clone(), left).await {
                Ok(answer) => {
                    return serde_json::from_slice(&answer)
                        .map_err(|error| format!("couldn't get version/kind; json parse error: {error}"));
                }
                Err(failure) if !failure.may_pass || attempt >= ATTEMPTS_MAX || pause >= left => {
                    return Err(failure.text);
                }
                Err(_) => tokio::time::sleep(pause).await,
            }
            pause = pause.mul_f64(1.5);
        }
        Err("there is no answer".to_owned())
    }
}

fn chosen(file: &File) -> Result<(&Cluster, User), String> {
    let context = file.contexts.iter().find(|one| one.name == file.current_context);
    let context = &context
        .ok_or_else(|| format!("context {:?} does not exist (current-context)", file.current_context))?
        .context;
    let cluster = file.clusters.iter().find(|one| one.name == context.cluster);
    let cluster = cluster.ok_or_else(|| format!("cluster {:?} does not exist", context.cluster))?;
    let unknown = [
        ("tls-server-name", cluster.cluster.tls_server_name.is_some()),
        ("proxy-url", cluster.cluster.proxy_url.is_some()),
    ];
    if let Some((field, _)) = unknown.iter().find(|(_, is_given)| *is_given) {
        return Err(format!(
            "cluster {:?}: {field} is not implemented by Coracle; leave it out",
            context.cluster
        ));
    }
    let user = file.users.iter().find(|one| one.name == context.user).map(|one| one.user.clone());
    Ok((&cluster.cluster, user.unwrap_or_default()))
}

fn trust(cluster: &Cluster, base: &Path) -> Result<Trust, String> {
    if cluster.insecure_skip_tls_verify {
        return Ok(Trust::Anyone);
    }
    match (&cluster.certificate_authority_data, &cluster.certificate_authority) {
        (Some(data), _) => Trust::of_bundle(data),
        (None, Some(path)) => Trust::of_file(&base.join(path)),
        (None, None) => Ok(Trust::System),
    }
}

/// What is in the file itself counts for more than what it names.
fn identity(user: &User, base: &Path) -> Result<Option<Identity>, String> {
    let decoded = |what: &str, data: &String| {
        STANDARD.decode(data).map_err(|error| format!("{what}: it is no base64: {error}"))
    };
    let cert = user.client_certificate_data.as_ref().map(|data| decoded("client-certificate-data", data));
    let key = user.client_key_data.as_ref().map(|data| decoded("client-key-data", data));
    if let (Some(cert), Some(key)) = (cert, key) {
        return Ok(Some(Identity::Pem { cert: cert?, key: key? }));
    }
    match (&user.client_certificate, &user.client_key) {
        (Some(cert), Some(key)) => Ok(Some(Identity::Files { cert: base.join(cert), key: base.join(key) })),
        (None, None) if user.client_certificate_data.is_none() && user.client_key_data.is_none() => Ok(None),
        _ => Err("a client certificate and its key have to be given together, both as files or both as data"
            .to_owned()),
    }
}

fn authorization(user: &User, base: &Path) -> Result<Option<HeaderValue>, String> {
    let token = match (&user.token, &user.token_file) {
        (Some(token), _) => Some(token.clone()),
        (None, Some(path)) => Some(
            std::fs::read_to_string(base.join(path))
                .map_err(|error| format!("tokenFile: {error}"))?
                .trim()
                .to_owned(),
        ),
        (None, None) => None,
    };
    let text = match (token, &user.username) {
        (Some(token), _) => format!("Bearer {token}"),
        (None, Some(name)) => {
            let password = user.password.as_deref().unwrap_or_default();
            format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))
        }
        (None, None) => return Ok(None),
    };
    let mut value = HeaderValue::from_str(&text).map_err(|error| error.to_string())?;
    value.set_sensitive(true);
    Ok(Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_current_context_names_the_server_and_what_it_is_shown() {
        let text = "
current-context: b
clusters: [{name: c, cluster: {server: 'https://h/x', insecure-skip-tls-verify: true}}]
users: [{name: u, user: {username: me, password: pass}}]
contexts: [{name: b, context: {cluster: c, user: u}}]
";
        let mut file: File = serde_yaml_ng::from_str(text).expect("reads");
        let (cluster, user) = chosen(&file).expect("is there");
        assert_eq!(trust(cluster, Path::new(".")), Ok(Trust::Anyone));
        let shown = authorization(&user, Path::new(".")).expect("makes sense").expect("something");
        assert_eq!(shown, "Basic bWU6cGFzcw==");
        file.clusters[0].cluster.proxy_url = Some("http://p".to_owned());
        assert!(chosen(&file).is_err_and(|error| error.contains("proxy-url is not implemented")));
        file.current_context = "z".to_owned();
        assert!(chosen(&file).is_err_and(|error| error.contains("\"z\"")));
    }

    #[test]
    fn a_certificate_to_show_is_in_files_or_in_the_file_itself() {
        let user = |text: &str| serde_yaml_ng::from_str::<User>(text).expect("reads");
        let identity = |text: &str| identity(&user(text), Path::new("/etc"));
        assert!(matches!(identity("{token: t}"), Ok(None)));
        let files = identity("{client-certificate: a.crt, client-key: /b.key}");
        assert!(matches!(
            files,
            Ok(Some(Identity::Files { cert, key })) if cert == Path::new("/etc/a.crt") && key == Path::new("/b.key")
        ));
        let data = "client-certificate-data: YQ==, client-key-data: Yg==";
        for text in [format!("{{{data}}}"), format!("{{{data}, client-certificate: a, client-key: b}}")] {
            let data = identity(&text);
            assert!(matches!(data, Ok(Some(Identity::Pem { cert, key })) if cert == b"a" && key == b"b"));
        }
        assert!(identity("{client-certificate: a}").is_err_and(|error| error.contains("together")));
        let bad = identity("{client-certificate-data: '%', client-key-data: Yg==}");
        assert!(bad.is_err_and(|error| error.contains("client-certificate-data")));
    }
}
