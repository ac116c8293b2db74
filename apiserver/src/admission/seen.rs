//! A write's objects as those see them who know them in another version, and what comes back from those who change them.

use coracle_api::decode;
use coracle_api::resource::Resource;
use coracle_api::status::ApiError;
use serde_json::Value;

use super::matching::{self, Attributes};
use crate::registry::Registry;
use crate::registry::decode::{check_kind, expected_kind, known_fields};
use crate::server::request_info::RequestInfo;
use crate::strategy;
use crate::subresource::scale;

/// What becomes of fields that the kind does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// They are dropped.
    Dropped,
    /// They are an error.
    Refused,
}

fn is_scale(request: &RequestInfo) -> bool {
    request.subresource() == Some("scale")
}

/// The new and the old object as one of `known_as`.
///
/// # Errors
/// What a conversion webhook did wrong.
pub async fn shown(
    registry: &Registry,
    attributes: &Attributes<'_>,
    known_as: &'static Resource,
) -> Result<[Option<Value>; 2], ApiError> {
    let request = attributes.request;
    let mut shown = [None, None];
    for (object, slot) in [attributes.object, attributes.old].into_iter().zip(&mut shown) {
        let Some(object) = object else { continue };
        if is_scale(request) {
            *slot = Some(scale::scale_of(object, request.resource));
            continue;
        }
        let mut object = matching::in_version(registry, object.clone(), request, known_as).await?;
        if request.generated_name && object.get("metadata").is_some_and(|metadata| metadata["uid"].is_null())
        {
            // Not generated yet, as far as anyone outside is to know.
            coracle_api::meta::remove(&mut object, "name");
        }
        *slot = Some(object);
    }
    Ok(shown)
}

/// The request's object, of which `changed` is what somebody made who saw it as one of `known_as`: of the right kind and types, defaults filled in, in the
/// request's version.
///
/// # Errors
/// 500: it is not of the right kind or has wrong types or, if they are refused, unknown fields.
pub async fn accept(
    registry: &Registry,
    request: &RequestInfo,
    object: &Value,
    mut changed: Value,
    known_as: &'static Resource,
    unknown: Unknown,
) -> Result<Value, ApiError> {
    let mut seen_as = request.clone();
    seen_as.resource = known_as;
    let (api_version, kind) = expected_kind(&seen_as);
    let internal = |error: ApiError| ApiError::internal(error.message());
    check_kind(&mut changed, &api_version, kind).map_err(internal)?;
    if is_scale(request) {
        return scale::scaled(object.clone(), &changed, request.resource);
    }
    let paths = known_fields(&seen_as, known_as, &mut changed).map_err(internal)?;
    if unknown == Unknown::Refused && !paths.is_empty() {
        let texts: Vec<String> = paths.iter().map(|path| decode::unknown_field_text(path)).collect();
        return Err(ApiError::internal(format!("strict decoding error: {}", texts.join(", "))));
    }
    if matching::has_versions(request) {
        strategy::for_resource(known_as).default(&mut changed);
    }
    if request.generated_name && coracle_api::meta::name(&changed).is_empty() {
        coracle_api::meta::set(&mut changed, "name", coracle_api::meta::name(object));
    }
    match matching::has_versions(request) {
        true => registry.in_version(changed, known_as, request.resource).await,
        false => Ok(changed),
    }
}
