//! URLs: absolute ones, or absolute paths, as Go's `url.ParseRequestURI` takes them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::overload::Row;
use super::super::value::{Key, Text, Value};
use super::super::{EvalError, failed, no_such_overload};
use super::text;

pub(super) const ROWS: &[Row] = &[
    ("url(string): kubernetes.URL", |values| {
        let given = text(values, 0)?;
        let url = Url::parse(given).map_err(|reason| {
            failed(format!("URL parse error during conversion from string: parse \"{given}\": {reason}"))
        })?;
        Ok(Value::Url(Arc::new(url)))
    }),
    ("isURL(string): bool", |values| Ok(Url::parse(text(values, 0)?).is_ok().into())),
    (".getScheme(kubernetes.URL): string", |values| Ok(of(values)?.scheme.clone().into())),
    (".getHost(kubernetes.URL): string", |values| Ok(of(values)?.host.clone().into())),
    (".getHostname(kubernetes.URL): string", |values| Ok(of(values)?.host_and_port().0.to_owned().into())),
    (".getPort(kubernetes.URL): string", |values| Ok(of(values)?.host_and_port().1.to_owned().into())),
    (".getEscapedPath(kubernetes.URL): string", |values| Ok(of(values)?.path.clone().into())),
    (".getQuery(kubernetes.URL): map(string, list(string))", |values| Ok(of(values)?.query())),
];

fn of<'v>(values: &'v [Value<'_>]) -> Result<&'v Url, EvalError> {
    match values.first() {
        Some(Value::Url(url)) => Ok(url),
        _ => Err(no_such_overload()),
    }
}

/// The parts of a URL.
#[derive(Debug, PartialEq, Eq)]
pub struct Url {
    scheme: String,
    host: String,
    path: String,
    query: String,
}

impl Url {
    fn parse(given: &str) -> Result<Url, &'static str> {
        if given.is_empty() {
            return Err("empty url");
        }
        if given.chars().any(|c| c.is_ascii_control()) {
            return Err("net/url: invalid control character in URL");
        }
        let (before, query) = given.split_once('?').unwrap_or((given, ""));
        let (scheme, rest) = match before.split_once(':') {
            Some((scheme, rest)) if is_scheme(scheme) => (scheme.to_ascii_lowercase(), rest),
            _ if before.starts_with('/') => (String::new(), before),
            _ => return Err("invalid URI for request"),
        };
        let (host, path) = match rest.strip_prefix("//") {
            Some(rest) if !scheme.is_empty() || !rest.starts_with('/') => {
                let end = rest.find('/').unwrap_or(rest.len());
                let authority = &rest[..end];
                (authority.rsplit_once('@').map_or(authority, |(_, host)| host), &rest[end..])
            }
            _ if rest.starts_with('/') => ("", rest),
            _ => return Err("invalid URI for request"),
        };
        if host.contains([' ', '<', '>', '"']) {
            return Err("invalid character in host name");
        }
        let port = host.rsplit_once(':').filter(|_| !host.ends_with(']')).map_or("", |(_, port)| port);
        if !port.chars().all(|c| c.is_ascii_digit()) {
            return Err("invalid port after host");
        }
        if !escapes_are_whole(path) {
            return Err("invalid URL escape");
        }
        Ok(Url { scheme, host: host.to_owned(), path: path.replace(' ', "%20"), query: query.to_owned() })
    }

    fn host_and_port(&self) -> (&str, &str) {
        let (host, port) = match self.host.rsplit_once(':') {
            Some((host, port)) if !self.host.ends_with(']') => (host, port),
            _ => (self.host.as_str(), ""),
        };
        (host.trim_start_matches('[').trim_end_matches(']'), port)
    }

    fn query<'a>(&self) -> Value<'a> {
        let mut found: BTreeMap<Key<'a>, Vec<Value<'a>>> = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(self.query.as_bytes()) {
            let key = Key::String(Text::Shared(name.as_ref().into()));
            found.entry(key).or_default().push(value.into_owned().into());
        }
        Value::Map(Arc::new(found.into_iter().map(|(key, values)| (key, values.into())).collect()))
    }
}

/// Whether a text is a URL.
pub(super) fn is_url(text: &str) -> bool {
    Url::parse(text).is_ok()
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

fn escapes_are_whole(path: &str) -> bool {
    let bytes = path.as_bytes();
    bytes.iter().enumerate().filter(|(_, byte)| **byte == b'%').all(|(index, _)| {
        bytes.get(index + 1..index + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}
