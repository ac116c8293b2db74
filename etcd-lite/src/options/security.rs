//! Certificates for clients and peers.

use std::path::PathBuf;

use clap::{ArgAction, Args};

/// TLS on both sides.
#[derive(Args, Clone, Debug)]
pub struct SecurityOptions {
    /// Certificate for clients.
    #[arg(long, env = "ETCD_CERT_FILE", help_heading = "Security")]
    pub cert_file: Option<PathBuf>,
    /// Its key.
    #[arg(long, env = "ETCD_KEY_FILE", help_heading = "Security")]
    pub key_file: Option<PathBuf>,
    /// Authority of client certificates.
    #[arg(long, env = "ETCD_TRUSTED_CA_FILE", help_heading = "Security")]
    pub trusted_ca_file: Option<PathBuf>,
    /// Refuse clients without a certificate.
    #[arg(long, env = "ETCD_CLIENT_CERT_AUTH", help_heading = "Security", action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub client_cert_auth: bool,
    /// Certificate for and towards peers.
    #[arg(long, env = "ETCD_PEER_CERT_FILE", help_heading = "Security")]
    pub peer_cert_file: Option<PathBuf>,
    /// Its key.
    #[arg(long, env = "ETCD_PEER_KEY_FILE", help_heading = "Security")]
    pub peer_key_file: Option<PathBuf>,
    /// Authority of peers' certificates.
    #[arg(long, env = "ETCD_PEER_TRUSTED_CA_FILE", help_heading = "Security")]
    pub peer_trusted_ca_file: Option<PathBuf>,
    /// Refuse peers without a certificate.
    #[arg(long, env = "ETCD_PEER_CLIENT_CERT_AUTH", help_heading = "Security", action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false)]
    pub peer_client_cert_auth: bool,
}
