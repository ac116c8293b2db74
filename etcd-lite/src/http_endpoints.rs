//! The plain HTTP paths of the client port: `/health`, `/livez`, `/readyz`, `/version`, `/metrics`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use component_base::metrics::SharedRegistry;
use coracle_proto::etcdserverpb::AlarmType;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, StatusCode, Uri};
use http_body_util::Full;

use crate::member::Member;

/// How long a health check may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// Answers plain HTTP requests about one member.
pub struct HttpEndpoints<M> {
    member: Arc<M>,
    registry: SharedRegistry,
}

impl<M: Member> HttpEndpoints<M> {
    /// Endpoints of a member; `registry` is what `/metrics` shows.
    pub fn new(member: Arc<M>, registry: SharedRegistry) -> Self {
        Self { member, registry }
    }

    /// Answers one request.
    pub async fn answer(&self, method: &Method, uri: &Uri) -> http::Response<Full<Bytes>> {
        if method != Method::GET && method != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n".to_owned());
        }
        let query = uri.query().unwrap_or_default();
        match uri.path() {
            "/health" => self.health(query).await,
            "/livez" => self.checks("livez", query, &["serializable_read"]).await,
            "/readyz" => {
                self.checks("readyz", query, &["data_corruption", "serializable_read", "linearizable_read"])
                    .await
            }
            "/version" => self.version(),
            "/metrics" => self.metrics(),
            path => match path.strip_prefix("/livez/").or_else(|| path.strip_prefix("/readyz/")) {
                Some(check @ ("data_corruption" | "serializable_read" | "linearizable_read")) => {
                    self.checks(path.split('/').nth(1).unwrap_or_default(), query, &[check]).await
                }
                _ => text(StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
            },
        }
    }

    async fn health(&self, query: &str) -> http::Response<Full<Bytes>> {
        let serializable = parameter(query, "serializable").any(|value| value == "true");
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
        let (status, healthy, reason) = match problem {
            None => (StatusCode::OK, "true", String::new()),
            Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, "false", reason),
        };
        json(status, &serde_json::json!({ "health": healthy, "reason": reason }))
    }

    async fn checks(&self, endpoint: &str, query: &str, checks: &[&str]) -> http::Response<Full<Bytes>> {
        let excluded: Vec<&str> = parameter(query, "exclude").collect();
        let (mut report, mut passed) = (String::new(), true);
        for check in checks {
            let line = if excluded.contains(check) {
                format!("[+]{check} excluded: ok\n")
            } else {
                // A read of this member's own state cannot fail while the member answers at all.
                let result = match *check {
                    "linearizable_read" => self.linearizable_read().await,
                    "data_corruption" if self.alarm_names().any(|name| name == "CORRUPT") => {
                        Err("alarm activated: CORRUPT".to_owned())
                    }
                    _ => Ok(()),
                };
                match result {
                    Ok(()) => format!("[+]{check} ok\n"),
                    Err(reason) => {
                        passed = false;
                        format!("[-]{check} failed: {reason}\n")
                    }
                }
            };
            report.push_str(&line);
        }
        let verbose = parameter(query, "verbose").next().is_some();
        match (passed, verbose) {
            (false, _) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{report}{endpoint} check failed\n")),
            (true, true) => text(StatusCode::OK, format!("{report}{endpoint} check passed\n")),
            (true, false) => text(StatusCode::OK, "ok\n".to_owned()),
        }
    }

    /// Names of the raised alarms, each as often as members raised it.
    fn alarm_names(&self) -> impl Iterator<Item = &'static str> + use<M> {
        let alarms: Vec<_> = self.member.store().read().alarms().get(AlarmType::None).collect();
        alarms.into_iter().map(|alarm| alarm.alarm().as_str_name())
    }

    async fn linearizable_read(&self) -> Result<(), String> {
        match tokio::time::timeout(CHECK_TIMEOUT, self.member.read_index()).await {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(_) => Err("context deadline exceeded".to_owned()),
        }
    }

    fn version(&self) -> http::Response<Full<Bytes>> {
        let cluster = self.member.store().read().cluster_version().unwrap_or("not_decided").to_owned();
        json(
            StatusCode::OK,
            &serde_json::json!({ "etcdserver": component_base::version::ETCD, "etcdcluster": cluster }),
        )
    }

    fn metrics(&self) -> http::Response<Full<Bytes>> {
        let body = component_base::metrics::encode(&self.registry.lock());
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

fn text(status: StatusCode, body: String) -> http::Response<Full<Bytes>> {
    respond(status, "text/plain; charset=utf-8", body)
}

fn json(status: StatusCode, body: &serde_json::Value) -> http::Response<Full<Bytes>> {
    respond(status, "application/json", body.to_string())
}

fn respond(status: StatusCode, content_type: &'static str, body: String) -> http::Response<Full<Bytes>> {
    let mut response = http::Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
