//! What is not gRPC on the client port: which origins and host names are let in, then the JSON gateway or the plain endpoints.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, HOST, HeaderMap,
    HeaderValue, ORIGIN,
};
use http::{Method, Request, Response, StatusCode};
use tonic::body::Body;

use super::{ClientService, gateway};
use crate::http_endpoints::text;
use crate::member::Member;

/// Names and origins that are let in.
#[derive(Clone, Debug)]
pub struct AccessConfig {
    /// Origins of pages that may read answers; `*` is any (`--cors`).
    pub origins: Vec<String>,
    /// Host names under which clients without TLS may speak to this member; `*` is any (`--host-whitelist`). Keeps pages that rebind their
    /// own name to this address out.
    pub hosts: Vec<String>,
}

impl Default for AccessConfig {
    fn default() -> Self {
        Self { origins: vec!["*".to_owned()], hosts: vec!["*".to_owned()] }
    }
}

impl AccessConfig {
    fn takes_host(&self, host: &str) -> bool {
        self.hosts.is_empty() || self.hosts.iter().any(|known| known == "*" || known == host)
    }

    /// The origin to allow, if any.
    fn origin<'a>(&'a self, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
        let origin = headers.get(ORIGIN)?;
        self.origins.iter().any(|known| known.as_bytes() == origin.as_bytes()).then_some(origin)
    }

    fn takes_any_origin(&self) -> bool {
        self.origins.is_empty() || self.origins.iter().any(|known| known == "*")
    }
}

/// Answers one request.
pub(super) async fn answer<M: Member>(service: ClientService<M>, request: Request<Body>) -> Response<Body> {
    let config = std::sync::Arc::clone(&service.config);
    let access = &config.access;
    if !service.is_behind_tls {
        let host = host_name(&request);
        if !access.takes_host(host) {
            let why = format!(
                "the host name {host:?} is not in --host-whitelist of this member; add it there or use TLS\n"
            );
            return text(StatusCode::MISDIRECTED_REQUEST, why).map(Body::new);
        }
    }
    let origin = if access.takes_any_origin() {
        Some(HeaderValue::from_static("*"))
    } else {
        access.origin(request.headers()).cloned()
    };
    let mut response = if request.method() == Method::OPTIONS {
        Response::new(Body::empty())
    } else {
        let path = request.uri().path().to_owned();
        match gateway::path_of(&path).filter(|_| config.has_gateway) {
            Some(path) => gateway::answer(service, path, request).await,
            None => service.http.answer(request.method(), request.uri()).await.map(Body::new),
        }
    };
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        let methods = HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE");
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        let allowed = HeaderValue::from_static("accept, content-type, authorization");
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
    }
    response
}

/// The host a request was sent to, without port.
fn host_name(request: &Request<Body>) -> &str {
    let header = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    let host = header.or_else(|| request.uri().authority().map(|a| a.as_str())).unwrap_or_default();
    match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_come_without_port() {
        for (host, expected) in [("a:1", "a"), ("a", "a"), ("[::1]:2379", "::1"), ("", "")] {
            let request = Request::get("/").header(HOST, host).body(Body::empty()).expect("a request");
            assert_eq!(host_name(&request), expected);
        }
        let request = Request::get("http://b:2/x").body(Body::empty()).expect("a request");
        assert_eq!(host_name(&request), "b", "HTTP/2 has it in the URI");
    }
}
