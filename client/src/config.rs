//! How a component reaches the API server: kubeconfig or in-cluster, its user agent, deadlines. Owns no connection of its
//! own beyond the `kube::Client` it returns and never retries on a caller's behalf.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::header::USER_AGENT;
use http::{HeaderValue, Uri};
use kube::client::ClientBuilder;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::bearer_token::BearerToken;
use crate::rate_limit::RateLimit;

/// The deadline for one ordinary API call (not a watch) unless the caller has a better one.
pub const CALL_DEADLINE: Duration = Duration::from_secs(30);

/// How long a TCP and TLS connection to the API server may take to open.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// Where the API server is and who we are.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    component: String,
    kubeconfig: Option<PathBuf>,
    master: Option<String>,
    limit: (f64, u32),
}

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig cannot be read or makes no sense.
    #[error("cannot use kubeconfig {path:?}; check the path and that it names a current-context")]
    Kubeconfig {
        /// The file given by `--kubeconfig`.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: kube::config::KubeconfigError,
    },
    /// No kubeconfig was given and this process does not run in a pod.
    #[error("no --kubeconfig was given and this is not a pod with a service account")]
    InCluster(#[source] kube::config::InClusterError),
    /// `--master` is not a URL.
    #[error("--master {url:?} is not a URL")]
    Master {
        /// The text given.
        url: String,
        /// What is wrong with it.
        #[source]
        source: http::uri::InvalidUri,
    },
    /// The certificates or keys in the kubeconfig do not load.
    #[error("cannot set up TLS to the API server from the kubeconfig's certificates")]
    Client(#[source] kube::Error),
}

impl ClientConfig {
    /// In-cluster settings for a component, such as `scheduler`.
    pub fn new(component: &str) -> Self {
        Self { component: component.to_owned(), kubeconfig: None, master: None, limit: (0.0, 0) }
    }

    /// Takes the address and the credentials from a kubeconfig file (`--kubeconfig`). An empty path means in-cluster.
    #[must_use]
    pub fn kubeconfig(mut self, path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        self.kubeconfig = (!path.as_os_str().is_empty()).then(|| path.to_owned());
        self
    }

    /// Overrides the kubeconfig's address (`--master`).
    #[must_use]
    pub fn master(mut self, url: Option<&str>) -> Self {
        self.master = url.filter(|url| !url.is_empty()).map(str::to_owned);
        self
    }

    /// Sends at most `per_second` requests a second beyond a burst (`--kube-api-qps`, `--kube-api-burst`); 0 or less means no
    /// limit, which is the default.
    #[must_use]
    pub fn rate_limit(mut self, per_second: f64, burst: u32) -> Self {
        self.limit = (per_second, burst);
        self
    }

    /// The user agent sent with each request, in upstream's shape: `scheduler/v0.1.0 (linux/x86_64)`.
    pub fn user_agent(&self) -> String {
        let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
        format!("{}/v{} ({os}/{arch})", self.component, env!("CARGO_PKG_VERSION"))
    }
}

/// Makes a client. Nothing is sent yet, so a server that is down is not an error here.
pub async fn connect(settings: &ClientConfig) -> Result<Client, ConnectError> {
    build(settings, load(settings).await?, &BearerToken::default())
}

/// The same for a client that shows a token and nothing of the kubeconfig's credentials.
pub async fn connect_with_token(
    settings: &ClientConfig,
    token: &BearerToken,
) -> Result<Client, ConnectError> {
    let mut config = load(settings).await?;
    config.auth_info = AuthInfo::default();
    build(settings, config, token)
}

fn build(settings: &ClientConfig, mut config: Config, token: &BearerToken) -> Result<Client, ConnectError> {
    if let Some(url) = &settings.master {
        config.cluster_url =
            url.parse::<Uri>().map_err(|source| ConnectError::Master { url: url.clone(), source })?;
    }
    config.connect_timeout = Some(CONNECT_DEADLINE);
    // The crate's own retries would hide from callers how long a call takes; our queues retry with backoff.
    config.default_retry = false;
    if let Ok(agent) = HeaderValue::from_str(&settings.user_agent()) {
        config.headers.push((USER_AGENT, agent));
    }
    let (per_second, burst) = settings.limit;
    let builder = ClientBuilder::try_from(config).map_err(ConnectError::Client)?;
    Ok(builder.with_layer(&RateLimit::new(per_second, burst)).with_layer(token).build())
}

/// What the kubeconfig or the pod says: for those who show its credentials to others than the API server.
///
/// # Errors
/// See [`ConnectError`].
pub async fn load(settings: &ClientConfig) -> Result<Config, ConnectError> {
    let Some(path) = &settings.kubeconfig else {
        return Config::incluster().map_err(ConnectError::InCluster);
    };
    let failed = |source| ConnectError::Kubeconfig { path: path.clone(), source };
    let kubeconfig = Kubeconfig::read_from(path).map_err(failed)?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(failed)
}

/// Gives a call a deadline; passing it is a [`kube::Error::Service`] that says so.
pub async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, kube::Error> {
    match tokio::time::timeout(limit, call).await {
        Ok(result) => result,
        Err(_) => Err(kube::Error::Service(
            format!("the API server did not answer within {} ms", limit.as_millis()).into(),
        )),
    }
}

/// The HTTP status code of an API error, if the server answered at all.
pub fn api_code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// An error in one readable line: the server's message, or what kept it from answering. (`kube`'s own text of an API error
/// repeats it as a debug dump.)
pub fn describe(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        kube::Error::Api(status) => format!("HTTP {} {}", status.code, status.reason),
        other => {
            let mut text = other.to_string();
            let mut source = std::error::Error::source(other);
            while let Some(cause) = source {
                let cause_text = cause.to_string();
                if !text.contains(&cause_text) {
                    text.push_str(": ");
                    text.push_str(&cause_text);
                }
                source = cause.source();
            }
            text
        }
    }
}

/// Whether the server said that the object does not exist.
pub fn is_not_found(error: &kube::Error) -> bool {
    api_code(error) == Some(404)
}

/// Whether the server refused because of a concurrent change or because the object exists already.
pub fn is_conflict(error: &kube::Error) -> bool {
    api_code(error) == Some(409)
}

/// The machine's host name, for identities and event sources.
pub fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_missing_kubeconfig_is_an_error_that_names_the_file() {
        let error = connect(&ClientConfig::new("test").kubeconfig("/nonexistent/kubeconfig")).await.err();
        assert!(error.expect("must fail").to_string().contains("/nonexistent/kubeconfig"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_never_answers_ends_at_its_deadline() {
        let never = std::future::pending::<Result<(), kube::Error>>();
        let error = within(Duration::from_millis(250), never).await.expect_err("must time out");
        assert!(error.to_string().contains("250 ms"), "{error}");
    }
}
