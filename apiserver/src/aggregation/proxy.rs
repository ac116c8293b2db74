//! Passes a request on to the server that answers for its group: as the same user, whom the headers name and the client certificate vouches for.
//! Bodies and watches are streamed, upgraded connections copied.

use coracle_api::status::ApiError;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::{Aggregator, Service};
use crate::server::app::App;
use crate::server::body::{self, Response};
use crate::server::relay::{self, Upgrade};
use crate::server::request_info::UserInfo;

const USER: HeaderName = HeaderName::from_static("x-remote-user");
const UID: HeaderName = HeaderName::from_static("x-remote-uid");
const GROUP: HeaderName = HeaderName::from_static("x-remote-group");
const EXTRA: &str = "x-remote-extra-";

/// Says whom a request comes from, whatever it said before.
pub(super) fn name_user(headers: &mut HeaderMap, user: &UserInfo) {
    let ours = |name: &HeaderName| {
        [&USER, &UID, &GROUP].contains(&name)
            || name.as_str().starts_with(EXTRA)
            || name.as_str().starts_with("impersonate-")
            || *name == AUTHORIZATION
    };
    let stale: Vec<HeaderName> = headers.keys().filter(|name| ours(name)).cloned().collect();
    for name in stale {
        headers.remove(name);
    }
    let mut add = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            headers.append(name, value);
        }
    };
    add(USER, &user.name);
    if !user.uid.is_empty() {
        add(UID, &user.uid);
    }
    for group in &user.groups {
        add(GROUP, group);
    }
    for (key, values) in &user.extra {
        let Ok(name) = HeaderName::try_from(format!("{EXTRA}{}", escaped(key))) else { continue };
        for value in values {
            add(name.clone(), value);
        }
    }
}

/// A key as a part of a header's name: lower case, everything else percent-encoded.
fn escaped(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    for byte in key.to_lowercase().bytes() {
        match byte {
            b'a'..=b'z'
            | b'0'..=b'9'
            | b'-'
            | b'_'
            | b'.'
            | b'!'
            | b'#'
            | b'$'
            | b'&'
            | b'\''
            | b'*'
            | b'+'
            | b'^'
            | b'`'
            | b'|'
            | b'~' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

/// Upstream's plain text, which its clients turn into their own words.
fn unavailable(text: &str) -> Response {
    body::plain(StatusCode::SERVICE_UNAVAILABLE, format!("{text}\n"))
}

impl Aggregator {
    /// Passes the request on and gives the answer back as it comes.
    ///
    /// # Errors
    /// The APIService makes no sense. That the server cannot be reached is an answer too.
    pub async fn forward(
        &self,
        app: &App,
        service: &Service,
        user: &UserInfo,
        mut request: Request<Incoming>,
    ) -> Result<Response, ApiError> {
        let Some(remote) = service.remote.as_ref().filter(|remote| remote.available) else {
            return Ok(unavailable("service unavailable"));
        };
        let endpoint = remote.endpoint.as_ref().map_err(ApiError::internal)?;
        let upgrade = Upgrade::of(&mut request);
        let (mut head, incoming) = request.into_parts();
        let path = head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
        head.uri = path.parse().map_err(ApiError::internal)?;
        head.version = Version::HTTP_11;
        relay::pass_on(&mut head.headers, upgrade.as_ref());
        head.headers.remove(HOST);
        name_user(&mut head.headers, user);
        let onward = Request::from_parts(head, incoming.map_err(Into::into).boxed_unsync());
        let mut answer = match self.clients.send(endpoint, onward).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::info!(service = service.name, error, "a request could not be passed on");
                return Ok(unavailable(&format!("error trying to reach service: {error}")));
            }
        };
        if let Some(joined) = upgrade.and_then(|upgrade| upgrade.joined(&mut answer, app.draining.clone())) {
            return Ok(joined);
        }
        let (head, incoming) = relay::take_back(answer);
        Ok(Response::from_parts(head, incoming.map_err(Into::into).boxed_unsync()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_is_who_was_authenticated_and_nobody_else() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-remote-user", "root"),
            ("x-remote-group", "system:masters"),
            ("x-remote-extra-scopes", "all"),
            ("authorization", "Bearer secret"),
            ("impersonate-user", "me"),
            ("accept", "application/json"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let user = UserInfo {
            name: "me".into(),
            groups: vec!["a".into(), "b".into()],
            extra: [("Example.com/Key".to_owned(), vec!["1".to_owned()])].into(),
            ..UserInfo::default()
        };
        name_user(&mut headers, &user);
        let values = |name: &str| {
            headers
                .get_all(name)
                .iter()
                .filter_map(|v| v.to_str().ok())
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            (values("x-remote-user"), values("x-remote-group")),
            (vec!["me".into()], vec!["a".into(), "b".into()])
        );
        assert_eq!(values("x-remote-extra-example.com%2fkey"), ["1"]);
        assert_eq!(values("accept").len(), 1);
        for gone in ["authorization", "impersonate-user", "x-remote-extra-scopes"] {
            assert!(values(gone).is_empty(), "{gone}");
        }
    }
}
