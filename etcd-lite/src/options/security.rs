//! Certificates for clients and peers, and what is asked of theirs.

use std::path::PathBuf;

use clap::{ArgAction, Args};

/// TLS on both sides.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Security")]
pub struct SecurityOptions {
    /// Certificate for clients. Renewed files are served without a restart, here and everywhere below.
    #[arg(long)]
    pub cert_file: Option<PathBuf>,
    /// Its key.
    #[arg(long)]
    pub key_file: Option<PathBuf>,
    /// Certificate of this member as a client of its own port; it is no client of it, so the file is only read and checked.
    #[arg(long)]
    pub client_cert_file: Option<PathBuf>,
    /// Its key.
    #[arg(long)]
    pub client_key_file: Option<PathBuf>,
    /// Refuse clients without a certificate.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub client_cert_auth: bool,
    /// Authority of client certificates; given, clients without one are refused.
    #[arg(long)]
    pub trusted_ca_file: Option<PathBuf>,
    /// Client certificates that are revoked (PEM or DER).
    #[arg(long)]
    pub client_crl_file: Option<PathBuf>,
    /// Name that client certificates have to be good for.
    #[arg(long)]
    pub client_cert_allowed_hostname: Option<String>,
    /// Serve clients with a generated certificate.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub auto_tls: bool,

    /// Certificate for and towards peers.
    #[arg(long)]
    pub peer_cert_file: Option<PathBuf>,
    /// Its key.
    #[arg(long)]
    pub peer_key_file: Option<PathBuf>,
    /// Certificate towards peers, if it is another than --peer-cert-file.
    #[arg(long)]
    pub peer_client_cert_file: Option<PathBuf>,
    /// Its key.
    #[arg(long)]
    pub peer_client_key_file: Option<PathBuf>,
    /// Refuse peers without a certificate.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub peer_client_cert_auth: bool,
    /// Authority of peers' certificates; given, peers without one are refused.
    #[arg(long)]
    pub peer_trusted_ca_file: Option<PathBuf>,
    /// Peer certificates that are revoked (PEM or DER).
    #[arg(long)]
    pub peer_crl_file: Option<PathBuf>,
    /// CN that peers' certificates have to have.
    #[arg(long)]
    pub peer_cert_allowed_cn: Option<String>,
    /// Name that peers' certificates have to be good for.
    #[arg(long)]
    pub peer_cert_allowed_hostname: Option<String>,
    /// Talk to peers with generated certificates.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub peer_auto_tls: bool,
    /// Do not compare the addresses in a peer's certificate with the one it comes from.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub experimental_peer_skip_client_san_verification: bool,

    /// Years that generated certificates are good for.
    #[arg(long, default_value_t = 1)]
    pub self_signed_cert_validity: u32,
    /// TLS cipher suites by their names in Go; none means all.
    #[arg(long, value_delimiter = ',')]
    pub cipher_suites: Vec<String>,
    /// Lowest version of TLS: TLS1.2 or TLS1.3.
    #[arg(long, default_value = "")]
    pub tls_min_version: String,
    /// Highest version of TLS: TLS1.2 or TLS1.3; empty for the highest there is.
    #[arg(long, default_value = "")]
    pub tls_max_version: String,
}
