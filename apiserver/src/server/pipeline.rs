//! What every request goes through, in order: identity of the request, limits, authentication, impersonation, authorization, its handler with a
//! deadline, counters. A panic on the way is an answer 500, not a broken connection.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use component_base::duration::GoDuration;
use coracle_api::resource::Resource;
use coracle_api::status::ApiError;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, STRICT_TRANSPORT_SECURITY, UPGRADE, WARNING, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version};
use hyper::body::Incoming;

use super::app::App;
use super::body::Response;
use super::closing::{self, LastOfConnection};
use super::cors;
use super::handlers;
use super::metrics::RequestLabels;
use super::negotiate::{self, Accepted, Offers};
use super::recording;
use super::request_info::{Query, RequestInfo, UserInfo, Verb, Warnings};
use super::respond::{self, Form};
use super::sending::Patience;
use super::understand::{Understood, asked, understand};
use crate::aggregation::Service;
use crate::audit::policy::Stage;
use crate::audit::{self, Trail};
use crate::authn::{Connection, impersonation};
use crate::authz::Attributes;
use crate::flowcontrol;

/// What an answer that is late already has for being sent.
const SENDING_MIN: Duration = Duration::from_secs(5);
const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// A request that has been understood and allowed.
pub enum Target {
    /// For a resource.
    Resource(Box<RequestInfo>),
    /// For any other path.
    Path,
    /// For another API server.
    Remote(Arc<Service>),
}

/// What is known of a request by the time it is answered.
struct Noted {
    labels: RequestLabels,
    long_running: bool,
    /// Another server answered.
    foreign: bool,
    trail: Trail,
    /// How long the answer may take to be sent.
    sent: Sent,
}

/// How long an answer may take to be sent.
#[derive(Clone, Copy)]
enum Sent {
    /// All of it within the request's own time.
    Within(Duration),
    /// Watches: each event within the time that other requests have as a whole.
    ByEvent,
    /// Streams, whose readers may pause as they like.
    AtWill,
}

impl Sent {
    fn patience(self, app: &App, started: Instant) -> Option<Patience> {
        match self {
            Self::Within(time) => {
                let end = (started + time).max(Instant::now() + SENDING_MIN);
                Some(Patience::Until(end.into()))
            }
            Self::ByEvent => Some(Patience::EachPart(app.options.request_timeout.get())),
            Self::AtWill => None,
        }
    }
}

/// Answers one request.
pub async fn serve(app: Arc<App>, connection: Arc<Connection>, request: Request<Incoming>) -> Response {
    let started = Instant::now();
    let audit_id = request
        .headers()
        .get(AUDIT_ID)
        .cloned()
        .or_else(|| HeaderValue::from_str(&uuid::Uuid::new_v4().to_string()).ok());
    let labels = RequestLabels {
        verb: method_label(request.method()),
        group: "",
        version: "",
        resource: "",
        subresource: "",
        scope: "",
        code: 0,
    };
    let sent = Sent::Within(app.options.request_timeout.get());
    let mut noted = Noted { labels, long_running: false, foreign: false, trail: Trail::default(), sent };
    let path = request.uri().path().to_owned();
    if let Some(mut refusal) = app.closing.refusal(&request) {
        secure_transport(&app, refusal.headers_mut());
        return refusal;
    }
    let is_last = request.version() == Version::HTTP_2 && is_drawn(app.options.goaway_chance);
    let origin = app.cors.allowed(&request);
    if let (Some(origin), Some(mut response)) = (&origin, cors::preflight(request.method())) {
        cors::allow(response.headers_mut(), origin.clone());
        secure_transport(&app, response.headers_mut());
        return response;
    }
    let id = audit_id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or_default();
    let answered = AssertUnwindSafe(answer(&app, &connection, request, id, &mut noted));
    let answered = answered.catch_unwind().await;
    let Noted { mut labels, long_running, foreign, trail, sent } = noted;
    let mut response = match answered {
        Ok(response) => recording::complete(&trail, response, long_running, foreign).await,
        Err(_) => {
            tracing::error!(path, "a request's handler panicked");
            let error = ApiError::internal("the server failed while it worked on the request");
            recording::panicked(&trail, &error).await;
            respond::error(&error, &Form::PLAIN)
        }
    };
    labels.code = response.status().as_u16();
    let headers = response.headers_mut();
    if let Some(id) = audit_id {
        headers.insert(AUDIT_ID, id);
    }
    if let Some(origin) = origin {
        cors::allow(headers, origin);
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
    secure_transport(&app, headers);
    if is_last {
        response.extensions_mut().insert(LastOfConnection);
    }
    if let Some(patience) = sent.patience(&app, started) {
        response.extensions_mut().insert(patience);
    }
    let elapsed = started.elapsed();
    tracing::debug!(
        path,
        verb = labels.verb,
        code = labels.code,
        micros = elapsed.as_micros() as u64,
        "request"
    );
    app.requests.observe(labels, (!long_running).then_some(elapsed));
    response
}

/// Tells browsers to come by HTTPS only, if the flag says so.
fn secure_transport(app: &App, headers: &mut HeaderMap) {
    if let Some(value) = &app.transport_security {
        headers.insert(STRICT_TRANSPORT_SECURITY, value.clone());
    }
}

/// Whether this request is one after which the connection is to end, so that clients spread over the servers again.
fn is_drawn(chance: f64) -> bool {
    if chance <= 0.0 {
        return false;
    }
    let mut random = [0_u8; 8];
    let _ = getrandom::fill(&mut random);
    closing::is_drawn(chance, u64::from_ne_bytes(random))
}

fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "HEAD" => "HEAD",
        _ => "OTHER",
    }
}

async fn answer(
    app: &Arc<App>,
    connection: &Connection,
    mut request: Request<Incoming>,
    audit_id: &str,
    noted: &mut Noted,
) -> Response {
    let Noted { labels, long_running, foreign, trail, sent } = noted;
    let query = Query::parse(request.uri().query());
    let form = error_form(&request, &query);
    let understood = understand(app, request.method(), request.uri().path(), &query, request.headers());
    note_known(&understood, &query, labels, long_running);
    if let Ok(Some(Understood::Unknown { verb, subresource, remote: Some(_), .. })) = &understood {
        let streams = matches!(subresource.as_str(), "exec" | "attach" | "portforward" | "proxy" | "log");
        *long_running = *verb == Verb::Watch || streams || request.headers().contains_key(UPGRADE);
    }
    let mutating = !matches!(*request.method(), Method::GET | Method::HEAD);
    let method = request.method().as_str().to_lowercase();
    let path = request.uri().path().to_owned();
    let asked = asked(&understood, &method, &path);
    let begin = |request: &Request<Incoming>, user: &UserInfo| {
        app.auditor.begin(request, connection, audit_id, user, (&asked.0, asked.1))
    };
    let sender =
        match app.authenticator.authenticate(connection, request.headers(), request.uri().path()).await {
            Ok(user) => user,
            Err(error) => {
                tracing::info!(%error, peer = ?connection.peer, "request without a valid user");
                *trail = begin(&request, &UserInfo::default());
                trail.refused(&audit::attempted_methods(request.headers()));
                let mut response = respond::error(&ApiError::unauthorized(), &form);
                response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                return response;
            }
        };
    *trail = begin(&request, &sender);
    if !trail.reach(Stage::RequestReceived).await {
        return respond::error(&ApiError::internal("failed to store audit event"), &form);
    }
    if trail.keeps_answers() {
        request.headers_mut().remove(ACCEPT_ENCODING);
    }
    let user = match impersonate(app, sender, request.headers(), trail).await {
        Ok(user) => user,
        Err(error) => return respond::error(&error, &form),
    };
    let deadline = match deadline(app, &query) {
        Err(error) if !*long_running => return respond::error(&error, &form),
        deadline => deadline.unwrap_or_else(|_| app.options.request_timeout.get()),
    };
    let is_watch = matches!(&asked.0, Attributes::Resource(asked) if asked.verb == "watch");
    let is_log = matches!(&asked.0, Attributes::Resource(asked) if asked.subresource == "log");
    let entered = if *long_running && !is_watch {
        None
    } else {
        let seats = seats(app, &understood, &query);
        match app.limits.enter(&user, &asked.0, mutating, seats, deadline).await {
            Ok(entered) => Some(entered),
            Err(response) => return response,
        }
    };
    let _counted = (!*long_running).then(|| Counted::new(app, mutating));
    let _in_work = (!*long_running).then(|| app.closing.enter());
    let decided = authorize(app, &user, &asked.0, trail).await;
    let understood = if decided.is_ok() && is_unheard_of(app, &understood, &path) {
        app.registry.catch_up().await;
        let again = understand(app, request.method(), &path, &query, request.headers());
        note_known(&again, &query, labels, long_running);
        again
    } else {
        understood
    };
    *sent = match *long_running {
        true if is_watch => Sent::ByEvent,
        false if !is_log => Sent::Within(deadline),
        _ => Sent::AtWill,
    };
    let target = match decided.and_then(|()| target(app, &user, understood, &path, trail)) {
        Ok(target) => target,
        Err(error) => {
            let mut response = respond::error(&error, &form);
            if let Some(entered) = &entered {
                entered.label(&mut response);
            }
            return response;
        }
    };
    *foreign = matches!(target, Target::Remote(_));
    let warnings = match &target {
        Target::Resource(info) => info.warnings.clone(),
        Target::Path | Target::Remote(_) => Warnings::default(),
    };
    let handled = handlers::handle(Arc::clone(app), target, user, request, query);
    let result = if *long_running {
        handled.await
    } else {
        // A change that has begun is brought to its end even if the client goes away or the deadline passes: half of it may be
        // done (an address taken, say).
        let handled: BoxFuture<'_, Result<Response, ApiError>> = if mutating {
            let task = tokio::spawn(handled);
            Box::pin(async move {
                match task.await {
                    Ok(result) => result,
                    Err(error) => match error.try_into_panic() {
                        Ok(panic) => std::panic::resume_unwind(panic),
                        Err(error) => {
                            tracing::error!(%error, "a request's handler failed");
                            Err(ApiError::internal("the server failed while it worked on the request"))
                        }
                    },
                }
            })
        } else {
            Box::pin(handled)
        };
        match tokio::time::timeout(deadline, handled).await {
            Ok(result) => result,
            Err(_) => Err(ApiError::timeout("request did not complete within the allotted timeout", 0)),
        }
    };
    let mut response = result.unwrap_or_else(|error| respond::error(&error, &form));
    if let Some(entered) = &entered {
        entered.label(&mut response);
    }
    for text in warnings.take() {
        if let Some(header) = respond::warning_header(&text) {
            response.headers_mut().append(WARNING, header);
        }
    }
    response
}

/// Errors come in the format asked for, JSON if that makes no sense.
fn error_form(request: &Request<Incoming>, query: &Query) -> Form {
    let header = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok());
    let offers = Offers { protobuf: true, ..Offers::default() };
    let format = negotiate::accept(header, offers).map_or(Accepted::PLAIN.format, |a| a.format);
    Form { accepted: Accepted { format, ..Accepted::PLAIN }, pretty: query.flag("pretty"), ..Form::PLAIN }
}

struct Counted<'a>(&'a App, bool);

impl<'a> Counted<'a> {
    fn new(app: &'a App, mutating: bool) -> Self {
        app.requests.inflight(mutating, 1);
        Self(app, mutating)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.requests.inflight(self.1, -1);
    }
}

/// Seats of a request: only lists, and watches that begin with one, are wider than one.
fn seats(app: &App, understood: &Result<Option<Understood>, ApiError>, query: &Query) -> u32 {
    let Ok(Some(Understood::Known(info))) = understood else { return 1 };
    let lists = match info.verb {
        Verb::List => true,
        Verb::Watch => matches!(query.get("resourceVersion"), None | Some("" | "0")),
        _ => false,
    };
    if !lists {
        return 1;
    }
    let stored = app.registry.cache.of(info.resource).map_or(0, |cache| cache.len());
    let limit = query.get("limit").and_then(|limit| limit.parse().ok());
    flowcontrol::seats(info.verb.as_str(), info.name(), limit, stored)
}

/// How long a request may take: what it asks for, but no longer than is allowed.
///
/// # Errors
/// 400 for what is no span of time.
fn deadline(app: &App, query: &Query) -> Result<Duration, ApiError> {
    let most = app.options.request_timeout.get();
    let Some(text) = query.get("timeout").filter(|text| !text.is_empty()) else { return Ok(most) };
    match text.parse::<GoDuration>() {
        Ok(wanted) if wanted.get().is_zero() => Ok(most),
        Ok(wanted) => Ok(wanted.get().min(most)),
        Err(_) => Err(ApiError::bad_request(format!(
            "invalid timeout specified in the request URL - time: invalid duration {text:?}"
        ))),
    }
}

fn is_long_running(info: &RequestInfo, query: &Query) -> bool {
    info.verb == Verb::Watch
        || match info.subresource() {
            Some("exec" | "attach" | "portforward" | "proxy") => true,
            Some("log") => query.flag("follow"),
            _ => false,
        }
}

/// Notes what a request for a known resource counts as, and whether it runs long.
fn note_known(
    understood: &Result<Option<Understood>, ApiError>,
    query: &Query,
    labels: &mut RequestLabels,
    long_running: &mut bool,
) {
    if let Ok(Some(Understood::Known(info))) = understood {
        fill_labels(labels, info);
        *long_running = is_long_running(info, query);
    }
}

fn fill_labels(labels: &mut RequestLabels, info: &RequestInfo) {
    labels.verb = match info.verb {
        Verb::Get => "GET",
        Verb::List => "LIST",
        Verb::Watch => "WATCH",
        Verb::Create => "POST",
        Verb::Update => "PUT",
        Verb::Patch => "PATCH",
        Verb::Delete => "DELETE",
        Verb::DeleteCollection => "DELETECOLLECTION",
    };
    labels.group = info.resource.group;
    labels.version = info.resource.version;
    labels.resource = info.resource.plural;
    labels.subresource = info.subresource().unwrap_or_default();
    labels.scope = match (&info.name, &info.namespace) {
        (Some(_), _) => "resource",
        (None, Some(_)) => "namespace",
        (None, None) => "cluster",
    };
}

/// Whom the sender wants to be taken for, if that is allowed.
async fn impersonate(
    app: &App,
    sender: UserInfo,
    headers: &HeaderMap,
    trail: &Trail,
) -> Result<UserInfo, ApiError> {
    let Some(wanted) = impersonation::wanted(headers).map_err(ApiError::bad_request)? else {
        return Ok(sender);
    };
    for attributes in impersonation::needed(&wanted, headers) {
        app.authorizer.authorize(&sender, &Attributes::Resource(attributes)).await?;
    }
    trail.impersonates(&wanted);
    Ok(wanted)
}

/// Whether the user may, with the reason for those who audit.
async fn authorize(
    app: &App,
    user: &UserInfo,
    asked: &Attributes<'_>,
    trail: &Trail,
) -> Result<(), ApiError> {
    if !trail.is_kept() {
        return app.authorizer.authorize(user, asked).await;
    }
    let decision = app.authorizer.decide(user, asked).await;
    let refused = decision.enforce(user, asked);
    let word = if decision.allowed { "allow" } else { "forbid" };
    trail.annotate("authorization.k8s.io/decision", word);
    trail.annotate("authorization.k8s.io/reason", decision.reason);
    refused
}

/// Whether a path asks for what only a definition of custom resources could have made, and none that this server has seen did. One
/// that another server has established may still be under way.
fn is_unheard_of(app: &App, understood: &Result<Option<Understood>, ApiError>, path: &str) -> bool {
    match understood {
        Ok(Some(Understood::Unknown { remote: None, group, .. })) => group.contains('.'),
        Ok(None) => path.strip_prefix("/apis/").is_some_and(|group_version| {
            let (group, version) = group_version.split_once('/').unwrap_or((group_version, ""));
            let served = app.registry.cache.served();
            let mut rows = served.rows().filter(|row| row.group == group);
            group.contains('.')
                && app.aggregator.remote(group, version).is_none()
                && !rows.any(|row| version.is_empty() || row.version == version)
        }),
        _ => false,
    }
}

/// Who answers a request that is allowed.
fn target(
    app: &App,
    user: &UserInfo,
    understood: Result<Option<Understood>, ApiError>,
    path: &str,
    trail: &Trail,
) -> Result<Target, ApiError> {
    match understood? {
        Some(Understood::Known(mut info)) => {
            info.user = user.clone();
            info.audit = trail.clone();
            Ok(Target::Resource(info))
        }
        Some(Understood::Unknown { remote, .. }) => {
            remote.map(Target::Remote).ok_or_else(ApiError::path_not_found)
        }
        None => Ok(remote_document(app, path).map_or(Target::Path, Target::Remote)),
    }
}

/// The server that has the discovery or the schema of a group and version, if that is what the path asks for.
fn remote_document(app: &App, path: &str) -> Option<Arc<Service>> {
    let path = path.trim_matches('/');
    let (group, version) =
        path.strip_prefix("openapi/v3/").unwrap_or(path).strip_prefix("apis/")?.split_once('/')?;
    app.aggregator.remote(group, version)
}

/// Whether a resource can be shown as a table by somebody.
pub fn has_table(app: &App, resource: &Resource) -> bool {
    app.printer.is_some() && resource.has_verb("get")
}
