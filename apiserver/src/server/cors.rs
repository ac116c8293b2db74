//! Cross-origin requests of web pages: which origins may read answers (`--cors-allowed-origins`). Authorizes nothing.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ORIGIN,
};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use regex::Regex;

use super::body::{self, Response};

/// The origins that are allowed.
pub struct Cors(Vec<Regex>);

impl Cors {
    /// Of the flag's values, which have been checked.
    pub fn new(patterns: &[String]) -> Self {
        Self(
            patterns
                .iter()
                .filter(|text| !text.is_empty())
                .filter_map(|text| Regex::new(text).ok())
                .collect(),
        )
    }

    /// The origin of a request, if it is allowed.
    pub fn allowed<B>(&self, request: &Request<B>) -> Option<HeaderValue> {
        if self.0.is_empty() {
            return None;
        }
        let origin = request.headers().get(ORIGIN)?;
        let text = origin.to_str().ok()?;
        self.0.iter().any(|pattern| pattern.is_match(text)).then(|| origin.clone())
    }
}

/// The answer to a page that asks beforehand.
pub fn preflight(method: &Method) -> Option<Response> {
    (*method == Method::OPTIONS).then(|| {
        let mut response = Response::new(body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        response
    })
}

/// Lets the page read the answer.
pub fn allow(headers: &mut HeaderMap, origin: HeaderValue) {
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    for (name, value) in [
        (ACCESS_CONTROL_ALLOW_METHODS, "POST, GET, OPTIONS, PUT, DELETE, PATCH"),
        (
            ACCESS_CONTROL_ALLOW_HEADERS,
            "Content-Type, Content-Length, Accept-Encoding, X-CSRF-Token, Authorization, X-Requested-With, If-Modified-Since",
        ),
        (ACCESS_CONTROL_EXPOSE_HEADERS, "Date"),
        (ACCESS_CONTROL_ALLOW_CREDENTIALS, "true"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_origins_that_match_are_allowed() {
        let cors = Cors::new(&["//localhost(:[0-9]+)?$".to_owned(), String::new()]);
        let of = |origin: &str| {
            let request = Request::get("/").header(ORIGIN, origin).body(()).expect("a request");
            cors.allowed(&request).is_some()
        };
        assert!(of("http://localhost:8080"));
        assert!(!of("http://localhost.example.com"));
        assert!(!of("http://elsewhere"));
        assert!(cors.allowed(&Request::get("/").body(()).expect("a request")).is_none());
        assert!(
            Cors::new(&[])
                .allowed(&Request::get("/").header(ORIGIN, "x").body(()).expect("a request"))
                .is_none()
        );
    }
}
