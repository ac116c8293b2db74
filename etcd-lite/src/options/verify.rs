//! What flags have to hold together, in etcd's order and words. Never here: what only the machine can tell.

use super::{EtcdUrl, MAX_REQUEST_BYTES_MAX, Options};

/// The longest `--election-timeout`, as etcd.
const ELECTION_TIMEOUT_MAX_MS: u64 = 50_000;

impl Options {
    /// Checks the flags against each other.
    ///
    /// # Errors
    /// Names the flag and what is wrong with it.
    pub fn verify(&self) -> Result<(), String> {
        let (urls, tuning, security) = (&self.urls, &self.tuning, &self.security);
        if self.logging.logger != "zap" {
            return Err(format!("unknown logger option {:?}", self.logging.logger));
        }
        let outputs = &self.logging.log_outputs;
        if outputs.len() > 1 && outputs.iter().any(|output| output == "default") {
            return Err("multi logoutput for \"default\" is not supported yet".to_owned());
        }
        let listening = [
            &urls.listen_peer_urls,
            &urls.listen_client_urls,
            &urls.listen_client_http_urls,
            &urls.listen_metrics_urls,
        ];
        for url in listening.into_iter().flatten() {
            check_binding(url)?;
        }
        let place = |url: &EtcdUrl| (url.unix_path().map(str::to_owned), url.host().to_owned(), url.port());
        let is_for_grpc =
            |url: &&EtcdUrl| urls.listen_client_urls.iter().any(|other| place(other) == place(url));
        if let Some(url) = urls.listen_client_http_urls.iter().find(is_for_grpc) {
            return Err(format!(
                "cannot bind both --client-listen-urls and --client-listen-http-urls on the same url {url}"
            ));
        }
        check_hosts("initial-advertise-peer-urls", &urls.initial_advertise_peer_urls)?;
        check_hosts("advertise-client-urls", &urls.advertise_client_urls)?;
        if tuning.heartbeat_interval == 0 {
            return Err("--heartbeat-interval must be >0 (set to 0ms)".to_owned());
        }
        if tuning.election_timeout == 0 {
            return Err("--election-timeout must be >0 (set to 0ms)".to_owned());
        }
        if 5 * tuning.heartbeat_interval > tuning.election_timeout {
            return Err(format!(
                "--election-timeout[{}ms] should be at least as 5 times as --heartbeat-interval[{}ms]",
                tuning.election_timeout, tuning.heartbeat_interval
            ));
        }
        if tuning.election_timeout > ELECTION_TIMEOUT_MAX_MS {
            return Err(format!(
                "--election-timeout[{}ms] is too long, and should be set less than {ELECTION_TIMEOUT_MAX_MS}ms",
                tuning.election_timeout
            ));
        }
        if self.is_given("listen-client-urls") && !self.is_given("advertise-client-urls") {
            return Err(
                "--advertise-client-urls is required when --listen-client-urls is set explicitly".to_owned()
            );
        }
        if tuning.max_request_bytes > MAX_REQUEST_BYTES_MAX {
            return Err(format!(
                "--max-request-bytes={} is more than the log takes; the most is {MAX_REQUEST_BYTES_MAX}",
                tuning.max_request_bytes
            ));
        }
        let gates = tuning.feature_gates.iter().flat_map(|gates| gates.split(','));
        if let Some(gate) = gates.into_iter().find(|gate| !gate.starts_with("InitialCorruptCheck=")) {
            return Err(format!("--feature-gates: {gate} is not there; InitialCorruptCheck is"));
        }
        if security.self_signed_cert_validity == 0 {
            return Err("selfSignedCertValidity is invalid,it should be greater than 0".to_owned());
        }
        if let (Some(cn), Some(hostname)) =
            (&security.peer_cert_allowed_cn, &security.peer_cert_allowed_hostname)
        {
            return Err(format!(
                "AllowedCN and AllowedHostname are mutually exclusive (cn={cn:?}, hostname={hostname:?})"
            ));
        }
        Ok(())
    }

    /// Whether a flag, without dashes, was given by command line, variable or file.
    pub fn is_given(&self, flag: &str) -> bool {
        self.given.contains(flag)
    }
}

/// A member listens on addresses, not on names.
fn check_binding(url: &EtcdUrl) -> Result<(), String> {
    let is_address = url.unix_path().is_some()
        || url.host() == "localhost"
        || url.host().parse::<std::net::IpAddr>().is_ok();
    if is_address { Ok(()) } else { Err(format!("expected IP in URL for binding ({url})")) }
}

fn check_hosts(flag: &str, urls: &[EtcdUrl]) -> Result<(), String> {
    let Some(url) = urls.iter().find(|url| url.host().is_empty()) else { return Ok(()) };
    let all = urls.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    Err(format!("--{flag} {all:?} must be \"host:port\" (unexpected empty host ({url}))"))
}
