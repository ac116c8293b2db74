//! The command line: upstream's flags for what is implemented, checked for what belongs together. Opens no file.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::{ArgAction, Parser};
use component_base::duration::GoDuration;
use component_base::flags::LogFlags;

use crate::audit::options::AuditOptions;

mod egress;

/// Upstream flags that are refused by name.
pub const NOT_IMPLEMENTED: &[&str] = &[
    "aggregator-reject-forwarding-redirect",
    "allow-metric-labels",
    "allow-metric-labels-manifest",
    "apiserver-count",
    "audit-webhook-batch-buffer-size",
    "audit-webhook-batch-max-size",
    "audit-webhook-batch-max-wait",
    "audit-webhook-config-file",
    "audit-webhook-initial-backoff",
    "audit-webhook-mode",
    "cloud-config",
    "cloud-provider",
    "contention-profiling",
    "debug-socket-path",
    "default-not-ready-toleration-seconds",
    "default-unreachable-toleration-seconds",
    "delete-collection-workers",
    "disable-http2-serving",
    "disabled-metrics",
    "emulated-version",
    "emulation-forward-compatible",
    "enable-garbage-collector",
    "enable-logs-handler",
    "encryption-provider-config-automatic-reload",
    "endpoint-reconciler-type",
    "etcd-count-metric-poll-period",
    "etcd-db-metric-poll-interval",
    "etcd-healthcheck-timeout",
    "etcd-readycheck-timeout",
    "etcd-servers-overrides",
    "goaway-chance",
    "http2-max-streams-per-connection",
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
    "peer-advertise-ip",
    "peer-advertise-port",
    "peer-ca-file",
    "permit-address-sharing",
    "permit-port-sharing",
    "runtime-config-emulation-forward-compatible",
    "service-account-extend-token-expiration",
    "service-account-max-token-expiration",
    "service-account-signing-endpoint",
    "show-hidden-metrics-for-version",
    "shutdown-send-retry-after",
    "shutdown-watch-termination-grace-period",
    "storage-initialization-timeout",
    "strict-transport-security-directives",
    "tls-cipher-suites",
    "tls-min-version",
    "tls-sni-cert-key",
    "tracing-config-file",
    "vmodule",
    "watch-cache-sizes",
];

/// The flags of kube-apiserver that Coracle honours.
#[derive(Parser, Clone, Debug)]
#[command(name = "apiserver", version, about = "Serves the Kubernetes API (level v1.35) over etcd v3.")]
pub struct Options {
    /// The address other components reach this server at; empty is the host's outward address.
    #[arg(long, help_heading = "Serving")]
    pub advertise_address: Option<IpAddr>,
    /// The address to listen on.
    #[arg(long, default_value = "0.0.0.0", help_heading = "Serving")]
    pub bind_address: IpAddr,
    /// The port for HTTPS; 0 lets the system choose.
    #[arg(long, default_value_t = 6443, help_heading = "Serving")]
    pub secure_port: u16,
    /// Serving certificate chain, PEM.
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
    /// Where upstream keeps a self-signed certificate; not used, as --tls-cert-file has to be given.
    #[arg(long, default_value = "/var/run/kubernetes", help_heading = "Serving")]
    pub cert_dir: PathBuf,
    /// The name this server is known by outside, for the address of the public keys of ServiceAccount tokens.
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
    /// Serve profiles; only `false` is implemented.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, help_heading = "Serving")]
    pub profiling: bool,

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
    /// How often etcd's history is compacted to what was current one interval ago; 0 is never.
    #[arg(long, default_value = "5m0s", help_heading = "Storage")]
    pub etcd_compaction_interval: GoDuration,
    /// `etcd3`, the only backend there is.
    #[arg(long, default_value = "etcd3", value_parser = ["etcd3"], help_heading = "Storage")]
    pub storage_backend: String,
    /// The form objects are stored in. They are stored as JSON whichever is named: servers that ask for protobuf read that too.
    #[arg(long, default_value = "application/json", value_parser = ["application/json", "application/vnd.kubernetes.protobuf"], help_heading = "Storage")]
    pub storage_media_type: String,
    /// How long events are kept.
    #[arg(long, default_value = "1h0m0s", help_heading = "Storage")]
    pub event_ttl: GoDuration,
    /// Whether reads and watches are served from memory; only `true` is implemented.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true, help_heading = "Storage")]
    pub watch_cache: bool,
    /// How many recent events each resource keeps at least for watches that resume.
    #[arg(long, default_value_t = 100, help_heading = "Storage")]
    pub default_watch_cache_size: usize,

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
    /// CA of client certificates: the common name is the user, the organizations are the groups.
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
    /// Where the public keys can be fetched from outside, instead of this server's /openid/v1/jwks.
    #[arg(long, help_heading = "Authentication")]
    pub service_account_jwks_uri: Option<String>,
    /// Audiences of tokens for this server; default: the issuer.
    #[arg(long, value_delimiter = ',', help_heading = "Authentication")]
    pub api_audiences: Vec<String>,
    /// CA of front proxies that name the user in headers.
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
    /// What is said about admission plugins one by one: a file of kind AdmissionConfiguration.
    #[arg(long, help_heading = "Admission")]
    pub admission_control_config_file: Option<PathBuf>,
    /// Whether privileged containers are allowed.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, help_heading = "Admission")]
    pub allow_privileged: bool,

    /// Where ClusterIPs come from.
    #[arg(long, value_delimiter = ',', default_value = "10.0.0.0/24", help_heading = "Services")]
    pub service_cluster_ip_range: Vec<String>,
    /// Where node ports come from.
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

    /// Feature gates, `Name=true|false`, comma-separated.
    #[arg(long, default_value = "", help_heading = "Features")]
    pub feature_gates: String,
    /// API versions to switch, `api/all|api/ga|api/beta|api/alpha=true|false`.
    #[arg(long, default_value = "", help_heading = "Features")]
    pub runtime_config: String,

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
        if self.tls_cert_file.is_none() {
            errors.push(
                "--tls-cert-file and --tls-private-key-file must be specified (self-made certificates are not implemented)"
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
        if self.profiling {
            errors.push("--profiling=true is not implemented by Coracle yet".to_owned());
        }
        if let Some(path) =
            self.egress_selector_config_file.as_ref().filter(|path| !path.as_os_str().is_empty())
        {
            errors.extend(
                egress::check(path).err().map(|error| format!("--egress-selector-config-file: {error}")),
            );
        }
        for pattern in self.cors_allowed_origins.iter().filter(|pattern| !pattern.is_empty()) {
            if let Err(error) = regex::Regex::new(pattern) {
                errors.push(format!("--cors-allowed-origins has an invalid regular expression: {error}"));
            }
        }
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
        match component_base::flags::parse_key_values(&self.feature_gates) {
            Ok(gates) => errors.extend(
                gates.keys().map(|gate| format!("--feature-gates: {gate} is not implemented by Coracle yet")),
            ),
            Err(error) => errors.push(format!("--feature-gates: {error}")),
        }
        match component_base::flags::parse_key_values(&self.runtime_config) {
            Ok(config) => errors.extend(Self::refused_runtime_config(&config)),
            Err(error) => errors.push(format!("--runtime-config: {error}")),
        }
        errors.extend(self.audit.check());
        if let Err(error) = self.node_port_range() {
            errors.push(error);
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// All that is served is generally available, so switching groups of versions on, and the others off, changes nothing.
    fn refused_runtime_config(config: &BTreeMap<String, String>) -> Vec<String> {
        let allowed = |key: &str, value: &str| {
            matches!(
                (key, value),
                ("api/all" | "api/ga", "true") | ("api/beta" | "api/alpha", "false" | "true")
            )
        };
        config
            .iter()
            .filter(|(key, value)| !allowed(key, value))
            .map(|(key, value)| format!("--runtime-config: {key}={value} is not implemented by Coracle yet"))
            .collect()
    }

    /// First and last port of --service-node-port-range.
    ///
    /// # Errors
    /// A text naming the flag.
    pub fn node_port_range(&self) -> Result<(u16, u16), String> {
        let text = &self.service_node_port_range;
        let parsed = text
            .split_once('-')
            .and_then(|(first, last)| Some((first.trim().parse().ok()?, last.trim().parse().ok()?)));
        match parsed {
            Some((first, last)) if first > 0 && first <= last => Ok((first, last)),
            _ => Err(format!(
                "--service-node-port-range: {text:?} must be FIRST-LAST, for instance 30000-32767"
            )),
        }
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
    fn what_is_missing_or_not_implemented_is_named() {
        assert!(
            matches!(parse(&["--tracing-config-file=/x"]), Err(FlagError::NotImplemented(f)) if f == "tracing-config-file")
        );
        let options =
            parse(&["--etcd-servers=127.0.0.1:2379", "--authorization-mode=Magic", "--feature-gates=A=true"])
                .expect("parses");
        let errors = options.check().expect_err("is refused").join("\n");
        for wanted in [
            "must begin with http",
            "--tls-cert-file",
            "--service-account-issuer",
            "\"Magic\"",
            "--feature-gates: A",
        ] {
            assert!(errors.contains(wanted), "{wanted} in\n{errors}");
        }
    }
}
