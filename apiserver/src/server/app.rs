//! What all requests share: the registry, who may do what, limits and counters. Built once at start.

use std::sync::Arc;

use component_base::health::Health;
use component_base::metrics::SharedRegistry;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::metrics::RequestMetrics;
use super::respond::TablePrinter;
use crate::aggregation::Aggregator;
use crate::audit::Auditor;
use crate::authn::Authenticator;
use crate::authz::Authorizer;
use crate::openapi::Documents;
use crate::options::Options;
use crate::registry::Registry;

/// A limit on requests in work at a time.
pub struct InFlight(Option<Semaphore>);

impl InFlight {
    /// 0 is no limit.
    pub fn new(limit: usize) -> Self {
        Self((limit > 0).then(|| Semaphore::new(limit.min(Semaphore::MAX_PERMITS))))
    }

    /// A place, if there is one. The inner `None` is a place without limit.
    pub fn try_enter(&self) -> Option<Option<tokio::sync::SemaphorePermit<'_>>> {
        match &self.0 {
            None => Some(None),
            Some(places) => places.try_acquire().ok().map(Some),
        }
    }
}

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
    /// Limit of requests that change nothing.
    pub read_only: InFlight,
    /// Limit of requests that change something.
    pub mutating: InFlight,
    /// Fires when watches and other long requests have to end.
    pub draining: CancellationToken,
}
