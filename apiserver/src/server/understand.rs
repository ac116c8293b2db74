//! What a request asks for, out of its method, path and query, before anybody is asked whether it may. Decides about no user.

use std::sync::Arc;

use coracle_api::status::ApiError;
use http::{HeaderMap, Method};

use super::app::App;
use super::request_info::{Query, RequestInfo, ResourcePath, UserInfo, Verb, Warnings};
use super::write_options::WriteOptions;
use crate::aggregation::Service;
use crate::audit::Trail;
use crate::authn::impersonation;
use crate::authz::{Attributes, ResourceAttributes};

/// A path under `/api` or `/apis` that speaks of objects.
pub(super) enum Understood {
    Known(Box<RequestInfo>),
    /// Nothing is served there, or another server has to say; whether the user may know that is for authorization.
    Unknown {
        remote: Option<Arc<Service>>,
        verb: Verb,
        group: String,
        version: String,
        resource: String,
        subresource: String,
        namespace: String,
        name: String,
    },
}

pub(super) fn understand(
    app: &App,
    method: &Method,
    path: &str,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Option<Understood>, ApiError> {
    let Some(path) = ResourcePath::parse(path) else { return Ok(None) };
    let watch = path.deprecated_watch || (path.name.is_none() && query.flag("watch"));
    let verb = match (method.as_str(), path.name.is_some()) {
        ("GET" | "HEAD", _) if watch => Some(Verb::Watch),
        ("GET" | "HEAD", true) => Some(Verb::Get),
        ("GET" | "HEAD", false) => Some(Verb::List),
        ("POST", _) => Some(Verb::Create),
        ("PUT", true) => Some(Verb::Update),
        ("PATCH", true) => Some(Verb::Patch),
        ("DELETE", true) => Some(Verb::Delete),
        ("DELETE", false) => Some(Verb::DeleteCollection),
        // Asks the one behind the proxy, not this server.
        ("OPTIONS", true) if path.subresource == Some("proxy") => Some(Verb::Get),
        _ => None,
    };
    let remote = app.aggregator.remote(path.group, path.version);
    let is_remote = remote.is_some();
    let unknown = move |verb: Verb| Understood::Unknown {
        remote,
        verb,
        group: path.group.to_owned(),
        version: path.version.to_owned(),
        resource: path.resource.to_owned(),
        subresource: path.subresource.unwrap_or_default().to_owned(),
        namespace: path.namespace.unwrap_or_default().to_owned(),
        name: path.name.unwrap_or_default().to_owned(),
    };
    let known = app.registry.cache.lookup(path.group, path.version, path.resource);
    let Some(resource) = known.filter(|_| !is_remote && app.registry.cache.serves(path.group, path.version))
    else {
        return Ok(Some(unknown(verb.unwrap_or(Verb::Get))));
    };
    let Some(verb) = verb else {
        return Err(ApiError::method_not_allowed());
    };
    let namespaced_path =
        path.namespace.is_some() && !(resource.group.is_empty() && resource.plural == "namespaces");
    if namespaced_path && !resource.namespaced {
        return Ok(Some(unknown(verb)));
    }
    let subresource = match path.subresource {
        None => None,
        Some(name) => match resource.subresource(name) {
            Some(found) => Some(found),
            None => return Ok(Some(unknown(verb))),
        },
    };
    if subresource.is_none() && path.name.is_some() && verb == Verb::Create {
        return Err(ApiError::method_not_allowed());
    }
    let name = path.name.map(decode_segment).transpose()?;
    let namespace = match path.namespace {
        Some(namespace) if resource.namespaced => Some(decode_segment(namespace)?),
        _ => None,
    };
    // The query of what is passed on is for the one behind the proxy.
    let writes = verb.is_mutating() && path.subresource != Some("proxy");
    let options = if writes { WriteOptions::of(verb, query, headers)? } else { WriteOptions::of_reads() };
    Ok(Some(Understood::Known(Box::new(RequestInfo {
        verb,
        resource,
        subresource,
        namespace,
        name,
        rest: path.rest.to_owned(),
        user: UserInfo::default(),
        dry_run: options.dry_run,
        generated_name: false,
        delete_options: serde_json::Value::Null,
        admitted: false,
        field_manager: options.field_manager,
        field_validation: options.field_validation,
        query: query.clone(),
        warnings: Warnings::default(),
        audit: Trail::default(),
    }))))
}

fn decode_segment(text: &str) -> Result<String, ApiError> {
    if !text.contains('%') {
        return Ok(text.to_owned());
    }
    let decoded = impersonation::unescape(text);
    crate::storage::keys::check_segment(&decoded).map_err(ApiError::bad_request)?;
    Ok(decoded)
}

/// What authorization and audit are asked about, with the API version. What makes no sense is a path.
pub(super) fn asked<'a>(
    understood: &'a Result<Option<Understood>, ApiError>,
    method: &'a str,
    path: &'a str,
) -> (Attributes<'a>, &'a str) {
    match understood {
        Ok(Some(Understood::Known(info))) => (Attributes::of(info), info.resource.version),
        Ok(Some(Understood::Unknown {
            verb,
            group,
            version,
            resource,
            subresource,
            namespace,
            name,
            ..
        })) => {
            let attributes = ResourceAttributes {
                verb: verb.as_str(),
                group,
                version,
                resource,
                subresource,
                namespace,
                name,
                ..ResourceAttributes::default()
            };
            (Attributes::Resource(attributes), version)
        }
        Ok(None) | Err(_) => (Attributes::Path { verb: method, path }, ""),
    }
}
