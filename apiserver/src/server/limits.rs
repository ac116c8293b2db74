//! How many requests are worked on at a time: by priority and fairness, or by two plain limits where that is switched off. Requests that run long count
//! for neither, but for the beginning of watches.

use std::sync::Arc;
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderName, HeaderValue, StatusCode};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::body::{self, Response};
use super::request_info::UserInfo;
use crate::authz::Attributes;
use crate::flowcontrol::{Admitted, Classified, FlowControl};
use crate::options::Options;

const SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");
/// Part of a request's time that it may wait.
const WAIT_PART: u32 = 4;

/// A limit on requests in work at a time.
pub struct InFlight(Option<Semaphore>);

impl InFlight {
    /// 0 is no limit.
    pub fn new(limit: usize) -> Self {
        Self((limit > 0).then(|| Semaphore::new(limit.min(Semaphore::MAX_PERMITS))))
    }
}

/// What decides.
pub enum Limits {
    /// Priority and fairness.
    Fair(Arc<FlowControl>),
    /// A limit for requests that change nothing and one for those that do.
    Plain {
        /// Requests that change nothing.
        read_only: InFlight,
        /// Requests that change something.
        mutating: InFlight,
    },
}

/// A request that may be worked on, until this is dropped.
pub struct Entered<'a> {
    _permit: Option<SemaphorePermit<'a>>,
    _admitted: Option<Admitted>,
    classified: Option<Classified>,
}

impl Limits {
    /// By the flags.
    pub fn new(options: &Options, control: Arc<FlowControl>) -> Self {
        let (read_only, mutating) = (options.max_requests_inflight, options.max_mutating_requests_inflight);
        if options.enable_priority_and_fairness {
            return Self::Fair(control);
        }
        Self::Plain { read_only: InFlight::new(read_only), mutating: InFlight::new(mutating) }
    }

    /// Lets a request in, or keeps it waiting for a part of the time it has.
    ///
    /// # Errors
    /// The answer 429.
    pub async fn enter(
        &self,
        user: &UserInfo,
        asked: &Attributes<'_>,
        mutating: bool,
        seats: u32,
        deadline: Duration,
    ) -> Result<Entered<'_>, Response> {
        match self {
            Self::Fair(control) => {
                let (classified, admitted) = control.admit(user, asked, seats, deadline / WAIT_PART).await;
                match admitted {
                    Ok(admitted) => Ok(Entered { _permit: None, _admitted: Some(admitted), classified }),
                    Err(refusal) => {
                        tracing::debug!(user = user.name, reason = refusal.name(), "too many requests");
                        let mut response = too_many();
                        label(&mut response, classified.as_ref());
                        Err(response)
                    }
                }
            }
            Self::Plain { read_only, mutating: changing } => {
                let limit = if mutating { changing } else { read_only };
                let permit = match &limit.0 {
                    None => None,
                    Some(places) => match places.try_acquire() {
                        Ok(permit) => Some(permit),
                        // They have to be able to mend what is wrong.
                        Err(_) if user.in_group("system:masters") => None,
                        Err(_) => return Err(too_many()),
                    },
                };
                Ok(Entered { _permit: permit, _admitted: None, classified: None })
            }
        }
    }
}

impl Entered<'_> {
    /// Says in an answer what the request was taken for.
    pub fn label(&self, response: &mut Response) {
        label(response, self.classified.as_ref());
    }
}

fn label(response: &mut Response, classified: Option<&Classified>) {
    let Some(Classified { schema_uid, level_uid }) = classified else { return };
    for (name, uid) in [(SCHEMA_UID, schema_uid), (LEVEL_UID, level_uid)] {
        if let Ok(value) = HeaderValue::from_str(uid) {
            response.headers_mut().insert(name, value);
        }
    }
}

fn too_many() -> Response {
    let text = "Too many requests, please try again later.\n";
    let mut response = body::plain(StatusCode::TOO_MANY_REQUESTS, text);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}
