//! The plain HTTP paths of the client port: `/health`, `/livez`, `/readyz`, `/version`, `/metrics`.

use std::sync::Arc;

use bytes::Bytes;
use component_base::metrics::SharedRegistry;
use coracle_proto::etcdserverpb::AlarmType;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Method, StatusCode, Uri};
use http_body_util::Full;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::member::Member;
use crate::metrics::InFlight;

/// What `/livez` looks at: is this process to be restarted?
const LIVEZ: [&str; 1] = ["serializable_read"];

/// What `/readyz` looks at: is this member to be used?
const READYZ: [&str; 3] = ["data_corruption", "serializable_read", "linearizable_read"];

/// Answers plain HTTP requests about one member.
pub struct HttpEndpoints<M> {
    member: Arc<M>,
    registry: SharedRegistry,
    healthy: Counter,
    unhealthy: Counter,
    scrapes: Counter,
    scraping: Gauge,
}

impl<M: Member> HttpEndpoints<M> {
    /// Endpoints of a member; `registry` is what `/metrics` shows.
    pub fn new(member: Arc<M>, registry: SharedRegistry) -> Self {
        let (healthy, unhealthy) = (Counter::default(), Counter::default());
        let scrapes = Family::<[(&str, &str); 1], Counter>::default();
        let scraping = Gauge::default();
        {
            let mut registry = registry.lock();
            let help = "The total number of successful health checks";
            registry.register("etcd_server_health_success", help, healthy.clone());
            let help = "The total number of failed health checks";
            registry.register("etcd_server_health_failures", help, unhealthy.clone());
            let help = "Total number of scrapes by HTTP status code";
            registry.register("promhttp_metric_handler_requests", help, scrapes.clone());
            let help = "Current number of scrapes being served";
            registry.register("promhttp_metric_handler_requests_in_flight", help, scraping.clone());
        }
        // No scrape is answered with anything else.
        let scrapes = scrapes.get_or_create(&[("code", "200")]).clone();
        Self { member, registry, healthy, unhealthy, scrapes, scraping }
    }

    /// The member they are about.
    pub(crate) fn member(&self) -> &M {
        &self.member
    }

    /// Answers one request.
    pub async fn answer(&self, method: &Method, uri: &Uri) -> http::Response<Full<Bytes>> {
        let query = uri.query().unwrap_or_default();
        let checks = |path: &'static str| {
            let rest = uri.path().strip_prefix(path)?;
            let known: &[&'static str] = if path == "/livez" { &LIVEZ } else { &READYZ };
            match rest.strip_prefix('/') {
                None => rest.is_empty().then(|| {
                    let excluded = |check: &&str| parameter(query, "exclude").any(|name| name == *check);
                    known.iter().copied().filter(|check| !excluded(check)).collect::<Vec<_>>()
                }),
                Some(name) => known.iter().copied().find(|check| *check == name).map(|check| vec![check]),
            }
        };
        let (path, checks) = match (uri.path(), checks("/livez"), checks("/readyz")) {
            (_, Some(checks), _) => ("livez", checks),
            (_, _, Some(checks)) => ("readyz", checks),
            ("/metrics", ..) => return self.metrics(),
            (path @ ("/health" | "/version"), ..) => (path, Vec::new()),
            _ => return text(StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
        };
        if method != Method::GET {
            let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n".to_owned());
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
            return refusal;
        }
        match path {
            "/health" => self.health(query).await,
            "/version" => self.version(),
            _ => self.checks(query, &checks).await,
        }
    }

    async fn health(&self, query: &str) -> http::Response<Full<Bytes>> {
        let serializable = parameter(query, "serializable").next() == Some("true");
        let excluded: Vec<&str> = parameter(query, "exclude").collect();
        let alarm = self.alarm_names().find(|name| !excluded.contains(name));
        let problem = if let Some(alarm) = alarm {
            Some(format!("ALARM {alarm}"))
        } else if self.member.status().leader == 0 && !serializable {
            Some("RAFT NO LEADER".to_owned())
        } else if serializable {
            None
        } else {
            self.linearizable_read().await.err().map(|error| format!("RANGE ERROR:{error}"))
        };
        let healthy = if problem.is_none() { "true" } else { "false" };
        let reason = problem.unwrap_or_default();
        let body = serde_json::json!({ "health": healthy, "reason": reason }).to_string();
        if healthy == "true" {
            self.healthy.inc();
            text(StatusCode::OK, body)
        } else {
            self.unhealthy.inc();
            text(StatusCode::SERVICE_UNAVAILABLE, body + "\n")
        }
    }

    async fn checks(&self, query: &str, checks: &[&str]) -> http::Response<Full<Bytes>> {
        let (mut report, mut passed) = (String::new(), true);
        for check in checks {
            // A read of this member's own state cannot fail while the member answers at all.
            let result = match *check {
                "linearizable_read" => self.linearizable_read().await,
                "data_corruption" if self.alarm_names().any(|name| name == "CORRUPT") => {
                    Err("alarm activated: CORRUPT".to_owned())
                }
                _ => Ok(()),
            };
            match result {
                Ok(()) => report.push_str(&format!("[+]{check} ok\n")),
                Err(reason) => {
                    passed = false;
                    report.push_str(&format!("[-]{check} failed: {reason}\n"));
                }
            }
        }
        if !passed {
            return text(StatusCode::SERVICE_UNAVAILABLE, report + "\n");
        }
        let is_verbose = parameter(query, "verbose").next().is_some();
        let mut response = text(StatusCode::OK, if is_verbose { report + "ok\n" } else { "ok\n".to_owned() });
        response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }

    /// Names of the raised alarms, each as often as members raised it.
    fn alarm_names(&self) -> impl Iterator<Item = &'static str> + use<M> {
        let alarms: Vec<_> = self.member.store().read().alarms().get(AlarmType::None).collect();
        alarms.into_iter().map(|alarm| alarm.alarm().as_str_name())
    }

    async fn linearizable_read(&self) -> Result<(), String> {
        // Bounded by the member, as any read.
        self.member.read_index().await.map_err(|error| error.to_string())
    }

    fn version(&self) -> http::Response<Full<Bytes>> {
        let cluster = self.member.store().read().cluster_version().unwrap_or("not_decided").to_owned();
        let server = component_base::version::ETCD;
        // In etcd's order, which is not that of the alphabet.
        let body = format!(r#"{{"etcdserver":"{server}","etcdcluster":"{cluster}"}}"#);
        respond(StatusCode::OK, "application/json", body)
    }

    fn metrics(&self) -> http::Response<Full<Bytes>> {
        let _in_flight = InFlight::begin(&self.scraping);
        let body = crate::metrics::text(&self.registry.lock());
        self.scrapes.inc();
        respond(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", body)
    }
}

fn parameter<'a>(query: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    query
        .split('&')
        .map(|p| p.split_once('=').unwrap_or((p, "")))
        .filter(move |(n, _)| *n == name)
        .map(|(_, v)| v)
}

/// An answer in words.
pub(crate) fn text(status: StatusCode, body: String) -> http::Response<Full<Bytes>> {
    let mut response = respond(status, "text/plain; charset=utf-8", body);
    if !status.is_success() {
        response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    }
    response
}

fn respond(status: StatusCode, content_type: &'static str, body: String) -> http::Response<Full<Bytes>> {
    let mut response = http::Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
