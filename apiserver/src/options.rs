//! The command line: upstream's flags for what is implemented, checked for what belongs together. Opens no file.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{ArgAction, Parser};
use component_base::duration::GoDuration;
use component_base::feature_gates::{FeatureGates, Program};
use component_base::flags::LogFlags;
use component_base::sni::NamedCertificate;
use component_base::tls_protocols::TlsProtocolFlags;

use crate::audit::options::AuditOptions;
use runtime_config::RuntimeConfig;

pub mod admission;
mod egress;
pub mod runtime_config;
mod services;
mod serving;
mod storage;
mod tokens;

/// Upstream flags without a setting here: `docs/flags.md` says which of them are accepted without effect and which are refused.
pub const NOT_IMPLEMENTED: &[&str] = &[
    "aggregator-reject-forwarding-redirect",
    "allow-metric-labels",
    "allow-metric-labels-manifest",
    "apiserver-count",
    "audit-log-batch-throttle-burst",
    "audit-log-batch-throttle-enable",
    "audit-log-batch-throttle-qps",
    "cloud-config",
    "cloud-provider",
    "contention-profiling",
    "coordinated-leadership-lease-duration",
    "coordinated-leadership-renew-deadline",
    "coordinated-leadership-retry-period",
    "debug-socket-path",
    "delete-collection-workers",
    "disabled-metrics",
    "emulated-version",
    "emulation-forward-compatible",
    "enable-garbage-collector",
    "enable-logs-handler",
    "etcd-count-metric-poll-period",
    "etcd-db-metric-poll-interval",
    "etcd-servers-overrides",
    "identity-lease-duration-seconds",
    "identity-lease-renew-interval-seconds",
    "kubelet-port",
    "kubelet-read-only-port",
    "kubernetes-service-node-port",
    "lease-reuse-duration-seconds",
    "livez-grace-period",
    "log-flush-frequency",
    "log-json-info-buffer-size",
    "log-json-split-stream",
    "log-text-info-buffer-size",
    "log-text-split-stream",
    "max-connection-bytes-per-sec",
    "min-compatibility-version",
    "peer-advertise-ip",
    "peer-advertise-port",
    "peer-ca-file",
    "profiling",
    "runtime-config-emulation-forward-compatible",
    "service-account-signing-endpoint",
    "show-hidden-metrics-for-version",
    "shutdown-watch-termination-grace-period",
    "storage-initialization-timeout",
    "tracing-config-file",
    "vmodule",
];

/// The flags of kube-apiserver that Coracle honours.
#[derive(Parser, Clone, Debug)]
#[command(name = "apiserver", version, about = "Serves the Kubernetes API (level v1.35) over etcd v3.")]
pub struct Options {
    /// The address other components reach this server at; none is --bind-address, and if that is any address, the host's own on its default route.
    #[arg(long, help_heading = "Serving")]
    pub advertise_address: Option<IpAddr>,
    /// The address to listen on.
    #[arg(long, default_value = "0.0.0.0", help_heading = "Serving")]
    pub bind_address: IpAddr,
    /// The port for HTTPS; 0 lets the system choose.
    #[arg(long, default_value_t = 6443, help_heading = "Serving")]
    pub secure_port: u16,
    /// Serving certificate chain, PEM; without one a self-signed pair is made in --cert-dir. Replaced files are served without a restart.
    #[arg(long, help_heading = "Serving")]
    pub tls_cert_file: Option<PathBuf>,
    /// Key of --tls-cert-file, PEM.
    #[arg(long, help_heading = "Serving")]
    pub tls_private_key_file: Option<PathBuf>,
    /// Let requests wait and go by FlowSchemas and PriorityLevelConfigurations, which share the sum of the two limits below.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true, help_heading = "Serving")]
    pub enable_priority_and_fairness: bool,
    /// Requests that may be in work at a time, read-only ones; 0 is no limit. Watches do not count.
    #[arg(long, default_value_t = 400, help_heading = "Serving")]
    pub max_requests_inflight: usize,
    /// The directory of the pair apiserver.crt and apiserver.key, which is made if it is not there and counts if --tls-cert-file is not given.
    #[arg(long, default_value = "/var/run/kubernetes", help_heading = "Serving")]
    pub cert_dir: PathBuf,
    /// The name, with a port if it is another one, that this server is known by outside: in discovery and for the public keys of ServiceAccount tokens.
    #[arg(long, default_value = "", help_heading = "Serving")]
    pub external_hostname: String,
    /// Regular expressions of web pages' origins (scheme, host and port) that may use this server.
    #[arg(long, value_delimiter = ',', help_heading = "Serving")]
    pub cors_allowed_origins: Vec<String>,
    /// A file of kind EgressSelectorConfiguration; connections are made directly, and nothing else is implemented.
    #[arg(long, help_heading = "Serving")]
    pub egress_selector_config_file: Option<PathBuf>,
    /// Requests that may be in work at a time, changing ones; 0 is no limit.
    #[arg(long, default_value_t = 200, help_heading = "Serving")]
    pub max_mutating_requests_inflight: usize,
    /// How long a request may take, watches aside.
    #[arg(long, default_value = "1m0s", help_heading = "Serving")]
    pub request_timeout: GoDuration,
    /// How many seconds a watch without timeoutSeconds lasts at least (the most is twice this).
    #[arg(long, default_value_t = 1800, help_heading = "Serving")]
    pub min_request_timeout: u64,
    /// How long the server goes on serving, not ready, after a termination signal.
    #[arg(long, default_value = "0s", help_heading = "Serving")]
    pub shutdown_delay_duration: GoDuration,
    /// Answer 429 with Retry-After to new requests while the server ends, until the requests in work are done; otherwise the port is closed at once.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, help_heading = "Serving")]
    pub shutdown_send_retry_after: bool,
    /// The fraction of HTTP/2 requests after which the connection is ended (GOAWAY), 0 to 0.02.
    #[arg(long, default_value_t = 0.0, help_heading = "Serving")]
    pub goaway_chance: f64,
    /// Serve HTTP/1.1 only.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, help_heading = "Serving")]
    pub disable_http2_serving: bool,
    /// Requests of one HTTP/2 connection that may be in work at a time; 0 is 1000.
    #[arg(long, default_value_t = 0, help_heading = "Serving")]
    pub http2_max_streams_per_connection: u32,
    /// The directives of the header Strict-Transport-Security; without any it is not sent.
    #[arg(long, value_delimiter = ',', help_heading = "Serving")]
    pub strict_transport_security_directives: Vec<String>,
    /// Let other processes listen on the same address and port (SO_REUSEPORT).
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, help_heading = "Serving")]
    pub permit_port_sharing: bool,
    /// Bind the port although connections of an earlier process linger (SO_REUSEADDR); as in Go, that is done either way.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, help_heading = "Serving")]
    pub permit_address_sharing: bool,
    /// Further certificates by server name: `CERT,KEY` or `CERT,KEY:NAME,*.DOMAIN`.
    #[arg(long, value_delimiter = ';', help_heading = "Serving")]
    pub tls_sni_cert_key: Vec<NamedCertificate>,
    /// Versions and cipher suites of TLS.
    #[command(flatten)]
    pub tls: TlsProtocolFlags,

    /// Endpoints of etcd, comma-separated; the first that answers is used.
    #[arg(long, value_delimiter = ',', required = true, help_heading = "Storage")]
    pub etcd_servers: Vec<String>,
    /// CA that etcd's serving certificates are checked against.
    #[arg(long, help_heading = "Storage")]
    pub etcd_cafile: Option<PathBuf>,
    /// Client certificate for etcd.
    #[arg(long, help_heading = "Storage")]
    pub etcd_certfile: Option<PathBuf>,
    /// Key of --etcd-certfile.
    #[arg(long, help_heading = "Storage")]
    pub etcd_keyfile: Option<PathBuf>,
    /// What all keys begin with.
    #[arg(long, default_value = "/registry", help_heading = "Storage")]
    pub etcd_prefix: String,
    /// Which resources are sealed with which keys in etcd: a file of kind EncryptionConfiguration (aesgcm, aescbc, secretbox, identity).
    #[arg(long, help_heading = "Storage")]
    pub encryption_provider_config: Option<PathBuf>,
    /// Take what a replaced --encryption-provider-config says without a restart; what makes no sense changes nothing.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, help_heading = "Storage")]
    pub encryption_provider_config_automatic_reload: bool,
    /// How long etcd may take to answer for this server to count as healthy.
    #[arg(long, default_value = "2s", help_heading = "Storage")]
    pub etcd_healthcheck_timeout: GoDuration,
    /// How long etcd may take to answer for this server to count as ready.
    #[arg(long, default_value = "2s", help_heading = "Storage")]
    pub etcd_readycheck_timeout: GoDuration,
    /// How often etcd's history is compacted to what was current one interval ago; 0 is never.
    #[arg(long, default_value = "5m0s", help_heading = "Storage")]
    pub etcd_compaction_interval: GoDuration,
    /// `etcd3`, the only backend there is.
    #[arg(long, default_value = "etcd3", value_parser = ["etcd3"], help_heading = "Storage")]
    pub storage_backend: String,
    /// The form objects are stored in. They are stored as JSON whichever is named: servers that ask for protobuf read that too.
    #[arg(long, default_value = "application/json", value_parser = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"], help_heading = "Storage")]
    pub storage_media_type: String,
    /// How long events are kept.
    #[arg(long, default_value = "1h0m0s", help_heading = "Storage")]
    pub event_ttl: GoDuration,
    /// Whether reads and watches are served from memory; only `true` is implemented.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true, help_heading = "Storage")]
    pub watch_cache: bool,
    /// How many recent events each resource keeps at least for watches that resume (upstream no longer uses the flag).
    #[arg(long, default_value_t = 100, help_heading = "Storage")]
    pub default_watch_cache_size: usize,
    /// `resource[.group]#size`: any size but 0 means what is so anyway, that the resource is served from memory; 0 is not implemented.
    #[arg(long, value_delimiter = ',', help_heading = "Storage")]
    pub watch_cache_sizes: Vec<String>,

    /// Whether requests without credentials are `system:anonymous` rather than refused; default: they are.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = "Authentication")]
    pub anonymous_auth: Option<bool>,
    /// Issuers of tokens, and where requests need no credentials: a file of kind AuthenticationConfiguration.
    #[arg(long, help_heading = "Authentication")]
    pub authentication_config: Option<PathBuf>,
    /// Who knows tokens that this server does not: a kubeconfig file.
    #[arg(long, help_heading = "Authentication")]
    pub authentication_token_webhook_config_file: Option<PathBuf>,
    /// How long is remembered what the webhook says.
    #[arg(long, default_value = "2m0s", help_heading = "Authentication")]
    pub authentication_token_webhook_cache_ttl: GoDuration,
    /// The version of the TokenReviews that the webhook is sent: v1 or v1beta1.
    #[arg(long, default_value = "v1beta1", help_heading = "Authentication")]
    pub authentication_token_webhook_version: String,
    /// URL of an OpenID Connect provider.
    #[arg(long, default_value = "", help_heading = "Authentication")]
    pub oidc_issuer_url: String,
    /// For whom the provider's tokens have to be meant.
    #[arg(long, default_value = "", help_heading = "Authentication")]
    pub oidc_client_id: String,
    /// CA that the provider's certificate is checked against; none: the system's authorities.
    #[arg(long, help_heading = "Authentication")]
    pub oidc_ca_file: Option<PathBuf>,
    /// The claim that is the user's name.
    #[arg(long, default_value = "sub", help_heading = "Authentication")]
    pub oidc_username_claim: String,
    /// What user names begin with; `-` is nothing, default: the issuer's URL, unless they are email addresses.
    #[arg(long, default_value = "", help_heading = "Authentication")]
    pub oidc_username_prefix: String,
    /// The claim that has the user's groups.
    #[arg(long, default_value = "", help_heading = "Authentication")]
    pub oidc_groups_claim: String,
    /// What groups begin with.
    #[arg(long, default_value = "", help_heading = "Authentication")]
    pub oidc_groups_prefix: String,
    /// Claims that tokens have to have: key=value.
    #[arg(long, value_delimiter = ',', help_heading = "Authentication")]
    pub oidc_required_claim: Vec<String>,
    /// What the provider may sign with.
    #[arg(long, value_delimiter = ',', default_value = "RS256", help_heading = "Authentication")]
    pub oidc_signing_algs: Vec<String>,
    /// CA of client certificates: the common name is the user, the organizations are the groups. A replaced file counts without a restart.
    #[arg(long, help_heading = "Authentication")]
    pub client_ca_file: Option<PathBuf>,
    /// CSV file of static tokens: token,user,uid[,"group1,group2"].
    #[arg(long, help_heading = "Authentication")]
    pub token_auth_file: Option<PathBuf>,
    /// Accept bootstrap tokens (Secrets of type bootstrap.kubernetes.io/token in kube-system).
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, help_heading = "Authentication")]
    pub enable_bootstrap_token_auth: bool,
    /// Issuer of ServiceAccount tokens; the first given one issues, all are accepted.
    #[arg(long, help_heading = "Authentication")]
    pub service_account_issuer: Vec<String>,
    /// Keys (public or private, PEM) that ServiceAccount tokens are checked with.
    #[arg(long, help_heading = "Authentication")]
    pub service_account_key_file: Vec<PathBuf>,
    /// Whether tokens that live in Secrets have to be those that the Secrets hold.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true, help_heading = "Authentication")]
    pub service_account_lookup: bool,
    /// Private key that ServiceAccount tokens are signed with.
    #[arg(long, help_heading = "Authentication")]
    pub service_account_signing_key_file: Option<PathBuf>,
    /// The longest that ServiceAccount tokens last, 1h to 2^32 seconds; 0 is as long as is asked for.
    #[arg(long, default_value = "0s", help_heading = "Authentication")]
    pub service_account_max_token_expiration: GoDuration,
    /// Whether the tokens that pods are given (for 3607 seconds, bound to the pod, for this server) are good for a year, for clients that read them once.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true, help_heading = "Authentication")]
    pub service_account_extend_token_expiration: bool,
    /// Where the public keys can be fetched from outside, instead of this server's /openid/v1/jwks.
    #[arg(long, help_heading = "Authentication")]
    pub service_account_jwks_uri: Option<String>,
    /// Audiences of tokens for this server; default: the issuer.
    #[arg(long, value_delimiter = ',', help_heading = "Authentication")]
    pub api_audiences: Vec<String>,
    /// CA of front proxies that name the user in headers. A replaced file counts without a restart.
    #[arg(long, help_heading = "Authentication")]
    pub requestheader_client_ca_file: Option<PathBuf>,
    /// Common names front proxies may have; empty is any.
    #[arg(long, value_delimiter = ',', help_heading = "Authentication")]
    pub requestheader_allowed_names: Vec<String>,
    /// Headers that carry the user name.
    #[arg(long, value_delimiter = ',', help_heading = "Authentication")]
    pub requestheader_username_headers: Vec<String>,
    /// Headers that carry the user's uid.
    #[arg(long, value_delimiter = ',', help_heading = "Authentication")]
    pub requestheader_uid_headers: Vec<String>,
    /// Headers that carry groups.
    #[arg(long, value_delimiter = ',', help_heading = "Authentication")]
    pub requestheader_group_headers: Vec<String>,
    /// Prefixes of headers that carry extra facts.
    #[arg(long, value_delimiter = ',', help_heading = "Authentication")]
    pub requestheader_extra_headers_prefix: Vec<String>,

    /// Authorizers in order, of Node, RBAC, ABAC, Webhook, AlwaysAllow, AlwaysDeny; default: AlwaysAllow.
    #[arg(long, value_delimiter = ',', help_heading = "Authorization")]
    pub authorization_mode: Vec<String>,
    /// Authorizers in order, with several webhooks if need be: a file of kind AuthorizationConfiguration.
    #[arg(long, help_heading = "Authorization")]
    pub authorization_config: Option<PathBuf>,
    /// The policies of ABAC, one a line.
    #[arg(long, help_heading = "Authorization")]
    pub authorization_policy_file: Option<PathBuf>,
    /// Who is asked by Webhook: a kubeconfig file.
    #[arg(long, help_heading = "Authorization")]
    pub authorization_webhook_config_file: Option<PathBuf>,
    /// The version of the SubjectAccessReviews that the webhook is sent: v1 or v1beta1.
    #[arg(long, default_value = "v1beta1", help_heading = "Authorization")]
    pub authorization_webhook_version: String,
    /// How long is remembered what the webhook allows.
    #[arg(long, default_value = "5m0s", help_heading = "Authorization")]
    pub authorization_webhook_cache_authorized_ttl: GoDuration,
    /// How long is remembered what the webhook does not allow.
    #[arg(long, default_value = "30s", help_heading = "Authorization")]
    pub authorization_webhook_cache_unauthorized_ttl: GoDuration,
    /// Admission plugins besides the default ones.
    #[arg(long, value_delimiter = ',', help_heading = "Admission")]
    pub enable_admission_plugins: Vec<String>,
    /// Default admission plugins to leave out.
    #[arg(long, value_delimiter = ',', help_heading = "Admission")]
    pub disable_admission_plugins: Vec<String>,
    /// Deprecated: the admission plugins, and no others.
    #[arg(long, value_delimiter = ',', help_heading = "Admission")]
    pub admission_control: Vec<String>,
    /// For how many seconds DefaultTolerationSeconds lets pods stay on a node that is not ready.
    #[arg(long, default_value_t = 300, help_heading = "Admission")]
    pub default_not_ready_toleration_seconds: i64,
    /// The same for a node that cannot be reached.
    #[arg(long, default_value_t = 300, help_heading = "Admission")]
    pub default_unreachable_toleration_seconds: i64,
    /// What is said about admission plugins one by one: a file of kind AdmissionConfiguration.
    #[arg(long, help_heading = "Admission")]
    pub admission_control_config_file: Option<PathBuf>,
    /// Whether privileged containers are allowed.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, help_heading = "Admission")]
    pub allow_privileged: bool,

    /// Where ClusterIPs come from: one IPv4 range.
    #[arg(long, value_delimiter = ',', default_value = "10.0.0.0/24", help_heading = "Services")]
    pub service_cluster_ip_range: Vec<String>,
    /// Who keeps the endpoints of the Service kubernetes: `lease`, each server its own, or `none`.
    #[arg(long, default_value = "lease", help_heading = "Services")]
    pub endpoint_reconciler_type: String,
    /// Where node ports come from: FIRST-LAST, FIRST+SIZE, or one port.
    #[arg(long, default_value = "30000-32767", help_heading = "Services")]
    pub service_node_port_range: String,

    /// Client certificate for kubelets.
    #[arg(long, help_heading = "Kubelets")]
    pub kubelet_client_certificate: Option<PathBuf>,
    /// Key of --kubelet-client-certificate.
    #[arg(long, help_heading = "Kubelets")]
    pub kubelet_client_key: Option<PathBuf>,
    /// CA that kubelets' serving certificates are checked against; none: they are not checked.
    #[arg(long, help_heading = "Kubelets")]
    pub kubelet_certificate_authority: Option<PathBuf>,
    /// Which of a node's addresses to reach its kubelet at, best first.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "Hostname,InternalDNS,InternalIP,ExternalDNS,ExternalIP",
        help_heading = "Kubelets"
    )]
    pub kubelet_preferred_address_types: Vec<String>,
    /// How long a connection to a kubelet may take.
    #[arg(long, default_value = "5s", help_heading = "Kubelets")]
    pub kubelet_timeout: GoDuration,
    /// Client certificate this server shows to extension servers.
    #[arg(long, help_heading = "Extension servers")]
    pub proxy_client_cert_file: Option<PathBuf>,
    /// Key of --proxy-client-cert-file.
    #[arg(long, help_heading = "Extension servers")]
    pub proxy_client_key_file: Option<PathBuf>,
    /// Reach Services at the addresses of their endpoints rather than at their ClusterIP.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, help_heading = "Extension servers")]
    pub enable_aggregator_routing: bool,

    /// The audit log.
    #[command(flatten)]
    pub audit: AuditOptions,

    /// Feature gates, Name=true|false: what is so anyway may be said, the rest is refused by name.
    #[arg(long, value_delimiter = ',', help_heading = "Features")]
    pub feature_gates: Vec<String>,
    /// API versions to serve or not: `GROUP/VERSION=false`, `api/all=false` with those to serve; what there is not cannot be switched on.
    #[arg(long, value_delimiter = ',', help_heading = "Features")]
    pub runtime_config: Vec<String>,

    /// Logging.
    #[command(flatten)]
    pub log: LogFlags,
}

impl Options {
    /// Checks what the parser cannot: flags that need each other, values that only some of which are implemented.
    ///
    /// # Errors
    /// One line a problem, each naming the flag.
    pub fn check(&self) -> Result<(), Vec<String>> {
        let mut errors = Vec::new();
        if self.etcd_servers.iter().all(String::is_empty) {
            errors.push("--etcd-servers must be specified".to_owned());
        }
        for server in &self.etcd_servers {
            if !server.starts_with("http://") && !server.starts_with("https://") {
                errors.push(format!("--etcd-servers: {server:?} must begin with http:// or https://"));
            }
        }
        let pairs = [
            ("tls-cert-file", &self.tls_cert_file, "tls-private-key-file", &self.tls_private_key_file),
            ("etcd-certfile", &self.etcd_certfile, "etcd-keyfile", &self.etcd_keyfile),
            (
                "kubelet-client-certificate",
                &self.kubelet_client_certificate,
                "kubelet-client-key",
                &self.kubelet_client_key,
            ),
            (
                "proxy-client-cert-file",
                &self.proxy_client_cert_file,
                "proxy-client-key-file",
                &self.proxy_client_key_file,
            ),
        ];
        for (cert, cert_file, key, key_file) in pairs {
            if cert_file.is_some() != key_file.is_some() {
                errors.push(format!("--{cert} and --{key} must be given together"));
            }
        }
        if self.encryption_provider_config_automatic_reload && self.encryption_provider_config.is_none() {
            errors.push(
                "--encryption-provider-config-automatic-reload must be set with --encryption-provider-config"
                    .to_owned(),
            );
        }
        if self.service_account_issuer.iter().all(String::is_empty) {
            errors.push("--service-account-issuer is a required flag".to_owned());
        }
        if self.service_account_signing_key_file.is_none() {
            errors.push("--service-account-signing-key-file is a required flag".to_owned());
        }
        if self.oidc_issuer_url.is_empty() != self.oidc_client_id.is_empty() {
            errors.push(
                "oidc-issuer-url and oidc-client-id must be specified together when any oidc-* flags are set"
                    .to_owned(),
            );
        }
        if self.authentication_config.is_some() && !self.oidc_issuer_url.is_empty() {
            errors.push("authentication-config and oidc-* flags are mutually exclusive".to_owned());
        }
        if let Some(path) =
            self.egress_selector_config_file.as_ref().filter(|path| !path.as_os_str().is_empty())
        {
            errors.extend(
                egress::check(path).err().map(|error| format!("--egress-selector-config-file: {error}")),
            );
        }
        errors.extend(serving::problems(self));
        if !self.watch_cache {
            errors.push("--watch-cache=false is not implemented by Coracle".to_owned());
        }
        for mode in &self.authorization_mode {
            if !matches!(mode.as_str(), "Node" | "RBAC" | "ABAC" | "Webhook" | "AlwaysAllow" | "AlwaysDeny") {
                errors.push(format!("--authorization-mode: {mode:?} is not a valid mode"));
            }
        }
        for (index, mode) in self.authorization_mode.iter().enumerate() {
            if self.authorization_mode[..index].contains(mode) {
                errors.push(format!("--authorization-mode: {mode:?} has mode specified more than once"));
            }
        }
        let by_mode = !self.authorization_mode.is_empty() || self.authorization_webhook_config_file.is_some();
        if self.authorization_config.is_some() && by_mode {
            errors.push(
                "--authorization-config can not be specified when --authorization-mode or --authorization-webhook-* flags are defined"
                    .to_owned(),
            );
        }
        for (mode, flag, file) in [
            ("ABAC", "authorization-policy-file", &self.authorization_policy_file),
            ("Webhook", "authorization-webhook-config-file", &self.authorization_webhook_config_file),
        ] {
            if file.is_some() && !self.authorization_mode.iter().any(|one| one == mode) {
                errors.push(format!("cannot specify --{flag} without mode {mode}"));
            }
        }
        errors.extend(self.gates().err());
        errors.extend(RuntimeConfig::parse(&self.runtime_config).err());
        errors.extend(admission::problems(self));
        errors.extend(self.watch_cache_sizes.iter().filter_map(|text| storage::watch_cache_problem(text)));
        if let Some(limit) = tokens::max_expiration_problem(self.service_account_max_token_expiration) {
            errors.push(limit.to_owned());
        }
        if !matches!(self.endpoint_reconciler_type.as_str(), "lease" | "none") {
            errors.push(format!(
                "--endpoint-reconciler-type: {:?} is not implemented by Coracle; there are lease and none",
                self.endpoint_reconciler_type
            ));
        }
        errors.extend(self.audit.check());
        if self.service_cluster_ip_range.len() > 1 {
            errors.push(
                "--service-cluster-ip-range: a second range is not implemented by Coracle: Services have IPv4 addresses only"
                    .to_owned(),
            );
        }
        if let Err(error) = self.node_port_range() {
            errors.push(error);
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// The feature gates.
    ///
    /// # Errors
    /// See [`FeatureGates::parse`].
    pub fn gates(&self) -> Result<FeatureGates, String> {
        FeatureGates::parse(Program::ApiServer, &self.feature_gates.join(","))
    }

    /// First and last port of --service-node-port-range.
    ///
    /// # Errors
    /// A text naming the flag.
    pub fn node_port_range(&self) -> Result<(u16, u16), String> {
        services::port_range(&self.service_node_port_range)
            .map_err(|error| format!("--service-node-port-range: {error}"))
    }

    /// Where clients outside the cluster find this server, with its port, if the flags say so.
    pub fn external_address(&self) -> Option<String> {
        let name = self.external_hostname.as_str();
        if name.is_empty() {
            let address = self.advertise_address.filter(|address| !address.is_unspecified())?;
            return Some(SocketAddr::new(address, self.secure_port).to_string());
        }
        let (host, port) = name.rsplit_once(':').unwrap_or((name, ""));
        let has_port = !port.is_empty() && port.parse::<u16>().is_ok() && !host.contains(':');
        Some(if has_port { name.to_owned() } else { format!("{name}:{}", self.secure_port) })
    }

    /// What --authorization-mode says.
    pub fn authorization_modes(&self) -> Vec<String> {
        match self.authorization_mode.as_slice() {
            [] => vec!["AlwaysAllow".to_owned()],
            modes => modes.to_vec(),
        }
    }

    /// Audiences that a token for this server may have.
    pub fn audiences(&self) -> Vec<String> {
        if self.api_audiences.is_empty() {
            self.service_account_issuer.first().cloned().into_iter().collect()
        } else {
            self.api_audiences.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use component_base::flags::{FlagError, try_parse_from};

    fn parse(args: &[&str]) -> Result<Options, FlagError> {
        try_parse_from(
            std::iter::once("kube-apiserver").chain(args.iter().copied()).map(Into::into),
            NOT_IMPLEMENTED,
        )
    }

    #[test]
    fn the_manifest_of_kubeadm_is_accepted() {
        let options = parse(&[
            "--advertise-address=192.168.1.10",
            "--allow-privileged=true",
            "--authorization-mode=Node,RBAC",
            "--client-ca-file=/etc/kubernetes/pki/ca.crt",
            "--enable-admission-plugins=NodeRestriction",
            "--enable-bootstrap-token-auth=true",
            "--etcd-cafile=/etc/kubernetes/pki/etcd/ca.crt",
            "--etcd-certfile=/etc/kubernetes/pki/apiserver-etcd-client.crt",
            "--etcd-keyfile=/etc/kubernetes/pki/apiserver-etcd-client.key",
            "--etcd-servers=https://127.0.0.1:2379",
            "--kubelet-client-certificate=/etc/kubernetes/pki/apiserver-kubelet-client.crt",
            "--kubelet-client-key=/etc/kubernetes/pki/apiserver-kubelet-client.key",
            "--kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname",
            "--proxy-client-cert-file=/etc/kubernetes/pki/front-proxy-client.crt",
            "--proxy-client-key-file=/etc/kubernetes/pki/front-proxy-client.key",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-client-ca-file=/etc/kubernetes/pki/front-proxy-ca.crt",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-username-headers=X-Remote-User",
            "--secure-port=6443",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            "--service-account-key-file=/etc/kubernetes/pki/sa.pub",
            "--service-account-signing-key-file=/etc/kubernetes/pki/sa.key",
            "--service-cluster-ip-range=10.96.0.0/12",
            "--tls-cert-file=/etc/kubernetes/pki/apiserver.crt",
            "--tls-private-key-file=/etc/kubernetes/pki/apiserver.key",
        ])
        .expect("parses");
        options.check().expect("is complete");
        assert_eq!(options.authorization_mode, ["Node", "RBAC"]);
        assert_eq!(options.audiences(), ["https://kubernetes.default.svc.cluster.local"]);
        assert_eq!(options.node_port_range(), Ok((30000, 32767)));
    }

    #[test]
    fn the_start_script_of_a_development_cluster_is_accepted() {
        let folder = tempfile::tempdir().expect("a folder");
        let egress = folder.path().join("egress.yaml");
        let selection = |name: &str| format!("- name: {name}\n  connection:\n    proxyProtocol: Direct\n");
        let head =
            "apiVersion: apiserver.k8s.io/v1beta1\nkind: EgressSelectorConfiguration\negressSelections:\n";
        std::fs::write(&egress, format!("{head}{}{}", selection("cluster"), selection("etcd")))
            .expect("write");
        let args = format!(
            "--authorization-mode=Node,RBAC --authorization-webhook-config-file= --authentication-token-webhook-config-file= \
--admission-control-config-file= --allow-privileged=true --v=3 --vmodule= \
--audit-policy-file=/tmp/policy --audit-log-path=/tmp/audit.log --cert-dir=/var/run/kubernetes --egress-selector-config-file={} \
--client-ca-file=/c/client-ca.crt --kubelet-client-certificate=/c/k.crt --kubelet-client-key=/c/k.key --service-account-key-file=/c/sa.key \
--service-account-lookup=true --service-account-issuer=https://kubernetes.default.svc \
--service-account-jwks-uri=https://kubernetes.default.svc/openid/v1/jwks --service-account-signing-key-file=/c/sa.key \
--enable-admission-plugins=NamespaceLifecycle,LimitRanger --disable-admission-plugins= --bind-address=0.0.0.0 --secure-port=6443 \
--tls-cert-file=/c/serving.crt --tls-private-key-file=/c/serving.key --storage-backend=etcd3 \
--storage-media-type=application/vnd.kubernetes.protobuf --etcd-servers=http://127.0.0.1:2379 --service-cluster-ip-range=10.0.0.0/24 \
--feature-gates= --emulated-version= --external-hostname=localhost --requestheader-username-headers=X-Remote-User \
--requestheader-group-headers=X-Remote-Group --requestheader-extra-headers-prefix=X-Remote-Extra- \
--requestheader-client-ca-file=/c/request-header-ca.crt --requestheader-allowed-names=system:auth-proxy \
--proxy-client-cert-file=/c/proxy.crt --proxy-client-key-file=/c/proxy.key \
--cors-allowed-origins=//127.0.0.1(:[0-9]+)?$,//localhost(:[0-9]+)?$ --profiling=false --contention-profiling=false",
            egress.display()
        );
        let mut args: Vec<&str> = args.split(' ').collect();
        // What unset variables of the script leave.
        args.insert(1, "");
        let options = parse(&args).expect("parses");
        options.check().expect("is complete");
        assert_eq!(options.cors_allowed_origins.len(), 2);
        std::fs::write(&egress, format!("{head}{}", selection("etcd").replace("Direct", "HTTPConnect")))
            .expect("write");
        let errors = options.check().expect_err("is refused").join("\n");
        assert!(
            errors.contains(
                "--egress-selector-config-file: egressSelections[0] (etcd): proxyProtocol \"HTTPConnect\""
            ),
            "{errors}"
        );
    }

    #[test]
    fn every_flag_of_upstream_is_known() {
        let command = <Options as clap::CommandFactory>::command();
        let own: Vec<&str> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
        let list = include_str!("options/upstream_flags.txt");
        let names: Vec<&str> =
            list.lines().filter(|line| !line.starts_with('#')).flat_map(str::split_whitespace).collect();
        assert_eq!(names.len(), 168);
        let unknown: Vec<&str> = names
            .into_iter()
            .filter(|name| *name != "version" && !own.contains(name) && !NOT_IMPLEMENTED.contains(name))
            .collect();
        assert_eq!(unknown, [""; 0]);
        assert!(!NOT_IMPLEMENTED.iter().any(|name| own.contains(name)), "either has a setting or has none");
    }

    #[test]
    fn the_page_of_flags_says_what_becomes_of_each() {
        component_base::flags::page::check::<Options>("kube-apiserver", NOT_IMPLEMENTED).expect("the page");
    }

    #[test]
    fn outsiders_find_the_server_where_the_flags_say() {
        let address = |args: &[&str]| {
            let args =
                ["--etcd-servers=http://127.0.0.1:2379"].iter().chain(args).copied().collect::<Vec<_>>();
            parse(&args).expect("parses").external_address()
        };
        assert_eq!(address(&[]), None);
        assert_eq!(address(&["--advertise-address=0.0.0.0"]), None);
        assert_eq!(address(&["--advertise-address=10.0.0.1"]).as_deref(), Some("10.0.0.1:6443"));
        assert_eq!(address(&["--advertise-address=fd00::1"]).as_deref(), Some("[fd00::1]:6443"));
        let named = ["--external-hostname=api.example.com", "--advertise-address=10.0.0.1"];
        assert_eq!(address(&named).as_deref(), Some("api.example.com:6443"));
        let with_port = address(&["--external-hostname=api.example.com:443"]);
        assert_eq!(with_port.as_deref(), Some("api.example.com:443"));
    }

    #[test]
    fn values_that_make_no_sense_are_refused_in_upstreams_words() {
        let said = |args: &[&str]| {
            let args =
                ["--etcd-servers=http://127.0.0.1:2379"].iter().chain(args).copied().collect::<Vec<_>>();
            match parse(&args) {
                Ok(options) => options.check().expect_err("is refused").join("\n"),
                Err(error) => error.to_string(),
            }
        };
        let cases: &[(&[&str], &str)] = &[
            (&["--goaway-chance=0.03"], "--goaway-chance can not be less than 0 or greater than 0.02"),
            (
                &["--max-requests-inflight=0", "--max-mutating-requests-inflight=0"],
                "invalid configuration: MaxRequestsInFlight=0 and MaxMutatingRequestsInFlight=0; they must add up to something positive",
            ),
            (&["--tls-min-version=VersionTLS99"], "unknown tls version \"VersionTLS99\""),
            (
                &["--tls-sni-cert-key=a.crt"],
                "invalid argument \"a.crt\" for \"--tls-sni-cert-key\" flag: expected comma separated certificate and key file paths",
            ),
            (&["--feature-gates=NoSuch=true"], "unrecognized feature gate: NoSuch"),
            (
                &["--feature-gates=SidecarContainers=false"],
                "cannot set feature gate SidecarContainers to false, feature is locked to true",
            ),
            (
                &["--feature-gates=WatchList=false"],
                "feature gate WatchList=false is not implemented by Coracle's apiserver yet; remove it",
            ),
            (&["--enable-admission-plugins=NoSuch"], "enable-admission-plugins plugin \"NoSuch\" is unknown"),
            (&["--runtime-config=none.k8s.io/v1=true"], "unknown api groups none.k8s.io"),
            (&["--endpoint-reconciler-type=master-count"], "there are lease and none"),
            (&["--watch-cache-sizes=pods#many"], "invalid size of watch cache size: pods#many"),
            (
                &["--service-account-max-token-expiration=1m"],
                "the service-account-max-token-expiration must be between 1 hour and 2^32 seconds",
            ),
            (
                &["--service-cluster-ip-range=10.0.0.0/16,fd00::/108"],
                "--service-cluster-ip-range: a second range is not implemented by Coracle",
            ),
            (
                &["--encryption-provider-config-automatic-reload"],
                "--encryption-provider-config-automatic-reload must be set with --encryption-provider-config",
            ),
            (
                &["--peer-ca-file=/x"],
                "flag --peer-ca-file is not implemented by Coracle yet (requests are not passed on",
            ),
        ];
        for (args, error) in cases {
            let said = said(args);
            assert!(said.contains(error), "{args:?}: {error} in\n{said}");
        }
    }

    #[test]
    fn what_is_missing_or_not_implemented_is_named() {
        assert!(
            matches!(parse(&["--tracing-config-file=/x"]), Err(FlagError::NotImplemented(f)) if f == "tracing-config-file")
        );
        let options =
            parse(&["--etcd-servers=127.0.0.1:2379", "--authorization-mode=Magic", "--feature-gates=A=true"])
                .expect("parses");
        let errors = options.check().expect_err("is refused").join("\n");
        for wanted in
            ["must begin with http", "--service-account-issuer", "\"Magic\"", "unrecognized feature gate: A"]
        {
            assert!(errors.contains(wanted), "{wanted} in\n{errors}");
        }
    }
}
