//! Which form a client wants its answer in, and which form its body has. Pure.

use coracle_api::status::ApiError;

use crate::protobuf;

/// How objects are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// How a request's body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFormat {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// Kubernetes' protobuf form.
    Protobuf,
}

/// What objects are turned into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The object as it is.
    Object,
    /// A `Table` of this version of meta.k8s.io.
    Table(&'static str),
    /// `PartialObjectMetadata` (or its list).
    Metadata,
}

/// What was settled on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// How.
    pub format: Format,
    /// What.
    pub shape: Shape,
}

impl Accepted {
    /// JSON of the object as it is.
    pub const PLAIN: Self = Self { format: Format::Json, shape: Shape::Object };
}

const SERVED: &[&str] = &["application/json", "application/yaml"];
const READ: &[&str] = &["application/json", "application/yaml", protobuf::MEDIA_TYPE];

/// Picks the first form of an `Accept` header that is served, by quality, then by order. `tables` says whether the resource has a table.
/// An absent header, `*/*` and `application/*` mean JSON.
///
/// # Errors
/// 406 when nothing that is accepted is served.
pub fn accept(header: Option<&str>, tables: bool, watch: bool) -> Result<Accepted, ApiError> {
    let header = header.unwrap_or_default().trim();
    if header.is_empty() {
        return Ok(Accepted::PLAIN);
    }
    let mut clauses: Vec<(f32, Vec<&str>)> = header
        .split(',')
        .map(|clause| clause.split(';').map(str::trim).collect::<Vec<_>>())
        .map(|parts| (quality(&parts), parts))
        .filter(|(quality, _)| *quality > 0.0)
        .collect();
    clauses.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    clauses
        .iter()
        .find_map(|(_, parts)| one(parts, tables, watch))
        .ok_or_else(|| ApiError::not_acceptable(SERVED))
}

fn quality(parts: &[&str]) -> f32 {
    parts.iter().find_map(|part| part.strip_prefix("q=")).and_then(|q| q.parse().ok()).unwrap_or(1.0)
}

fn one(parts: &[&str], tables: bool, watch: bool) -> Option<Accepted> {
    let (media_type, parameters) = parts.split_first()?;
    let format = match *media_type {
        "application/json" | "*/*" | "application/*" => Format::Json,
        // A stream of YAML documents is not served: watches are lines of JSON.
        "application/yaml" if !watch => Format::Yaml,
        _ => return None,
    };
    let parameter = |name: &str| {
        parameters.iter().find_map(|p| p.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default()
    };
    let shape = match (parameter("as"), parameter("g"), parameter("v")) {
        ("", _, _) => Shape::Object,
        ("Table", "meta.k8s.io", "v1") if tables => Shape::Table("v1"),
        ("Table", "meta.k8s.io", "v1beta1") if tables => Shape::Table("v1beta1"),
        ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1") => Shape::Metadata,
        _ => return None,
    };
    Some(Accepted { format, shape })
}

/// What a request's body is written in.
///
/// # Errors
/// 415 for everything but JSON, YAML and Kubernetes' protobuf.
pub fn body_format(content_type: Option<&str>) -> Result<BodyFormat, ApiError> {
    match media_type(content_type) {
        "" | "application/json" => Ok(BodyFormat::Json),
        "application/yaml" => Ok(BodyFormat::Yaml),
        protobuf::MEDIA_TYPE => Ok(BodyFormat::Protobuf),
        _ => Err(ApiError::unsupported_media_type(READ)),
    }
}

/// The media type of a `Content-Type` header, without parameters.
pub fn media_type(content_type: Option<&str>) -> &str {
    content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(header: &str, tables: bool) -> Shape {
        accept(Some(header), tables, false).expect("acceptable").shape
    }

    #[test]
    fn kubectl_gets_tables_where_there_are_some() {
        let get = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(shape(get, true), Shape::Table("v1"));
        assert_eq!(shape(get, false), Shape::Object);
        let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
        assert_eq!(shape(metadata, true), Shape::Metadata);
    }

    #[test]
    fn clients_that_prefer_protobuf_fall_back_to_json() {
        let accepted = accept(Some("application/vnd.kubernetes.protobuf,application/json"), true, true);
        assert_eq!(accepted, Ok(Accepted::PLAIN));
        assert_eq!(accept(Some("*/*"), true, false), Ok(Accepted::PLAIN));
        assert_eq!(
            accept(Some("application/json;q=0.5, application/yaml"), true, false).map(|a| a.format),
            Ok(Format::Yaml)
        );
        assert_eq!(accept(Some("application/json;stream=watch"), true, true), Ok(Accepted::PLAIN));
        assert_eq!(accept(Some("text/html"), true, false).expect_err("not served").code(), 406);
    }

    #[test]
    fn bodies_are_json_yaml_or_protobuf() {
        assert_eq!(body_format(Some("application/json; charset=utf-8")), Ok(BodyFormat::Json));
        assert_eq!(body_format(Some("application/vnd.kubernetes.protobuf")), Ok(BodyFormat::Protobuf));
        assert_eq!(body_format(Some("application/protobuf")).expect_err("no").code(), 415);
        assert_eq!(accept(Some(protobuf::MEDIA_TYPE), true, false).expect_err("not written").code(), 406);
    }
}
