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
    /// Kubernetes' protobuf form.
    Protobuf,
}

impl Format {
    /// The media type of whole objects.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => protobuf::MEDIA_TYPE,
        }
    }
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
    /// `PartialObjectMetadata` (or its list) of this version of meta.k8s.io.
    Metadata(&'static str),
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

/// What a resource can be answered as, beside JSON and YAML.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offers {
    /// It has a table.
    pub tables: bool,
    /// Its kind has a protobuf form; custom resources have none.
    pub protobuf: bool,
    /// It is a stream of events.
    pub watch: bool,
}

const READ: &[&str] = &["application/json", "application/yaml", protobuf::MEDIA_TYPE];

/// Picks the first form of an `Accept` header that is served, by quality, then by order. An absent header, `*/*` and `application/*` mean JSON.
///
/// # Errors
/// 406 when nothing that is accepted is served.
pub fn accept(header: Option<&str>, offers: Offers) -> Result<Accepted, ApiError> {
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
        .find_map(|(_, parts)| one(parts, offers))
        .ok_or_else(|| ApiError::not_acceptable(served(offers)))
}

fn served(offers: Offers) -> &'static [&'static str] {
    match (offers.watch, offers.protobuf) {
        (false, false) => &["application/json", "application/yaml"],
        (false, true) => READ,
        (true, false) => &["application/json;stream=watch"],
        (true, true) => &["application/json;stream=watch", WATCH_MEDIA_TYPE],
    }
}

/// The media type of watches in protobuf. Those in JSON name no stream.
pub const WATCH_MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf;stream=watch";

fn quality(parts: &[&str]) -> f32 {
    parts.iter().find_map(|part| part.strip_prefix("q=")).and_then(|q| q.parse().ok()).unwrap_or(1.0)
}

fn one(parts: &[&str], offers: Offers) -> Option<Accepted> {
    let (media_type, parameters) = parts.split_first()?;
    let parameter = |name: &str| {
        parameters.iter().find_map(|p| p.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default()
    };
    let version = match parameter("v") {
        "v1" => "v1",
        "v1beta1" => "v1beta1",
        _ => "",
    };
    let (shape, has_protobuf) = match (parameter("as"), parameter("g"), version) {
        ("", _, _) => (Shape::Object, offers.protobuf),
        ("Table", "meta.k8s.io", version) if offers.tables && !version.is_empty() => {
            (Shape::Table(version), false)
        }
        ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", version)
            if !version.is_empty() =>
        {
            (Shape::Metadata(version), true)
        }
        _ => return None,
    };
    let format = match *media_type {
        "application/json" | "*/*" | "application/*" => Format::Json,
        // A stream of YAML documents is not served.
        "application/yaml" if !offers.watch => Format::Yaml,
        protobuf::MEDIA_TYPE if has_protobuf => Format::Protobuf,
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

    const ALL: Offers = Offers { tables: true, protobuf: true, watch: false };

    fn accepted(header: &str, offers: Offers) -> (Format, Shape) {
        let Accepted { format, shape } = accept(Some(header), offers).expect("acceptable");
        (format, shape)
    }

    fn refused(header: &str, offers: Offers) -> String {
        let error = accept(Some(header), offers).expect_err("not served");
        assert_eq!((error.code(), error.reason()), (406, "NotAcceptable"));
        error.message().to_owned()
    }

    #[test]
    fn kubectl_gets_tables_where_there_are_some() {
        let get = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(accepted(get, ALL).1, Shape::Table("v1"));
        assert_eq!(accepted(get, Offers { tables: false, ..ALL }).1, Shape::Object);
        let protobuf = "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io";
        assert_eq!(
            refused(protobuf, ALL),
            "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf"
        );
    }

    #[test]
    fn metadata_comes_in_protobuf_whatever_the_kind() {
        let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
        for protobuf in [false, true] {
            let found = accepted(metadata, Offers { protobuf, ..ALL });
            assert_eq!(found, (Format::Protobuf, Shape::Metadata("v1")));
        }
        let older = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1beta1";
        assert_eq!(accepted(older, ALL).1, Shape::Metadata("v1beta1"));
    }

    #[test]
    fn quality_decides_then_the_order() {
        let typed = "application/vnd.kubernetes.protobuf,application/json";
        assert_eq!(accepted(typed, ALL).0, Format::Protobuf);
        assert_eq!(accepted(typed, Offers { protobuf: false, ..ALL }).0, Format::Json);
        assert_eq!(accepted("application/json;q=0.5, application/yaml", ALL).0, Format::Yaml);
        assert_eq!(accepted("application/vnd.kubernetes.protobuf;q=0.8,*/*;q=0.1", ALL).0, Format::Protobuf);
        assert_eq!(accepted("*/*", ALL).0, Format::Json);
        assert_eq!(accepted("", ALL).0, Format::Json);
    }

    #[test]
    fn what_is_not_served_is_refused_with_what_is() {
        let watch = Offers { watch: true, ..ALL };
        assert_eq!(accepted("application/json;stream=watch", watch).0, Format::Json);
        assert_eq!(accepted("application/vnd.kubernetes.protobuf;stream=watch", watch).0, Format::Protobuf);
        assert_eq!(
            refused("application/yaml", watch),
            "only the following media types are accepted: application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch"
        );
        let custom = Offers { protobuf: false, ..ALL };
        assert_eq!(
            refused(protobuf::MEDIA_TYPE, custom),
            "only the following media types are accepted: application/json, application/yaml"
        );
        refused("text/html", ALL);
    }

    #[test]
    fn bodies_are_json_yaml_or_protobuf() {
        assert_eq!(body_format(Some("application/json; charset=utf-8")), Ok(BodyFormat::Json));
        assert_eq!(body_format(Some("application/vnd.kubernetes.protobuf")), Ok(BodyFormat::Protobuf));
        assert_eq!(body_format(Some("application/protobuf")).expect_err("no").code(), 415);
    }
}
