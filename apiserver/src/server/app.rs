//! What all requests share: the registry, who may do what, limits and counters. Built once at start.

use std::sync::Arc;

use component_base::health::Health;
use component_base::metrics::SharedRegistry;
use http::HeaderValue;
use tokio_util::sync::CancellationToken;

use super::closing::Closing;
use super::cors::Cors;
use super::limits::Limits;
use super::metrics::RequestMetrics;
use super::respond::TablePrinter;
use crate::aggregation::Aggregator;
use crate::audit::Auditor;
use crate::authn::Authenticator;
use crate::authz::Authorizer;
use crate::flowcontrol::FlowControl;
use crate::openapi::Documents;
use crate::options::Options;
use crate::registry::Registry;

/// What all requests share.
pub struct App {
    /// The command line.
    pub options: Arc<Options>,
    /// The generic store.
    pub registry: Arc<Registry>,
    /// Who sends a request.
    pub authenticator: Authenticator,
    /// Who may do what.
    pub authorizer: Arc<Authorizer>,
    /// What is recorded of requests.
    pub auditor: Auditor,
    /// Health checks.
    pub health: Health,
    /// All metrics.
    pub metrics: SharedRegistry,
    /// Other API servers, and who answers for what.
    pub aggregator: Arc<Aggregator>,
    /// Counters of requests.
    pub requests: RequestMetrics,
    /// The OpenAPI documents.
    pub openapi: Documents,
    /// Makes tables.
    pub printer: Option<TablePrinter>,
    /// Which web pages may use the server.
    pub cors: Cors,
    /// How many requests are worked on at a time.
    pub limits: Limits,
    /// The flows of requests.
    pub flow_control: Arc<FlowControl>,
    /// How requests are treated while the server ends.
    pub closing: Closing,
    /// The value of Strict-Transport-Security, if it is sent.
    pub transport_security: Option<HeaderValue>,
    /// Fires when watches and other long requests have to end.
    pub draining: CancellationToken,
}
